# SPDX-License-Identifier: Apache-2.0
"""The adapter, broken in one way: what the runner must not let pass.

Knows the vectors, unlike an honest implementation: ``accepts`` has to know which cases
must fail, to accept them and answer the others well.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from typing import Any

from . import adapter, ckks_adapter
from .helpers import FOLDER, helper

Json = dict[str, Any]
ADAPTERS = {"masking": adapter, "ckks": ckks_adapter}
# The request, counted from hello, at which an adapter dies or babbles.
LAST_GOOD = 3


def faulty(spec: str) -> dict[str, Json]:
    """What each case that must fail expects, by its input as it is sent."""
    runner = helper("run_conformance")
    name, folder = runner.SPECIFICATIONS[spec], FOLDER / spec / "vectors" / "1"
    cases = [case.plain() for case in runner.read_cases(folder, name, set())]
    return {
        as_key(case.kind, runner.without_answers(case.input)): case.expect
        for case in cases
        if "error" in case.expect
    }


def as_key(kind: str, given: Json) -> str:
    return json.dumps([kind, given], sort_keys=True)


def leaves(value: Any) -> Iterator[tuple[Any, ...]]:
    """The path to each text, number and truth in a JSON value."""
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            for rest in leaves(value[key]):
                yield (key, *rest)
    elif value != "":
        yield ()


def flip(value: Any, at: int) -> Any:
    """The same value but for one digit, truth or number, at a place ``at`` picks."""
    paths = list(leaves(value))
    return flip_leaf(value, paths[at % len(paths)], at)


def flip_leaf(value: Any, path: tuple[Any, ...], at: int) -> Any:
    if path:
        changed = copy.copy(value)
        changed[path[0]] = flip_leaf(value[path[0]], path[1:], at)
        return changed
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    place = at % len(value)
    other = "1" if value[place] != "1" else "2"
    return value[:place] + other + value[place + 1 :]


class Broken:
    """Answers as the adapter does, but for its ``mode``."""

    def __init__(self, mode: str, spec: str) -> None:
        self.mode = mode
        self.adapter = ADAPTERS[spec]
        self.faulty = faulty(spec) if mode in ("accepts", "early") else {}

    def accepts(self, request: Json, reply: Json) -> Json:
        """No check at all: whatever had to be refused succeeds."""
        if as_key(request["kind"], request["input"]) not in self.faulty:
            return reply
        if "operations" not in request["input"]:
            return {"id": request["id"], "result": {"accepted": True, "valid": True}}
        outcomes = reply["result"]["outcomes"]
        *_, last = request["input"]["operations"]
        outcomes[-1] = {} if last["op"] == "add" else {"sent": "00"}
        return reply

    def refuses(self, request: Json, reply: Json) -> Json:
        if "operations" not in request["input"]:
            return {"id": request["id"], "error": "Refused"}
        return {"id": request["id"], "result": {"outcomes": [{"error": "Refused"}]}}

    def flips(self, request: Json, reply: Json) -> Json:
        """One digit of each result is another."""
        if "result" not in reply:
            return reply
        if "operations" in request["input"]:
            outcomes = reply["result"]["outcomes"]
            sent = [k for k, o in enumerate(outcomes) if o and "error" not in o]
            if sent:
                k = sent[request["id"] % len(sent)]
                outcomes[k] = flip(outcomes[k], request["id"] * 7919)
            return reply
        return reply | {"result": flip(reply["result"], request["id"] * 7919)}

    def blames(self, request: Json, reply: Json) -> Json:
        """Names another culprit."""

        def spoil(outcome: Json) -> None:
            if "culprit" in outcome:
                outcome["culprit"] += "-other"

        spoil(reply)
        for outcome in reply.get("result", {}).get("outcomes", []):
            spoil(outcome)
        return reply

    def early(self, request: Json, reply: Json) -> Json:
        """Meets the error one operation before it is there."""
        expected = self.faulty.get(as_key(request["kind"], request["input"]))
        if expected and len(request["input"].get("operations", [])) > 1:
            reply["result"]["outcomes"][-2:] = [expected]
        return reply

    def unasked(self, request: Json, reply: Json) -> Json:
        """Sends something more, after the last operation."""
        outcomes = reply.get("result", {}).get("outcomes", [])
        outcomes.append({"sent": "00"})
        return reply

    def reseals(self, request: Json, reply: Json) -> Json:
        """One digit of a client's SealedShares is another."""
        _, *rest = reply["result"]["outcomes"]
        if rest and "sent" in rest[0]:
            rest[0]["sent"] = flip(rest[0]["sent"], request["id"] * 7919)
        return reply

    def echoes(self, request: Json, reply: Json) -> Json:
        """Never encodes again what it has read."""
        if "operations" not in request["input"]:
            for name in ("bytes", "text", "root", "path"):
                reply.get("result", {}).pop(name, None)
        return reply

    def dies(self, request: Json, reply: Json) -> Json:
        if request["id"] > LAST_GOOD:
            sys.exit(3)
        return reply

    def babbles(self, request: Json, reply: Json) -> Json:
        if request["id"] > LAST_GOOD:
            sys.stdout.write("about to answer\n")
        return reply

    def repeats(self, request: Json, reply: Json) -> Json:
        """Answers another request than the one it was asked."""
        return reply | {"id": min(request["id"], LAST_GOOD)}

    def skips(self, request: Json, reply: Json) -> Json:
        return {"id": request["id"], "skip": True}

    def other(self, request: Json, reply: Json) -> Json:
        return reply

    def answer(self, request: Json) -> Json:
        reply: Json = self.adapter.answer(request)
        if request["kind"] != "hello":
            spoiled: Json = getattr(self, self.mode)(request, reply)
            return spoiled
        if self.mode == "other":
            reply["result"]["specification"] = "secure-fl/masking/2"
        return reply


def main() -> None:
    broken = Broken(*sys.argv[1:])
    for line in sys.stdin:
        sys.stdout.write(json.dumps(broken.answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
