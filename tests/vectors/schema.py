# SPDX-License-Identifier: Apache-2.0
"""The part of JSON Schema (2020-12) that protocols/vector.schema.json is written in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
}
NO_CHECKS = {"$schema", "$defs", "title", "description", "then", "else"}


def equal(a: object, b: object) -> bool:
    """As JSON has it: to Python, ``True`` is 1."""
    return type(a) is type(b) and a == b


class Schema:
    def __init__(self, document: Json) -> None:
        self._document = document
        self._defs: Json = document["$defs"]
        self._rules: dict[str, Callable[[Any, Any, Json], bool]] = {
            "type": lambda kind, v, _: self._is(v, kind),
            "enum": lambda allowed, v, _: any(equal(v, a) for a in allowed),
            "const": lambda only, v, _: equal(v, only),
            "pattern": lambda p, v, _: not isinstance(v, str) or bool(re.search(p, v)),
            "minLength": lambda n, v, _: not isinstance(v, str) or len(v) >= n,
            "minItems": lambda n, v, _: not isinstance(v, list) or len(v) >= n,
            "maxItems": lambda n, v, _: not isinstance(v, list) or len(v) <= n,
            "minProperties": lambda n, v, _: not isinstance(v, dict) or len(v) >= n,
            "required": lambda names, v, _: (
                not isinstance(v, dict) or set(names) <= v.keys()
            ),
            "properties": self._properties,
            "additionalProperties": self._others,
            "items": self._items,
            "prefixItems": self._first_items,
            "$ref": lambda name, v, _: self.fits(v, self._named(name)),
            "allOf": lambda all_, v, _: all(self.fits(v, one) for one in all_),
            "anyOf": lambda some, v, _: any(self.fits(v, one) for one in some),
            "oneOf": lambda some, v, _: sum(self.fits(v, one) for one in some) == 1,
            "not": lambda one, v, _: not self.fits(v, one),
            "if": lambda one, v, s: self.fits(
                v, s.get("then" if self.fits(v, one) else "else", True)
            ),
        }

    def fits(self, value: Any, schema: Any = None) -> bool:
        """A keyword that is not known here is an error, never a yes."""
        schema = self._document if schema is None else schema
        if isinstance(schema, bool):
            return schema
        unknown = schema.keys() - self._rules.keys() - NO_CHECKS
        assert not unknown, unknown
        return all(
            self._rules[name](part, value, schema)
            for name, part in schema.items()
            if name not in NO_CHECKS
        )

    def _named(self, reference: str) -> Any:
        return self._defs[reference.removeprefix("#/$defs/")]

    @staticmethod
    def _is(value: Any, kind: str) -> bool:
        return isinstance(value, TYPES[kind]) and not isinstance(value, bool)

    def _properties(self, parts: Json, value: Any, _: Json) -> bool:
        return not isinstance(value, dict) or all(
            self.fits(value[name], part)
            for name, part in parts.items()
            if name in value
        )

    def _others(self, part: Any, value: Any, schema: Json) -> bool:
        known = schema.get("properties", {}).keys()
        return not isinstance(value, dict) or all(
            self.fits(one, part) for name, one in value.items() if name not in known
        )

    def _items(self, part: Any, value: Any, schema: Json) -> bool:
        start = len(schema.get("prefixItems", []))
        return not isinstance(value, list) or all(
            self.fits(one, part) for one in value[start:]
        )

    def _first_items(self, parts: list[Any], value: Any, _: Json) -> bool:
        return not isinstance(value, list) or all(
            self.fits(one, part) for one, part in zip(value, parts, strict=False)
        )
