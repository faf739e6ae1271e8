# SPDX-License-Identifier: Apache-2.0
"""The auditor's own copy of the plan beside the run's: whole, or a draft.

A completed copy is compared byte for byte.  A draft (the source plan, before keys and
run id were filled in) shows that the settings are the same.  Whose keys were filled in
it cannot show: whoever made the folder could have made them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..errors import UsageError, VerificationError
from ..sections import read_toml
from .findings import finding
from .folder import PLAN, blaming

__all__ = ["Compared", "compare", "read_copy"]


@final
@dataclass(frozen=True, slots=True)
class Compared:
    """Lines on what the copy showed, and on what it did not."""

    checks: tuple[str, ...]
    not_checked: tuple[str, ...]


def read_copy(path: Path) -> bytes:
    """The bytes of the auditor's copy.  Raises UsageError where it is no file."""
    try:
        if path.is_file():
            return path.read_bytes()
        reason = "is not a file" if path.exists() else "does not exist"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    raise UsageError(f"{path} {reason}", hint="give your own copy of the plan")


def compare(source: bytes, copy: bytes | None, path: Path | None) -> Compared:
    """The run's plan ``source``, known to be complete, with ``copy`` from ``path``.

    Raises VerificationError where they are two plans: ``file`` is the run's, or
    ``path`` where that does not parse.
    """
    if copy is None:
        return Compared((), (finding("unchecked.copy"),))
    if copy == source:
        return Compared((finding("check.copy"),), ())
    with blaming(str(path)):
        given, complete = read_toml(copy), read_toml(source)
        lacks = _complete(given, complete) if "run" not in given else []
        # Through JSON, since Python takes 1, 1.0 and true for the same.
        if _plain(given) == _plain(complete):
            return Compared((finding("check.draft"),), _unknown(lacks, complete))
    raise VerificationError(
        f"is not the plan in {path}",
        file=PLAN,
        hint="the members of this run endorsed another plan than yours",
    )


def _complete(given: dict[str, Any], complete: Mapping[str, Any]) -> list[str]:
    """Fill in what a draft may leave open; returns whose keys it did not name."""
    parties, full = given.get("parties"), complete["parties"]
    lacks = []
    for key, who in (("aggregator", "the aggregator"), ("keyholder", "the key holder")):
        if _fill(parties, full, key):
            lacks.append(who)
    members = parties.get("members") if isinstance(parties, dict) else None
    for mine, theirs in zip(
        members if isinstance(members, list) else [], full["members"], strict=False
    ):
        if _fill(mine, theirs, "key"):
            lacks.append(theirs["name"])
    given["run"] = complete["run"]
    for key in ("start_sha256", "values"):
        _fill(given.get("model"), complete["model"], key)
    # What it may be is checked where the plan is parsed: within the plan's epsilon.
    _fill(given.get("privacy"), complete["privacy"], "noise_multiplier")
    return lacks


def _fill(given: Any, complete: Mapping[str, Any], key: str) -> bool:
    """Whether ``key`` was to be filled in.  What is no table stays: another plan."""
    if not isinstance(given, dict) or key not in complete or key in given:
        return False
    given[key] = complete[key]
    return True


def _unknown(lacks: list[str], complete: Mapping[str, Any]) -> tuple[str, ...]:
    if not lacks:
        return ()
    parties = complete["parties"]
    keys = len(parties["members"]) + len({"aggregator", "keyholder"} & set(parties))
    if len(lacks) == keys:
        return (finding("unchecked.keys"),)
    return (finding("unchecked.lacking", {"names": ", ".join(lacks)[:500]}),)


def _plain(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, sort_keys=True, default=str)
