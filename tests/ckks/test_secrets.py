# SPDX-License-Identifier: Apache-2.0
"""No secret of CKKS in a repr, an error or a traceback, and no second copy of a state.

The secrets of one upload and one release are made a second time from the bytes they
were drawn from, and looked for in every form they might be printed in
(``test_secrets_stay_inside.py`` of masking).
"""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import secure_fl
from secure_fl import ckks, keys
from secure_fl.ckks.backend import Multiplier
from secure_fl.ckks.messages import (
    KINDS,
    Call,
    Ciphertext,
    Invitation,
    Opening,
    Release,
)
from secure_fl.ckks.sampling import Polynomials, Shorts
from secure_fl.ckks.session import SPEC
from secure_fl.context import kind_of
from secure_fl.engines.keyholder import KeyHolderProcess
from secure_fl.errors import ProtocolError, SecureFLError, StateReused, UsageError
from secure_fl.fixedpoint import wrap
from secure_fl.round import KeyholderClient, OneTimeClient

from ..masking.test_secrets_stay_inside import everything_said, forms, texts
from ..participants import RANDOM
from .forging import Called
from .world import BOTH, Attempt, Keys, World

OURS = Path(secure_fl.__file__).parent


class Upload:
    """One upload of client 0, one release, and every secret behind them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = {what: RANDOM.bytes(32) for what in ("client", "holder")}
        self.session = session = world.session()
        self.called = Called(world, unanswered=True)
        answer = world.holder.handle(self.called.call, random=self.random["holder"])
        self.called.answer(answer)
        self.invitation = Invitation.decode(self.called.invitation(), session)
        p = session.parameters
        units = np.random.default_rng(4).integers(-(2**20), 2**20, p.length)
        self.words = wrap(units, p.word_bits)
        self.upload = self.new_upload()
        self.key = Shorts(session, self.random["client"]).key(p.packing.ring.degree)
        derived = {
            f"{what} of {who}": keys.derive(
                self.random[who], salt=session.ctx, label=f"{SPEC} {what}", parts=[]
            )
            for who, what in (
                ("client", "shorts"),
                ("client", "chunk key"),
                ("client", "cover seed"),
                ("holder", "holder key"),
            )
        }
        self.seed = derived["cover seed of client"]
        self.secrets = {
            **self.random,
            **derived,
            "the key": self.key.astype(np.int8).tobytes(),
            "the key's words": self.key.tobytes(),
            "the cover": Polynomials.cover(session, 0, self.seed).draw(0).tobytes(),
            "the words": self.words.tobytes(),
            "the aggregator's key": self.called.key.private_bytes_raw(),
        }
        self._forms = {
            form: name
            for name, secret in self.secrets.items()
            for form in forms(secret[:32])
        }
        for name, row in (("the key", self.key), ("the words", self.words)):
            for separator in (", ", " ", ","):
                part = separator.join(str(x) for x in row[:8].tolist())
                self._forms[part] = name
            # As numpy prints it, shortened.
            self._forms |= {
                shown.split("...")[0]: name for shown in (str(row), repr(row))
            }

    def new_upload(self) -> ckks.Upload:
        return ckks.Upload(
            self.session,
            self.world.identities[self.world.names[0]],
            self.invitation,
            self.words,
            claim=b"c" * 32,
            random=self.random["client"],
        )

    def encryption(self) -> ckks.Encryption:
        return ckks.Encryption(
            self.session, 0, self.words, random=self.random["client"]
        )

    def seen(self, text: str) -> set[str]:
        return {name for form, name in self._forms.items() if form in text}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upload]:
    world = World(tmp_path_factory.mktemp("held"), "keyholder")
    yield Upload(world)
    world.close()


def test_the_search_sees_a_secret_in_every_form(held: Upload) -> None:
    shown = [
        repr(held.seed),
        held.seed.hex(),
        f"{held.key!r}",
        repr(held.key.tolist()),
        repr(held.key.astype(np.int8).tobytes()),
        repr(held.words),
        repr([held.random["holder"]]),
        str(int.from_bytes(held.called.key.private_bytes_raw(), "little")),
    ]
    for text in shown:
        assert held.seen(f"before {text} after"), text[:80]
    assert not held.seen(repr(held.session) + repr(held.invitation))


# -- what prints ---------------------------------------------------------------------


def objects(held: Upload) -> Iterator[object]:
    """Everything with a secret inside, before, within and after its use."""
    session, ring = held.session, held.session.parameters.packing.ring
    for upload in (held.new_upload(), held.new_upload()):
        yield upload
        chunks = upload.chunks()
        first = next(chunks)
        yield from (chunks, first, upload)
        list(chunks)
        yield from (upload.finish(), upload)
    encryption = held.encryption()
    yield encryption
    making = encryption.chunks(cover=held.seed, chunk_key=bytes(32))
    yield from (next(making), making, encryption)
    making.close()  # type: ignore[attr-defined]
    yield Shorts(session, held.random["client"])
    yield Polynomials.cover(session, 0, held.seed)
    yield Polynomials.public(session)
    yield Multiplier(held.key, ring.primes[0])
    opening = Opening(held.key, (held.seed, held.random["client"]))
    yield opening
    yield held.world.holder
    yield held.called.holder
    for name, participant in held.world.participants.items():
        yield from (participant, held.world.identities[name])
    yield ckks.Ciphertexts(session)
    collect = ckks.CollectHolderKey(
        session,
        held.world.aggregator,
        holder=held.world.keyholder.public_key,
        random=held.random["client"],
    )
    assert held.called.holder_key is not None
    yield from (collect, collect.call())
    collect.add(held.called.holder_key)
    inputs, invitation = collect.close()
    yield from (inputs, invitation)


def test_nothing_prints_a_secret(held: Upload) -> None:
    printed = 0
    for thing in objects(held):
        assert not held.seen(texts(thing)), type(thing)
        printed += 1
    assert printed > 25


@pytest.mark.parametrize("keys_", BOTH)
def test_whole_rounds_print_no_update(tmp_path: Path, keys_: Keys) -> None:
    """Of the parties of an attempt, at every step, and of what it opened."""
    world = World(tmp_path, keys_)
    step = world.plan.encoding.step
    units = {
        n: np.rint(v / step).astype(np.int64)[:6].tolist()
        for n, v in world.vectors.items()
    }
    attempt = Attempt(world)
    while attempt.a.result is None:
        for thing in (
            attempt.a,
            *world.participants.values(),
            *(p.offered for p in world.participants.values()),  # type: ignore[union-attr]
            *attempt.a.outgoing.values(),
        ):
            shown = texts(thing)
            for name, row in units.items():
                assert ", ".join(map(str, row)) not in shown
                assert str(world.vectors[name][:3])[1:-1] not in shown
        attempt.step()
    total = attempt.a.result.total[:3]
    assert str(total)[1:-1] not in texts(attempt.a.result)
    assert str(total)[1:-1] in str(total)
    world.close()


# -- no second copy ------------------------------------------------------------------

COPIES: dict[str, Callable[[object], object]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "pickle, oldest": lambda thing: pickle.dumps(thing, protocol=0),
    "pickle, newest": lambda thing: pickle.dumps(thing, protocol=5),
}


def states(held: Upload) -> dict[str, object]:
    session, ring = held.session, held.session.parameters.packing.ring
    return {
        "Upload": held.new_upload(),
        "Encryption": held.encryption(),
        "Shorts": Shorts(session, held.random["client"]),
        "Polynomials": Polynomials.cover(session, 0, held.seed),
        "Multiplier": Multiplier(held.key, ring.primes[0]),
        "KeyHolder": held.world.holder,
        "KeyHolderProcess": KeyHolderProcess(
            plan=Path("plan"), key=Path("key"), home=Path("home")
        ),
        "Participant": held.world.participants[held.world.names[0]],
    }


STATES = (
    "Upload", "Encryption", "Shorts", "Polynomials", "Multiplier", "KeyHolder",
    "KeyHolderProcess", "Participant",
)  # fmt: skip


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("which", STATES)
def test_a_state_is_not_copied_or_pickled(held: Upload, which: str, how: str) -> None:
    made = states(held)
    assert set(made) == set(STATES)
    with pytest.raises(TypeError) as caught:
        COPIES[how](made[which])
    assert not held.seen(str(caught.value))


@pytest.mark.parametrize("keys_", BOTH)
def test_a_clients_protection_has_no_second_answer_in_a_copy(
    tmp_path: Path, keys_: Keys
) -> None:
    """A copy of all of it would answer twice; a shallow one shares what is spent."""
    world = World(tmp_path, keys_)
    attempt = Attempt(world).until("vectors")
    name = world.names[0]
    protection = world.participants[name]._protection  # type: ignore[union-attr]
    assert isinstance(protection, OneTimeClient | KeyholderClient)
    for how in ("deepcopy", "pickle"):
        with pytest.raises(TypeError):
            COPIES[how](protection)
    world.offer(name)
    shallow = copy.copy(protection)
    told = attempt.a.outgoing[name]
    assert list(world.participants[name].handle(told))
    second: list[bytes] = []
    with pytest.raises(SecureFLError):
        second.extend(shallow.handle(told, lambda: pytest.fail("asked for the update")))
    assert not second
    world.close()


def test_an_upload_is_used_once(held: Upload) -> None:
    upload = held.new_upload()
    with pytest.raises(UsageError, match="after every chunk"):
        upload.finish()
    upload = held.new_upload()
    list(upload.chunks())
    upload.finish()
    with pytest.raises(StateReused):
        list(upload.chunks())
    with pytest.raises(StateReused):
        upload.finish()
    encryption = held.encryption()
    taken = encryption.chunks(cover=held.seed, chunk_key=bytes(32))
    next(taken)
    with pytest.raises(StateReused):
        next(encryption.chunks(cover=held.seed, chunk_key=bytes(32)))


# -- what is raised ------------------------------------------------------------------


def faults(held: Upload) -> dict[str, Callable[[], object]]:
    """What goes wrong with secrets at hand."""
    session = held.session
    degree = held.key.size
    long = held.key.copy()
    long[0] = 97

    def refused_later() -> object:
        """A release that is no release, and a sum that does not open."""
        total = np.zeros((3, 1, degree), np.uint64)
        return ckks.open_sum(session, total, held.key, {0: held.seed})

    def twice() -> object:
        upload = held.new_upload()
        list(upload.chunks())
        return list(upload.chunks())

    return {
        "an opening of another length": lambda: Opening.decode(
            Opening(held.key, (held.seed,)).encode(session)[:100], session
        ),
        "a key that is too long": lambda: ckks.open_sum(
            session, np.zeros((3, 1, degree), np.uint64), long * 4, {0: held.seed}
        ),
        "a sum that does not open": refused_later,
        "an upload used twice": twice,
        "too little randomness": lambda: Shorts(session, held.random["client"][:31]),
        "a claim that is none": lambda: ckks.Upload(
            session,
            held.world.identities[held.world.names[0]],
            held.invitation,
            held.words,
            claim=held.random["client"][:31],
            random=held.random["client"],
        ),
        "a cover that is none": lambda: list(
            held.encryption().chunks(cover=held.seed[:31], chunk_key=bytes(32))
        ),
        "words of another length": lambda: ckks.Encryption(
            session, 0, held.words[1:], random=held.random["client"]
        ),
        "a secret for a message": lambda: held.world.holder.handle(
            held.seed, random=held.random["holder"]
        ),
        "a secret for a chunk": lambda: Ciphertext.decode(held.seed, session),
        "a box for another key": lambda: keys.open_box(
            keys.seal(held.seed, held.invitation.key, info=b""),
            keys.private_key(held.random["client"]),
            info=b"",
        ),
    }


FAULTS = (
    "an opening of another length", "a key that is too long",
    "a sum that does not open", "an upload used twice", "too little randomness",
    "a claim that is none", "a cover that is none", "words of another length",
    "a secret for a message", "a secret for a chunk", "a box for another key",
)  # fmt: skip


@pytest.mark.parametrize("which", FAULTS)
def test_an_error_shows_no_secret(
    held: Upload, which: str, capfd: pytest.CaptureFixture[str]
) -> None:
    made = faults(held)
    assert set(made) == set(FAULTS)
    with pytest.raises((SecureFLError, ValueError)) as caught:
        made[which]()
    for text in everything_said(caught.value):
        assert not held.seen(text)
    printed = capfd.readouterr()
    assert not held.seen(printed.out + printed.err)


def test_locals_of_a_caller_hold_no_secret(held: Upload) -> None:
    """Some error reporters print local variables: a caller has states and messages."""
    message = held.called.invitation()

    def caller(upload: ckks.Upload, told: bytes) -> None:
        assert kind_of(told) == KINDS.INVITATION
        list(upload.chunks())
        list(upload.chunks())

    with pytest.raises(StateReused) as caught:
        caller(held.new_upload(), message)
    shown = traceback.TracebackException.from_exception(
        caught.value, capture_locals=True
    )
    outside = [f for f in shown.stack if OURS not in Path(f.filename).parents]
    (frame,) = [f for f in outside if f.name == "caller"]
    assert "upload" in (frame.locals or {})
    assert not held.seen(repr(frame.locals))


def test_a_participants_error_has_no_frames_of_ours(held: Upload) -> None:
    """They hold the update: an engine that logs an error logs nothing of them."""
    name = held.world.names[1]
    participant = held.world.participants[name]
    participant.open(1, 0, held.world.model)
    held.world.offer(name)
    with pytest.raises(ProtocolError) as caught:
        list(participant.handle(held.called.invitation()))
    frames = traceback.extract_tb(caught.value.__traceback__)
    inside = [f.name for f in frames if OURS in Path(f.filename).parents]
    assert inside == ["handle"]
    assert caught.value.__context__ is None


# -- what leaves ---------------------------------------------------------------------


def test_what_leaves_a_client_holds_none_of_its_secrets(held: Upload) -> None:
    """In the clear, that is: on the wire both boxes are sealed, and every chunk."""
    upload = held.new_upload()
    sent = [chunk.encode(held.session) for chunk in upload.chunks()]
    sent.append(upload.finish().encode(held.session))
    for message in sent:
        for name, secret in held.secrets.items():
            if name == "the key's words":  # mostly zeros, as anything is
                continue
            for at in range(0, min(len(secret), 4096) - 16, 16):
                assert secret[at : at + 16] not in message, name


def test_a_release_holds_none_of_the_key_holders(held: Upload) -> None:
    answer = held.called.ask_honestly()
    release = Release.decode(answer, held.session)
    assert held.random["holder"] not in answer
    assert held.secrets["holder key of holder"] not in answer
    assert not held.seen(repr(release))
    call = Call.decode(held.called.call)
    assert call.key in held.called.call, "what is public is there"
