# SPDX-License-Identifier: Apache-2.0
"""The recipes of the CKKS vectors, written out (each file of them says how).

Standard library only, plain integers, from ckks/SPEC.md: for vectors, whose secrets are
public, and for nothing else.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import aes_gcm
from plain_crypto import digest
from sealed_ckks import SPEC, context_hash

Json = dict[str, Any]
Ring = tuple[tuple[int, int], ...]  # each prime, and its psi

# -- from a seed --------------------------------------------------------------------


def expand(seed: str, count: int) -> bytes:
    blocks = (
        hashlib.sha256(seed.encode() + c.to_bytes(8, "big")).digest()
        for c in range(-(-count // 32))
    )
    return b"".join(blocks)[:count]


def _numbers(data: bytes) -> Iterator[int]:
    """8 bytes each, little-endian."""
    return (int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8))


def integers(recipe: Json) -> list[int]:
    """A key, an error, or the words of a vector."""
    if "short" in recipe:
        data = expand(recipe["short"], 20 * recipe["N"])
        ones = (
            int.from_bytes(data[i : i + 20], "big").bit_count()
            for i in range(0, len(data), 20)
        )
        out = [(one - 80) * recipe.get("times", 1) for one in ones]
    else:
        most = (2 ** (recipe["word_bits"] - 1) - 1) // recipe["clients"]
        data = expand(recipe["words"], 8 * recipe["count"])
        out = [x % (2 * most + 1) - most for x in _numbers(data)]
    for place, value in recipe.get("set", []):
        out[place] = int(value)
    return out


def residues(recipe: Json, ring: Ring, size: int) -> list[list[int]]:
    """Polynomials: for each block one for each prime."""
    count = recipe["blocks"] * len(ring)
    moduli = [p for p, _ in ring] * recipe["blocks"]
    data = expand(recipe["residues"], 8 * size * count)
    flat = [x % moduli[i // size] for i, x in enumerate(_numbers(data))]
    for place, value in recipe.get("set", []):
        flat[place] = int(value)
    return [flat[i : i + size] for i in range(0, len(flat), size)]


# -- rings (2.1) and residues on the wire (3.5) ---------------------------------------


def _is_prime(n: int) -> bool:
    """Miller and Rabin: these bases decide all below 2^64."""
    twos = ((n - 1) & (1 - n)).bit_length() - 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        powers = [pow(base, (n - 1) >> twos - i, n) for i in range(twos + 1)]
        if powers[0] != 1 and n - 1 not in powers[:-1]:
            return False
    return True


def _root(order: int, p: int) -> int:
    """The least primitive root of unity of this order, a power of two."""
    powers = (pow(x, (p - 1) // order, p) for x in range(2, p))
    some = next(r for r in powers if pow(r, order // 2, p) == p - 1)
    least, square, other = some, some * some % p, some
    for _ in range(order // 2 - 1):
        other = other * square % p
        least = min(least, other)
    return least


@cache
def ring_of(size: int, bits: int) -> Ring:
    found: list[tuple[int, int]] = []
    p = (2**bits - 2) // (2 * size) * 2 * size + 1
    while len(found) < size // 4096:
        if _is_prime(p):
            found.append((p, _root(2 * size, p)))
        p -= 2 * size
    return tuple(found)


def pack(polynomial: list[int], width: int) -> bytes:
    common = math.gcd(64, width)
    columns, lanes = 64 // common, width // common
    rows = len(polynomial) // columns
    out = [b""] * (lanes * rows)
    for row in range(rows):
        number = 0
        for residue in reversed(polynomial[row::rows]):
            number = number << width | residue
        data = number.to_bytes(8 * lanes, "little")
        for lane in range(lanes):
            out[lane * rows + row] = data[8 * lane : 8 * lane + 8]
    return b"".join(out)


# -- ciphertexts (3.1, 3.3, 3.4) ------------------------------------------------------


def draw(key: bytes, size: int, bits: int, counter: int, p: int) -> list[int]:
    """The first numbers of a stream that are below the prime."""
    data = aes_gcm.stream(key, counter << 64, size // 2 + 8)
    kept = [x for x in (n % 2**bits for n in _numbers(data)) if x < p]
    return kept[:size]


@cache
def _twiddles(size: int, psi: int, p: int) -> tuple[int, ...]:
    """``psi`` to the power of each number below ``size``, its bits turned round."""
    out, step = [1], size // 2
    while step:
        factor = pow(psi, step, p)
        out += [x * factor % p for x in out]
        step //= 2
    return tuple(out)


def evaluations(a: list[int], psi: int, p: int) -> list[int]:
    """Values at psi^(2 * rev(j) + 1): X^n - z^2 is (X^(n/2) - z)(X^(n/2) + z)."""
    size, parts = len(a), [[x % p for x in a]]
    while len(parts) < size:
        zetas = _twiddles(size, psi, p)[len(parts) :]
        halves = []
        for part, zeta in zip(parts, zetas, strict=False):
            half = len(part) // 2
            high = [x * zeta % p for x in part[half:]]
            low = part[:half]
            halves.append([(x + y) % p for x, y in zip(low, high, strict=True)])
            halves.append([(x - y) % p for x, y in zip(low, high, strict=True)])
        parts = halves
    return [x for (x,) in parts]


def coefficients(values: list[int], psi: int, p: int) -> list[int]:
    """The same steps back."""
    size, parts = len(values), [[x] for x in values]
    while len(parts) > 1:
        zetas = _twiddles(size, pow(psi, -1, p), p)[len(parts) // 2 :]
        wholes = []
        pairs = zip(parts[::2], parts[1::2], zetas, strict=False)
        for plus, minus, zeta in pairs:
            low = [(x + y) % p for x, y in zip(plus, minus, strict=True)]
            high = [(x - y) * zeta % p for x, y in zip(plus, minus, strict=True)]
            wholes.append(low + high)
        parts = wholes
    unit = pow(size, -1, p)
    return [x * unit % p for x in parts[0]]


@cache
def _public(ctx: bytes, size: int, bits: int, block: int, index: int) -> list[int]:
    ring = ring_of(size, bits)
    key = digest(f"{SPEC} polynomials", ctx)
    return draw(key, size, bits, block * len(ring) + index, ring[index][0])


class Recipes:
    """Those of one context: with the ``data`` of its file, and its parameters."""

    def __init__(self, data: Json, session: Json | None) -> None:
        self._data = data
        self._made: dict[str, bytes] = {}
        if session is not None:
            self._ctx = context_hash(session)
            self._parameters = session["parameters"]

    def bytes_(self, value: Any) -> bytes:
        """Of hex, an array or a recipe; each is made once."""
        if isinstance(value, str):
            return bytes.fromhex(value)
        if isinstance(value, list):
            return b"".join(map(self.bytes_, value))
        key = json.dumps(value)
        if key not in self._made:
            self._made[key] = self._make(value)
        return self._made[key]

    def _make(self, recipe: Json) -> bytes:
        match recipe:
            case {"data": name}:
                return self.bytes_(self._data[name])
            case {"expand": seed, "bytes": count}:
                return expand(seed, count)
            case {"cut": count, "of": whole}:
                return self.bytes_(whole)[:-count]
            case {"at": at, "to": to, "of": whole}:
                data, other = self.bytes_(whole), bytes.fromhex(to)
                return data[:at] + other + data[at + len(other) :]
            case {"sealed": chunk, "key": key, "index": index}:
                nonce = index.to_bytes(12, "big")
                return aes_gcm.seal(bytes.fromhex(key), nonce, self.bytes_(chunk))
            case {"residues": _}:
                p = self._parameters
                ring = ring_of(p["N"], p["prime_bits"])
                return _packed(residues(recipe, ring, p["N"]), p["prime_bits"])
            case {"encrypt": what, "chunk": chunk}:
                return self._encrypted(what, chunk)
        raise ValueError(f"no recipe: {json.dumps(recipe)[:80]}")

    def _encrypted(self, what: Json, chunk: int) -> bytes:
        p = self._parameters
        words = integers(what["words"])
        width, step = p["N"] * p["fields"], p["chunk_blocks"]
        blocks = range(-(-p["length"] // width))[chunk * step : (chunk + 1) * step]
        key, seed = integers(what["key"]), bytes.fromhex(what["seed"])
        cover = digest(f"{SPEC} cover", self._ctx, what["client"], seed)
        out = []
        for k in blocks:
            part = words[k * width : (k + 1) * width]
            part += [0] * (width - len(part))
            error = integers(what["errors"][k])
            out += self._block(k, part, key, error, cover)
        return _packed(out, p["prime_bits"])

    def _block(
        self, k: int, words: list[int], key: list[int], error: list[int], cover: bytes
    ) -> list[list[int]]:
        p = self._parameters
        size, bits = p["N"], p["prime_bits"]
        message = [
            sum(v << j * p["word_bits"] for j, v in enumerate(words[i::size]))
            << p["scale_bits"]
            for i in range(size)
        ]
        ring, out = ring_of(size, bits), []
        for index, (prime, psi) in enumerate(ring):
            public = _public(self._ctx, size, bits, k, index)
            values = evaluations(key, psi, prime)
            product = [a * b % prime for a, b in zip(public, values, strict=True)]
            hidden = draw(cover, size, bits, k * len(ring) + index, prime)
            parts = (message, error, coefficients(product, psi, prime), hidden)
            out.append([sum(row) % prime for row in zip(*parts, strict=True)])
        return out

    # -- a whole case ---------------------------------------------------------------

    def plain(self, given: Json) -> Json:
        """An input without recipes: hex, integers, and words as decimal text."""
        out: Json = {}
        for name, part in given.items():
            match name:
                case "bytes" | "message":
                    out[name] = self.bytes_(part).hex()
                case "messages":
                    out[name] = [self.bytes_(one).hex() for one in part]
                case "key" | "error":
                    out[name] = integers(part)
                case "errors":
                    out[name] = [integers(one) for one in part]
                case "words":
                    out[name] = list(map(str, integers(part)))
                case "operations" | "parties":
                    out[name] = [self.plain(one) for one in part]
                case "block" if isinstance(part, dict):
                    out |= _block_of(part, given)
                case "cut" | "append":
                    pass  # of a block, done with it
                case _:
                    out[name] = part
        return out

    def sent(self, expect: Json) -> Json:
        """What is expected, with messages as hex."""
        messages = expect.get("sent")
        if not isinstance(messages, list):
            return expect
        return expect | {"sent": [self._sent(one) for one in messages]}

    def _sent(self, one: Any) -> Any:
        described = isinstance(one, dict) and "rows" in one
        return one if described else self.bytes_(one).hex()


def _packed(polynomials: Iterable[list[int]], bits: int) -> bytes:
    return b"".join(pack(one, bits) for one in polynomials)


def _block_of(recipe: Json, given: Json) -> Json:
    """A block to write, as residues, or to read, as bytes."""
    size, bits = recipe["N"], recipe["prime_bits"]
    block = residues(recipe, ring_of(size, bits), size)
    out: Json = {"N": size, "prime_bits": bits}
    if given["op"] == "write":
        return out | {"residues": [list(map(str, one)) for one in block]}
    data = _packed(block, bits)
    data = data[: len(data) - given.get("cut", 0)] + bytes(given.get("append", 0))
    return out | {"bytes": data.hex()}
