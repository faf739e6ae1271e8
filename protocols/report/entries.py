# SPDX-License-Identifier: Apache-2.0
"""The entries of a plan: TOML, and how each value is read (SPEC.md, 3.1 and 3.2)."""

import math
import re
import tomllib
from collections.abc import Callable
from typing import Any

from canonical import Malformed, public_key

MOST_INTEGER = 2**63 - 1
_DEEPEST = 16  # tables in tables; a plan has three
_MOST_DOTS = 200  # in a line: a key of very many parts takes hours to read

# How the value of one entry is read.  A reader returns it or raises Malformed.
Reader = Callable[[Any], Any]

# What an entry that is left out may be: refused, or only in a plan that is complete.
REQUIRED, COMPLETE = object(), object()


def read_toml(raw: bytes) -> dict[str, Any]:
    if any(line.count(b".") > _MOST_DOTS for line in raw.split(b"\n")):
        raise Malformed(f"a line has more than {_MOST_DOTS} dots")
    try:
        found = tomllib.loads(raw.decode("utf-8"))
        _shallow(found, 0)
    except (ValueError, RecursionError, OverflowError):
        raise Malformed("it is no UTF-8 TOML") from None
    return found


def _shallow(value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise Malformed("tables are nested too deep")
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _shallow(part, depth + 1)


def read_table(
    where: str, table: Any, readers: dict[str, tuple[Reader, Any]]
) -> dict[str, Any]:
    """The entries of a table, what is left out filled in; None where that is none."""
    if type(table) is not dict:
        raise Malformed(f"{where} is no table")
    unknown = sorted(set(table) - set(readers))
    if unknown:
        raise Malformed(f"{where} has an unknown entry: {unknown[0]!r}")
    found = {}
    for name, (read, default) in readers.items():
        if name not in table:
            if default is REQUIRED:
                raise Malformed(f"{where}.{name} is missing")
            found[name] = None if default is COMPLETE else default
            continue
        try:
            found[name] = read(table[name])
        except Malformed as problem:
            raise Malformed(f"{where}.{name}: {problem}") from None
    return found


def whole(least: int, most: int = MOST_INTEGER) -> Reader:
    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise Malformed(f"it is no integer from {least} to {most}")
        return value

    return read


def real(most: float = math.inf, least: float = math.nextafter(0.0, 1.0)) -> Reader:
    """A finite number from `least` to `most`: of itself any above zero."""

    def read(value: Any) -> float:
        if type(value) not in (int, float):
            raise Malformed("it is no number")
        try:
            number = float(value)
        except OverflowError:
            raise Malformed("it is too large") from None
        if not math.isfinite(number) or not least <= number <= most:
            raise Malformed("it is out of range")
        return number

    return read


def words(least: int, most: int) -> Reader:
    """A text of so many characters."""

    def read(value: Any) -> str:
        if type(value) is not str or not least <= len(value) <= most:
            raise Malformed(f"it is no text of {least} to {most} characters")
        return value

    return read


def match(pattern: str) -> Reader:
    def read(value: Any) -> str:
        if type(value) is not str or not re.fullmatch(pattern, value, re.ASCII):
            raise Malformed("it has not the form it must have")
        return value

    return read


def one_of(*choices: str) -> Reader:
    def read(value: Any) -> str:
        if type(value) is not str or value not in choices:
            raise Malformed(f"it is none of: {', '.join(choices)}")
        return value

    return read


def boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise Malformed("it is no boolean")
    return value


def key(value: Any) -> bytes:
    if type(value) is not str:
        raise Malformed("it is no text")
    return public_key(value)


def counts(value: Any) -> list[int]:
    """The layers of a model."""
    if type(value) is not list:
        raise Malformed("it is no array")
    return [whole(1, 100000)(item) for item in value]
