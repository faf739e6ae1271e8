# SPDX-License-Identifier: Apache-2.0
"""Rules by which releases become events, and events an epsilon.

Each says when it applies.  The two that carry a run are :func:`disjoint` and
:func:`sequential`; the others answer what a reader of a report asks next.  Epsilons
are for one record, added or removed, unless said otherwise; several records of one
person are :func:`.groups.group_epsilon`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import UsageError
from . import accounting
from .accounting import Bound, check_delta
from .events import (
    Event,
    Gaussian,
    Mechanism,
    PoissonGaussian,
    Repeated,
    at_least,
    positive,
    probability,
    whole,
)
from .mixtures import Mixture, composed_epsilon

__all__ = [
    "capped_batch",
    "central_noise",
    "disjoint",
    "every_release",
    "noise_share",
    "random_search",
    "replace_one",
    "same_sample",
    "sequential",
    "shuffled_batches",
    "sum_view_noise",
]


# -- who is in which releases ----------------------------------------------------------


def disjoint(clients: Mapping[str, Sequence[Event]], *, delta: float) -> Bound:
    """No person has records at two clients: the worst client's epsilon.

    Holds at one ``delta`` for all clients, and where which client holds a record is
    public and does not depend on other records (parallel composition).
    """
    spent = [accounting.epsilon(events, delta=delta) for events in clients.values()]
    nothing = accounting.epsilon([], delta=delta)
    worst = max(spent, key=lambda each: each.value, default=nothing)
    return Bound(worst.value, worst.delta, worst.accountant)


def sequential(parts: Sequence[Sequence[Event]], *, delta: float) -> Bound:
    """One record was in all ``parts``: everything composed as a whole.

    The parts may be the clients that one person is a customer of, the rounds of a run,
    runs of different sampling rates, or an attempt and its retries: whatever drew
    fresh noise counts, except what is proven never to have left.  Epsilons of parts
    must never be added or averaged instead: an accountant that starts afresh every
    round and reports the last is wrong, and a sum of epsilons far too large.

    Holds where noise, rates and the number of releases were fixed beforehand, or where
    the planned maximum is given.
    """
    events = [event for part in parts for event in part]
    found = accounting.epsilon(events, delta=delta)
    return Bound(found.value, found.delta, found.accountant)


# -- what one release is ---------------------------------------------------------------


def same_sample(rate: float, noise_multipliers: Sequence[float]) -> PoissonGaussian:
    """Several noisy values of one and the same sample, as a single release.

    For a gradient and a count, say, each with noise relative to its own sensitivity.
    Two events with the same rate instead would claim that a second sample was drawn,
    and an epsilon that is too small.
    """
    if not noise_multipliers:
        raise UsageError("nothing was released", hint="give one noise multiplier each")
    together = math.hypot(  # sensitivity over noise
        *(1 / positive("noise multiplier", noise) for noise in noise_multipliers)
    )
    return PoissonGaussian(rate, 1 / together)


def every_release(noise_multiplier: float, releases: int) -> Repeated:
    """Releases that are accounted as if every record were in each of them.

    For a whole client as the unit, where its update as a whole is clipped to the
    sensitivity: one release a round.  For batches of a shuffled data set only where
    neighbours differ in one record that is made null, and the places of all others
    are public: one release an epoch, and no gain from sampling, whatever the batch
    size.  Where a record is added or removed it is :func:`shuffled_batches`.
    """
    return Repeated(Gaussian(noise_multiplier), releases)


def shuffled_batches(noise_multiplier: float, epochs: int) -> Repeated:
    """Shuffled batches of a fixed size, a record being added or removed.

    A new record moves another one: it replaces that record in one batch, of twice the
    sensitivity, and the moved record is new in another one.  Together they cost one
    Gaussian release of sqrt(5) times the sensitivity an epoch.  The number of batches
    has to be fixed beforehand, as has what sums are divided by.
    """
    noise = positive("noise multiplier", noise_multiplier)
    return Repeated(Gaussian(noise / math.sqrt(5)), epochs)


def noise_share(noise_multiplier: float, *, honest: int) -> float:
    """Each client's part of a noise of ``noise_multiplier`` in the sum.

    ``honest`` is the number of clients that are sure to take part and to keep their
    noise to themselves: the least number that a sum is opened for, less the colluding.
    Below that number a round must be abandoned, and is charged all the same.
    """
    share = positive("noise multiplier", noise_multiplier)
    return share / math.sqrt(whole("number of honest clients", honest, 1))


def sum_view_noise(share: float, *, clients: int, colluding: int) -> float:
    """Noise multiplier of a sum for whoever sees nothing but sums.

    ``clients`` took part, each with its own noise of ``share`` times the sensitivity,
    and ``colluding`` of them reveal theirs.  Holds only where one clipped and noisy
    step is released a sum (after several local steps the noise has passed through the
    training), every sum is over one set of clients and opened once, the noise is on
    the grid on which it is summed (:mod:`.discrete`), and the encryption or masking
    holds: the claim is a computational one.  Noise of local mode is not on the grid:
    what a report claims of the sum rests on discrete events, never on this figure.
    """
    whole("number of colluding clients", colluding, 0)
    whole("number of clients", clients, 1)
    if colluding >= clients:
        raise UsageError(
            f"{colluding} of {clients} clients collude",
            hint="at least one has to keep its noise to itself",
        )
    return positive("noise share", share) * math.sqrt(clients - colluding)


# -- other questions -------------------------------------------------------------------


def central_noise(
    rates: Sequence[float], noise_multiplier: float, *, steps: int, delta: float
) -> Bound:
    """One person has a record at each of several clients; one noise is on each sum.

    Client i samples its records at ``rates[i]``, independently of the others, every
    step.  The person's part of a step is the sum of up to ``len(rates)`` records.
    Infinite for more than ``MOST_SAMPLED`` steps.
    """
    delta = check_delta(delta)
    noise = positive("noise multiplier", noise_multiplier)
    whole("number of steps", steps, 1)
    if not rates:
        raise UsageError("no client has a record", hint="give one rate a client")
    weights = np.ones(1)
    for rate in rates:
        inside = probability("sampling rate", rate)
        weights = np.convolve(weights, [1 - inside, inside])
    if noise < len(rates) * accounting.MIN_NOISE:
        return Bound(math.inf, delta, "PLD")
    mixture = Mixture(weights, noise)
    found = composed_epsilon([(mixture, steps)], precision=0.0, delta=delta)
    return Bound(found, delta, "PLD")


def capped_batch(
    rate: float,
    noise_multiplier: float,
    *,
    records: int,
    most: int,
    steps: int,
    delta: float,
) -> Bound:
    """Poisson samples that are cut to ``most`` records at random where they are larger.

    Costs a little more than without a cap, as a record can push another one out.
    ``records`` is the size of the larger data set, and taken as public.  A larger
    number is a bound only up to ``most / rate`` records: beyond, where most samples are
    cut, epsilon falls again.  Infinite for more than ``MOST_SAMPLED`` steps, and where
    it would be so without a cap.
    """
    delta = check_delta(delta)
    whole("number of records", records, 1)
    whole("number of steps", steps, 1)
    whole("largest batch", most, 1)
    rate = probability("sampling rate", rate)
    noise = positive("noise multiplier", noise_multiplier)
    uncapped = accounting.canonical(PoissonGaussian(rate, noise))
    if (
        noise < 2 * accounting.MIN_NOISE
        or steps > accounting.MOST_SAMPLED
        or not accounting.bounded(((uncapped, steps),))
    ):
        return Bound(math.inf, delta, "PLD")
    dp = accounting.library()
    event = dp.TruncatedSubsampledGaussianDpEvent(records, rate, most, noise)
    return _by_pld(
        dp.NeighboringRelation.ADD_OR_REMOVE_ONE,
        [(event, steps)],
        accounting.rounding(steps),
        delta,
    )


def replace_one(events: Sequence[Event], *, delta: float) -> Bound:
    """Epsilon where neighbours differ in one record's content, their number being
    public: larger, for Gaussian releases by somewhat more than a factor of two.

    By PLD alone: dp-accounting's Renyi accountant ignores the doubled sensitivity.
    Infinite above ``MAX_EPSILON``.  Raises UsageError for discrete events.
    """
    delta = check_delta(delta)
    counts = _gaussian_counts(events)
    least = min((m.noise_multiplier for m, _ in counts or ()), default=math.inf)
    if counts is None or least < 2 * accounting.MIN_NOISE:
        return Bound(math.inf, delta, "PLD")
    if counts and not accounting.bounded(counts):
        return Bound(math.inf, delta, "PLD")
    dp = accounting.library()
    parts = [
        (accounting.library_event(m), n)
        for m, n in counts
        if isinstance(m, PoissonGaussian)
    ]
    if precision := accounting.precision(counts):
        parts.append((accounting.library_event(Gaussian(precision**-0.5)), 1))
    allowance = accounting.rounding(accounting.sampled(counts))
    return _by_pld(dp.NeighboringRelation.REPLACE_ONE, parts, allowance, delta)


def random_search(
    events: Sequence[Event], *, runs: float, shape: float, delta: float
) -> Bound:
    """A random number of runs, of which only the best one is published.

    ``events`` is one run with its evaluation, ``runs`` the mean number of runs and
    ``shape`` its distribution: 0 logarithmic, 1 geometric, infinity Poisson, anything
    between negative binomial, all drawn in secret (Papernot and Steinke 2022).  A fixed
    number of runs, or of which more is seen, is :func:`sequential`.  Renyi DP only, and
    loose for a large finite ``shape``: more than for infinity, its limit.  Infinite
    where one run is, and above ``MAX_EPSILON``.  Raises UsageError for discrete events,
    which dp-accounting does not know.
    """
    delta = check_delta(delta)
    at_least("mean number of runs", runs, 1)
    if not shape >= 0:
        raise UsageError(f"shape is {shape!r}", hint="it is at least 0")
    counts = _gaussian_counts(events)
    if not counts:
        return Bound(0.0 if counts == () else math.inf, delta, "RDP")
    if not accounting.bounded(counts):  # also compares one run's curve with ours
        return Bound(math.inf, delta, "RDP")
    dp = accounting.library()
    one_run = dp.ComposedDpEvent(
        [dp.SelfComposedDpEvent(accounting.library_event(m), n) for m, n in counts]
    )
    search = dp.dp_event.RepeatAndSelectDpEvent(one_run, runs, shape)
    accountant = dp.rdp.RdpAccountant(
        neighboring_relation=dp.NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    found = float(accountant.compose(search).get_epsilon(delta))
    return Bound(_capped(found), delta, "RDP")


def _gaussian_counts(
    events: Sequence[Event],
) -> tuple[tuple[Mechanism, int], ...] | None:
    if accounting.accountant_of(events) == "RDP":
        raise UsageError(
            "this is not known of noise on the integer grid",
            hint="ask it about Gaussian releases",
        )
    counts = accounting.counted(events)
    return None if counts is None else accounting.gaussian_part(counts)


def _capped(epsilon: float) -> float:
    return epsilon if epsilon <= accounting.MAX_EPSILON else math.inf


def _by_pld(
    relation: Any, parts: Sequence[tuple[Any, int]], allowance: float, delta: float
) -> Bound:
    if delta <= 2 * allowance:
        return Bound(math.inf, delta, "PLD")
    accountant = accounting.library().pld.PLDAccountant(
        relation, value_discretization_interval=accounting.INTERVAL
    )
    for event, count in parts:
        accountant.compose(event, count)
    found = float(accountant.get_epsilon(delta - allowance))
    return Bound(_capped(found), delta, "PLD")
