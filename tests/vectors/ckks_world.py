# SPDX-License-Identifier: Apache-2.0
"""Contexts for the CKKS vectors, and large inputs written as recipes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from . import ckks_reference as ckks
from . import ckks_steps as steps
from .ckks_reference import Ckks, Packing
from .ckks_residues import pack_chunk, pack_residues
from .ckks_seeds import expand_bytes, expand_short, expand_words
from .reference import Value, ed25519_public, seal
from .world import Json

# Recipes are read by whoever replays the vectors; this is what their files say.
RECIPES = (
    "Bytes are hex; or an array of bytes, to be joined; or a recipe. A seed S is text: "
    "its stream is SHA-256(S, then c in 8 bytes, big-endian) for c = 0, 1, 2, ... "
    "joined. {expand: S, bytes: n}: the first n bytes of the stream. {short: S, N: n}: "
    "integer i is the number of one bits in bytes 20i to 20i+19, minus 80; then times "
    "`times` where that is given; then [place, value] of `set` are put in; as bytes, "
    "two's complement in one each. {words: S, count: n, clients: m, word_bits: b}: 8 "
    "bytes each, little-endian, x to (x mod (2k+1)) - k with k = floor((2^(b-1)-1)/m); "
    "then `set`. {residues: S, blocks: n}: a chunk whose residues are 8 bytes each, "
    "little-endian, mod p, for each block and prime in order, then `set`, places "
    "counted over the whole chunk. {encrypt: {client, key, words, errors, seed}, "
    "chunk: k}: that chunk of a vector, with its cover, unsealed; an error for each "
    "block of the vector. {sealed: bytes, key: K, index: k}: as in 4.3. {data: name}: "
    "those in the file's `data`. {cut: n, of: bytes}: without the last n. {at: i, to: "
    "hex, of: bytes}: with `to` from place i on."
)

LOW_ORDER = bytes(32)
OTHER_FORM = (2**255 - 19 + 9).to_bytes(32, "little")


def session_json(c: Ckks) -> Json:
    p = c.packing
    out: Json = {
        "plan_hash": c.plan_hash.hex(),
        "run_id": c.run_id.hex(),
        "round": c.round_index,
        "attempt": c.attempt,
        "roster": [
            [name, ed25519_public(seed).hex()]
            for name, seed in zip(c.names, c.seeds, strict=True)
        ],
        "model_hash": c.model_hash.hex(),
        "parameters": {
            "clients": c.n,
            "length": c.length,
            "word_bits": c.word_bits,
            "chunk_blocks": c.chunk_blocks,
            "min_clients": c.min_clients,
            "max_colluding": c.max_colluding,
            "keys": c.keys,
            "N": p.size,
            "prime_bits": p.prime_bits,
            "fields": p.fields,
            "scale_bits": p.scale_bits,
        },
    }
    if c.keys == "one-time":
        return {**out, "threshold": c.threshold}
    return {
        **out,
        "aggregator": ed25519_public(c.aggregator).hex(),
        "keyholder": ed25519_public(c.holder).hex(),
    }


def context(
    name: str,
    keys: str,
    *,
    clients: int = 4,
    length: int = 8292,
    word_bits: int = 20,
    chunk_blocks: int = 1,
    min_clients: int = 3,
    packing: Packing | None = None,
) -> Ckks:
    def some(what: str, size: int = 32) -> bytes:
        return expand_bytes(f"ckks vectors, {name}: {what}", size)

    return Ckks(
        seeds=tuple(some(f"identity {i}") for i in range(clients)),
        names=tuple(f"bank-{chr(97 + i)}" for i in range(clients)),
        aggregator=some("aggregator"),
        holder=some("key holder"),
        plan_hash=some("plan"),
        run_id=some("run", 16),
        round_index=3,
        attempt=0,
        model_hash=some("model"),
        length=length,
        word_bits=word_bits,
        chunk_blocks=chunk_blocks,
        min_clients=min_clients,
        max_colluding=1,
        threshold=(clients + 1) // 2 + 1,
        keys=keys,
        packing=packing or ckks.choose(clients, word_bits, length),
    )


def attempt(c: Ckks, number: int) -> Ckks:
    return replace(c, attempt=number)


def digest_of(data: bytes) -> Json:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


class Blobs:
    """Long bytes with the recipe that stands for them in a file."""

    def __init__(self) -> None:
        self._known: dict[bytes, object] = {}
        self.data: dict[str, object] = {}

    def recipe(self, data: bytes, recipe: object, name: str = "") -> bytes:
        """With a ``name`` the recipe stands in the file once."""
        if name and data not in self._known:
            assert name not in self.data, name
            self.data[name] = recipe
            recipe = {"data": name}
        self._known.setdefault(data, recipe)
        return data

    def named(self, name: str, data: bytes) -> bytes:
        """Bytes that only a table can give."""
        if data not in self._known:
            assert name not in self.data, name
            self.data[name] = data.hex()
            self._known[data] = {"data": name}
        return data

    def cut(self, data: bytes, count: int) -> bytes:
        """The bytes without their last ``count``."""
        return self.recipe(data[:-count], {"cut": count, "of": self.written(data)})

    def changed(self, data: bytes, at: int, to: bytes) -> bytes:
        """The bytes with others at one place."""
        recipe = {"at": at, "to": to.hex(), "of": self.written(data)}
        return self.recipe(data[:at] + to + data[at + len(to) :], recipe)

    def written(self, message: bytes) -> object:
        """The message as hex, or as an array of hex and recipes."""
        if message in self._known:
            return self._known[message]
        places = []
        for blob, recipe in self._known.items():
            at = message.find(blob)
            if at >= 0:
                places.append((at, len(blob), recipe))
        parts: list[object] = []
        start = 0
        # Of two that begin at one place the longer: the other is that one, cut short.
        for at, size, recipe in sorted(places, key=lambda place: (place[0], -place[1])):
            if at >= start:
                parts += [message[start:at].hex(), recipe]
                start = at + size
        if not parts:
            return message.hex()
        return [*parts, message[start:].hex()]


def short(seed: str, size: int, set_: Sequence[tuple[int, int]] = ()) -> Json:
    out: Json = {"short": seed, "N": size}
    return {**out, "set": [list(pair) for pair in set_]} if set_ else out


def exactly(seed: str, size: int, target: int) -> list[tuple[int, int]]:
    """What to set so that the sum of squares is ``target``, all within 96."""
    values = expand_short(seed, size)
    left = target - sum(v * v for v in values)
    assert left > 0
    out = []
    free = (i for i, v in enumerate(values) if v == 0)
    while left:
        root = min(96, int(left**0.5))
        out.append((next(free), root))
        left -= root * root
    return out


def expanded(recipe: Json) -> list[int]:
    """The integers of a recipe."""
    numbers: list[int]
    match recipe:
        case {"short": str(seed), "N": int(size)}:
            numbers = expand_short(seed, size)
            times = recipe.get("times", 1)
            assert isinstance(times, int)
            numbers = [times * v for v in numbers]
        case {
            "words": str(seed),
            "count": int(count),
            "clients": int(clients),
            "word_bits": int(bits),
        }:
            numbers = expand_words(seed, count, bits, clients)
        case _:
            raise AssertionError(recipe)
    changes = recipe.get("set", [])
    assert isinstance(changes, list)
    for place, value in changes:
        numbers[place] = int(value)
    return numbers


def residues_chunk(packing: Packing, recipe: Json) -> bytes:
    """The bytes of a recipe of ``residues``."""
    seed, count = recipe["residues"], recipe["blocks"]
    assert isinstance(seed, str)
    assert isinstance(count, int)
    size, primes = packing.size, packing.primes
    data = expand_bytes(seed, 8 * size * count * len(primes))
    numbers = [
        int.from_bytes(data[8 * i : 8 * i + 8], "little")
        % primes[i // size % len(primes)]
        for i in range(len(data) // 8)
    ]
    changes = recipe.get("set", [])
    assert isinstance(changes, list)
    for place, value in changes:
        numbers[place] = int(value)
    return b"".join(
        pack_residues(numbers[i : i + size], packing.prime_bits)
        for i in range(0, len(numbers), size)
    )


class Client:
    """One client's upload in a context: key, words, errors, chunks, input."""

    def __init__(self, c: Ckks, index: int, blobs: Blobs, world: str) -> None:
        self.c, self.index, self.blobs = c, index, blobs
        seed = f"{world}, client {index}"
        size = c.packing.size
        self.key_recipe = short(f"{seed}, key", size)
        self.words_recipe: Json = {
            "words": f"{seed}, words",
            "count": c.length,
            "clients": c.n,
            "word_bits": c.word_bits,
        }
        self.error_recipes = [
            short(f"{seed}, error {k}", size) for k in range(c.blocks)
        ]
        self.claim = expand_bytes(f"{seed}, claim", 32)
        self.seed = expand_bytes(f"{seed}, cover", 32)
        self.chunk_key = expand_bytes(f"{seed}, chunk key", 32)
        self.ephemeral = (
            expand_bytes(f"{seed}, ephemeral 1", 32),
            expand_bytes(f"{seed}, ephemeral 2", 32),
        )

    @property
    def key(self) -> list[int]:
        return expanded(self.key_recipe)

    @property
    def words(self) -> list[int]:
        return expanded(self.words_recipe)

    def blocks(self) -> list[ckks.Residues]:
        c, words, key, width = self.c, self.words, self.key, self.c.block_words
        out = []
        for k in range(c.blocks):
            part, error = words[k * width : (k + 1) * width], self.error_recipes[k]
            made = ckks.encrypt(
                c.ctx, c.packing, c.word_bits, k, part, key, expanded(error)
            )
            cover = ckks.cover(c.ctx, c.packing, self.index, self.seed, k)
            out.append(ckks.add([made, cover], c.packing.primes))
        return out

    def encrypted(self) -> list[bytes]:
        """Chunks as in 3.5, under their cover, with the recipe of each."""
        blocks, out = self.blocks(), []
        what: Json = {
            "client": self.index,
            "key": self.key_recipe,
            "words": self.words_recipe,
            "errors": self.error_recipes,
            "seed": self.seed.hex(),
        }
        for k in range(self.c.chunks):
            part = [blocks[b] for b in self.c.blocks_of(k)]
            data = pack_chunk(part, self.c.packing.prime_bits)
            out.append(self.blobs.recipe(data, {"encrypt": what, "chunk": k}))
        return out

    def random(
        self, changes: dict[int, list[tuple[int, int]]] | None = None
    ) -> list[bytes]:
        """Chunks of residues that mean nothing: enough where nothing is opened."""
        out = []
        for k in range(self.c.chunks):
            recipe: Json = {
                "residues": f"client {self.index}, chunk {k}",
                "blocks": len(self.c.blocks_of(k)),
            }
            if changes and k in changes:
                recipe["set"] = [[at, str(value)] for at, value in changes[k]]
            data = residues_chunk(self.c.packing, recipe)
            out.append(self.blobs.recipe(data, recipe))
        return out

    def seal(
        self,
        chunks: Iterable[bytes],
        keys: Sequence[bytes] | None = None,
        *,
        name: str = "",
    ) -> list[bytes]:
        out = []
        for k, chunk in enumerate(chunks):
            key = keys[k] if keys else self.chunk_key
            recipe: Json = {
                "sealed": self.blobs.written(chunk),
                "key": key.hex(),
                "index": k,
            }
            sealed = steps.seal_chunk(key, k, chunk)
            what = name and f"{name}, chunk {k}"
            out.append(self.blobs.recipe(sealed, recipe, what))
        return out

    def input(
        self,
        sealed: Sequence[bytes],
        holder: bytes,
        aggregator: bytes,
        *,
        name: str = "",
        key: Sequence[int] | None = None,
        claim: bytes | None = None,
    ) -> steps.Input:
        made = steps.make_input(
            self.c,
            self.index,
            sealed,
            claim=claim or self.claim,
            key=steps.key_plain(key or self.key, self.seed),
            chunk_key=self.chunk_key,
            holder=holder,
            aggregator=aggregator,
            ephemeral=self.ephemeral,
        )
        self.blobs.named(name or f"key box of client {self.index}", made.key_box)
        return made

    def box(
        self,
        purpose: str,
        payload: bytes,
        plain: bytes,
        to: bytes,
        *,
        client: int | None = None,
        c: Ckks | None = None,
    ) -> bytes:
        """A box of one's own making, for whatever is wrong with it."""
        info = steps.box_info(
            c or self.c, purpose, self.index if client is None else client, payload
        )
        return seal(plain, to, info, self.ephemeral[0])

    def ciphertexts(self, chunks: Sequence[bytes]) -> list[bytes]:
        return [
            steps.message(self.c, 12, self.index, k, chunk)
            for k, chunk in enumerate(chunks)
        ]


def rows_of(inputs: Iterable[steps.Input]) -> list[list[Value]]:
    return [i.row() for i in inputs]


def holder_private(c: Ckks) -> bytes:
    """The key holder's X25519 key of this context, of which a test knows all."""
    return expand_bytes(f"key holder's key, attempt {c.attempt}", 32)


def aggregator_private(c: Ckks) -> bytes:
    return expand_bytes(f"aggregator's key, attempt {c.attempt}", 32)
