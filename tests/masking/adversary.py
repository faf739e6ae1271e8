# SPDX-License-Identifier: Apache-2.0
"""All that a lying aggregator and its colluders have, and the best attack on it.

Two ways to the same answer, neither of which asks the code under test: linear algebra
over which masked vectors' combinations are free of streams the liar cannot compute, and
plain subtraction of all that it can.  ``Broken`` is raised where more comes out than
SPEC 10 allows.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from secure_fl.identity import Identity
from secure_fl.masking import Session, crypto, messages, shamir

from ..vectors import reference
from .members import Member, Vector

Stream = tuple[str, bytes, int, int]
Points = dict[tuple[int, str], dict[int, int]]


class Broken(AssertionError):
    """The attack got more than one sum over enough honest clients."""


@dataclass(frozen=True)
class Upload:
    """What arrived of one honest client's masked vector, and under which sets."""

    client: int
    cohort: messages.CohortKeys
    dealers: tuple[int, ...]
    words: tuple[int, ...] = field(repr=False)
    # Not for the liar: what the attack's result is compared with.
    truth: Vector


@dataclass(frozen=True)
class ColluderKeys:
    """Private keys that a colluder announced under, as it liked."""

    client: int
    seal_seed: bytes
    mask_seed: bytes


class Heard:
    """One context in the liar's eyes."""

    def __init__(self, session: Session, colluders: Mapping[int, Identity]) -> None:
        self.session = session
        self.colluders = dict(colluders)
        self.announced: dict[int, messages.KeyAnnouncement] = {}
        self.cohorts: list[messages.CohortKeys] = []
        self.shown: dict[int, messages.CohortKeys] = {}
        self.boxes_of: dict[int, tuple[int, ...]] = {}
        self.dealt: list[tuple[messages.CohortKeys, messages.SealedShares]] = []
        self.uploads: list[Upload] = []
        self.inputs: dict[int, messages.MaskedInput] = {}
        self.agreed: list[tuple[messages.Statement, messages.Agreement]] = []
        self.signed: dict[int, messages.Statement] = {}
        # What was revealed, and the statement its sender had signed.
        self.reveals: list[tuple[messages.Statement, messages.Reveal]] = []

    def keys(self, client: int, variant: int) -> ColluderKeys:
        return _keys(self.session.ctx, client, variant)

    def all_keys(self) -> list[ColluderKeys]:
        return [self.keys(c, v) for c in self.colluders for v in (0, 1)]

    @property
    def size(self) -> tuple[int, int, int]:
        """What tells whether there is anything new to attack."""
        return len(self.dealt), len(self.uploads), len(self.reveals)


@functools.lru_cache(maxsize=2_000)
def _keys(ctx: bytes, client: int, variant: int) -> ColluderKeys:
    return ColluderKeys(
        client,
        reference.digest("colluder seal", ctx, client, variant),
        reference.digest("colluder mask", ctx, client, variant),
    )


# -- shares ---------------------------------------------------------------------


@functools.lru_cache(maxsize=20_000)
def _opened(
    ctx: bytes, cohort: bytes, dealer: int, to: int, box: bytes, seed: bytes
) -> tuple[int, int] | None:
    try:
        plain = crypto.open_box(
            box, crypto.private_key(seed), info=[ctx, cohort, dealer, to]
        )
    except ValueError:
        return None
    return shamir.from_bytes(plain[:32]), shamir.from_bytes(plain[32:])


def points(heard: Heard) -> Points:
    """Every share of honest dealers: in the colluders' boxes, and revealed."""
    out: Points = defaultdict(dict)
    ctx = heard.session.ctx
    for keys, message in heard.dealt:
        cohort = messages.cohort_hash(heard.session, keys)
        for row, own in itertools.product(message.shares, heard.all_keys()):
            if row.to != own.client:
                continue
            pair = _opened(ctx, cohort, message.client, row.to, row.box, own.seal_seed)
            if pair is not None:
                out[message.client, "self"][row.to + 1] = pair[0]
                out[message.client, "key"][row.to + 1] = pair[1]
    for _, reveal in heard.reveals:
        for share in reveal.shares:
            if share.of not in heard.colluders:
                value = shamir.from_bytes(share.share)
                out[share.of, share.kind][reveal.client + 1] = value
    return out


def interpolated(heard: Heard) -> dict[tuple[int, str], int]:
    """The secrets that enough shares give, by dealer and kind."""
    threshold = heard.session.parameters.threshold
    return {
        which: shamir.reconstruct(dict(list(shares.items())[:threshold]))
        for which, shares in points(heard).items()
        if len(shares) >= threshold
    }


