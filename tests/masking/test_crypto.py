# SPDX-License-Identifier: Apache-2.0
"""Primitives against published vectors, and our own streams against plain Python."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import random

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl import wire
from secure_fl.fixedpoint import word_dtype
from secure_fl.masking import SPEC, crypto, shamir

# -- published vectors ---------------------------------------------------------


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


# The eight encodings of low order below 2^255 that RFC 7748's check must catch.
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("point", LOW_ORDER)
@pytest.mark.parametrize("top_bit", [0, 0x80])
def test_points_of_low_order_are_refused_everywhere(point: str, top_bit: int) -> None:
    public = bytes.fromhex(point)
    public = public[:31] + bytes([public[31] | top_bit])
    key = crypto.private_key(b"k" * 32)
    assert not crypto.is_usable(public)
    with pytest.raises(ValueError, match="shared key"):
        crypto.seal(bytes(64), public, info=[])
    with pytest.raises(ValueError, match="shared key"):
        crypto.pair_seed(key, public, ctx=bytes(32), cohort_hash=bytes(32), pair=(0, 1))
    # As the encapsulated key of a box.
    with pytest.raises(ValueError, match="does not open"):
        crypto.open_box(public + bytes(80), key, info=[])


def test_honest_keys_are_usable() -> None:
    for i in range(50):
        assert crypto.is_usable(crypto.public_key(crypto.private_key(bytes([i]) * 32)))


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


def test_our_signatures_are_ed25519_over_one_cbor_array() -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    signature = wire.sign(key, "label", 7, b"ab")
    assert signature == key.sign(bytes.fromhex("83656c6162656c07426162"))
    public = key.public_key().public_bytes_raw()
    assert wire.verify(public, signature, "label", 7, b"ab")
    assert not wire.verify(public, signature, "label", 7, b"ac")
    # s + L in place of s: the malleable twin of RFC 8032, section 5.1.7.
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(signature[32:], "little") + order
    assert not wire.verify(
        public, signature[:32] + s.to_bytes(32, "little"), "label", 7, b"ab"
    )


def hkdf(secret: bytes, salt: bytes, info: bytes, size: int) -> tuple[bytes, bytes]:
    """RFC 5869 in plain Python: (PRK, OKM)."""
    prk = hmac.digest(salt or bytes(32), secret, "sha256")
    return prk, expand(prk, info, size)


def expand(prk: bytes, info: bytes, size: int) -> bytes:
    out = block = b""
    for i in itertools.count(1):
        if len(out) >= size:
            return out[:size]
        block = hmac.digest(prk, block + info + bytes([i]), "sha256")
        out += block
    raise AssertionError


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


def hpke_open(box: bytes, key: X25519PrivateKey, info: bytes, aad: bytes) -> bytes:
    """RFC 9180 base mode, first message, in plain Python over X25519 and HKDF."""

    def extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(
            salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256"
        )

    def labelled(
        suite: bytes, prk: bytes, label: bytes, info: bytes, size: int
    ) -> bytes:
        prefix = size.to_bytes(2, "big") + b"HPKE-v1" + suite
        return expand(prk, prefix + label + info, size)

    enc, sealed = box[:32], box[32:]
    kem, suite = b"KEM\0\x20", b"HPKE\0\x20\0\1\0\3"
    shared = key.exchange(X25519PublicKey.from_public_bytes(enc))
    context = enc + key.public_key().public_bytes_raw()
    prk = extract(kem, b"", b"eae_prk", shared)
    secret = labelled(kem, prk, b"shared_secret", context, 32)
    schedule = b"\0" + extract(suite, b"", b"psk_id_hash", b"")
    schedule += extract(suite, b"", b"info_hash", info)
    prk = extract(suite, secret, b"secret", b"")
    aead = ChaCha20Poly1305(labelled(suite, prk, b"key", schedule, 32))
    nonce = labelled(suite, prk, b"base_nonce", schedule, 12)
    return aead.decrypt(nonce, sealed, aad)


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


def test_our_boxes_are_hpke() -> None:
    key = crypto.private_key(b"a" * 32)
    box = crypto.seal(b"x" * 64, crypto.public_key(key), info=[b"ctx", 1, 2])
    info = wire.encode([f"{SPEC} box", b"ctx", 1, 2])
    assert hpke_open(box, key, info, b"") == b"x" * 64


def test_boxes_open_for_one_key_and_one_info() -> None:
    key, other = crypto.private_key(b"a" * 32), crypto.private_key(b"b" * 32)
    box = crypto.seal(b"x" * 64, crypto.public_key(key), info=[b"ctx", 1, 2])
    assert len(box) == 64 + crypto.BOX_OVERHEAD
    assert crypto.open_box(box, key, info=[b"ctx", 1, 2]) == b"x" * 64
    wrong: list[tuple[X25519PrivateKey, list[wire.Value]]] = [
        (other, [b"ctx", 1, 2]),
        (key, [b"ctx", 2, 1]),
        (key, []),
    ]
    for wrong_key, info in wrong:
        with pytest.raises(ValueError, match="does not open"):
            crypto.open_box(box, wrong_key, info=info)
    for at in range(0, len(box), 7):
        bad = box[:at] + bytes([box[at] ^ 1]) + box[at + 1 :]
        with pytest.raises(ValueError, match="does not open"):
            crypto.open_box(bad, key, info=[b"ctx", 1, 2])
    for size in (0, 31, 32, 47):
        with pytest.raises(ValueError, match="does not open"):
            crypto.open_box(box[:size], key, info=[b"ctx", 1, 2])


# -- the mask stream -----------------------------------------------------------


def ctr(key: bytes, size: int, *, start: int = 0) -> bytes:
    """AES-256-CTR keystream, block by block."""
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    blocks = -(-size // 16)
    return b"".join(ecb.update((start + i).to_bytes(16, "big")) for i in range(blocks))[
        :size
    ]


def reference_stream(seed: bytes, chunk: int, count: int, word_bits: int) -> list[int]:
    """The words of one chunk's mask, in plain Python."""
    key = expand(seed, wire.encode([f"{SPEC} stream", chunk]), 32)
    size = next(s for s in (1, 2, 4, 8) if word_bits <= 8 * s)
    stream = ctr(key, size * count)
    return [
        int.from_bytes(stream[i * size : (i + 1) * size], "little") % 2**word_bits
        for i in range(count)
    ]


