# SPDX-License-Identifier: Apache-2.0
"""Answers protocols/run_conformance.py --spec ckks for this package."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from secure_fl import ckks
from secure_fl.ckks import residues, rings
from secure_fl.errors import SecureFLError

from ..vectors import ckks_parties as parties
from ..vectors import ckks_replay as replay

Json = dict[str, Any]


def hello(_: Json) -> Json:
    return {"specification": ckks.SPEC, "implementation": "secure_fl"}


def run_residues(i: Json) -> Json:
    ring = rings.ring(i["N"], i["prime_bits"])
    if i["op"] == "read":
        return replay.read(bytes.fromhex(i["bytes"]), ring)
    values = np.array([[int(x) for x in row] for row in i["residues"]], np.uint64)
    result = replay.write(values, ring)
    (back,) = residues.unpack_blocks(residues.pack_blocks(values, ring.bits), ring)
    return result | {"residues": [[str(int(x)) for x in row] for row in back]}


def run_message(i: Json) -> Json:
    session, data = replay.session_of(i["session"]), bytes.fromhex(i["bytes"])
    return {"accepted": True, "bytes": replay.again(data, i["kind"], session).hex()}


def invited(i: Json) -> Callable[[Json], Json]:
    return lambda _: {"sent": [data.hex() for data in parties.uploaded(i)]}


def run_operations(
    perform: Callable[[Json], Json], operations: list[Json], goes_on: set[str]
) -> Json:
    """``goes_on``: the operations after whose errors others are done."""
    outcomes: list[Json] = []
    for op in operations:
        try:
            outcomes.append(perform(op))
        except SecureFLError as error:
            outcomes.append(replay.outcome(error))
            if op["op"] not in goes_on:
                break
    return {"outcomes": outcomes}


def run_aggregator(i: Json) -> Json:
    party = parties.aggregator_of(i)
    return run_operations(party.perform, i["operations"], {"add"})


def run_keyholder(i: Json) -> Json:
    party = parties.Holder(i)
    return run_operations(party.perform, i["operations"], {"call", "request"})


RUN: dict[str, Callable[[Json], Json]] = {
    "hello": hello,
    "parameters": replay.run_parameters,
    "context": replay.run_context,
    "polynomial": replay.run_polynomial,
    "points": replay.run_points,
    "residues": run_residues,
    "encrypt": replay.run_encrypt,
    "open": replay.run_open,
    "message": run_message,
    "upload": run_aggregator,
    "release": run_aggregator,
    "keyholder": run_keyholder,
    "client": lambda i: run_operations(invited(i), i["operations"], set()),
    "refusal": parties.run_refusal,
}


def answer(request: Json) -> Json:
    """The reply to one request."""
    try:
        result = RUN[request["kind"]](request["input"] | {"data": {}})
        return {"id": request["id"], "result": result}
    except (SecureFLError, replay.Refused) as error:
        return {"id": request["id"]} | replay.outcome(error)


def main() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
