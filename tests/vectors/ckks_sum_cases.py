# SPDX-License-Identifier: Apache-2.0
"""Vectors of single blocks and of opened sums (SPEC 3.3 and 7.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from . import ckks_reference as ckks
from .ckks_reference import Packing
from .ckks_residues import pack_chunk
from .ckks_seeds import expand_bytes
from .ckks_world import Blobs, digest_of, expanded, short
from .reference import pack
from .world import Json, case, fault

CTX = expand_bytes("sums", 32)
MALFORMED = fault("ProtocolError")


def packing_json(packing: Packing, word_bits: int) -> Json:
    return {
        "ctx": CTX.hex(),
        "N": packing.size,
        "prime_bits": packing.prime_bits,
        "fields": packing.fields,
        "scale_bits": packing.scale_bits,
        "word_bits": word_bits,
    }


def words(seed: str, count: int, clients: int, bits: int) -> Json:
    return {"words": seed, "count": count, "clients": clients, "word_bits": bits}


def encrypt_cases(_: Blobs) -> list[Json]:
    def one(
        why: str,
        packing: Packing,
        bits: int,
        count: int,
        block: int = 0,
        set_: Sequence[tuple[int, int]] = (),
    ) -> Json:
        size = packing.size
        given = words(f"encrypt {why}", count, 2, bits)
        if set_:
            given["set"] = [[at, str(value)] for at, value in set_]
        key, error = short(f"key {why}", size), short(f"error {why}", size)
        made = ckks.encrypt(
            CTX, packing, bits, block, expanded(given), expanded(key), expanded(error)
        )
        seed = expand_bytes(f"seed {why}", 32)
        hidden = ckks.cover(CTX, packing, 1, seed, block)
        sent = ckks.add([made, hidden], packing.primes)
        input_: Json = {
            **packing_json(packing, bits),
            "block": block,
            "words": given,
            "key": key,
            "error": error,
            "client": 1,
            "seed": seed.hex(),
        }
        expect: Json = {
            "residues": [[str(v) for v in (*one[:2], one[-1])] for one in made],
            **digest_of(pack_chunk([made], packing.prime_bits)),
            "sent": digest_of(pack_chunk([sent], packing.prime_bits)),
        }
        return case(why, input_, expect)

    edge = 2**19
    return [
        one("two fields", Packing(4096, 54, 2, 9), 20, 8192),
        one("two fields, another block", Packing(4096, 54, 2, 9), 20, 8192, 3),
        one("the second field is begun", Packing(4096, 60, 2, 9), 20, 4100),
        one("one word", Packing(4096, 57, 2, 9), 20, 1),
        one("five fields, two primes", Packing(8192, 55, 5, 9), 20, 5 * 8192),
        one("words of 64 bits", Packing(8192, 54, 1, 9), 64, 8192),
        one(
            "the largest and the least word",
            Packing(4096, 54, 2, 9),
            20,
            8192,
            0,
            [(0, edge - 1), (4096, edge - 1), (1, -edge), (4097, -edge), (2, -1)],
        ),
    ]


@dataclass
class Party:
    """What one client adds to a sum."""

    client: int
    words: Json
    key: Json
    errors: list[Json]
    seed: bytes
    given: bytes = b""  # the seed that comes out, where that is another
    only: str = ""  # "key" or "ciphertext", where the other half is missing

    def as_json(self) -> Json:
        out: Json = {
            "client": self.client,
            "words": self.words,
            "key": self.key,
            "errors": self.errors,
            "seed": self.seed.hex(),
        }
        if self.given:
            out["given_seed"] = self.given.hex()
        return {**out, "only": self.only} if self.only else out


@dataclass
class Sum:
    """A sum of ciphertexts, what is added to it, and the key that opens it."""

    why: str
    packing: Packing
    bits: int
    length: int
    clients: int
    parties: list[Party]
    # To coefficients of the sum: block, place, what is added.
    added: list[tuple[int, int, int]] = field(default_factory=list)
    added_key: list[tuple[int, int]] = field(default_factory=list)

    def case(self, check: str = "") -> Json:
        totals, key = self.totals(), self.key()
        data = pack_chunk(totals, self.packing.prime_bits)
        input_: Json = {
            **packing_json(self.packing, self.bits),
            "length": self.length,
            "parties": [p.as_json() for p in self.parties],
            "added": [[b, i, str(v)] for b, i, v in self.added],
            "added_key": [list(pair) for pair in self.added_key],
            "total": digest_of(data),
        }
        seeds = {
            p.client: p.given or p.seed for p in self.parties if p.only != "ciphertext"
        }
        met, sums = "", list[int]()
        try:
            sums = ckks.open_sum(
                CTX, self.packing, self.bits, self.length, totals, key, seeds
            )
        except ckks.Wrong as error:
            met = error.check
        assert met == check, (self.why, met)
        if check:
            return case(self.why, input_, MALFORMED, check)
        if not self.added:
            vectors = [expanded(p.words) for p in self.parties]
            assert sums == [sum(column) for column in zip(*vectors, strict=True)]
        packed = pack((v % 2**self.bits for v in sums), self.bits)
        few = [str(v) for v in (*sums[:3], *sums[-3:])]
        return case(self.why, input_, {"sums": few, **digest_of(packed)})

    def totals(self) -> list[ckks.Residues]:
        p, width = self.packing, self.packing.size * self.packing.fields
        out = []
        for k in range(-(-self.length // width)):
            blocks = []
            for one in self.parties:
                if one.only == "key":
                    continue
                part = expanded(one.words)[k * width : (k + 1) * width]
                key, error = expanded(one.key), expanded(one.errors[k])
                blocks += [
                    ckks.encrypt(CTX, p, self.bits, k, part, key, error),
                    ckks.cover(CTX, p, one.client, one.seed, k),
                ]
            total = ckks.add(blocks, p.primes)
            for block, i, value in self.added:
                if block == k:
                    for residues, prime in zip(total, p.primes, strict=True):
                        residues[i] = (residues[i] + value) % prime
            out.append(total)
        return out

    def key(self) -> list[int]:
        keys = [expanded(p.key) for p in self.parties if p.only != "ciphertext"]
        key = [sum(column) for column in zip(*keys, strict=True)]
        for i, value in self.added_key:
            key[i] += value
        return key


def make(
    why: str, packing: Packing, bits: int, length: int, clients: int, parties: int = 0
) -> Sum:
    blocks = -(-length // (packing.size * packing.fields))
    size = packing.size
    made = [
        Party(
            i,
            words(f"{why} {i} words", length, clients, bits),
            short(f"{why} {i} key", size),
            [short(f"{why} {i} error {k}", size) for k in range(blocks)],
            expand_bytes(f"{why} {i} seed", 32),
        )
        for i in range(parties or clients)
    ]
    return Sum(why, packing, bits, length, clients, made)


def open_cases(_: Blobs) -> list[Json]:
    two, plan = Packing(4096, 54, 2, 9), 4
    limits = make("sums at both ends of their range", two, 20, 5000, 2)
    edge = 2**18
    for party in limits.parties:
        party.words["set"] = [
            [at, str(v)]
            for at, v in ((0, edge - 1), (1, -edge), (4096, edge - 1), (4097, -edge))
        ]
    limits.parties[0].words["set"] = [
        [0, str(edge)],
        [1, str(-edge)],
        [2, str(edge)],
        [4096, str(edge)],
        [4097, str(-edge)],
        [4098, str(-edge)],
    ]
    good = [
        make("three of four", two, 20, 5000, plan, 3),
        make("two blocks", two, 20, 8192 + 7, plan),
        make("a full block", two, 20, 8192, plan, 3),
        make("one word", Packing(4096, 60, 2, 9), 20, 1, plan, 3),
        make("five fields, two primes", Packing(8192, 55, 5, 9), 20, 20000, plan, 3),
        make("words of 64 bits", Packing(8192, 54, 1, 9), 64, 100, plan, 3),
        limits,
    ]
    return [*(s.case() for s in good), *wrong_keys(), *wrong_sums()]


def three(why: str, length: int = 5000) -> Sum:
    return make(why, Packing(4096, 54, 2, 9), 20, length, 4, 3)


def wrong_keys() -> list[Json]:
    out = []
    large = three("a key six times too large, and ciphertexts that fit it")
    large.parties[1].key["times"] = 6
    out.append(large.case("X5"))
    beyond = three("one coefficient of a key far out, and ciphertexts that fit it")
    # Alone its square is far within 61 * N * m.
    beyond.parties[1].key["set"] = [[7, 96 * 3 + 81 * 2]]
    out.append(beyond.case("X5"))
    one = three("one coefficient of the sum of keys is one too large")
    one.added_key = [(11, 1)]
    out.append(one.case("X6"))
    missing = three("a key in the sum, and no ciphertext of that client")
    missing.parties[2].only = "key"
    out.append(missing.case("X6"))
    left = three("a ciphertext in the sum, and no key of that client")
    left.parties[2].only = "ciphertext"
    out.append(left.case("X6"))
    seed = three("a cover seed with one bit changed")
    right = seed.parties[0].seed
    seed.parties[0].given = bytes([right[0] ^ 1]) + right[1:]
    out.append(seed.case("X6"))
    swapped = three("two clients' cover seeds exchanged")
    first, second = swapped.parties[:2]
    first.given, second.given = second.seed, first.seed
    out.append(swapped.case("X6"))
    return out


def wrong_sums() -> list[Json]:
    out = []
    loud = three("an error three times too large that rounds to the right word")
    loud.parties[0].errors[0]["times"] = 3
    out.append(loud.case("X6"))
    second = three("likewise, in the second block", 8192 + 7)
    second.parties[0].errors[1]["times"] = 3
    out.append(second.case("X6"))
    far = make(
        "one error far out, as far as rounds to the right word",
        second.packing,
        20,
        5000,
        4,
        2,
    )
    other = expanded(far.parties[1].errors[0])[3]
    far.parties[0].errors[0]["set"] = [[3, 96 * 2 + 1 - other]]
    out.append(far.case("X6"))
    s, b = 9, 20
    for check, why, place, value in (
        ("X7", "one above the highest field", 5, 2 ** (s + 2 * b)),
        ("X7", "one below the lowest sum", 5, -(2 ** (s + 2 * b))),
        ("X7", "the highest field is too large for its bits", 4095, 2 ** (s + 2 * b)),
        ("X8", "a word beyond the vector", 904, 2 ** (s + b)),
        ("X8", "the last word of the block, minus one", 4095, -(2 ** (s + b))),
    ):
        one = three(why)
        one.added = [(0, place, value)]
        out.append(one.case(check))
    beyond = three("in the second block, just after the vector", 8192 + 7)
    beyond.added = [(1, 7, 2**s)]
    out.append(beyond.case("X8"))
    highest = three("the sum of a highest field is 2^19: too large by one", 8192)
    for party, value in zip(highest.parties, (2**18, 2**17, 2**17), strict=True):
        party.words["set"] = [[4096, str(value)]]
    out.append(highest.case("X7"))
    return out
