# SPDX-License-Identifier: Apache-2.0
"""Keys on disk and as text; the roster."""

from __future__ import annotations

import copy
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from secure_fl import wire
from secure_fl.errors import UsageError
from secure_fl.identity import (
    Identity,
    Member,
    Roster,
    check_public_key,
    key_from_text,
    key_to_text,
)
from secure_fl.randomness import SeededInsecure


def make(name: str = "bank-a", seed: bytes = b"seed") -> Identity:
    return Identity.new(name, random=SeededInsecure(seed))


@given(st.binary(min_size=32, max_size=32))
def test_a_public_key_is_one_line_and_comes_back(key: bytes) -> None:
    text = key_to_text(key)
    assert len(text) == 60
    assert text.startswith("sfl1")
    assert text.isascii()
    assert text == text.lower()
    assert key_from_text(text) == key


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(4, 59),
    st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"),
)
def test_one_wrong_character_is_found(key: bytes, at: int, letter: str) -> None:
    text = key_to_text(key)
    changed = text[:at] + letter + text[at + 1 :]
    if changed != text:
        with pytest.raises(UsageError, match="mistyped") as caught:
            key_from_text(changed)
        assert caught.value.hint


def test_two_swapped_characters_are_found() -> None:
    text = key_to_text(make().public_key)
    for at in range(4, 59):
        changed = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        if changed != text:
            with pytest.raises(UsageError):
                key_from_text(changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: "",
        lambda t: t[4:],
        lambda t: t[:-1],
        lambda t: t + "a",
        lambda t: t + "=",
        lambda t: t + "\n",
        lambda t: " " + t,
        lambda t: t.upper(),
        lambda t: "sfl1" + t[4:].upper(),
        lambda t: "sfl2" + t[4:],
        lambda t: t[:30] + " " + t[30:],
        lambda t: t[:30] + "\u00e9" + t[31:],
        lambda t: "sfl1",
        lambda t: "sfl1" + "a" * 56,
    ],
)
def test_other_text_is_refused(change: Callable[[str], str]) -> None:
    with pytest.raises(UsageError) as caught:
        key_from_text(change(key_to_text(make().public_key)))
    assert caught.value.hint


@pytest.mark.parametrize(("plain", "twin"), [("s", "\u017f"), ("i", "\u0131")])
def test_a_key_has_one_text_form(plain: str, twin: str) -> None:
    text = next(
        t
        for t in (key_to_text(make(seed=b"%d" % i).public_key) for i in range(50))
        if plain in t[4:]
    )
    with pytest.raises(UsageError):
        key_from_text("sfl1" + text[4:].replace(plain, twin, 1))


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_saved_key_comes_back(tmp_path: Path, passphrase: bytes | None) -> None:
    identity = make()
    path = tmp_path / "bank-a.pem"
    identity.save(path, passphrase=passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (b"ENCRYPTED" in path.read_bytes()) == (passphrase is not None)
    again = Identity.load(path, passphrase=passphrase)
    assert again.name == "bank-a"
    assert again.public_key == identity.public_key
    assert again.sign("l", 1) == identity.sign("l", 1)
    assert Identity.load(path, name="other", passphrase=passphrase).name == "other"


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    make().save(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="exists") as caught:
        make(seed=b"other").save(path)
    assert caught.value.hint
    assert path.read_bytes() == before


def test_a_key_that_does_not_open_says_why(tmp_path: Path) -> None:
    plain, locked = tmp_path / "plain.pem", tmp_path / "locked.pem"
    make().save(plain)
    make().save(locked, passphrase=b"right")
    with pytest.raises(UsageError, match="cannot read"):
        Identity.load(tmp_path / "missing.pem")
    with pytest.raises(UsageError, match="cannot read"):
        Identity.load(tmp_path)
    with pytest.raises(UsageError, match="encrypted, or not"):
        Identity.load(locked)
    with pytest.raises(UsageError, match="encrypted, or not"):
        Identity.load(plain, passphrase=b"right")
    with pytest.raises(UsageError, match="another passphrase"):
        Identity.load(locked, passphrase=b"wrong")
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"junk")
    with pytest.raises(UsageError, match="no private key"):
        Identity.load(junk)
    other = tmp_path / "x25519.pem"
    other.write_bytes(
        X25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    with pytest.raises(UsageError, match="not hold an Ed25519 key"):
        Identity.load(other)
    with pytest.raises(UsageError, match="cannot write"):
        make().save(tmp_path / "no" / "such" / "folder.pem")


def test_an_empty_passphrase_is_not_taken_for_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        make().save(tmp_path / "key.pem", passphrase=b"")


def test_an_identity_signs_and_does_not_leave() -> None:
    identity = make()
    assert wire.verify(identity.public_key, identity.sign("l", b"x"), "l", b"x")
    assert not wire.verify(identity.public_key, identity.sign("l", b"x"), "m", b"x")
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="not copied or pickled"):
            duplicate(identity)
    assert not hasattr(identity, "__dict__")
    shown = repr(identity)
    assert shown == f"<Identity bank-a {key_to_text(identity.public_key)[:12]}>"


def public(name: str) -> bytes:
    return Identity.new(name, random=SeededInsecure(name.encode())).public_key


# (y, what it is): RFC 8032 decodes none of them, or they have an order up to 8.
ODD_POINTS = {
    "y = p + 3": (2**255 - 19 + 3).to_bytes(32, "little"),
    "no point": (2).to_bytes(32, "little"),
    "neutral": (1).to_bytes(32, "little"),
    "order 2": (2**255 - 20).to_bytes(32, "little"),
    "order 4": bytes(32),
    "order 4, negative": bytes(31) + b"\x80",
    "31 bytes": bytes([9]) * 31,
}


@pytest.mark.parametrize("key", ODD_POINTS.values(), ids=ODD_POINTS.keys())
def test_a_roster_holds_usable_keys_alone(key: bytes) -> None:
    with pytest.raises(UsageError, match="not a usable Ed25519 key"):
        Roster((Member("a", public("a")), Member("b", key)))


def test_honest_keys_are_usable() -> None:
    for i in range(50):
        check_public_key(public(str(i)))


def test_a_roster_is_in_the_plans_order() -> None:
    a, b, c = (Member(n, public(n)) for n in "bac")
    roster = Roster((a, b, c))
    assert len(roster) == 3
    assert [roster.name(i) for i in range(3)] == ["b", "a", "c"]
    assert roster.index("a") == 1
    assert roster.to_wire() == [[m.name, m.public_key] for m in (a, b, c)]
    with pytest.raises(UsageError, match="'d' is not in the roster"):
        roster.index("d")


@pytest.mark.parametrize(
    "second",
    [
        Member("a", public("2")),
        Member("b", public("1")),
        Member("a", public("1")),
    ],
)
def test_members_do_not_share_a_name_or_a_key(second: Member) -> None:
    with pytest.raises(UsageError, match="share a name or a key"):
        Roster((Member("a", public("1")), second))
