# SPDX-License-Identifier: Apache-2.0
"""Opened sums, from kept vectors to the model (SPEC.md, section 9)."""

import hashlib
from typing import Any

import messages as m
from attempts import Outcome
from canonical import Malformed, decode, digest, encode, parts, refuse, signed, tree
from context import CKKS, Session
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from files import START, Tensor, model_hash, read_model
from lattice import Opening
from machines import Holder, Machine, Masking
from moving import Moving
from packing import primes_of
from streams import (
    derive,
    loose,
    open_box,
    public_of,
    signed_word,
    unpack,
)
from transcript import FILE, Log
from unmask import Shape, Unmasking

_FORMAT = "secure-fl/vectors/1"
# Sums of more words than this, over all clients, are not opened again.
MOST_WORDS, MOST_RESIDUES = 200_000_000, 20_000_000


def file_of(round_: int, attempt: int) -> str:
    return f"vectors/round-{round_:05}-attempt-{attempt}.cbor"


def feasible(session: Session, outcomes: list[Outcome]) -> bool:
    """Whether these sums are opened again within a few minutes."""
    clients = sum(len(outcome.claims) for outcome in outcomes)
    ring = session.packing
    if ring is None:
        return session.length * clients <= MOST_WORDS
    return ring.blocks * ring.degree * len(primes_of(ring)) * clients <= MOST_RESIDUES


class Kept:
    """The kept messages of one opened attempt, by kind."""

    def __init__(self, data: bytes, outcome: Outcome, session: Session) -> None:
        self._outcome, self._session = outcome, session
        self.seed = b""
        self.chunks: dict[int, list[bytes]] = {}
        self.ciphertexts: dict[int, list[bytes]] = {}
        self.reveals: dict[int, list[Any]] = {}
        self.request: list[Any] = []
        file = file_of(outcome.round, outcome.number)
        try:
            rows = self._form(data)
        except Malformed as problem:
            refuse("V-SUM-2", file, str(problem))
        try:
            self._accounted(rows)
        except Malformed as problem:
            refuse("V-SUM-3", file, str(problem))
        try:
            for kind, sender, message in rows:
                self._read(kind, sender, message)
        except Malformed as problem:
            refuse("V-SUM-4", file, str(problem))

    def _form(self, data: bytes) -> list[tuple[int, str, bytes]]:
        outcome, plan = self._outcome, self._session.plan
        name, *where, self.seed, rows = parts(
            decode(data), str, bytes, int, int, bytes, list
        )
        if name != _FORMAT or where != [plan.run_id, outcome.round, outcome.number]:
            raise Malformed("it is of another attempt, or another form")
        holder = isinstance(outcome.machine, Holder)
        if len(self.seed) != (32 if holder else 0):
            raise Malformed("its seed has not its length")
        found: list[tuple[int, str, bytes]] = []
        places = {"": -1, **{name: i for i, name in enumerate(plan.names)}}
        last: tuple[int, ...] = ()
        for row in rows:
            sender, message = parts(row, str, bytes)
            kind = m.kind_of(message)
            if sender not in places or kind not in self._kinds():
                raise Malformed("a message is of a stranger, or of another kind")
            chunk = kind in (m.CHUNK, m.CIPHERTEXT)
            index = decode(message).get(3) if chunk else 0
            if not isinstance(index, int):
                raise Malformed("a chunk has no index")
            place = (kind, places[sender], index)
            if place <= last:
                raise Malformed("messages are out of order")
            last = place
            found.append((kind, sender, message))
        return found

    def _kinds(self) -> set[int]:
        if isinstance(self._outcome.machine, Holder):
            return {m.CIPHERTEXT, m.REQUEST}
        masking = {m.CHUNK, m.REVEAL}
        return masking if self._session.packing is None else masking | {m.CIPHERTEXT}

    def _accounted(self, rows: list[tuple[int, str, bytes]]) -> None:
        """Chunks are of survivors; other messages have their hash in the log."""
        hashes = {}
        for kind, sender, message in rows:
            if kind in (m.REVEAL, m.REQUEST):
                hashes[sender] = hashlib.sha256(message).digest()
            elif sender not in self._outcome.claims:
                raise Malformed("a chunk is of a client outside the sum")
        if hashes != self._outcome.withheld:
            raise Malformed("what was withheld is not what is kept")

    def _read(self, kind: int, sender: str, message: bytes) -> None:
        outcome = self._outcome
        world = outcome.world
        if kind == m.CIPHERTEXT:
            world = m.World(outcome.ctx, world.clients)
        fields = m.parse(message, kind, world)
        if kind == m.REQUEST:
            self.request = fields
            return
        client = self._session.plan.names.index(sender)
        if fields[0] != client:
            raise Malformed("a message speaks for another client")
        if kind == m.REVEAL:
            self.reveals[client] = fields
            return
        by_client = self.chunks if kind == m.CHUNK else self.ciphertexts
        chunks = by_client.setdefault(client, [])
        if fields[1] != len(chunks):
            raise Malformed("a chunk is missing, or moved")
        chunks.append(fields[2])


