# SPDX-License-Identifier: Apache-2.0
"""Vectors of parameters, contexts, polynomials, and residues on the wire."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from . import ckks_reference as ckks
from .ckks_reference import Packing
from .ckks_residues import unpack_residues
from .ckks_seeds import expand_bytes
from .ckks_world import Blobs, context, digest_of, residues_chunk, session_json
from .world import Json, case, fault

PLAN = fault("PlanError")
# The numbers of one polynomial of 2^54 that are not below its second prime are one in
# 1.3e10; this block of this context, found by trying 2.6 million, has one.
LEFT_OUT = (hashlib.sha256(b"secure-fl/ckks/1 vectors left out").digest(), 2607610)


def parameters_cases(_: Blobs) -> list[Json]:
    out = []
    for size in ckks.SIZES:
        for bits in ckks.PRIME_BITS:
            ring = ckks.ring(size, bits)
            out.append(
                case(
                    f"the ring of N = {size} and primes of {bits} bits",
                    {"op": "ring", "N": size, "prime_bits": bits},
                    {
                        "primes": [str(p) for p, _ in ring],
                        "psi": [str(psi) for _, psi in ring],
                    },
                )
            )
    million = 10**6
    wanted = [(4, b, million) for b in (8, 16, 20, 22, 32, 36, 37, 44, 45, 64)]
    wanted += [(n, 20, million) for n in (2, 14, 15, 1000)] + [(300, 32, million)]
    # A short vector goes into the smaller ring, until blocks of the larger take less.
    wanted += [(4, 20, length) for length in (1, 8192, 32768, 32769, 40960, 40961)]
    for clients, word_bits, length in wanted:
        p = ckks.choose(clients, word_bits, length)
        out.append(
            case(
                f"{clients} clients, {length} words of {word_bits} bits",
                {
                    "op": "choose",
                    "clients": clients,
                    "word_bits": word_bits,
                    "length": length,
                },
                {
                    "N": p.size,
                    "prime_bits": p.prime_bits,
                    "fields": p.fields,
                    "scale_bits": p.scale_bits,
                    "key_bits": ckks.key_bits(clients),
                },
            )
        )
    return [*out, *accepted()]


def accepted() -> list[Json]:
    base: Json = {
        "clients": 4,
        "length": 10000,
        "word_bits": 20,
        "chunk_blocks": 2,
        "min_clients": 3,
        "max_colluding": 1,
        "keys": "keyholder",
        "N": 4096,
        "prime_bits": 60,
        "fields": 2,
        "scale_bits": 9,
    }

    def one(why: str, check: str = "", **changes: object) -> Json:
        given: Json = {**base, **changes}
        numbers = {k: v for k, v in given.items() if isinstance(v, int)}
        p = Packing(*(numbers[k] for k in ("N", "prime_bits", "fields", "scale_bits")))
        keys = given["keys"]
        assert isinstance(keys, str)
        input_: Json = {"op": "accept", "parameters": given}
        met = ""
        try:
            ckks.check(
                numbers["clients"],
                numbers["length"],
                numbers["word_bits"],
                numbers["chunk_blocks"],
                numbers["min_clients"],
                numbers["max_colluding"],
                keys,
                p,
            )
        except ckks.Wrong as error:
            met = error.check
        assert met == check, (why, met)
        if check:
            return case(why, input_, PLAN, check)
        blocks = -(-numbers["length"] // (p.size * p.fields))
        chunks = -(-blocks // numbers["chunk_blocks"])
        return case(why, input_, {"blocks": blocks, "chunks": chunks})

    return [
        one("two blocks in one chunk"),
        one("a chunk for each block", chunk_blocks=1),
        one("exactly two blocks", length=2 * 8192),
        one("a word more than two blocks", length=2 * 8192 + 1),
        one("the largest sum that fits", word_bits=44, fields=1, prime_bits=54),
        one("14 clients at a scale of 2^9", clients=14),
        one("a scale above the least", scale_bits=10),
        one("two primes", N=8192, prime_bits=55, fields=5),
        one("two clients, of whom none may collude", min_clients=2, max_colluding=0),
        one("all four are needed", min_clients=4, max_colluding=2, keys="one-time"),
        one("a ring that is too small", "N1", N=2048),
        one("a ring that is too large", "N1", N=16384),
        one("a ring whose N is no power of two", "N1", N=4097),
        one("primes of 53 bits", "N1", prime_bits=53, fields=1),
        one("primes of 61 bits", "N1", prime_bits=61),
        one("no field", "N2", fields=0),
        one("minus one field", "N2", fields=-1),
        one("three fields where two fit", "N2", fields=3),
        one("six fields where five fit", "N2", N=8192, prime_bits=55, fields=6),
        one(
            "as many bits as the prime, but the sum is above half of it",
            "N2",
            word_bits=17,
            fields=3,
        ),
        one("one field, likewise", "N2", word_bits=51, fields=1),
        one(
            "too large by the distance of p to 2^54",
            "N2",
            word_bits=45,
            fields=1,
            prime_bits=54,
        ),
        one("a scale that leaves too little room", "N2", scale_bits=20),
        one("15 clients at a scale of 2^9", "N3", clients=15),
        one("4 clients at a scale of 2^8", "N3", scale_bits=8),
        one("a scale of one", "N3", scale_bits=0),
        one("a scale below one", "N3", scale_bits=-20),
        one("no words", "N4", length=0),
        one("no blocks in a chunk", "N4", chunk_blocks=0),
        one("words of 7 bits", "N4", word_bits=7),
        one("words of 65 bits", "N4", word_bits=65, fields=1, N=8192),
        one("fewer than none collude", "N4", max_colluding=-1),
        one("only one client that does not collude", "N4", max_colluding=2),
        one("more clients are needed than there are", "N4", min_clients=5),
        one("no way to keep keys", "N5", keys=""),
        one("another way to keep keys", "N5", keys="one_time"),
    ]


def context_cases(_: Blobs) -> list[Json]:
    def one(why: str, c: ckks.Ckks) -> Json:
        expect: Json = {"ctx": c.ctx.hex(), "key_bits": ckks.key_bits(c.n)}
        if c.keys == "one-time":
            expect["keys_ctx"] = c.keys_ctx.hex()
        return case(why, {"session": session_json(c)}, expect)

    small = context("contexts", "one-time")
    larger = context("two primes", "one-time", length=100_000)
    large = context("a large context", "one-time", clients=300, min_clients=200)
    return [
        one("one-time keys", small),
        one("one-time keys, 300 clients", large),
        one("one-time keys, the next attempt", replace(small, attempt=1)),
        one(
            "one-time keys, two primes",
            larger,
        ),
        one("a key holder", context("contexts", "keyholder")),
        one(
            "a key holder, a packing that is not the plan's choice",
            context(
                "contexts", "keyholder", word_bits=20, packing=Packing(4096, 60, 2, 9)
            ),
        ),
    ]


def polynomial_cases(_: Blobs) -> list[Json]:
    def one(
        why: str,
        ctx: bytes,
        size: int,
        bits: int,
        block: int,
        cover: tuple[int, bytes] | None = None,
    ) -> Json:
        expect: list[Json] = []
        drawn = [
            list(ckks.public_polynomial(ctx, size, bits, block, place))
            for place in range(ckks.SIZES[size])
        ]
        if cover:
            drawn = ckks.cover(ctx, Packing(size, bits, 1, 9), *cover, block)
        for a in drawn:
            data = b"".join(x.to_bytes(8, "little") for x in a)
            expect.append(
                {
                    "first": [str(x) for x in a[:4]],
                    "last": [str(x) for x in a[-4:]],
                    **digest_of(data),
                }
            )
        input_: Json = {
            "ctx": ctx.hex(),
            "N": size,
            "prime_bits": bits,
            "block": block,
        }
        if cover:
            input_ = {**input_, "client": cover[0], "seed": cover[1].hex()}
        return case(why, input_, {"polynomials": expect})

    ctx, seed = expand_bytes("polynomials", 32), expand_bytes("cover seed", 32)
    return [
        one("the first block", ctx, 4096, 54, 0),
        one("client 0's cover of the first block", ctx, 4096, 54, 0, (0, seed)),
        one("client 1's, of one seed", ctx, 4096, 54, 0, (1, seed)),
        one("a cover, two primes", ctx, 8192, 60, 3, (2, seed)),
        one("the second block", ctx, 4096, 54, 1),
        one("the first block of another prime", ctx, 4096, 60, 0),
        one("a block far away", ctx, 4096, 57, 2**28 - 1),
        one("two primes", ctx, 8192, 55, 0),
        one("two primes, the second block", ctx, 8192, 55, 1),
        one("two primes of 60 bits", ctx, 8192, 60, 7),
        one(
            "two primes; number 3018 for the second is not below it and is left out",
            LEFT_OUT[0],
            8192,
            54,
            LEFT_OUT[1],
        ),
    ]


def points_cases(_: Blobs) -> list[Json]:
    """3.1: from coefficients to values and back, for the order of the values."""
    out = []
    for size, bits in ((4096, 54), (8192, 60)):
        for place, (p, psi) in enumerate(ckks.ring(size, bits)):
            x = [0, 1] + [0] * (size - 2)
            values = ckks.evaluate(x, p, psi)
            assert values[0] == psi
            data = b"".join(v.to_bytes(8, "little") for v in values)
            out.append(
                case(
                    f"X itself: the points, N = {size}, prime {place} of {bits} bits",
                    {
                        "N": size,
                        "prime_bits": bits,
                        "prime": place,
                    },
                    {
                        "first": [str(v) for v in values[:4]],
                        "last": [str(v) for v in values[-4:]],
                        **digest_of(data),
                    },
                )
            )
    return out


def refusal(data: bytes, size: int, bits: int) -> str:
    """The check that a block breaks."""
    primes, width = [p for p, _ in ckks.ring(size, bits)], size * bits // 8
    try:
        for i, p in enumerate(primes):
            last = i + 1 == len(primes)
            part = data[i * width :] if last else data[i * width : (i + 1) * width]
            unpack_residues(part, size, bits, p)
    except ckks.Wrong as error:
        return error.check
    return ""


def residues_cases(_: Blobs) -> list[Json]:
    out = []
    for size, bits in ((4096, 54), (4096, 56), (4096, 57), (4096, 60), (8192, 55)):
        packing = Packing(size, bits, 1, 9)
        recipe: Json = {
            "residues": f"residues {size} {bits}",
            "blocks": 1,
            "N": size,
            "prime_bits": bits,
        }
        data = residues_chunk(packing, recipe)
        out.append(
            case(
                f"a block, N = {size}, primes of {bits} bits: write it, and read it",
                {"op": "write", "block": recipe},
                {"first": data[:32].hex(), "last": data[-32:].hex(), **digest_of(data)},
            )
        )
    p = ckks.ring(4096, 54)[0][0]
    base = {"residues": "edges", "blocks": 1, "N": 4096, "prime_bits": 54}
    edge: Json = {**base, "set": [[0, str(p - 1)], [4095, "0"]]}
    data = residues_chunk(Packing(4096, 54, 1, 9), edge)
    out.append(
        case(
            "the largest residue and the least",
            {"op": "write", "block": edge},
            {"first": data[:32].hex(), "last": data[-32:].hex(), **digest_of(data)},
        )
    )
    two = {"residues": "edges", "blocks": 1, "N": 8192, "prime_bits": 54}
    p0, p1 = (prime for prime, _ in ckks.ring(8192, 54))

    def bad(why: str, check: str, recipe: Json, **more: int) -> Json:
        size, bits = (recipe[k] for k in ("N", "prime_bits"))
        assert isinstance(size, int)
        assert isinstance(bits, int)
        whole = residues_chunk(Packing(size, bits, 1, 9), recipe)
        data = whole[: len(whole) - more.get("cut", 0)] + bytes(more.get("append", 0))
        assert refusal(data, size, bits) == check, why
        return case(
            why, {"op": "read", "block": recipe, **more}, fault("Refused"), check
        )

    return [
        *out,
        bad("a residue that is its prime", "U5", {**base, "set": [[17, str(p)]]}),
        bad("the last residue is its prime", "U5", {**base, "set": [[4095, str(p)]]}),
        bad(
            "a residue with all bits set",
            "U5",
            {**base, "set": [[2048, str(2**54 - 1)]]},
        ),
        bad("the first prime among its residues", "U5", {**two, "set": [[9, str(p0)]]}),
        bad(
            "the second prime among its residues, below the first",
            "U5",
            {**two, "set": [[8192 + 9, str(p1)]]},
        ),
        bad("a byte is missing", "U2", base, cut=1),
        bad("eight bytes are missing", "U2", base, cut=8),
        bad("a byte is left over", "U2", base, append=1),
        bad("one polynomial of two", "U2", two, cut=8192 * 54 // 8),
        bad("nothing", "U2", base, cut=4096 * 54 // 8),
    ]
