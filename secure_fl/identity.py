# SPDX-License-Identifier: Apache-2.0
"""Ed25519 identities: one key pair per organisation, and the roster of public keys.

A public key is one line of text with a checksum, pasted into the plan.  A private key
is a PEM file with mode 0600 and, if asked for, a passphrase; never inside a run's
folder.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NoReturn, final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from . import wire
from .errors import UsageError
from .randomness import RandomSource

__all__ = [
    "Identity",
    "Member",
    "Roster",
    "check_public_key",
    "key_from_text",
    "key_to_text",
]

PREFIX: Final = "sfl1"
_CHECKSUM: Final = b"secure-fl/identity/1"


def _checksum(public_key: bytes) -> bytes:
    return hashlib.sha256(_CHECKSUM + public_key).digest()[:3]


def key_to_text(public_key: bytes) -> str:
    """``sfl1`` and 56 lower-case letters and digits: 32 bytes and 3 of checksum."""
    body = base64.b32encode(public_key + _checksum(public_key)).decode("ascii")
    return PREFIX + body.rstrip("=").lower()


def key_from_text(text: str) -> bytes:
    """The 32 bytes of a public key.  Raises UsageError for a mistyped one."""
    hint = "copy the whole line that `secure-fl keys show FILE` prints"
    body = text.removeprefix(PREFIX)
    if body == text or body != body.lower() or not body.isascii():
        raise UsageError(f"not a public key: {text[:12]!r}", hint=hint)
    try:
        raw = base64.b32decode(body.upper())
    except (binascii.Error, ValueError):
        raise UsageError(f"not a public key: {text[:12]!r}", hint=hint) from None
    if len(raw) != 35 or raw[32:] != _checksum(raw[:32]):
        raise UsageError(f"public key {text[:12]!r} is mistyped", hint=hint)
    return raw[:32]


_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P  # edwards25519 (RFC 8032, 5.1)


@lru_cache(maxsize=4096)
def check_public_key(public_key: bytes) -> None:
    """Raises UsageError unless it is the one form of a point of large order.

    Libraries verify under any 32 bytes, and differ on odd ones: under a point of small
    order everybody's signature holds (SPEC masking, 2.2).
    """
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    if len(public_key) == 32 and y < _P:
        y_squared = y * y % _P
        x_squared = (y_squared - 1) * pow(_D * y_squared + 1, -1, _P) % _P
        if pow(x_squared, (_P - 1) // 2, _P) == 1:
            for _ in range(3):  # doubled three times, a point of small order is neutral
                product = _D * x_squared * y_squared % _P
                y = (y_squared + x_squared) * pow(1 - product, -1, _P) % _P
                y_squared = y * y % _P
                x_squared = (y_squared - 1) * pow(_D * y_squared + 1, -1, _P) % _P
            if y != 1:
                return
    raise UsageError(
        "a public key is not a usable Ed25519 key",
        hint="make keys with `secure-fl keys new`",
    )


@final
class Identity:
    """A member's or the aggregator's signing key.  Does not print, copy or pickle."""

    __slots__ = ("_key", "name", "public_key")

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self.name = name
        self._key = key
        self.public_key = key.public_key().public_bytes_raw()

    @classmethod
    def new(cls, name: str, *, random: RandomSource) -> Identity:
        return cls(name, Ed25519PrivateKey.from_private_bytes(random.bytes(32)))

    def sign(self, label: str, *parts: wire.Value) -> bytes:
        """64 bytes over the CBOR array ``[label, *parts]``."""
        return wire.sign(self._key, label, *parts)

    def save(self, path: Path, *, passphrase: bytes | None = None) -> None:
        """Write the private key as PEM, mode 0600.  Never overwrites a file."""
        if passphrase == b"":
            raise UsageError("the passphrase is empty", hint="give one, or none at all")
        protection: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(passphrase)
            if passphrase is not None
            else serialization.NoEncryption()
        )
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
        )
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise UsageError(
                f"{path} exists", hint="choose another file: a key is never overwritten"
            ) from None
        except OSError as error:
            raise UsageError(
                f"cannot write {path}: {error.strerror}",
                hint="choose a place that exists and is yours",
            ) from None
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def load(
        cls, path: Path, *, name: str = "", passphrase: bytes | None = None
    ) -> Identity:
        """Read what :meth:`save` wrote.  Raises UsageError, with the reason."""
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"cannot read {path}: {error.strerror}",
                hint="make a key with `secure-fl keys new`",
            ) from None
        try:
            key = serialization.load_pem_private_key(pem, passphrase)
        except TypeError:
            raise UsageError(
                f"{path} is encrypted, or not",
                hint="give the passphrase exactly where the key has one",
            ) from None
        except ValueError:
            raise UsageError(
                f"{path} does not open: no private key, or another passphrase",
                hint="a private key is what `secure-fl keys new` wrote",
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(
                f"{path} does not hold an Ed25519 key",
                hint="make one with `secure-fl keys new`",
            )
        return cls(name or path.stem, key)

    def __repr__(self) -> str:
        return f"<Identity {self.name} {key_to_text(self.public_key)[:12]}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("identities are not copied or pickled")


@final
@dataclass(frozen=True, slots=True)
class Member:
    """One organisation in the roster: its name and public key (32 bytes)."""

    name: str
    public_key: bytes


@final
@dataclass(frozen=True, slots=True)
class Roster:
    """The members in the plan's order; a client's index is its place here."""

    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        names = [m.name for m in self.members]
        keys = [m.public_key for m in self.members]
        if len(set(names)) != len(names) or len(set(keys)) != len(keys):
            raise UsageError(
                "two members of the roster share a name or a key",
                hint="give every member its own",
            )
        for key in keys:
            check_public_key(key)

    def __len__(self) -> int:
        return len(self.members)

    def name(self, index: int) -> str:
        return self.members[index].name

    def index(self, name: str) -> int:
        for i, member in enumerate(self.members):
            if member.name == name:
                return i
        raise UsageError(f"{name!r} is not in the roster")

    def to_wire(self) -> wire.Value:
        return [[m.name, m.public_key] for m in self.members]