class _Replay:
    """Opens the sum of one attempt again."""

    def __init__(self, kept: Kept, outcome: Outcome, session: Session) -> None:
        self._kept, self._outcome, self._session = kept, outcome, session

    def check_chunks(self) -> None:
        """Each survivor's chunks are those it signed, or `Malformed`."""
        machine = self._outcome.machine
        if isinstance(machine, Masking):
            self._unmasking(machine).check_chunks()
            if self._session.packing is not None:
                for client, row in machine.inputs.items():
                    self._check_payload(client, row[3])
        elif isinstance(machine, Holder):
            for client, row in machine.inputs.items():
                self._check_payload(client, row[1], 16)

    def words(self) -> list[int]:
        """The words of the sum, or `Malformed`."""
        machine, session = self._outcome.machine, self._session
        if isinstance(machine, Holder):
            return self._with_holder(machine)
        if not isinstance(machine, Masking):
            raise Malformed("nothing was hidden in this attempt")
        words, seeds = self._unmasking(machine).open()
        if session.packing is None:
            return words
        key = [signed_word(word, session.key_bits) for word in words]
        return self._open(machine, key, seeds, self._kept.ciphertexts)

    def _unmasking(self, machine: Masking) -> Unmasking:
        kept, session = self._kept, self._session
        plan, ring = session.plan, session.packing
        shape = Shape(session.length, plan.word_bits, plan.chunk_words)
        if ring is not None:
            shape = Shape(ring.degree, session.key_bits, ring.degree)
        return Unmasking(plan, machine, shape, kept.chunks, kept.reveals)

    def _chunk_sizes(self, sealed: int) -> list[int]:
        """Bytes of each chunk of ciphertexts, as it is sent."""
        ring = self._session.packing
        if ring is None:
            return []
        opening = self._opening()
        step = self._session.chunk_blocks
        starts = range(0, ring.blocks, step)
        counts = [min(step, ring.blocks - start) for start in starts]
        return [count * opening.block_bytes() + sealed for count in counts]

    def _check_payload(self, client: int, payload: bytes, sealed: int = 0) -> None:
        chunks = self._kept.ciphertexts.get(client, [])
        if [len(chunk) for chunk in chunks] != self._chunk_sizes(sealed):
            raise Malformed(f"client {client} has not all its ciphertexts")
        leaves = [digest(f"{CKKS} chunks data", chunk) for chunk in chunks]
        root = tree(f"{CKKS} chunks", leaves)
        if digest(f"{CKKS} payload", self._outcome.ctx, client, root) != payload:
            raise Malformed(
                f"the ciphertexts of client {client} are not what it signed"
            )

    def _opening(self) -> Opening:
        session = self._session
        if session.packing is None:
            raise Malformed("nothing was encrypted in this attempt")
        bits = session.plan.word_bits
        return Opening(session.packing, self._outcome.ctx, session.length, bits)

    def _open(
        self,
        machine: Machine,
        key: list[int],
        seeds: dict[int, bytes],
        chunks: dict[int, list[bytes]],
    ) -> list[int]:
        opening = self._opening()
        for client in sorted(machine.claims()):
            opening.add(client, seeds[client], chunks[client])
        return opening.open(key, len(seeds))

    def _with_holder(self, machine: Holder) -> list[int]:
        ctx, session = self._outcome.ctx, self._session
        ring, call = session.packing, machine.call
        private = derive(ctx, self._kept.seed, f"{CKKS} aggregator key")
        if ring is None or call is None or public_of(private) != call[0]:
            raise Malformed("its seed gives another key than the call's")
        self._check_request(machine)
        chunks = {}
        for client, (_, payload, _, _, box, _) in sorted(machine.uploads.items()):
            info = encode([f"{CKKS} chunk box", ctx, client, payload])
            cipher = AESGCM(open_box(private, info, box))
            chunks[client] = self._unseal(client, cipher)
        info = encode([f"{CKKS} release box", ctx])
        released = open_box(private, info, machine.box)
        clients = sorted(machine.inputs)
        end = len(released) - 32 * len(clients)
        packed = unpack(released[:end], ring.degree, session.key_bits)
        key = [signed_word(word, session.key_bits) for word in packed]
        seeds = {
            client: released[end + 32 * i : end + 32 * (i + 1)]
            for i, client in enumerate(clients)
        }
        return self._open(machine, key, seeds, chunks)

    def _check_request(self, machine: Holder) -> None:
        rows, made = self._kept.request
        expected = [
            [
                client,
                payload,
                claim,
                key_box,
                digest(f"{CKKS} chunk box", box),
                signature,
            ]
            for client, payload, claim, key_box, box, signature in (
                machine.uploads[client] for client in sorted(machine.uploads)
            )
        ]
        asked = [row[:3] for row in rows]
        key = self._session.plan.aggregator
        if rows != expected or not signed(
            key, made, f"{CKKS} request", self._outcome.ctx, asked
        ):
            raise Malformed("the request is of other inputs, or not signed")

    def _unseal(self, client: int, cipher: AESGCM) -> list[bytes]:
        found = []
        for index, chunk in enumerate(self._kept.ciphertexts[client]):
            try:
                found.append(cipher.decrypt(index.to_bytes(12, "big"), chunk, None))
            except InvalidTag:
                raise Malformed(f"a chunk of client {client} does not open") from None
        return found


