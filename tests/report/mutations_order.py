# SPDX-License-Identifier: Apache-2.0
"""Mutations of the transcript's order: entries dropped, twice, moved, replayed from
another place or run, cut off, and invented.  Everybody signs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from secure_fl import wire
from secure_fl.identity import Identity
from secure_fl.model import GlobalModel
from secure_fl.plan import endorse
from secure_fl.randomness import SeededInsecure
from secure_fl.transcript import Transcript, countersign

from .mutations_folder import (
    EVERYBODY,
    MODEL,
    PLAN,
    REPORT,
    TRANSCRIPT,
    Folder,
    Mutation,
    Row,
    chained,
    ledger,
    messages_of,
    of_kind,
    parsed,
)
from .mutations_log import Edit, signed_by_all

__all__ = ["ORDER"]

# -- dropped, twice, moved -------------------------------------------------------------


def _drop(find: Callable[[list[Row]], list[int]], at: int) -> Edit:
    def edit(rows: list[Row]) -> None:
        del rows[find(rows)[at]]

    return edit


def _twice(find: Callable[[list[Row]], list[int]], at: int) -> Edit:
    def edit(rows: list[Row]) -> None:
        place = find(rows)[at]
        kind, body, _ = rows[place]
        rows.insert(place + 1, (kind, {**body}, -1))

    return edit


def _earlier(find: Callable[[list[Row]], list[int]], at: int) -> Edit:
    """Exchanged with the entry before it."""

    def edit(rows: list[Row]) -> None:
        i = find(rows)[at]
        rows[i - 1], rows[i] = rows[i], rows[i - 1]

    return edit


def _to_end(find: Callable[[list[Row]], list[int]], at: int) -> Edit:
    def edit(rows: list[Row]) -> None:
        rows.append(rows.pop(find(rows)[at]))

    return edit


def _kind(kind: str) -> Callable[[list[Row]], list[int]]:
    return lambda rows: of_kind(rows, kind)


def _message(
    number: int, place: tuple[int, int] = (0, 0)
) -> Callable[[list[Row]], list[int]]:
    return lambda rows: messages_of(rows, number, place)


MESSAGES: Final = {
    1: "an announcement",
    2: "the cohort",
    3: "dealt shares",
    4: "an inbox",
    6: "a vector's root",
    7: "the statement",
    8: "an agreement",
    9: "the signatures",
}


def _order() -> Iterator[Mutation]:
    entries: dict[str, tuple[Callable[[list[Row]], list[int]], int]] = {
        "the start": (_kind("start"), 0),
        "the last endorsement": (_kind("endorsement"), -1),
        "the failure": (_kind("failure"), 0),
        "the first round": (_kind("round"), 0),
        "the last round": (_kind("round"), -1),
        "the artefacts": (_kind("artefacts"), 0),
        "the aggregator's first signature": (_kind("signature"), 0),
        "the last signature": (_kind("signature"), -1),
    }
    entries |= {what: (_message(n), -1) for n, what in MESSAGES.items()}
    for what, (find, at) in entries.items():
        yield signed_by_all(f"{TRANSCRIPT}: {what} dropped", _drop(find, at))
        yield signed_by_all(f"{TRANSCRIPT}: {what} twice", _twice(find, at))
        if what != "the last signature":
            yield signed_by_all(
                f"{TRANSCRIPT}: {what} moved to the end", _to_end(find, at)
            )
        first = find is entries["the start"][0]
        unordered = what in (MESSAGES[1], MESSAGES[3], MESSAGES[4], MESSAGES[6])
        unordered |= what in (MESSAGES[8], "the last endorsement", "the last signature")
        # Clients answer in any order: their entries may stand in any.
        if not first and not unordered:
            yield signed_by_all(f"{TRANSCRIPT}: {what} too early", _earlier(find, at))


# -- replayed --------------------------------------------------------------------------


def _replay(
    find: Callable[[list[Row]], list[int]],
    source: Callable[[list[Row]], list[int]],
    *,
    at: int = 0,
) -> Edit:
    """What was sent in one place once more in another, in place of what was sent."""

    def edit(rows: list[Row]) -> None:
        body = rows[find(rows)[at]][1]
        old = rows[source(rows)[at]][1]
        assert body[4] != old[4]
        body[4] = old[4]

    return edit


def _from_other_run(kind: str, field: int) -> Callable[[Folder], None]:
    """A field of the entry that another run of these parties has in this place."""

    def apply(folder: Folder) -> None:
        theirs = parsed(folder.other.files[TRANSCRIPT])

        def edit(rows: list[Row]) -> None:
            body = rows[of_kind(rows, kind)[0]][1]
            other = theirs[of_kind(theirs, kind)[0]][1]
            assert body[field] != other[field]
            body[field] = other[field]

        folder.log(edit)

    return apply


def _other_message(number: int) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        theirs = parsed(folder.other.files[TRANSCRIPT])

        def edit(rows: list[Row]) -> None:
            body = rows[messages_of(rows, number)[0]][1]
            other = theirs[messages_of(theirs, number)[0]][1]
            assert body[4] != other[4]
            body[4] = other[4]

        folder.log(edit)

    return apply


def _old_signature(folder: Folder) -> None:
    """The first round's signature of bank-b stands for the second's too."""

    def edit(rows: list[Row]) -> None:
        mine = [i for i in of_kind(rows, "signature") if rows[i][1][0] == "bank-b"]
        kind, body, _ = rows[mine[1]]
        rows[mine[1]] = (kind, {**body, 2: rows[mine[0]][1][2]}, -1)

    folder.log(edit)


def _replays() -> Iterator[Mutation]:
    for number, what in MESSAGES.items():
        yield Mutation(
            f"{TRANSCRIPT}: {what} of another run, signed by all",
            "masking",
            EVERYBODY,
            _other_message(number),
            (TRANSCRIPT,),
        )
        again = _replay(_message(number, (1, 1)), _message(number, (0, 0)))
        yield signed_by_all(f"{TRANSCRIPT}: {what} of the round before", again)
    for number in (1, 2, 3, 4, 6):
        again = _replay(_message(number, (1, 1)), _message(number, (1, 0)))
        yield signed_by_all(
            f"{TRANSCRIPT}: {MESSAGES[number]} of the attempt before", again
        )
    fields: dict[tuple[str, int], tuple[str, ...]] = {
        ("start", 0): (PLAN, TRANSCRIPT),
        ("start", 1): (TRANSCRIPT,),
        ("endorsement", 1): (TRANSCRIPT,),
        ("round", 2): (TRANSCRIPT,),
        # The hashes of other files: any of those that are here may be named.
        ("artefacts", 0): (PLAN, REPORT, ledger("bank-a"), "report.html"),
    }
    for (kind, field), files in fields.items():
        name = f"{TRANSCRIPT}: field {field} of a {kind} of another run, signed by all"
        edit = _from_other_run(kind, field)
        yield Mutation(name, "masking", EVERYBODY, edit, files)
    name = f"{TRANSCRIPT}: a signature of the round before, signed by all"
    yield Mutation(name, "masking", EVERYBODY, _old_signature, (TRANSCRIPT,))


# -- cut off ---------------------------------------------------------------------------


def _cut_after_first_round(rows: list[Row]) -> None:
    """The second round is gone, and what follows the last moved up."""
    begin = next(i for i, row in enumerate(rows) if row[0] == "message" and row[1][0])
    del rows[begin : of_kind(rows, "artefacts")[0]]


def _cut_before_artefacts(rows: list[Row]) -> None:
    del rows[of_kind(rows, "artefacts")[0] :]


def _cut(keep: int) -> Edit:
    def edit(rows: list[Row]) -> None:
        del rows[keep:]

    return edit


def _without_member_signatures(rows: list[Row]) -> None:
    for at in reversed(of_kind(rows, "signature")):
        if rows[at][1][0]:
            del rows[at]


def _without_all_of(name: str) -> Edit:
    def edit(rows: list[Row]) -> None:
        for at in reversed(of_kind(rows, "signature")):
            if rows[at][1][0] == name:
                del rows[at]

    return edit


def _failed_attempt_hidden(rows: list[Row]) -> None:
    begin = next(i for i, row in enumerate(rows) if row[0] == "message" and row[1][0])
    del rows[begin : of_kind(rows, "failure")[0] + 1]


def _first_round_hidden(rows: list[Row]) -> None:
    begin = of_kind(rows, "message")[0]
    end = next(i for i, row in enumerate(rows) if row[0] == "message" and row[1][0])
    del rows[begin:end]


def _one_round_only(folder: Folder) -> None:
    """The run ends with its first round, of which all say that it left the model."""
    signer = folder.made.identities["bank-d"]
    model = GlobalModel.from_bytes(folder.files[MODEL])

    def edit(rows: list[Row]) -> None:
        _cut_after_first_round(rows)
        rows[of_kind(rows, "round")[0]][1][8] = model.digest()
        # bank-d was in that round, and so signs the end too.
        at = rows[of_kind(rows, "artefacts")[0]][2]
        body = {0: signer.name, 1: at, 2: bytes(64)}
        rows.append(("signature", body, len(folder.made.transcript.entries)))

    folder.log(edit)
    folder.rebuild()


def _nothing_opened(rows: list[Row]) -> None:
    """Both rounds failed, and nobody signed anything."""
    for at in of_kind(rows, "round"):
        _, body, old = rows[at]
        failure = {0: body[0], 1: body[1], 2: "too few clients", 3: ""}
        rows[at] = ("failure", failure, old)
    end = of_kind(rows, "artefacts")[0]
    for at in reversed(of_kind(rows, "signature")):
        if at < end:
            del rows[at]


def _another_run_id(folder: Folder) -> None:
    """The whole chain is another run's; its start is this one's."""
    rows = parsed(folder.files[TRANSCRIPT])
    folder.files[TRANSCRIPT] = chained(bytes(16), rows, folder.signer)


def _clipped(rows: list[Row]) -> None:
    rows[of_kind(rows, "round")[0]][1][6] = 2**40


def _cuts() -> Iterator[Mutation]:
    cuts: dict[str, Edit] = {
        "cut after the first round": _cut_after_first_round,
        "cut before the artefacts": _cut_before_artefacts,
        "cut to nothing": _cut(0),
        "cut to the start": _cut(1),
        "cut after the endorsements": _cut(5),
        "cut in the middle of a round": _cut(20),
        "without any member's signature": _without_member_signatures,
        "without bank-b's signatures": _without_all_of("bank-b"),
        "without the aggregator's signatures": _without_all_of(""),
        "first round hidden": _first_round_hidden,
    }
    for what, edit in cuts.items():
        yield signed_by_all(f"{TRANSCRIPT}: {what}", edit)
    yield signed_by_all(
        f"{TRANSCRIPT}: more clipped than there is", _clipped, rebuild=True
    )
    yield signed_by_all(f"{TRANSCRIPT}: nothing opened", _nothing_opened)
    others: dict[str, Callable[[Folder], None]] = {
        "the first round only": _one_round_only,
        "chained from another run id": _another_run_id,
    }
    for what, change in others.items():
        name = f"{TRANSCRIPT}: {what}, signed by all"
        yield Mutation(name, "masking", EVERYBODY, change, (TRANSCRIPT,))
    # As after a crash; but the report, and so its hash, is of the whole log.
    what = f"{TRANSCRIPT}: failed attempt hidden, report as it was"
    yield signed_by_all(what, _failed_attempt_hidden, (REPORT,))


# -- invented --------------------------------------------------------------------------


# A map of kind 10 as long as the hash that stands for it.
_WHOLE: Final = wire.encode({0: 10, 1: bytes(26)})
assert len(_WHOLE) == wire.HASH_BYTES


def _whole_reveal(rows: list[Row]) -> None:
    body = rows[messages_of(rows, 10)[0]][1]
    body[4], body[5] = _WHOLE, 0


def _insert(kind: str, body: dict[int, Any], before: str, at: int = 0) -> Edit:
    def edit(rows: list[Row]) -> None:
        rows.insert(of_kind(rows, before)[at], (kind, body, -1))

    return edit


def _third_round(rows: list[Row]) -> None:
    """The last round once more, as one that the plan does not have."""
    end = of_kind(rows, "artefacts")[0]
    begin = messages_of(rows, 1, (1, 1))[0]
    rows[end:end] = [
        (k, {**b, 0: 2} if k != "signature" else b, -1) for k, b, _ in rows[begin:end]
    ]


def _failure_of_an_opened_round(rows: list[Row]) -> None:
    """After the signatures over it, the first round is said to have failed too."""
    begin = next(i for i, row in enumerate(rows) if row[0] == "message" and row[1][0])
    body = {0: 0, 1: 1, 2: "too few clients", 3: ""}
    rows.insert(begin, ("failure", body, -1))


def _renamed_sender(rows: list[Row]) -> None:
    """bank-b's announcement is said to be bank-c's, whose own is left out."""
    first, second = messages_of(rows, 1)[1:3]
    rows[first][1][2] = "bank-c"
    del rows[second]


def _endorsed_twice(folder: Folder) -> None:
    def edit(rows: list[Row]) -> None:
        signer = folder.made.identities["bank-b"]
        body = {0: "bank-b", 1: endorse(folder.plan, signer)}
        rows.insert(of_kind(rows, "message")[0], ("endorsement", body, -1))

    folder.log(edit)


def _stranger(folder: Folder) -> Identity:
    return Identity.new("bank-x", random=SeededInsecure(b"a stranger"))


def _stranger_endorses(folder: Folder) -> None:
    def edit(rows: list[Row]) -> None:
        body = {0: "bank-x", 1: endorse(folder.plan, _stranger(folder))}
        rows.insert(of_kind(rows, "message")[0], ("endorsement", body, -1))

    folder.log(edit)


def _stranger_signs(rows: list[Row], folder: Folder, name: str) -> None:
    """A stranger's key signs in the place, and with the name, of a member."""
    transcript = Transcript.from_bytes(folder.files[TRANSCRIPT])
    at = of_kind(rows, "signature")[-1]
    signed = transcript.entries[rows[at][1][1]]
    body = {**rows[at][1], 2: countersign(_stranger(folder), signed.hash)}
    rows[at] = ("signature", {**body, 0: name or body[0]}, -1)