# -- streams --------------------------------------------------------------------


@functools.lru_cache(maxsize=50_000)
def _stream(seed: bytes, chunks: int, chunk_words: int, bits: int) -> tuple[int, ...]:
    parts = (reference.keystream(seed, k, chunk_words, bits) for k in range(chunks))
    return tuple(itertools.chain.from_iterable(parts))


@functools.lru_cache(maxsize=50_000)
def _pair_seed(
    ctx: bytes, private: bytes, public: bytes, cohort: bytes, low: int, high: int
) -> bytes:
    shared = reference.x25519(private, public)
    return reference.derive(ctx, shared, "pair mask", cohort, low, high)


@functools.lru_cache(maxsize=20_000)
def _mask_pair(ctx: bytes, z: int) -> tuple[bytes, bytes]:
    seed = reference.derive(ctx, reference.le32(z), "mask key")
    return reference.x25519_public(seed), seed


@functools.lru_cache(maxsize=2_000)
def _public(seed: bytes) -> bytes:
    return reference.x25519_public(seed)


@dataclass(frozen=True)
class Peeled:
    """A masked vector without the streams the liar knows, and those that are left."""

    words: tuple[int, ...]
    left: Mapping[Stream, int]


def peel(heard: Heard, pool: Iterable[int]) -> list[Peeled]:
    """Take every stream off every upload that the liar can compute.

    ``pool``: all secrets it interpolated anywhere; each is tried in this context.
    """
    session = heard.session
    ctx, p = session.ctx, session.parameters
    candidates = set(pool) | set(interpolated(heard).values())
    # A mask key's private half is known by its public one.
    private = {_public(own.mask_seed): own.mask_seed for own in heard.all_keys()}
    private |= dict(_mask_pair(ctx, z) for z in candidates)
    commitments = {m.client: m.commitment for _, m in heard.dealt}
    out = []
    for upload in heard.uploads:
        i = upload.client
        keys = {a.client: a.mask_key for a in upload.cohort.announcements}
        cohort = messages.cohort_hash(session, upload.cohort)
        words = list(upload.words)
        left: dict[Stream, int] = {}
        for j in upload.dealers:
            sign, seed = 1, None
            low, high = min(i, j), max(i, j)
            if j == i:
                for beta in candidates:
                    le32 = reference.le32(beta)
                    made = reference.digest(f"{reference.SPEC} self", ctx, i, le32)
                    if made == commitments.get(i):
                        seed = reference.derive(ctx, le32, "self mask")
            else:
                sign = 1 if j > i else -1
                for mine, theirs in ((keys[j], keys[i]), (keys[i], keys[j])):
                    if mine in private:
                        seed = _pair_seed(ctx, private[mine], theirs, cohort, low, high)
            if seed is None:
                left["self" if j == i else "pair", cohort, low, high] = sign
                continue
            mask = _stream(seed, p.chunks, p.chunk_words, p.word_bits)
            words = [
                (w - sign * m) % 2**p.word_bits
                for w, m in zip(words, mask, strict=False)
            ]
        out.append(Peeled(tuple(words), left))
    return out


def kernel(rows: Sequence[Mapping[Stream, int]]) -> list[list[int]]:
    """Integer combinations of the rows in which every stream cancels: a basis.

    The rows are those of a graph's incidence matrix (an end of a pair, or a self mask
    by itself), which is totally unimodular: the rank is the same over any ring, so
    rational elimination tells what cancels mod 2^b.
    """
    streams = sorted({s for row in rows for s in row})
    # Each row, with a unit vector beside it that remembers what it is made of.
    table = [
        (
            [Fraction(row.get(s, 0)) for s in streams],
            [int(i == k) for i in range(len(rows))],
        )
        for k, row in enumerate(rows)
    ]
    work = [(a, [Fraction(x) for x in b]) for a, b in table]
    for column in range(len(streams)):
        pivot = next((r for r in work if r[0][column]), None)
        if pivot is None:
            continue
        work.remove(pivot)
        reduced = []
        for a, b in work:
            factor = a[column] / pivot[0][column]
            reduced.append(
                (
                    [x - factor * y for x, y in zip(a, pivot[0], strict=True)],
                    [x - factor * y for x, y in zip(b, pivot[1], strict=True)],
                )
            )
        work = reduced
    out = []
    for _, made in work:
        lead = next(x for x in made if x)
        scaled = [x / lead for x in made]
        assert all(x.denominator == 1 for x in scaled)
        out.append([int(x) for x in scaled])
    return out