@settings(max_examples=80)
@given(
    word_bits=st.integers(8, 64),
    count=st.integers(1, 40),
    spare=st.integers(0, 9),
    chunk=st.integers(0, 2**40),
    plus=st.lists(st.binary(min_size=32, max_size=32), max_size=3),
    minus=st.lists(st.binary(min_size=32, max_size=32), max_size=3),
    seed=st.integers(0, 2**32),
)
def test_the_mask_stream_is_the_reference(
    word_bits: int,
    count: int,
    spare: int,
    chunk: int,
    plus: list[bytes],
    minus: list[bytes],
    seed: int,
) -> None:
    modulus = 2**word_bits
    draw = random.Random(seed)
    start = [draw.randrange(modulus) for _ in range(count)]
    words = np.array(start, word_dtype(word_bits))
    stream = crypto.MaskStream(word_bits=word_bits, chunk_words=count + spare)
    stream.apply(words, chunk, plus=plus, minus=minus)
    expected = start
    for seeds, sign in ((plus, 1), (minus, -1)):
        for s in seeds:
            mask = reference_stream(s, chunk, count, word_bits)
            expected = [
                (w + sign * m) % modulus for w, m in zip(expected, mask, strict=True)
            ]
    assert words.tolist() == expected
    # Taking out what was put in leaves the words as they were.
    stream.apply(words, chunk, plus=minus, minus=plus)
    assert words.tolist() == start


def test_streams_of_chunks_and_seeds_do_not_repeat() -> None:
    seen = {
        tuple(reference_stream(bytes([s]) * 32, chunk, 8, 32))
        for s in range(8)
        for chunk in range(8)
    }
    assert len(seen) == 64