def _signed_by_stranger(name: str) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        folder.log(lambda rows: _stranger_signs(rows, folder, name))

    return apply


def _keyholder_speaks(rows: list[Row]) -> None:
    body = {**rows[messages_of(rows, 1)[0]][1], 2: "key holder"}
    rows.insert(messages_of(rows, 2)[0], ("message", body, -1))


def _invented() -> Iterator[Mutation]:
    failure = {0: 0, 1: 0, 2: "too few clients", 3: ""}
    message = {0: 0, 1: 0, 2: "bank-x", 3: "", 4: b"\xa1\x00\x01", 5: 0}
    edits: dict[str, Edit] = {
        "a failure before the opening": _insert("failure", failure, "round"),
        "a failure of an opened round": _failure_of_an_opened_round,
        "a failure after all": lambda rows: rows.append(("failure", failure, -1)),
        "a message of a stranger": _insert("message", message, "round"),
        "a message of no kind": _insert(
            "message", {**message, 2: "bank-a", 4: b"\xa1\x00\x17"}, "round"
        ),
        "a revealed share that stands whole": _whole_reveal,
        "a message that is no CBOR": _insert(
            "message", {**message, 2: "bank-a", 4: b"\xff"}, "round"
        ),
        "a message of nobody's round": _insert(
            "message", {**message, 0: 7, 2: "bank-a"}, "artefacts"
        ),
        "a message of the key holder": _keyholder_speaks,
        "a message under another name": _renamed_sender,
        "a third round": _third_round,
        "second artefacts": _insert("artefacts", {0: []}, "artefacts"),
        "a second start": lambda rows: rows.insert(1, (rows[0][0], rows[0][1], -1)),
        "a signature behind nothing": _insert(
            "signature", {0: "", 1: 0, 2: bytes(64)}, "message"
        ),
    }
    for what, edit in edits.items():
        yield signed_by_all(f"{TRANSCRIPT}: {what} invented", edit)
    others: dict[str, Callable[[Folder], None]] = {
        "a second endorsement invented": _endorsed_twice,
        "an endorsement of a stranger invented": _stranger_endorses,
        "a stranger signs in a member's name": _signed_by_stranger(""),
        "a stranger signs in its own name": _signed_by_stranger("bank-x"),
    }
    for what, change in others.items():
        name = f"{TRANSCRIPT}: {what}"
        yield Mutation(name, "masking", EVERYBODY, change, (TRANSCRIPT,))


ORDER: Final = (*_order(), *_replays(), *_cuts(), *_invented())
