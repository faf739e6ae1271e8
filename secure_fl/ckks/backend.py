# SPDX-License-Identifier: Apache-2.0
"""Products in a ring, by Microsoft SEAL through TenSEAL's low-level interface.

The only file that imports tenseal.  SEAL multiplies polynomials in evaluation form by
one of ours and takes them back to coefficients; a CKKS ciphertext of up to sixteen
polynomials carries them through at once.  Its interface has no other door than files,
so they pass through a file in memory where the platform has those, else through one in
a private temporary folder.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import shutil
import struct
import tempfile
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Final, NoReturn, final

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, UsageError
from .rings import Prime

__all__ = ["Multiplier", "backend_version", "require_backend"]

_MOST: Final = 16  # polynomials in one SEAL ciphertext
_HEADER: Final = struct.Struct("<HBBBBHQ")  # SEAL's serialization header, format 4
_PLAIN: Final = 0  # not compressed
_ZSTD: Final = 2


def require_backend() -> None:
    """Raises UsageError, saying what to install, where tenseal or zstandard is not."""
    for name in ("tenseal", "zstandard"):
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"protection `ckks` needs {name}, which is not installed",
                hint="pip install 'secure-fl[ckks]'",
            )


def backend_version() -> str:
    """What does the arithmetic, for figures and vectors."""
    require_backend()
    return f"tenseal {importlib.metadata.version('tenseal')}"


class _Door:
    """A file that SEAL writes to and reads from, by path."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._fd = os.memfd_create("secure-fl", os.MFD_CLOEXEC)
            self.path = f"/proc/self/fd/{self._fd}"
            weakref.finalize(self, os.close, self._fd)
        else:
            folder = tempfile.mkdtemp(prefix="secure-fl-")
            self.path = os.path.join(folder, "door")
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            weakref.finalize(self, _remove, self._fd, folder)

    def put(self, parts: Sequence[bytes | memoryview]) -> None:
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        left = [memoryview(part) for part in parts]
        while left:
            written = os.writev(self._fd, left)
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left:
                left[0] = left[0][written:]

    def take(self) -> bytes:
        """All that was written; nothing of it stays behind."""
        size = os.lseek(self._fd, 0, os.SEEK_END)
        os.lseek(self._fd, 0, os.SEEK_SET)
        parts = []
        while size:
            part = os.read(self._fd, size)
            if not part:
                raise EngineError("the file that SEAL wrote to came up short")
            parts.append(part)
            size -= len(part)
        os.ftruncate(self._fd, 0)
        return b"".join(parts)


def _remove(fd: int, folder: str) -> None:
    os.close(fd)
    shutil.rmtree(folder, ignore_errors=True)


