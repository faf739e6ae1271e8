# SPDX-License-Identifier: Apache-2.0
"""AES-256 in counter mode and in GCM (FIPS 197, SP 800-38A, SP 800-38D).

Standard library only, tables and plain integers, nothing constant in time: to make the
inputs of vectors, whose secrets are public, and for nothing else.
"""

from collections.abc import Iterator
from functools import cache

Words = tuple[int, int, int, int]


def _double(x: int) -> int:
    """Times X in GF(2^8)."""
    return x << 1 ^ (0x11B if x & 128 else 0)


def _substitution() -> list[int]:
    """FIPS 197, 5.1.1: the inverse, then an affine map."""
    powers, x = [], 1
    for _ in range(255):  # of 3, which generates all but zero
        powers.append(x)
        x ^= _double(x)
    place = {value: at for at, value in enumerate(powers)}
    out = [0x63]
    for value in range(1, 256):
        inverse = powers[-place[value] % 255]
        ring = inverse | inverse << 8
        turned = (ring >> 8 - turn & 255 for turn in range(5))
        mapped = 0x63
        for part in turned:
            mapped ^= part
        out.append(mapped)
    return out


S = _substitution()


def _columns() -> list[list[int]]:
    """SubBytes and MixColumns of one byte, for each of its four places in a column."""
    first = [
        _double(s) << 24 | s << 16 | s << 8 | (_double(s) ^ s)  # 2, 1, 1, 3
        for s in S
    ]
    return [[(w >> 8 * k | w << 32 - 8 * k) % 2**32 for w in first] for k in range(4)]


T0, T1, T2, T3 = _columns()


def _word(a: int, b: int, c: int, d: int) -> int:
    """SubBytes of one byte of each word."""
    return S[a >> 24] << 24 | S[b >> 16 & 255] << 16 | S[c >> 8 & 255] << 8 | S[d & 255]


@cache
def _round_keys(key: bytes) -> list[Words]:
    """FIPS 197, 5.2, for 256 bits: 15 of four words."""
    words = [int.from_bytes(key[i : i + 4], "big") for i in range(0, 32, 4)]
    constant = 1
    for i in range(8, 60):
        w = words[-1]
        if i % 8 == 0:
            turned = (w << 8 | w >> 24) % 2**32
            w = _word(turned, turned, turned, turned) ^ constant << 24
            constant = _double(constant)
        elif i % 8 == 4:
            w = _word(w, w, w, w)
        words.append(words[i - 8] ^ w)
    return [
        (words[i], words[i + 1], words[i + 2], words[i + 3]) for i in range(0, 60, 4)
    ]


def _block(keys: list[Words], block: int) -> int:
    first, *middle, last = keys
    a, b, c, d = ((block >> 96 - 32 * i) % 2**32 ^ word for i, word in enumerate(first))
    for k0, k1, k2, k3 in middle:
        a, b, c, d = (
            T0[a >> 24] ^ T1[b >> 16 & 255] ^ T2[c >> 8 & 255] ^ T3[d & 255] ^ k0,
            T0[b >> 24] ^ T1[c >> 16 & 255] ^ T2[d >> 8 & 255] ^ T3[a & 255] ^ k1,
            T0[c >> 24] ^ T1[d >> 16 & 255] ^ T2[a >> 8 & 255] ^ T3[b & 255] ^ k2,
            T0[d >> 24] ^ T1[a >> 16 & 255] ^ T2[b >> 8 & 255] ^ T3[c & 255] ^ k3,
        )
    end = (_word(a, b, c, d), _word(b, c, d, a), _word(c, d, a, b), _word(d, a, b, c))
    out = 0
    for word, k in zip(end, last, strict=True):
        out = out << 32 | word ^ k
    return out


def stream(key: bytes, counter: int, blocks: int) -> bytes:
    """Counter mode: the blocks of ``counter`` and those that follow it."""
    keys = _round_keys(key)
    return b"".join(
        _block(keys, (counter + i) % 2**128).to_bytes(16, "big") for i in range(blocks)
    )


def _tables(h: int) -> Iterator[list[int]]:
    """For each byte of a block, highest first, its product with ``h``."""
    for _ in range(16):
        of_bits = []
        for _ in range(8):  # the highest bit is that of X^0
            of_bits.append(h)
            h = h >> 1 ^ (0xE1 << 120 if h & 1 else 0)
        table = [0]
        for value in reversed(of_bits):
            table += [value ^ other for other in table]
        yield table


def _hash(h: int, text: bytes) -> int:
    """GHASH of whole blocks."""
    tables, y = list(_tables(h)), 0
    for at in range(0, len(text), 16):
        y ^= int.from_bytes(text[at : at + 16], "big")
        product = 0
        for table, byte in zip(tables, y.to_bytes(16, "big"), strict=True):
            product ^= table[byte]
        y = product
    return y


def seal(key: bytes, nonce: bytes, plain: bytes) -> bytes:
    """GCM, nonces of 12 bytes and no associated data: ciphertext and tag."""
    keys, counter = _round_keys(key), int.from_bytes(nonce, "big") << 32 | 1
    size = len(plain)
    mask = stream(key, counter + 1, -(-size // 16))[:size]
    both = int.from_bytes(plain, "big") ^ int.from_bytes(mask, "big")
    sealed = both.to_bytes(size, "big")
    lengths = bytes(8) + (8 * size).to_bytes(8, "big")
    text = sealed + bytes(-size % 16) + lengths
    tag = _hash(_block(keys, 0), text) ^ _block(keys, counter)
    return sealed + tag.to_bytes(16, "big")
