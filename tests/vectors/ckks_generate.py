# SPDX-License-Identifier: Apache-2.0
"""Writes protocols/ckks/vectors/1/*.json: ``python -m tests.vectors.ckks_generate``.

The expected results come from ``ckks_reference.py`` and from the cases' own words,
never from the implementation under test.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from .ckks_client_cases import client_cases, refusal_cases
from .ckks_holder_cases import keyholder_cases
from .ckks_message_cases import message_cases
from .ckks_primitive_cases import (
    context_cases,
    parameters_cases,
    points_cases,
    polynomial_cases,
    residues_cases,
)
from .ckks_reference import SPEC
from .ckks_release_cases import release_cases
from .ckks_sum_cases import encrypt_cases, open_cases
from .ckks_upload_cases import upload_cases
from .ckks_world import RECIPES, Blobs
from .generate import _share_sessions
from .world import Json

FOLDER = Path(__file__).parents[2] / "protocols" / "ckks" / "vectors" / "1"

SHA = "`sha256` and `bytes` are hash and length of the whole"

FILES: dict[str, tuple[str, Callable[[Blobs], list[Json]]]] = {
    "parameters": (
        "SPEC 2 and 7.1. `ring`: its primes and roots. `choose`: the plan's packing, "
        "and the key bits of 4.4. `accept`: whether these parameters are; then the "
        "number of blocks and of chunks.",
        parameters_cases,
    ),
    "context": (
        "SPEC 2 and 4.4. Make a context of `session`: its hash is `ctx`; `key_bits` of "
        "the sum of keys, and, with one-time keys, the masking context's hash "
        "`keys_ctx`. `threshold` is the plan's; `aggregator` and `keyholder` are their "
        "Ed25519 keys.",
        context_cases,
    ),
    "polynomial": (
        "SPEC 3.1, and with a `seed` 3.4. The numbers A[j] of the public polynomials "
        "of `block`, or `client`'s cover of it, one for each prime; "
        f"{SHA}, each number in 8 bytes, little-endian.",
        polynomial_cases,
    ),
    "points": (
        "SPEC 3.1. The values of the polynomial X in evaluation form, so the points "
        f"themselves, for prime number `prime`; {SHA}, each in 8 bytes, little-endian.",
        points_cases,
    ),
    "residues": (
        "SPEC 3.5. `write`: the bytes of `block`; reading them gives the residues "
        f"again; {SHA}. `read`: the bytes of `block`, without the last `cut`, or with "
        "`append` zero bytes more, are refused.",
        residues_cases,
    ),
    "encrypt": (
        "SPEC 3.3. The ciphertext of a block, with a given key and error: the residues "
        f"0, 1 and N - 1 for each prime; {SHA} block as in 3.5. `sent`: the same with "
        "the cover of 3.4.",
        encrypt_cases,
    ),
    "open": (
        "SPEC 3.3, and 7.5 from X5 on. Encrypt the vector of each of `parties` (block "
        "k with error k, cover it) and add; add [block, coefficient, value] of `added` "
        "to the sum, whose blocks as in 3.5 then have the hash `total`; add the keys, "
        "and `added_key`. A party with `only` gives but its key and seed, or but what "
        "it sends; `given_seed` is the seed that comes out, where that is another. The "
        "sum over those whose keys are there opens to words of which `sums` are the "
        f"first and last three; {SHA} vector, packed as in masking 2.4.",
        open_cases,
    ),
    "message": (
        "SPEC 5. Parse `bytes` as a message of `kind` in `session`. Encoding what was "
        "parsed gives `bytes` again. Boxes, sealed chunks and signatures need not hold "
        "here.",
        message_cases,
    ),
    "upload": (
        "SPEC 7.3, an aggregator. With a key holder: `identity` is its Ed25519 private "
        "key; `call` (with its X25519 private key) and `holder_key` are answered with "
        "`Call` and `Invitation`; `add`: `messages` come `from` this client, one after "
        "the other; `close` is answered with `Request`. `sent` are its answers. With "
        "one-time keys: `add` holds the ciphertexts, and the `payload` that the "
        "client's MaskedInput has attached, where it came; after `close` `accepted` "
        "are the clients. An error is met at the last operation, at any of its "
        "messages; `refused` says that one is met and that the others go on. The "
        "chunks are noise: they do not open to words.",
        upload_cases,
    ),
    "release": (
        "SPEC 7.5, an aggregator with a key holder, as in upload.json; `answer` brings "
        "the key holder's answer to the request. Then the sum opens: `survivors`, its "
        f"`first` and `last` three words, signed; {SHA} vector, packed as in masking "
        "2.4. An error is met at the last operation.",
        release_cases,
    ),
    "keyholder": (
        "SPEC 7.4, a key holder that has the plan of `session` and the Ed25519 private "
        "key `identity`. Its operations are of any attempt: `call` (`private_key` is "
        "the X25519 key it is to use) is answered with `HolderKey`, `request` with "
        "`Release`, whose box is fresh: `rows`, and hash and length of what opens with "
        "`aggregator_private_key`. An error is met at the last operation; `refusal` is "
        "the message it sends then, and where there is none it sends nothing. "
        "`refused` says that an error is met and that others follow.",
        keyholder_cases,
    ),
    "client": (
        "SPEC 6.3 and 7.2. Start `client`, hand it `invitation` with vector, claim, "
        "key, errors, cover seed and chunk key, and compare the hashes of what it "
        "sends: each Ciphertext, then `Input`, whose boxes are fresh: open them with "
        "the two private keys; the first holds `key` and the cover seed, the second "
        "the chunk key, and the signature is the client's.",
        client_cases,
    ),
    "refusal": (
        "SPEC 6.6 and 7.6. Whether `message` proves that the context of `session` "
        "never opens; `keyholder` there is the key holder's Ed25519 key.",
        refusal_cases,
    ),
}


SEEDED = ("expand", "short", "words", "residues")


def _used(value: object) -> set[str]:
    """The names of all `data` that a value refers to."""
    if isinstance(value, dict):
        if isinstance(name := value.get("data"), str):
            return {name}
        return set().union(*(_used(v) for v in value.values()))
    if isinstance(value, list):
        return set().union(*(_used(v) for v in value))
    return set()


def render() -> dict[str, str]:
    """Name and text of every file."""
    out = {}
    for kind, (description, make) in FILES.items():
        blobs = Blobs()
        cases = make(blobs)
        content: Json = {"spec": SPEC, "kind": kind, "description": description}
        used = _used(cases)
        while more := _used([blobs.data[name] for name in used]) - used:
            used |= more
        written = json.dumps(cases)
        if used or any(f'"{word}": "' in written for word in SEEDED):
            content["recipes"] = RECIPES
        content["sessions"] = _share_sessions(cases)
        if used:
            content["data"] = {name: blobs.data[name] for name in sorted(used)}
        content["cases"] = cases
        out[f"{kind}.json"] = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return out


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