# -- the verdict ----------------------------------------------------------------


def combined(
    words: Sequence[Sequence[int]], factors: Sequence[int], bits: int
) -> list[int]:
    used = [(f, w) for f, w in zip(factors, words, strict=True) if f]
    return [
        sum(f * x for (f, _), x in zip(used, column, strict=True)) % 2**bits
        for column in zip(*(w for _, w in used), strict=False)
    ]


def opened(heard: Heard, pool: Iterable[int] = ()) -> list[list[int]]:
    """Combinations of uploads that the attack reads, checked word by word.

    Both ways must agree: what the algebra says is open must come out as the true sum,
    and of all plain sums exactly those in its span may.
    """
    bits = heard.session.parameters.word_bits
    peeled = peel(heard, pool)
    basis = kernel([p.left for p in peeled])
    got = [p.words for p in peeled]
    # The liar may have only the beginning of a vector.
    true = [
        u.truth.words[: len(p.words)]
        for u, p in zip(heard.uploads, peeled, strict=True)
    ]
    for factors in basis:
        if combined(got, factors, bits) != combined(true, factors, bits):
            raise AssertionError("the algebra opens what subtraction does not")
    for chosen in itertools.product((0, 1), repeat=len(got)):
        if not any(chosen):
            continue
        left: Counter[Stream] = Counter()
        for c, p in zip(chosen, peeled, strict=True):
            if c:
                left.update(p.left)
        is_open = not any(left.values())
        reads = combined(got, chosen, bits) == combined(true, chosen, bits)
        if reads != is_open:
            raise Broken(f"uploads {chosen}: read {reads}, streams left {not is_open}")
    return basis


def check_secrets(heard: Heard, members: Mapping[int, Member]) -> None:
    """No honest client's two secrets; and what is interpolated is the real thing."""
    threshold = heard.session.parameters.threshold
    found = points(heard)
    for client, member in members.items():
        if heard.session.ctx not in member.starts:
            continue
        real = dict(zip(("self", "key"), member.secrets(heard.session), strict=True))
        counts = {kind: len(found[client, kind]) for kind in real}
        for kind, count in counts.items():
            if not count:
                continue
            value = shamir.reconstruct(dict(found[client, kind]))
            if (value == real[kind]) != (count >= threshold):
                raise Broken(f"{count} shares give {kind} of client {client}: {value}")
        if min(counts.values()) >= threshold:
            raise Broken(f"both secrets of client {client} are open")


def check_context(heard: Heard, pool: Iterable[int] = ()) -> list[list[int]]:
    """SPEC 10: one sum, over one U3, of enough honest clients; or nothing."""
    p = heard.session.parameters
    basis = opened(heard, pool)
    if len(basis) > 1:
        raise Broken(f"{len(basis)} independent sums are open: {basis}")
    agreed = {i for s, _ in heard.reveals for i in s.clients} - set(heard.colluders)
    for factors in basis:
        clients = [
            u.client for f, u in zip(factors, heard.uploads, strict=True) if f == 1
        ]
        if set(factors) - {0, 1} or len(set(clients)) != len(clients):
            raise Broken(f"a combination that is no sum is open: {factors}")
        if len(clients) < p.needed - p.max_colluding:
            raise Broken(f"a sum over {clients} alone is open")
        if set(clients) != agreed:
            raise Broken(f"a sum over {clients} is open, {sorted(agreed)} was agreed")
    return basis


def check_statements(heard: Heard) -> None:
    """SPEC 10, 1 and 2: honest clients reveal by one statement, one kind each."""
    if len({s for s, _ in heard.reveals}) > 1:
        raise Broken("honest clients revealed by two statements")
    for statement, reveal in heard.reveals:
        for share in reveal.shares:
            if (share.kind == "self") != (share.of in statement.clients):
                raise Broken(f"a {share.kind} share of {share.of} was revealed")


def check_all(contexts: Sequence[Heard], members: Sequence[Member]) -> int:
    """The whole liar, over all contexts.  Returns how many sums it read."""
    pool = {value for h in contexts for value in interpolated(h).values()}
    seen: set[tuple[str, int]] = set()
    count = 0
    for heard in contexts:
        check_secrets(heard, {m.index(heard.session): m for m in members})
        for factors in check_context(heard, pool):
            count += 1
            labels = {
                u.truth.label for f, u in zip(factors, heard.uploads, strict=True) if f
            }
            if labels & seen:
                raise Broken("two open sums hold one vector: their difference is open")
            seen |= labels
    return count