@final
class _Ring:
    """SEAL's objects for one prime, and polynomials in and out of them."""

    def __init__(self, prime: Prime) -> None:
        require_backend()
        import tenseal.sealapi as seal
        import zstandard

        self._seal: Any = seal
        self._zstd: Any = zstandard
        self.lock = threading.Lock()
        self.degree = prime.degree
        self.prime = prime
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(prime.degree)
        parameters.set_coeff_modulus([seal.Modulus(prime.value)])
        # SEAL looks at the modulus by itself, too: it refuses one that is too large.
        self.context: Any = seal.SEALContext(
            parameters, False, seal.SEC_LEVEL_TYPE.TC192
        )
        self.evaluator: Any = seal.Evaluator(self.context)
        self._door = _Door()
        probe = seal.Plaintext()
        seal.CKKSEncoder(self.context).encode([0.0] * (prime.degree // 2), 1.0, probe)
        self._id = self.save(probe)[:32]
        self._check_form()

    def save(self, thing: Any) -> bytes:
        thing.save(self._door.path)
        raw = self._door.take()
        body = memoryview(raw)[_HEADER.size :]
        if raw[5] == _ZSTD:
            return bytes(self._zstd.ZstdDecompressor().decompressobj().decompress(body))
        return bytes(body)

    def _load(self, thing: Any, body: bytes, words: NDArray[np.uint64]) -> Any:
        arrays = [polynomial.data.cast("B") for polynomial in words]
        inner = _header(8 + words.nbytes) + struct.pack("<Q", words.size)
        size = len(body) + len(inner) + words.nbytes
        self._door.put([_header(size), body, inner, *arrays])
        thing.load(self.context, self._door.path)
        return thing

    def ciphertext(self, polynomials: NDArray[np.uint64], *, ntt: bool) -> Any:
        """2 to 16 polynomials as one ciphertext of scale 1."""
        count = len(polynomials)
        body = self._id + bytes([ntt])
        body += struct.pack("<QQQdQ", count, self.degree, 1, 1.0, 1)
        return self._load(self._seal.Ciphertext(self.context), body, polynomials)

    def plaintext(self, values: NDArray[np.uint64]) -> Any:
        """One polynomial in evaluation form."""
        body = self._id + struct.pack("<Qd", self.degree, 1.0)
        return self._load(self._seal.Plaintext(), body, values[None])

    def polynomials(self, ciphertext: Any, count: int) -> NDArray[np.uint64]:
        body = self.save(ciphertext)
        at = len(body) - 8 * count * self.degree
        return np.frombuffer(body, "<u8", offset=at).reshape(count, self.degree)

    def evaluations(self, coefficients: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """One polynomial, from coefficients to evaluation form."""
        both = self.ciphertext(np.stack([coefficients, coefficients]), ntt=False)
        self.evaluator.transform_to_ntt_inplace(both)
        values: NDArray[np.uint64] = self.polynomials(both, 2)[0]
        return values

    def _check_form(self) -> None:
        """That SEAL's evaluation form is the one of SPEC 3.1: of X, and of X^2."""
        p, size = self.prime, self.degree.bit_length() - 1
        for power in (1, 2):
            x = np.zeros(self.degree, np.uint64)
            x[power] = 1
            values = self.evaluations(x)
            for at in (0, 1, 2, self.degree // 2, self.degree - 1):
                reverse = int(f"{at:0{size}b}"[::-1], 2)
                if values[at] != pow(p.root, power * (2 * reverse + 1), p.value):
                    raise EngineError(
                        "this build of SEAL orders evaluations in another way",
                        hint="install a tenseal within the range of secure-fl[ckks]",
                    )


def _header(size: int) -> bytes:
    return _HEADER.pack(0xA15E, _HEADER.size, 4, 3, _PLAIN, 0, _HEADER.size + size)


@functools.cache
def _ring(prime: Prime) -> _Ring:
    return _Ring(prime)


@final
class Multiplier:
    """Multiplies by one polynomial, a key: not printable, copyable or picklable.

    Threads may share one; they take turns.
    """

    def __init__(self, factor: NDArray[np.int64], prime: Prime) -> None:
        """``factor``: its N coefficients."""
        self._ring = _ring(prime)
        residues = np.remainder(factor, np.int64(prime.value)).view(np.uint64)
        # SEAL refuses to multiply by zero, where everything would become transparent.
        self._factor: Any = None
        if factor.any():
            with self._ring.lock:
                values = self._ring.evaluations(residues)
                self._factor = self._ring.plaintext(values)

    def times(self, evaluations: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Coefficients of the products, for polynomials (count, N) as evaluations."""
        if self._factor is None:
            return np.zeros_like(evaluations)
        if len(evaluations) <= _MOST:
            return self._some(evaluations)
        parts = [
            self._some(evaluations[begin : begin + _MOST])
            for begin in range(0, len(evaluations), _MOST)
        ]
        return np.concatenate(parts)

    def _some(self, evaluations: NDArray[np.uint64]) -> NDArray[np.uint64]:
        ring, count = self._ring, len(evaluations)
        if count == 1:  # SEAL's ciphertexts have two polynomials or more
            evaluations = np.concatenate([evaluations, evaluations])
        with ring.lock:
            product = ring.ciphertext(evaluations, ntt=True)
            ring.evaluator.multiply_plain_inplace(product, self._factor)
            ring.evaluator.transform_from_ntt_inplace(product)
            return ring.polynomials(product, len(evaluations))[:count]

    def __repr__(self) -> str:
        return "<Multiplier>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not copied or pickled")
