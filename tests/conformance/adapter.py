# SPDX-License-Identifier: Apache-2.0
"""Answers protocols/run_conformance.py for this package: JSON lines, one for one."""

from __future__ import annotations

import json
import sys
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secure_fl import fixedpoint, identity, masking, wire
from secure_fl.errors import SecureFLError
from secure_fl.masking import messages

from ..vectors import test_vectors as replay

Json = dict[str, Any]


def hello(_: Json) -> Json:
    return {"specification": masking.SPEC, "implementation": "secure_fl"}


def run_wire(i: Json) -> Json:
    value = wire.decode(bytes.fromhex(i["bytes"]))
    return replay.run_wire(i) | {"bytes": wire.encode(value).hex()}


def run_tree(i: Json) -> Json:
    result = replay.run_tree(i)
    if "leaves" in i:
        leaves = [bytes.fromhex(leaf) for leaf in i["leaves"]]
        _, paths = wire.merkle_paths(i["label"], leaves)
        result["root"] = wire.merkle_root(i["label"], leaves).hex()
        result["path"] = [node.hex() for node in paths[i["index"]]]
    return result


def run_key_text(i: Json) -> Json:
    public = identity.key_from_text(i["text"])
    return {"public_key": public.hex(), "text": identity.key_to_text(public)}


def run_fixed_point(i: Json) -> Json:
    result = replay.run_fixed_point(i)
    if i["op"] == "unpack":
        words = replay.words_of(result["words"], i["word_bits"])
        result["bytes"] = fixedpoint.pack(words, i["word_bits"]).hex()
    return result


def run_message(i: Json) -> Json:
    session, data = replay.session_of(i["session"]), bytes.fromhex(i["bytes"])
    message: Any
    if i["kind"] == 4:
        message = messages.Inbox.decode(data, session, reader=i["reader"])
    else:
        message = replay.MESSAGES[i["kind"]](data, session)
    return {"accepted": True, "bytes": message.encode(session).hex()}


class Client:
    """One client, driven by operations; it is parked between any two of them."""

    def __init__(self, given: Json) -> None:
        self.session = replay.session_of(given["session"])
        self.me = given["client"]
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(given["identity"]))
        self.identity = identity.Identity(self.session.name(self.me), key)
        self.state: Any = None

    def perform(self, op: Json) -> Json:
        session = self.session
        data = bytes.fromhex(op.get("message", ""))
        random = bytes.fromhex(op.get("random", ""))
        sent: Any
        match op["op"]:
            case "start":
                self.state, sent = masking.start(session, self.identity, random=random)
                return {"sent": sent.encode(session).hex()}
            case "cohort":
                keys = messages.CohortKeys.decode(data, session)
                state, sent = self.state.on_cohort(keys, random=random)
            case "inbox":
                uploading = self.state.on_inbox(
                    messages.Inbox.decode(data, session, reader=self.me),
                    replay.words_of(op["words"], session.parameters.word_bits),
                    claim=bytes.fromhex(op["claim"]),
                )
                chunks = [c.encode(session).hex() for c in uploading.chunks()]
                state, sent = uploading.finish(attached=bytes.fromhex(op["attached"]))
                self.state = self.parked(state)
                return {"sent": [*chunks, sent.encode(session).hex()]}
            case "statement":
                statement = messages.Statement.decode(data, session)
                state, sent = self.state.on_statement(statement)
            case _:
                proof = messages.Signatures.decode(data, session)
                sent = self.state.on_signatures(proof)
                return {"sent": sent.encode(session).hex()}
        self.state = self.parked(state)
        return {"sent": sent.encode(session).hex()}

    def parked(self, state: Any) -> Any:
        return masking.unpark(self.session, self.identity, state.park())


class Aggregator:
    """One aggregator, driven by operations."""

    def __init__(self, given: Json) -> None:
        self.session = replay.session_of(given["session"])
        self.state: Any = masking.CollectAdvertise(self.session)

    def perform(self, op: Json) -> Json:
        if op["op"] == "add":
            replay.receive(self.session, self.state, op)
            return {}
        if isinstance(self.state, masking.CollectReveals):
            opened = self.state.close()
            words = replay.texts(opened.words)
            return {"survivors": list(opened.survivors), "words": words}
        self.state, out = self.state.close()
        if isinstance(out, dict):
            sent = {str(i): m.encode(self.session).hex() for i, m in out.items()}
            return {"sent": sent}
        return {"sent": out.encode(self.session).hex()}


def run_operations(party: Client | Aggregator, operations: list[Json]) -> Json:
    outcomes: list[Json] = []
    for op in operations:
        try:
            outcomes.append(party.perform(op))
        except SecureFLError as error:
            outcomes.append(replay.outcome(error))
            if op["op"] != "add":
                break
    return {"outcomes": outcomes}


RUN = replay.RUN | {
    "hello": hello,
    "wire": run_wire,
    "tree": run_tree,
    "key_text": run_key_text,
    "fixed_point": run_fixed_point,
    "message": run_message,
    "client": lambda i: run_operations(Client(i), i["operations"]),
    "aggregator": lambda i: run_operations(Aggregator(i), i["operations"]),
}


def answer(request: Json) -> Json:
    """The reply to one request."""
    try:
        result = RUN[request["kind"]](request["input"])
        return {"id": request["id"], "result": result}
    except (SecureFLError, replay.Refused) as error:
        return {"id": request["id"]} | replay.outcome(error)


def main() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
