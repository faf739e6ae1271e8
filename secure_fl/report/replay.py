# SPDX-License-Identifier: Apache-2.0
"""Every opened sum once more, from the transcript and the vectors that were kept.

The collectors that opened a sum in the run open it again here, out of the messages
that the transcript holds and those kept beside it.  As then, they check each chunk
against the root that its client signed, and each share against its commitment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, final

from numpy.typing import NDArray

from .. import ckks, masking, wire
from ..ckks import messages as sealed
from ..context import kind_of
from ..descent import Descent, read_sum
from ..errors import VerificationError
from ..fixedpoint import Word, unwrap
from ..identity import Identity
from ..masking import messages as masked
from ..model import GlobalModel
from ..plan import Plan
from ..randomness import SystemRandom
from .attempts import Attempt, refuse
from .evidence import Log, Opening
from .folder import TRANSCRIPT, blaming
from .vectors import START, Kept, vectors_file

__all__ = ["check_sums", "kept_files"]

_SHARES: Final = 10
_REQUEST: Final = sealed.KINDS.REQUEST
_CHUNKS: Final = (5, sealed.KINDS.CIPHERTEXT)


def kept_files(plan: Plan, log: Log) -> tuple[str, ...]:
    """Names of the further files that a run of this plan leaves: often none."""
    if not plan.protection.keep_vectors:
        return ()
    opened = [vectors_file(a.round_index, a.attempt) for a in log.attempts if a.opened]
    return START, *opened


def check_sums(
    plan: Plan,
    log: Log,
    attempts: Sequence[Attempt],
    kept: Callable[[str], bytes],
) -> int:
    """Open every sum again, and follow the model from its start to its end.

    ``kept`` reads one of :func:`kept_files`, which are held one at a time.  Returns how
    many vectors there were.  Raises VerificationError naming the file at fault, and
    UsageError where the CKKS backend that a plan needs is not installed.
    """
    if plan.protection.kind == "ckks":
        ckks.require_backend()
    model, descent = _start(plan, log, kept(START)), Descent(plan)
    vectors = 0
    for opening, attempt in zip(log.attempts, attempts, strict=True):
        if not opening.opened:
            continue
        name = vectors_file(opening.round_index, opening.attempt)
        with blaming(name):
            held = Kept.from_bytes(kept(name), plan.roster)
            words = _Replay(plan, log, opening, attempt, held).words()
        with blaming(TRANSCRIPT):
            model = _apply(plan, opening, words, model, descent)
        vectors += len(attempt.inputs)
    return vectors


def _start(plan: Plan, log: Log, data: bytes) -> GlobalModel:
    with blaming(START):
        model = GlobalModel.from_bytes(data)
        if model.digest() != log.start.bytes_(6):
            raise VerificationError("is not the model that the transcript starts from")
        stated = plan.model.start_sha256
        if stated is not None and hashlib.sha256(data).hexdigest() != stated:
            raise VerificationError("is not the file whose hash the plan states")
        if plan.distributed and model.size != plan.values:
            raise VerificationError("has not the number of values that the plan states")
    return model


def _apply(
    plan: Plan,
    opening: Opening,
    words: NDArray[Word],
    model: GlobalModel,
    descent: Descent,
) -> GlobalModel:
    """The model after a round, if its entry says what the vectors come to."""
    entry, where = opening.end, f"round {opening.round_index}"
    if hashlib.sha256(words.tobytes()).digest() != entry.bytes_(5):
        raise VerificationError(f"{where} opened another sum than its vectors'")
    survivors = [str(name) for name in entry.rows(3)]
    _, clipped = read_sum(
        plan.encoding, words, clients=len(survivors), counted=not plan.distributed
    )
    if clipped != entry.integer(6):
        raise VerificationError(f"{where} counts other clipped values than its sum")
    after = descent.move(
        model, words, round_index=opening.round_index, survivors=survivors
    )
    if after.digest() != entry.bytes_(8):
        raise VerificationError(f"{where} left another model than its sum gives")
    return after


@final
class _Replay:
    """One opened attempt: what was said in it, by kind, from log and kept messages."""

    def __init__(
        self, plan: Plan, log: Log, opening: Opening, attempt: Attempt, kept: Kept
    ) -> None:
        self._plan = plan
        self._session = attempt.session
        self._seed = kept.seed
        place = plan.run_id, opening.round_index, opening.attempt
        if (kept.run_id, kept.round_index, kept.attempt) != place:
            refuse("was kept of another attempt")
        if len(kept.seed) != (32 if plan.has_keyholder else 0):
            refuse("its seed has another length")
        self._said: dict[int, list[tuple[str, bytes]]] = {}
        hashes: dict[tuple[int, str], bytes] = {}
        for entry in opening.messages:
            sender = entry.text(2)
            if entry.has_message:
                data = log.transcript.message(entry)
                self._said.setdefault(kind_of(data), []).append((sender, data))
            else:
                kind = _REQUEST if plan.has_keyholder else _SHARES
                hashes[kind, sender] = entry.bytes_(4)
        self._take(kept, hashes, {i.client for i in attempt.inputs})

    def _take(
        self, kept: Kept, hashes: dict[tuple[int, str], bytes], inside: set[str]
    ) -> None:
        """Each withheld message has its hash in the log, each hash its message."""
        chunks = _kinds_of_chunks(self._plan)
        for sender, message in kept.rows:
            kind = kind_of(message)
            if kind in chunks:
                if sender not in inside:
                    refuse("holds a chunk of a client that is not in the sum")
            elif hashlib.sha256(message).digest() != hashes.pop((kind, sender), b""):
                who = sender or "the aggregator"
                refuse(f"a message of {who} is not the one whose hash is in the log")
            self._said.setdefault(kind, []).append((sender, message))
        if hashes:
            refuse("a message is missing whose hash is in the log")

    def words(self) -> NDArray[Word]:
        """The sum, opened again.  Raises ProtocolError where it does not open."""
        session = self._session
        if not isinstance(session, ckks.Session):
            return self._masked(session).words
        if self._plan.has_keyholder:
            return self._released(session)
        return self._one_time(session)

    def _clients(self, kind: int) -> Iterator[tuple[int, bytes]]:
        for sender, data in self._said.get(kind, []):
            yield self._session.roster.index(sender), data

    def _masked(self, s: masking.Session) -> masking.Opened:
        advertise = masking.CollectAdvertise(s)
        for i, data in self._clients(1):
            advertise.add(i, masked.Advertise.decode(data, s))
        shares, _ = advertise.close()
        for i, data in self._clients(3):
            shares.add(i, masked.SealedShares.decode(data, s))
        inputs, _ = shares.close()
        for i, data in self._clients(5):
            inputs.add_chunk(i, masked.Chunk.decode(data, s))
        for i, data in self._clients(6):
            inputs.add(i, masked.MaskedInput.decode(data, s))
        agreements, _ = inputs.close()
        for i, data in self._clients(8):
            agreements.add(i, masked.Agreement.decode(data, s))
        reveals, _ = agreements.close()
        for i, data in self._clients(_SHARES):
            reveals.add(i, masked.Reveal.decode(data, s))
        return reveals.close()

    def _one_time(self, s: ckks.Session) -> NDArray[Word]:
        key_session = self._plan.key_session(s)
        ciphertexts = ckks.Ciphertexts(s)
        for i, data in self._clients(sealed.KINDS.CIPHERTEXT):
            ciphertexts.add_chunk(i, sealed.Ciphertext.decode(data, s))
        for i, data in self._clients(6):
            payload = masked.MaskedInput.decode(data, key_session).attached
            ciphertexts.join(i, ciphertexts.check(i, payload))
        keys = self._masked(key_session)
        bits = ckks.key_bits(s.parameters.clients)
        return ckks.open_sum(
            s, ciphertexts.total(), unwrap(keys.words, bits), keys.attached_seeds
        )

    def _released(self, s: ckks.Session) -> NDArray[Word]:
        # It signs what goes nowhere: nobody but the aggregator has its own key.
        stand_in = Identity.new("aggregator", random=SystemRandom())
        calling = ckks.CollectHolderKey(
            s, stand_in, holder=self._plan.keyholder_key, random=self._seed
        )
        _, data = self._said[sealed.KINDS.CALL][0]
        if calling.call().key != sealed.Call.decode(data).key:
            refuse("its seed does not give the aggregator's key of the log")
        _, data = self._said[sealed.KINDS.HOLDER_KEY][0]
        calling.add(sealed.HolderKey.decode(data, s))
        inputs, _ = calling.close()
        for i, data in self._clients(sealed.KINDS.CIPHERTEXT):
            inputs.add_chunk(i, sealed.Ciphertext.decode(data, s))
        for i, data in self._clients(sealed.KINDS.INPUT):
            inputs.add(i, sealed.Input.decode(data, s))
        release, asked = inputs.close()
        self._check_request(s, asked.rows)
        _, data = self._said[sealed.KINDS.RELEASE][0]
        release.add(sealed.Release.decode(data, s))
        words, _ = release.close()
        return words

    def _check_request(self, s: ckks.Session, rows: tuple[sealed.Row, ...]) -> None:
        _, data = self._said[_REQUEST][0]
        request = sealed.Request.decode(data, s)
        if request.rows != rows:
            refuse("the key holder was asked for other keys than those of the inputs")
        if not wire.verify(
            self._plan.aggregator_key,
            request.signature,
            sealed.REQUEST_LABEL,
            *request.signed(s),
        ):
            refuse("the request to the key holder is not signed by the aggregator")


def _kinds_of_chunks(plan: Plan) -> tuple[int, ...]:
    if plan.protection.kind == "masking":
        return _CHUNKS[:1]
    return _CHUNKS[1:] if plan.has_keyholder else _CHUNKS
