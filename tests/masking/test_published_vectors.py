# SPDX-License-Identifier: Apache-2.0
"""Published vectors: RFC 7748, 8032, 5869, 9180 and NIST SP 800-38A.

X25519 is fed them through our own functions.  The others, which take labelled CBOR
alone, in two steps: the vector through ``plain_crypto.py``, and that against ours.
"""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from secure_fl import wire
from secure_fl.masking import SPEC, crypto, shamir

from .plain_crypto import ORDER, ctr, ed25519_sign, hkdf, hpke_open, hpke_seal

# -- RFC 7748: X25519 --------------------------------------------------------------


@pytest.mark.parametrize(
    ("scalar", "u", "out"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_x25519_of_rfc_7748(scalar: str, u: str, out: str) -> None:
    key = crypto.private_key(bytes.fromhex(scalar))
    peer = X25519PublicKey.from_public_bytes(bytes.fromhex(u))
    assert key.exchange(peer).hex() == out


def test_x25519_iterated_of_rfc_7748() -> None:
    k = u = b"\x09" + bytes(31)
    for count in range(1000):
        k, u = (
            crypto.private_key(k).exchange(X25519PublicKey.from_public_bytes(u)),
            k,
        )
        if count == 0:
            assert k.hex() == (
                "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
            )
    assert k.hex() == (
        "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"
    )


ALICE = crypto.private_key(
    bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
)
BOB = crypto.private_key(
    bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
)


def test_two_clients_of_rfc_7748_share_the_seed_of_its_secret() -> None:
    """Section 6.1, through the public keys and the pair seed."""
    a, b = crypto.public_key(ALICE), crypto.public_key(BOB)
    assert a.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert b.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = bytes.fromhex(
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    )
    ctx, cohort = b"c" * 32, b"k" * 32
    info = wire.encode([f"{SPEC} pair mask", cohort, 2, 5])
    _, seed = hkdf(shared, ctx, info, 32)
    for mine, theirs, pair in ((ALICE, b, (2, 5)), (BOB, a, (5, 2))):
        assert (
            crypto.pair_seed(mine, theirs, ctx=ctx, cohort_hash=cohort, pair=pair)
            == seed
        )


# -- RFC 8032: Ed25519 ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "public", "message", "signature"),
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
    ],
)
def test_ed25519_of_rfc_8032(
    secret: str, public: str, message: str, signature: str
) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert key.public_key().public_bytes_raw().hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    # And so does the plain one, with which ours is compared below.
    plain = ed25519_sign(bytes.fromhex(secret), bytes.fromhex(message))
    assert [part.hex() for part in plain] == [public, signature]


def test_our_signatures_are_ed25519_over_one_cbor_array() -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    signature = wire.sign(key, "label", 7, b"ab")
    assert signature == key.sign(bytes.fromhex("83656c6162656c07426162"))
    public, plain = ed25519_sign(b"k" * 32, bytes.fromhex("83656c6162656c07426162"))
    assert signature == plain
    assert wire.verify(public, signature, "label", 7, b"ab")
    assert not wire.verify(public, signature, "label", 7, b"ac")
    # s + L in place of s: the malleable twin of RFC 8032, section 5.1.7.
    s = int.from_bytes(signature[32:], "little") + ORDER
    assert not wire.verify(
        public, signature[:32] + s.to_bytes(32, "little"), "label", 7, b"ab"
    )


# -- RFC 5869: HKDF-SHA256 -----------------------------------------------------------


def test_the_reference_is_hkdf_of_rfc_5869() -> None:
    prk, okm = hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert prk.hex() == (
        "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    )
    assert okm.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
        "34007208d5b887185865"
    )
    _, plain = hkdf(b"\x0b" * 22, b"", b"", 42)
    assert plain.hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
        "9d201395faa4b61a96c8"
    )


def test_derive_is_hkdf_with_the_context_as_salt() -> None:
    out = crypto.derive(b"secret", salt=b"s" * 32, label="pair mask", parts=[b"c", 1])
    info = wire.encode([f"{SPEC} pair mask", b"c", 1])
    assert out == hkdf(b"secret", b"s" * 32, info, 32)[1]
    others = [
        crypto.derive(b"secret", salt=b"t" * 32, label="pair mask", parts=[b"c", 1]),
        crypto.derive(b"secret", salt=b"s" * 32, label="self mask", parts=[b"c", 1]),
        crypto.derive(b"secret", salt=b"s" * 32, label="pair mask", parts=[b"c", 2]),
    ]
    assert len({out, *others}) == 4


# -- NIST SP 800-38A: AES-256-CTR ------------------------------------------------------


def test_aes_256_ctr_of_sp_800_38a() -> None:
    key = bytes.fromhex(
        "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
    )
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    cipher = bytes.fromhex(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    encryptor = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
    assert encryptor.update(plain) == cipher
    # The reference below counts blocks by itself, on ECB alone.
    stream = ctr(key, len(plain), start=int.from_bytes(counter, "big"))
    assert bytes(a ^ b for a, b in zip(plain, stream, strict=True)) == cipher


def test_our_streams_are_aes_256_ctr() -> None:
    """Elements, and every width of word of a mask stream, from the same reference."""
    seed, ctx = b"s" * 32, b"c" * 32
    _, key = hkdf(seed, ctx, wire.encode([f"{SPEC} secrets"]), 32)
    stream = ctr(key, 48 * 3)
    assert crypto.elements(seed, "secrets", 3, ctx=ctx) == [
        int.from_bytes(stream[i : i + 48], "little") % shamir.PRIME for i in (0, 48, 96)
    ]


# -- RFC 9180: HPKE --------------------------------------------------------------------


def test_the_reference_is_hpke_of_rfc_9180() -> None:
    """Appendix A.2.1: X25519, HKDF-SHA256, ChaCha20Poly1305, base mode."""
    key = X25519PrivateKey.from_private_bytes(
        bytes.fromhex(
            "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb"
        )
    )
    box = bytes.fromhex(
        "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"
        "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db"
        "21993c62ce81883d2dd1b51a28"
    )
    info = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
    plain = hpke_open(box, key, info, b"Count-0")
    assert plain == b"Beauty is truth, truth beauty"
    # The other way: the same box under the ephemeral key of the appendix.
    ephemeral = X25519PrivateKey.from_private_bytes(
        bytes.fromhex(
            "f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600"
        )
    )
    to = crypto.public_key(key)
    assert hpke_seal(plain, to, info, b"Count-0", ephemeral) == box


def test_our_boxes_are_hpke() -> None:
    key = crypto.private_key(b"a" * 32)
    box = crypto.seal(b"x" * 64, crypto.public_key(key), info=[b"ctx", 1, 2])
    info = wire.encode([f"{SPEC} box", b"ctx", 1, 2])
    assert hpke_open(box, key, info, b"") == b"x" * 64
    # And a box of the reference opens.
    to = crypto.public_key(key)
    box = hpke_seal(b"y" * 64, to, info, b"", crypto.private_key(b"e" * 32))
    assert crypto.open_box(box, key, info=[b"ctx", 1, 2]) == b"y" * 64