def check_start(raw: bytes, log: Log, session: Session) -> list[Tensor]:
    """The model at the start, if it is that of the log and the plan."""
    try:
        tensors = read_model(raw)
    except Malformed as problem:
        refuse("V-SUM-1", START, str(problem))
    if model_hash(tensors) != log.start.body[6]:
        refuse("V-SUM-1", START, "it is not the model that the run began from")
    stated = session.plan.start_sha256
    if stated is not None and hashlib.sha256(raw).hexdigest() != stated:
        refuse("V-SUM-1", START, "it is not the start that the plan states")
    if sum(len(tensor.data) for tensor in tensors) != 4 * session.values:
        refuse("V-SUM-1", START, "it has another size than the model")
    return tensors


def check_sum(raw: bytes, outcome: Outcome, session: Session, moving: Moving) -> None:
    """Opens the sum of this round again, and moves the model by it."""
    replay = _Replay(Kept(raw, outcome, session), outcome, session)
    try:
        replay.check_chunks()
    except Malformed as problem:
        refuse("V-SUM-4", file_of(outcome.round, outcome.number), str(problem))
    try:
        words = replay.words()
    except Malformed as problem:
        refuse("V-SUM-5", file_of(outcome.round, outcome.number), str(problem))
    if outcome.attempt.end is None:
        return
    body, bits = outcome.attempt.end.body, session.plan.word_bits
    where = f"round {outcome.round}"
    if hashlib.sha256(loose(words, bits)).digest() != body[5]:
        refuse("V-SUM-6", FILE, f"{where}: its vectors give another sum")
    clipped = signed_word(words[-1], bits) if session.plan.grid is None else 0
    if min(max(clipped, 0), len(outcome.claims) * session.values) != body[6]:
        refuse("V-SUM-6", FILE, f"{where}: its vectors give another count of clippings")
    totals = [signed_word(word, bits) for word in words]
    if not moving.move(totals, outcome.round, body[3], body[4]):
        refuse("V-SUM-6", FILE, f"{where}: its sum gives a model that is not finite")
    if model_hash(moving.model) != body[8]:
        refuse("V-SUM-6", FILE, f"{where}: its sum gives another model")
