# SPDX-License-Identifier: Apache-2.0
"""Writes protocols/masking/vectors/1/*.json: ``python -m tests.vectors.generate``.

The expected results come from ``reference.py`` and from the cases' own words, never
from the implementation under test.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from .aggregator_cases import aggregator_cases
from .client_cases import client_cases
from .form_cases import hash_cases, key_text_cases, tree_cases, wire_cases
from .late_cases import omission_cases
from .message_cases import fixed_point_cases, message_cases
from .primitive_cases import (
    attached_cases,
    box_cases,
    context_cases,
    key_cases,
    shamir_cases,
    stream_cases,
)
from .reference import SPEC
from .world import Json

FOLDER = Path(__file__).parents[2] / "protocols" / "masking" / "vectors" / "1"

FILES: dict[str, tuple[str, Callable[[], list[Json]]]] = {
    "wire": (
        "SPEC 2.1. Decode `bytes`: the result is `value`, and encoding `value` gives "
        "`bytes` again. A value names its type: int (decimal text), bytes (hex), text, "
        "array, map (pairs of a key and a value).",
        wire_cases,
    ),
    "hash": (
        "SPEC 2.2. `digest`: hash `label` and `parts` (written as in wire.json). "
        "`verify`: check the signature over them.",
        hash_cases,
    ),
    "tree": (
        "SPEC 2.3. Check that `leaf` stands at `index` of `count` leaves under `root`. "
        "Where `leaves` are given, compute `root` and `path` from them too.",
        tree_cases,
    ),
    "key_text": (
        "SPEC 2.5. Read `text`; writing the public key gives `text` again.",
        key_text_cases,
    ),
    "context": (
        "SPEC 3.1 to 3.3. Make a context of `session`; its hash is `ctx`.",
        context_cases,
    ),
    "fixed_point": (
        "SPEC 3.4 and 2.4. Reals are the shortest decimal text of a binary64. "
        "`encode`: plan, value and dither to words. `decode`: words of a sum to reals. "
        "`unpack`: bytes to words, and back to the same bytes.",
        fixed_point_cases,
    ),
    "keys": (
        "SPEC 4.1, 4.2. `start`: the secrets of step 1. `coefficients`: those of step "
        "2, for the self mask first. `pair`: the seed of a pair mask.",
        key_cases,
    ),
    "attached": (
        "SPEC 4.2. The attached seed that comes of `beta`: for who sends a payload "
        "beside the vector. Masking itself does not use it.",
        attached_cases,
    ),
    "shamir": (
        "SPEC 4.3. Elements are 32 bytes, little-endian. `share` at `xs`; "
        "`reconstruct` from a map of x to share; `element` from 48 bytes; `parse` 32.",
        shamir_cases,
    ),
    "stream": (
        "SPEC 4.4. The first `count` words of a seed's stream for `chunk`.",
        stream_cases,
    ),
    "box": (
        "SPEC 4.5. Open `box`, which `dealer` sealed for `to`.",
        box_cases,
    ),
    "message": (
        "SPEC 5. Parse `bytes` as a message of `kind` in `session` (an Inbox as its "
        "`reader`). Encoding what was parsed gives `bytes` again.",
        message_cases,
    ),
    "client": (
        "SPEC 4 to 6, one client. Start `client` with the Ed25519 private key "
        "`identity`, hand it each operation's message, randomness and words, and "
        "compare what it sends with `sent`, operation by operation. Boxes are sealed "
        "afresh, so the message of `cohort` is compared by its parts: the commitment, "
        "the two shares behind each row (open a box with `seal_private_key`) and their "
        "commitments, and the signature over its tree and `cohort`. An error is met at "
        "the last operation.",
        client_cases,
    ),
    "aggregator": (
        "SPEC 5 and 6, the aggregator. `add`: `message` comes `from` this client; "
        "bytes that do not parse are the fault of their sender. `refused` says that "
        "this error is met and that the step goes on. `close`: end the step; `sent` is "
        "what it then sends, to all or to each client. The last `close` opens `words`. "
        "An error is met at the last operation.",
        aggregator_cases,
    ),
    "omission": (
        "SPEC 7. Whether statement and signatures prove that the context cannot open "
        "the vector of `client`.",
        omission_cases,
    ),
}


def _share_sessions(cases: list[Json]) -> dict[str, object]:
    """Cases name their session; the file holds each once."""
    names: dict[str, str] = {}
    sessions: dict[str, object] = {}
    for one in cases:
        input_ = one["input"]
        assert isinstance(input_, dict)
        if "session" in input_:
            key = json.dumps(input_["session"])
            names.setdefault(key, f"session-{len(names) + 1}")
            sessions[names[key]] = input_["session"]
            input_["session"] = names[key]
    return sessions


def render() -> dict[str, str]:
    """Name and text of every file."""
    out = {}
    for kind, (description, make) in FILES.items():
        cases = make()
        content: Json = {"spec": SPEC, "kind": kind, "description": description}
        if kind in ("message", "client", "aggregator", "omission"):
            content["sessions"] = _share_sessions(cases)
        content["cases"] = cases
        out[f"{kind}.json"] = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return out


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
