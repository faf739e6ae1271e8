# SPDX-License-Identifier: Apache-2.0
"""Shares: any threshold gives the secret back, and fewer say nothing about it.

Exactly, in a field of eleven elements where every polynomial is tried; exactly, in our
field, as a bijection between secrets and polynomials through the same shares; and as
a statistic over what our wrappers deal.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.masking import crypto, messages, shamir

from ..consortium import Consortium, dropping, make_session
from ..vectors import reference


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
            secret,
            crypto.elements(seed, "coefficients", t - 1, ctx=bytes(32)),
            [1, 2],
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


def coefficients_through(points: dict[int, int], prime: int) -> list[int]:
    """The one polynomial of least degree through ``points``, by elimination."""
    size = len(points)
    rows = [[pow(x, k, prime) for k in range(size)] + [y] for x, y in points.items()]
    for at in range(size):
        pivot = next(r for r in range(at, size) if rows[r][at])
        rows[at], rows[pivot] = rows[pivot], rows[at]
        inverse = pow(rows[at][at], -1, prime)
        rows[at] = [v * inverse % prime for v in rows[at]]
        for r in range(size):
            if r != at:
                factor = rows[r][at]
                rows[r] = [
                    (v - factor * w) % prime
                    for v, w in zip(rows[r], rows[at], strict=True)
                ]
    return [row[-1] for row in rows]


@settings(max_examples=60)
@given(st.data())
def test_through_fewer_shares_goes_one_polynomial_for_every_secret(
    data: st.DataObject,
) -> None:
    """So that uniform coefficients leave every secret equally likely: exactly."""
    t = data.draw(st.integers(2, 7))
    field = st.integers(0, shamir.PRIME - 1)
    coefficients = data.draw(st.lists(field, min_size=t - 1, max_size=t - 1))
    xs = data.draw(st.permutations(range(1, 10)))[: t - 1]
    shares = shamir.share(data.draw(field), coefficients, xs)
    other = data.draw(field)
    points = {0: other, **dict(zip(xs, shares, strict=True))}
    secret, *rest = coefficients_through(points, shamir.PRIME)
    assert secret == other
    assert shamir.share(other, rest, xs) == shares


SMALL = 11


@pytest.mark.parametrize("t", [1, 2, 3])
def test_in_a_small_field_fewer_shares_are_exactly_uniform(
    t: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every secret, every polynomial, every t - 1 of four holders: nothing sampled."""
    monkeypatch.setattr(shamir, "PRIME", SMALL)
    xs = (1, 2, 3, 4)
    for secret in range(SMALL):
        seen: dict[tuple[int, ...], Counter[tuple[int, ...]]] = {
            holders: Counter() for holders in itertools.combinations(range(4), t - 1)
        }
        for coefficients in itertools.product(range(SMALL), repeat=t - 1):
            shares = shamir.share(secret, coefficients, xs)
            for holders, count in seen.items():
                count[tuple(shares[i] for i in holders)] += 1
            assert all(0 <= share < SMALL for share in shares)
            for holders in itertools.combinations(range(4), t):
                points = {xs[i]: shares[i] for i in holders}
                assert coefficients_through(points, SMALL)[0] == secret
        for count in seen.values():
            assert len(count) == SMALL ** (t - 1)
            assert set(count.values()) == {1}


def test_any_threshold_of_revealed_shares_opens_and_no_fewer() -> None:
    """In a real round: every subset of the shares that clients revealed."""
    session = make_session(5)
    c = Consortium(session, sending=dropping({3: 3}))
    c.opened()
    reveals = [messages.Reveal.decode(raw, session) for (raw,) in c.said[5].values()]
    assert len(reveals) == session.parameters.threshold == 4
    for dealer in range(5):
        beta, z = c.secrets(dealer)
        secret = z if dealer == 3 else beta
        points = {
            r.client + 1: shamir.from_bytes(s.share)
            for r in reveals
            for s in r.shares
            if s.of == dealer
        }
        assert shamir.reconstruct(points) == secret
        for size in range(1, 4):
            for chosen in itertools.combinations(points.items(), size):
                assert shamir.reconstruct(dict(chosen)) != secret


def test_what_a_dealer_deals_is_the_polynomial_of_the_document() -> None:
    """SPEC 4.3: which coefficients, and which x, by the second implementation."""
    session = make_session(4)
    c = Consortium(session)
    c.opened()
    degree = session.parameters.threshold - 1
    for dealer in range(4):
        beta, _ = reference.elements(session.ctx, c.starts[dealer], "secrets", 2)
        made = reference.elements(
            session.ctx, c.deals[dealer], "coefficients", 2 * degree
        )
        for holder in range(4):
            reveal = messages.Reveal.decode(c.said[5][holder][0], session)
            share = next(s.share for s in reveal.shares if s.of == dealer)
            value = reference.polynomial(beta, made[:degree], holder + 1)
            assert share == reference.le32(value)
