# SPDX-License-Identifier: Apache-2.0
"""Stock SEAL, as anyone would use it, opens our sums to the same values (SPEC 3.3).

A sum of ciphertexts with its public polynomial is a CKKS ciphertext of scale 2^s under
minus the sum of the keys: SEAL's own Decryptor and CKKSEncoder read it.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal
import zstandard
from numpy.typing import NDArray

from secure_fl import ckks
from secure_fl.ckks.residues import sub_mod, sum_mod
from secure_fl.ckks.sampling import Polynomials
from secure_fl.fixedpoint import unwrap, wrap
from secure_fl.identity import Identity, Member, Roster
from secure_fl.randomness import SystemRandom

RANDOM = SystemRandom()
HEADER = struct.Struct("<HBBBBHQ")


class Stock:
    """SEAL by hand, with a prime for key switching where there are two others."""

    def __init__(self, degree: int, primes: list[int], folder: Path) -> None:
        self.degree, self.primes = degree, primes
        self.path = str(folder / "seal")
        special = (
            [] if len(primes) == 1 else [seal.CoeffModulus.Create(degree, [50])[0]]
        )
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(degree)
        parameters.set_coeff_modulus([seal.Modulus(p) for p in primes] + list(special))
        self.context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        self.key_primes = primes + [m.value() for m in special]
        self.encoder = seal.CKKSEncoder(self.context)
        self.evaluator = seal.Evaluator(self.context)
        probe = seal.Plaintext()
        self.encoder.encode([0.0] * (degree // 2), 1.0, probe)
        self.data_id = self.saved(probe)[:32]
        keys = seal.KeyGenerator(self.context)
        self.key_id = self.saved(keys.secret_key())[:32]

    def saved(self, thing: Any) -> bytes:
        thing.save(self.path)
        raw = Path(self.path).read_bytes()
        if raw[5] == 2:
            opened = zstandard.ZstdDecompressor().decompressobj()
            return bytes(opened.decompress(raw[HEADER.size :]))
        return raw[HEADER.size :]

    def load(self, thing: Any, body: bytes, words: NDArray[np.uint64]) -> Any:
        array = struct.pack("<Q", words.size) + words.tobytes()
        inner = HEADER.pack(0xA15E, 16, 4, 3, 0, 0, 16 + len(array)) + array
        whole = body + inner
        header = HEADER.pack(0xA15E, 16, 4, 3, 0, 0, 16 + len(whole))
        Path(self.path).write_bytes(header + whole)
        thing.load(self.context, self.path)
        return thing

    def ciphertext(
        self,
        first: NDArray[np.uint64],
        second: NDArray[np.uint64],
        scale: float,
        ntt: bool,
    ) -> Any:
        body = self.data_id + bytes([ntt])
        body += struct.pack("<QQQdQ", 2, self.degree, len(self.primes), scale, 1)
        both = np.concatenate([first.ravel(), second.ravel()])
        return self.load(seal.Ciphertext(self.context), body, both)

    def evaluations(self, coefficients: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Each prime's residues (primes, N) to SEAL's evaluation form."""
        c = self.ciphertext(coefficients, np.ones_like(coefficients), 1.0, ntt=False)
        self.evaluator.transform_to_ntt_inplace(c)
        body = self.saved(c)
        words = np.frombuffer(body, "<u8", offset=len(body) - 16 * coefficients.size)
        return words[: coefficients.size].reshape(coefficients.shape)

    def decryptor(self, key: NDArray[np.int64]) -> Any:
        """Under a secret key that SEAL did not make: one polynomial per prime."""
        parts = []
        for prime in self.key_primes:
            residues = np.array([int(k) % prime for k in key], np.uint64)
            alone = Stock.alone(self, prime)
            parts.append(alone.evaluations(residues[None])[0])
        values = np.concatenate(parts)
        body = self.key_id + struct.pack("<Qd", values.size, 1.0)
        return seal.Decryptor(self.context, self.load(seal.SecretKey(), body, values))

    def coefficients(self, plain: Any) -> list[int]:
        """A plaintext's coefficients, between -q/2 and q/2."""
        body = self.saved(plain)
        count = len(self.primes) * self.degree
        values = np.frombuffer(body, "<u8", offset=len(body) - 8 * count)
        c = self.ciphertext(values, np.ones(count, np.uint64), 1.0, ntt=True)
        self.evaluator.transform_from_ntt_inplace(c)
        body = self.saved(c)
        residues = np.frombuffer(body, "<u8", offset=len(body) - 16 * count)[:count]
        modulus = math.prod(self.primes)
        lifts = [modulus // p * pow(modulus // p, -1, p) for p in self.primes]
        out = []
        for column in residues.reshape(len(self.primes), self.degree).T:
            x = sum(int(r) * lift for r, lift in zip(column, lifts, strict=True))
            x %= modulus
            out.append(x - modulus if x > modulus // 2 else x)
        return out

    @staticmethod
    def alone(stock: Stock, prime: int) -> Stock:
        """The same ring with one prime: what SEAL's transform is taken from."""
        folder = Path(stock.path).parent / f"alone-{prime}"
        folder.mkdir(exist_ok=True)
        return Stock(stock.degree, [prime], folder)


@pytest.mark.parametrize(
    ("clients", "bits", "length"), [(3, 24, 9_000), (10, 32, 30_000), (7, 16, 700)]
)
def test_stock_seal_opens_the_sum_to_the_same_values(
    tmp_path: Path, clients: int, bits: int, length: int
) -> None:
    identities = [Identity.new(f"client-{i}", random=RANDOM) for i in range(clients)]
    packing = ckks.choose_packing(clients, bits, length)
    session = ckks.Session(
        b"p" * 32,
        b"r" * 16,
        0,
        0,
        Roster(tuple(Member(i.name, i.public_key) for i in identities)),
        b"m" * 32,
        ckks.Parameters(clients, length, packing, 2, 2, 0, "one-time"),
    )
    ring = packing.ring
    sums = ckks.Ciphertexts(session)
    seeds = {i: RANDOM.bytes(32) for i in range(clients)}
    key = np.zeros(ring.degree, np.int64)
    draws = np.random.default_rng(clients)
    most = (2 ** (bits - 1) - 1) // clients
    units = draws.integers(-most, most + 1, (clients, length))
    for i in range(clients):
        upload = ckks.Encryption(
            session, i, wrap(units[i], bits), random=RANDOM.bytes(32)
        )
        for chunk in upload.chunks(cover=seeds[i]):
            sums.add_chunk(i, chunk)
        sums.join(i, sums.check(i, upload.payload()))
        key += unwrap(upload.key_words(), ckks.key_bits(clients))
    total = sums.total()
    ours = unwrap(ckks.open_sum(session, total, key, seeds), bits)
    assert (ours == units.sum(0)).all()

    stock = Stock(ring.degree, [p.value for p in ring.primes], tmp_path)
    decryptor = stock.decryptor(-key)
    public = Polynomials.public(session)
    covers = [Polynomials.cover(session, i, seed) for i, seed in seeds.items()]
    scale = 2.0**packing.scale_bits
    padded = np.zeros(session.parameters.blocks * packing.values, np.int64)
    padded[:length] = ours
    for block in {0, session.parameters.blocks - 1}:
        bare = sub_mod(
            total[block], sum_mod((c.draw(block) for c in covers), ring), ring
        )
        c = stock.ciphertext(
            stock.evaluations(bare), public.draw(block), scale, ntt=True
        )
        plain = seal.Plaintext()
        decryptor.decrypt(c, plain)
        assert plain.scale == scale
        fields = padded[block * packing.values : (block + 1) * packing.values]
        expected = polynomial(fields.reshape(packing.fields, ring.degree), bits)
        # Exactly, coefficient by coefficient ...
        opened = stock.coefficients(plain)
        half = 1 << (packing.scale_bits - 1)
        assert [(x + half) >> packing.scale_bits for x in opened] == expected
        # ... and as slots, as far as SEAL's floating-point decoder goes.
        slots = np.array(stock.encoder.decode_complex(plain))
        values = np.array([float(e) for e in expected])
        roots = np.array([pow(3, i, 2 * ring.degree) for i in (0, 1, 7, 100)])
        angles = np.pi / ring.degree * np.outer(roots, np.arange(ring.degree))
        at_roots = (np.exp(1j * angles) * values).sum(1)
        noise = 8 * 6.4 * np.sqrt(clients * ring.degree) / scale
        floats = 1e-9 * np.abs(values).max() * np.sqrt(ring.degree)
        assert np.abs(slots[[0, 1, 7, 100]] - at_roots).max() < noise + floats


def polynomial(fields: NDArray[np.int64], bits: int) -> list[int]:
    """The sum that a block's coefficients hold, as Python integers."""
    return [
        sum(int(v) << (bits * j) for j, v in enumerate(column)) for column in fields.T
    ]