def test_a_pair_derives_one_seed_bound_to_its_context() -> None:
    a, b = crypto.private_key(b"a" * 32), crypto.private_key(b"b" * 32)
    pa, pb = crypto.public_key(a), crypto.public_key(b)
    base = {"ctx": bytes(32), "cohort_hash": bytes(32)}
    one = crypto.pair_seed(a, pb, **base, pair=(1, 4))
    assert one == crypto.pair_seed(b, pa, **base, pair=(4, 1))
    others = {
        crypto.pair_seed(a, pb, **base, pair=(1, 3)),
        crypto.pair_seed(a, pb, ctx=b"x" * 32, cohort_hash=bytes(32), pair=(1, 4)),
        crypto.pair_seed(a, pb, ctx=bytes(32), cohort_hash=b"x" * 32, pair=(1, 4)),
    }
    assert len(others | {one}) == 4


# -- Shamir --------------------------------------------------------------------


def test_the_field_is_of_prime_order() -> None:
    """Fermat to many bases (2^255 - 19 is proven prime in the literature)."""
    assert shamir.PRIME == 2**255 - 19
    for base in range(2, 30):
        assert pow(base, shamir.PRIME - 1, shamir.PRIME) == 1


@settings(max_examples=60)
@given(st.data())
def test_any_threshold_of_shares_reconstructs(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 9))
    t = data.draw(st.integers(1, n))
    field = st.integers(0, shamir.PRIME - 1)
    secret = data.draw(field)
    coefficients = data.draw(st.lists(field, min_size=t - 1, max_size=t - 1))
    xs = data.draw(st.lists(st.integers(1, 500), min_size=n, max_size=n, unique=True))
    shares = dict(zip(xs, shamir.share(secret, coefficients, xs), strict=True))
    chosen = data.draw(st.permutations(sorted(shares)))
    for size in range(t, n + 1):
        assert shamir.reconstruct({x: shares[x] for x in chosen[:size]}) == secret


def test_fewer_shares_than_the_threshold_look_uniform() -> None:
    """The same secret shared often: t - 1 shares, and what they wrongly give, chi2."""
    draws = 4000
    secret, t = 12345, 3
    bins = 16
    counts = np.zeros((3, bins))
    for i in range(draws):
        seed = hashlib.sha256(b"uniform %d" % i).digest()
        shares = shamir.share(
            secret, crypto.elements(seed, "coefficients", t - 1), [1, 2]
        )
        wrong = shamir.reconstruct({1: shares[0], 2: shares[1]})
        for row, value in enumerate((*shares, wrong)):
            counts[row, value * bins // shamir.PRIME] += 1
    expected = draws / bins
    chi2 = ((counts - expected) ** 2 / expected).sum(axis=1)
    # 15 degrees of freedom: 45 is beyond the 99.99 % quantile; the draws are fixed.
    assert (chi2 < 45).all()


def test_t_minus_one_shares_fit_every_secret() -> None:
    """Perfect secrecy, constructively: for any secret there is a polynomial."""
    shares = shamir.share(7, [11, 13], [1, 2])
    for secret in (0, 1, 7, shamir.PRIME - 1):
        points = {1: shares[0], 2: shares[1]}
        # p(3) of the parabola through (0, secret), (1, s1), (2, s2).
        p3 = (secret - 3 * points[1] + 3 * points[2]) % shamir.PRIME
        assert shamir.reconstruct({**points, 3: p3}) == secret


def test_a_field_element_has_one_form() -> None:
    for value in (0, 1, shamir.PRIME - 1):
        data = shamir.to_bytes(value)
        assert len(data) == 32
        assert shamir.from_bytes(data) == value
    for bad in (
        shamir.PRIME.to_bytes(32, "little"),
        b"\xff" * 32,
        bytes(31),
        bytes(33),
        b"",
    ):
        with pytest.raises(ValueError, match="not a field element"):
            shamir.from_bytes(bad)


def test_elements_come_from_one_stream_per_label() -> None:
    key = expand(b"s" * 32, wire.encode([f"{SPEC} secrets"]), 32)
    stream = ctr(key, 96)
    assert crypto.elements(b"s" * 32, "secrets", 2) == [
        int.from_bytes(stream[:48], "little") % shamir.PRIME,
        int.from_bytes(stream[48:], "little") % shamir.PRIME,
    ]
    assert crypto.elements(b"s" * 32, "coefficients", 2) != (
        crypto.elements(b"s" * 32, "secrets", 2)
    )
