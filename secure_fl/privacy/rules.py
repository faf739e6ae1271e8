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
    PoissonGaussian,
    Repeated,
    at_least,
    positive,
    probability,
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
    "sum_view_noise",
]


def _whole(name: str, value: int, least: int) -> int:
    if type(value) is not int or value < least:
        raise UsageError(
            f"{name} is {value!r}", hint=f"it is a whole number, at least {least}"
        )
    return value


# -- who is in which releases ----------------------------------------------------------


def disjoint(clients: Mapping[str, Sequence[Event]], *, delta: float) -> Bound:
    """No person has records at two clients: the worst client's epsilon.

    Holds at one ``delta`` for all clients, and where which client holds a record is
    public and does not depend on other records (parallel composition).
    """
    epsilons = [accounting.epsilon(e, delta=delta).value for e in clients.values()]
    return Bound(max(epsilons, default=0.0), check_delta(delta), "PLD")


def sequential(parts: Sequence[Sequence[Event]], *, delta: float) -> Bound:
    """One record was in all ``parts``: everything composed as a whole.

    The parts may be the clients that one person is a customer of, the rounds of a run,
    runs of different sampling rates, or an attempt and its retries: whatever drew
    fresh noise counts, except what is proven never to have left.  Epsilons of parts
    must never be added or averaged instead: an accountant that starts afresh every
    round and reports the last is wrong, and a sum of epsilons far too large.
    """
    events = [event for part in parts for event in part]
    return Bound(accounting.epsilon(events, delta=delta).value, float(delta), "PLD")


# -- what one release is ---------------------------------------------------------------


def same_sample(rate: float, noise_multipliers: Sequence[float]) -> PoissonGaussian:
    """Several noisy values of one and the same sample, as a single release.

    For a gradient and a count, say, each with noise relative to its own sensitivity.
    Two events with the same rate instead would claim that a second sample was drawn,
    and an epsilon that is too small.
    """
    if not noise_multipliers:
        raise UsageError("nothing was released", hint="give one noise multiplier each")
    precision = math.fsum(
        positive("noise multiplier", noise) ** -2 for noise in noise_multipliers
    )
    return PoissonGaussian(rate, precision**-0.5)


def every_release(noise_multiplier: float, releases: int) -> Repeated:
    """Releases that are accounted as if every record were in each of them.

    For shuffled batches: one release a record and epoch, ``releases`` epochs, and no
    gain from sampling, whatever the batch size.  For a whole client as the unit, where
    its update as a whole is clipped to the sensitivity: one release a round.
    """
    return Repeated(Gaussian(noise_multiplier), releases)


def noise_share(noise_multiplier: float, *, honest: int) -> float:
    """Each client's part of a noise of ``noise_multiplier`` in the sum.

    ``honest`` is the number of clients that are sure to take part and to keep their
    noise to themselves: the least number that a sum is opened for, less the colluding.
    Below that number a round must be abandoned, and is charged all the same.
    """
    share = positive("noise multiplier", noise_multiplier)
    return share / math.sqrt(_whole("number of honest clients", honest, 1))


def sum_view_noise(share: float, *, clients: int, colluding: int) -> float:
    """Noise multiplier of a sum for whoever sees nothing but sums.

    ``clients`` took part, each with its own noise of ``share`` times the sensitivity,
    and ``colluding`` of them reveal theirs.  Holds only where one clipped and noisy
    step is released a sum (after several local steps the noise has passed through the
    training), every sum is over one set of clients and opened once, the noise is on
    the grid on which it is summed (:mod:`.discrete`), and the encryption or masking
    holds: the claim is a computational one.  A report of this package never claims it.
    """
    _whole("number of colluding clients", colluding, 0)
    _whole("number of clients", clients, 1)
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
    """
    delta = check_delta(delta)
    noise = positive("noise multiplier", noise_multiplier)
    _whole("number of steps", steps, 1)
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

    Costs a little more than without a cap, as a record can push another one out.  The
    number of ``records`` is taken as public.
    """
    delta = check_delta(delta)
    _whole("number of records", records, 1)
    _whole("number of steps", steps, 1)
    _whole("largest batch", most, 1)
    rate = probability("sampling rate", rate)
    if positive("noise multiplier", noise_multiplier) < 2 * accounting.MIN_NOISE:
        return Bound(math.inf, delta, "PLD")
    dp = accounting.library()
    event = dp.TruncatedSubsampledGaussianDpEvent(records, rate, most, noise_multiplier)
    return _by_pld(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, [(event, steps)], delta)


def replace_one(events: Sequence[Event], *, delta: float) -> Bound:
    """Epsilon where neighbours differ in one record's content, their number being
    public: up to twice as large.

    By PLD alone: dp-accounting's Renyi accountant ignores the doubled sensitivity.
    """
    delta = check_delta(delta)
    counts = accounting.counted(events)
    least = min((m.noise_multiplier for m, _ in counts or ()), default=math.inf)
    if counts is None or least < 2 * accounting.MIN_NOISE:
        return Bound(math.inf, delta, "PLD")
    if math.isinf(accounting.of_counts(counts, delta).value):
        return Bound(math.inf, delta, "PLD")
    dp = accounting.library()
    parts = [(accounting.library_event(m), n) for m, n in counts]
    return _by_pld(dp.NeighboringRelation.REPLACE_ONE, parts, delta)


def random_search(
    events: Sequence[Event], *, runs: float, shape: float, delta: float
) -> Bound:
    """A random number of runs, of which only the best one is published.

    ``events`` is one run with its evaluation, ``runs`` the mean number of runs and
    ``shape`` its distribution: 0 logarithmic, 1 geometric, infinity Poisson, anything
    between negative binomial, all drawn in secret (Papernot and Steinke 2022).  A fixed
    number of runs, or of which more is seen, is :func:`sequential`.  Renyi DP only.
    """
    delta = check_delta(delta)
    at_least("mean number of runs", runs, 1)
    if not shape >= 0:
        raise UsageError(f"shape is {shape!r}", hint="it is at least 0")
    counts = accounting.counted(events)
    if not counts:
        return Bound(0.0 if counts == () else math.inf, delta, "RDP")
    dp = accounting.library()
    one_run = dp.ComposedDpEvent(
        [dp.SelfComposedDpEvent(accounting.library_event(m), n) for m, n in counts]
    )
    search = dp.dp_event.RepeatAndSelectDpEvent(one_run, runs, shape)
    accountant = dp.rdp.RdpAccountant(
        neighboring_relation=dp.NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    found = float(accountant.compose(search).get_epsilon(delta))
    return Bound(found, delta, "RDP")


def _by_pld(relation: Any, parts: Sequence[tuple[Any, int]], delta: float) -> Bound:
    accountant = accounting.library().pld.PLDAccountant(
        relation, value_discretization_interval=accounting.INTERVAL
    )
    for event, count in parts:
        accountant.compose(event, count)
    return Bound(float(accountant.get_epsilon(delta)), delta, "PLD")
