# SPDX-License-Identifier: Apache-2.0
"""Mutations of the plan, and of who its parties are.

Nobody can change a byte: its hash begins the transcript.  Where the start names the new
hash, and all but one member endorse it, that one's endorsement is missing.  Where all
endorse it, no message of the run is of that plan.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from typing import Any, Final

import tomli_w

from secure_fl import wire
from secure_fl.identity import Identity, key_to_text
from secure_fl.plan import SCHEMA
from secure_fl.randomness import SeededInsecure

from .mutations_folder import (
    EVERYBODY,
    NOBODY,
    PLAN,
    TRANSCRIPT,
    Folder,
    Mutation,
    Row,
    ledger,
    of_kind,
)

__all__ = ["PLANS", "of_plan"]

ALL_BUT_ONE: Final = ("", "bank-a", "bank-c", "bank-d")
Tree = dict[str, Any]
Edit = Callable[[Tree], None]

_RANDOM: Final = SeededInsecure(b"a forger's own keys")
FORGER: Final = Identity.new("bank-e", random=_RANDOM)
FORGED_KEY: Final = key_to_text(FORGER.public_key)
# The neutral element: under it everybody's signature holds, in some libraries.
WEAK_KEY: Final = key_to_text(bytes([1]) + bytes(31))


def _source(folder: Folder, edit: Edit) -> bytes:
    tree = tomllib.loads(folder.files[PLAN].decode())
    edit(tree)
    return tomli_w.dumps(tree).encode()


def _unsigned(edit: Edit) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        folder.files[PLAN] = _source(folder, edit)

    return apply


def _endorsed(make: Callable[[Folder], bytes]) -> Callable[[Folder], None]:
    """The start and every endorsement that the forger can make are of the new plan."""

    def apply(folder: Folder) -> None:
        source = make(folder)
        assert source != folder.files[PLAN]
        folder.files[PLAN] = source
        _endorse(folder, source)
        folder.seal()

    return apply


def _endorse(folder: Folder, source: bytes) -> None:
    hash_ = wire.digest(SCHEMA, source)

    def edit(rows: list[Row]) -> None:
        rows[0][1][0] = hash_
        for at in of_kind(rows, "endorsement"):
            body = rows[at][1]
            signer = folder.signer(body[0])
            if signer is not None:
                body[1] = signer.sign(f"{SCHEMA} endorsement", hash_, body[0])

    folder.log(edit)


def _set(section: str, key: str, value: Any) -> Edit:
    def edit(tree: Tree) -> None:
        assert tree[section].get(key) != value
        tree[section][key] = value

    return edit


def _member(index: int, key: str, value: Any) -> Edit:
    def edit(tree: Tree) -> None:
        tree["parties"]["members"][index][key] = value

    return edit


def _member_more(tree: Tree) -> None:
    row = {"name": "bank-e", "key": FORGED_KEY, "records": 100}
    tree["parties"]["members"].append(row)


def _member_less(tree: Tree) -> None:
    del tree["parties"]["members"][-1]


def _members_exchanged(tree: Tree) -> None:
    members = tree["parties"]["members"]
    members[0], members[1] = members[1], members[0]


def _keys_exchanged(tree: Tree) -> None:
    one, two = tree["parties"]["members"][:2]
    one["key"], two["key"] = two["key"], one["key"]


def _key_shared(tree: Tree) -> None:
    one, two = tree["parties"]["members"][:2]
    one["key"] = two["key"]


def _aggregator_is_member(tree: Tree) -> None:
    tree["parties"]["aggregator"] = tree["parties"]["members"][0]["key"]


def _unknown_section(tree: Tree) -> None:
    tree["approval"] = {"by": "the regulator"}


def _unfinished(tree: Tree) -> None:
    del tree["run"]


# Plans that could be: another run could have them.
OTHERS: Final[dict[str, Edit]] = {
    "epsilon raised": _set("privacy", "epsilon", 12.0),
    "epsilon lowered": _set("privacy", "epsilon", 4.0),
    "delta raised": _set("privacy", "delta", 1e-4),
    "delta lowered": _set("privacy", "delta", 1e-6),
    "clip norm changed": _set("privacy", "clip_norm", 0.25),
    "noise multiplier raised": _set("privacy", "noise_multiplier", 7.0),
    "sampling rate lowered": _set("privacy", "sampling_rate", 0.5),
    "local steps changed": _set("privacy", "local_steps", 2),
    "overlap changed": _set("privacy", "overlap", "overlapping"),
    "another lineage": _set("privacy", "lineage", "another data set"),
    "another name": lambda tree: tree.update(name="another demo"),
    "fewer rounds": _set("rounds", "count", 1),
    "more rounds": _set("rounds", "count", 3),
    "fewer spare releases": _set("rounds", "spare", 1),
    "more attempts": _set("rounds", "max_attempts", 5),
    "no colluding members": _set("parties", "max_colluding", 0),
    "another threshold": _set("parties", "threshold", 4),
    "more clients needed": _set("parties", "min_clients", 4),
    "another weight": _member(1, "weight", 2),
    "other records": _member(1, "records", 100_000),
    "a member's key swapped": _member(1, "key", FORGED_KEY),
    "two members exchanged": _members_exchanged,
    "two members' keys exchanged": _keys_exchanged,
    "a forged member more": _member_more,
    "a member less": _member_less,
    "a member renamed": _member(3, "name", "bank-x"),
    "the aggregator's key swapped": _set("parties", "aggregator", FORGED_KEY),
    "the aggregator is a member": _aggregator_is_member,
    "another run id": lambda tree: tree["run"].update(id="0" * 31 + "1"),
    "another start": _set("model", "start_sha256", "1" * 64),
    "no protection": _set("protection", "kind", "plain"),
    "another protection": _set("protection", "kind", "ckks"),
    "other words": _set("protection", "word_bits", 40),
    "another clip": _set("protection", "clip", 8.0),
    "smaller chunks": _set("protection", "chunk_words", 128),
}

# Plans that no run can have.
NONE: Final[dict[str, Edit]] = {
    "two members share a key": _key_shared,
    "a member with a weak key": _member(1, "key", WEAK_KEY),
    "a member with a mistyped key": _member(1, "key", FORGED_KEY[:-1] + "!"),
    "an aggregator with a weak key": _set("parties", "aggregator", WEAK_KEY),
    "an unknown key": _set("privacy", "approved", "yes"),
    "an unknown section": _unknown_section,
    "not yet completed": _unfinished,
    "another schema": lambda tree: tree.update(schema="secure-fl/plan/2"),
    "a budget that it overspends": _set("privacy", "noise_multiplier", 2.0),
    "fewer clients than may collude": _set("parties", "min_clients", 1),
    "a threshold below half": _set("parties", "threshold", 1),
    "all may collude": _set("parties", "max_colluding", 4),
    "a step that wraps": _set("protection", "step", 1.0e-9),
    "a delta that permits all": _set("privacy", "delta", 0.09),
    "an epsilon that is a text": _set("privacy", "epsilon", "8"),
}


def _sources() -> Iterator[Mutation]:
    """Bytes that are no plan, signed by all."""
    sources: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda data: b"",
        "not UTF-8": lambda data: data + b"# \xff\n",
        "not TOML": lambda data: data + b"[",
        "deeply nested": lambda data: b"a = " + b"[" * 100_000,
        "a section twice": lambda data: data + b"\n[rounds]\ncount = 1\n",
        "of zeros": lambda data: bytes(len(data)),
    }
    for what, change in sources.items():

        def make(folder: Folder, change: Callable[[bytes], bytes] = change) -> bytes:
            return change(folder.files[PLAN])

        yield Mutation(
            f"{PLAN}: {what}, signed by all",
            "masking",
            EVERYBODY,
            _endorsed(make),
            (PLAN,),
        )


def _from(edit: Edit) -> Callable[[Folder], bytes]:
    return lambda folder: _source(folder, edit)


def of_plan(section: str, key: str, value: Any) -> Callable[[Folder], None]:
    """Another value in the plan, endorsed by everybody whose key is held."""
    return _endorsed(_from(_set(section, key, value)))


def _plans() -> Iterator[Mutation]:
    for what, edit in OTHERS.items():
        title = f"{PLAN}: {what}"
        yield Mutation(title, "masking", NOBODY, _unsigned(edit), (PLAN,))
        for holds, who in ((ALL_BUT_ONE, "all but bank-b"), (EVERYBODY, "all")):
            yield Mutation(
                f"{title}, signed by {who}",
                "masking",
                holds,
                _endorsed(_from(edit)),
                (TRANSCRIPT, *_also(what)),
            )
    for what, edit in NONE.items():
        yield Mutation(
            f"{PLAN}: {what}, signed by all",
            "masking",
            EVERYBODY,
            _endorsed(_from(edit)),
            (PLAN,),
        )


def _also(what: str) -> tuple[str, ...]:
    """A party more: its ledger is missing, whatever it signed."""
    return (ledger("bank-e"),) if what == "a forged member more" else ()


# -- a forged member that takes part ---------------------------------------------------


def _forged_member_endorses(folder: Folder) -> None:
    """A fifth member: endorsed by all and by itself, with a ledger of its own."""
    folder.files[PLAN] = _source(folder, _member_more)
    _endorse(folder, folder.files[PLAN])
    hash_ = wire.digest(SCHEMA, folder.files[PLAN])
    signature = FORGER.sign(f"{SCHEMA} endorsement", hash_, "bank-e")

    def edit(rows: list[Row]) -> None:
        at = of_kind(rows, "endorsement")[-1] + 1
        rows.insert(at, ("endorsement", {0: "bank-e", 1: signature}, -1))

    folder.log(edit)
    folder.files[ledger("bank-e")] = folder.files[ledger("bank-d")]
    folder.seal()


def _forged_key_endorses(folder: Folder) -> None:
    """bank-b's key is the forger's, and so are its endorsement and signatures."""
    folder.files[PLAN] = _source(folder, _member(1, "key", FORGED_KEY))
    _endorse(folder, folder.files[PLAN])
    hash_ = wire.digest(SCHEMA, folder.files[PLAN])

    def edit(rows: list[Row]) -> None:
        for at in of_kind(rows, "endorsement"):
            if rows[at][1][0] == "bank-b":
                signature = FORGER.sign(f"{SCHEMA} endorsement", hash_, "bank-b")
                rows[at][1][1] = signature

    folder.log(edit)
    folder.seal()


def _another_aggregator(folder: Folder) -> None:
    """The start names the forger's key as the aggregator's; the plan does not."""

    def edit(rows: list[Row]) -> None:
        rows[0][1][2] = FORGER.public_key

    folder.log(edit)


def _parties() -> Iterator[Mutation]:
    edits: dict[str, Callable[[Folder], None]] = {
        "a forged member endorses, with a ledger": _forged_member_endorses,
        "a forged key endorses in bank-b's name": _forged_key_endorses,
        "the start names another aggregator": _another_aggregator,
    }
    for what, edit in edits.items():
        name = f"{PLAN}: {what}, signed by all"
        yield Mutation(name, "masking", EVERYBODY, edit, (TRANSCRIPT,))


def _with_key_holder() -> Iterator[Mutation]:
    swapped = _set("parties", "keyholder", FORGED_KEY)
    name = f"{PLAN}: the key holder's key swapped, signed by all"
    edit = _endorsed(_from(swapped))
    yield Mutation(name, "keyholder", EVERYBODY, edit, (TRANSCRIPT,))

    def is_aggregator(tree: Tree) -> None:
        tree["parties"]["keyholder"] = tree["parties"]["aggregator"]

    def is_member(tree: Tree) -> None:
        tree["parties"]["keyholder"] = tree["parties"]["members"][0]["key"]

    def is_missing(tree: Tree) -> None:
        del tree["parties"]["keyholder"]

    edits: dict[str, Edit] = {
        "the key holder is the aggregator": is_aggregator,
        "the key holder is a member": is_member,
        "without its key holder": is_missing,
        "a key holder with a weak key": _set("parties", "keyholder", WEAK_KEY),
        "a key holder without a task": _set("protection", "keys", "one-time"),
    }
    for what, change in edits.items():
        name = f"{PLAN}: {what}, signed by all"
        edit = _endorsed(_from(change))
        yield Mutation(name, "keyholder", EVERYBODY, edit, (PLAN,))


PLANS: Final = (*_plans(), *_sources(), *_parties(), *_with_key_holder())
