# SPDX-License-Identifier: Apache-2.0
"""What one organisation's host keeps: its ledger, its keystore, the plans it joined.

A folder of mode 0700, and a process per message that opens it::

    ledger.sqlite                     what its data sets' releases cost
    keystore.sqlite, keystore.key     protocol state; both out of every backup
    policy.toml                       its own policy, where it has one
    plans/PLAN HASH/plan.toml         its own copy of a plan
    plans/PLAN HASH/endorsement       its signature over that
    plans/PLAN HASH/settings.toml     where its key and data are; gone once it has left
    runs/RUN ID/begin.cbor            the log's first entries, as it was shown them
    runs/RUN ID/model.safetensors     the current global model

Nothing below plans and runs is secret.  The private key lies wherever its owner put it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import tomli_w
from safetensors import SafetensorError, safe_open

from .. import wire
from ..consent import Consent
from ..errors import EngineError, PlanError, ProtocolError, UsageError
from ..files import create_once, sync_folder, write_durably
from ..identity import Identity
from ..keystore import DiskKeystore
from ..model import GlobalModel
from ..plan import Plan, endorse
from ..privacy import Ledger
from ..randomness import RandomSource
from ..transcript import KEY_HOLDER

__all__ = ["Joined", "MemberHome", "MemberSettings", "check_budget", "passphrase"]

_PRIVATE: Final = 0o600
_POLICY: Final = "policy.toml"


@final
@dataclass(frozen=True)
class MemberSettings:
    """What a member chooses alone, for one plan.

    name
        its name there; ``KEY_HOLDER`` for the key holder
    key
        the file of its private key
    data
        where its records are, for a trainer that reads them from there
    """

    name: str
    key: Path
    data: Path | None = None


@final
@dataclass(frozen=True)
class Joined:
    """A plan that was joined here.  ``endorsement``: empty for a key holder."""

    plan: Plan
    settings: MemberSettings
    endorsement: bytes

    @property
    def holds_keys(self) -> bool:
        """Whether this is the key holder, and no member."""
        return self.settings.name == KEY_HOLDER

    def identity(self) -> Identity:
        """The private key, opened with :func:`passphrase`.

        Raises UsageError where it does not open, or is another key than the plan names.
        """
        settings = self.settings
        identity = Identity.load(
            settings.key, name=settings.name, passphrase=passphrase()
        )
        if _party(self.plan, identity.public_key) != settings.name:
            raise UsageError(
                f"the key in {settings.key} is not the one that was joined with",
                hint="join again with the key that the plan names",
            )
        return identity


def passphrase() -> bytes | None:
    """Of a private key: SECURE_FL_PASSPHRASE, or what the file holds that
    SECURE_FL_PASSPHRASE_FILE names (a systemd credential, say).

    Raises UsageError where that file cannot be read.
    """
    given = os.environ.get("SECURE_FL_PASSPHRASE")
    if given is not None:
        return given.encode()
    named = os.environ.get("SECURE_FL_PASSPHRASE_FILE")
    if named is None:
        return None
    try:
        return Path(named).read_bytes().removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        raise UsageError(
            f"cannot read the passphrase in {named}: {error.strerror}",
            hint="SECURE_FL_PASSPHRASE_FILE names a file that holds it, and no more",
        ) from None


@final
class MemberHome:
    """The folder of one organisation: a member of some plans, or a key holder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # -- joining and leaving -------------------------------------------------------

    def join(
        self, plan: Plan, *, key: Path, data: Path | None, policy: Path | None
    ) -> Joined:
        """Consent to ``plan``: check it, endorse it, and answer for it from now on.

        key
            a member's private key, or the key holder's; it stays where it is
        data
            where this member's records are
        policy
            becomes the policy of this home, and so of all its plans

        Joining again is harmless, and how a key or data that moved are made known.

        Raises PlanError for a plan that is not complete, ConsentRefused where the
        policy does not allow it, BudgetExceeded where its releases would overspend,
        and UsageError for a key that it does not name, or a home of somebody else.
        """
        if not plan.complete:
            raise PlanError(
                "the plan is not complete: it lacks keys or its run id",
                hint="join the file that all members join; its hash is what they sign",
            )
        identity = Identity.load(key, passphrase=passphrase())
        name = _party(plan, identity.public_key)
        if name is None:
            raise UsageError(
                f"the key in {key} is no member's of this plan",
                hint="compare `secure-fl keys show` with the plan's keys",
            )
        settings = MemberSettings(
            name, key.resolve(), None if data is None else data.resolve()
        )
        self._create()
        offered = None if policy is None else self._new_policy(policy)
        consent = (
            self.consent()
            if offered is None
            else Consent.parse(offered, name=str(policy))
        )
        if consent is not None:
            consent.check_plan(plan)
        endorsement = b""
        if name != KEY_HOLDER:
            with contextlib.closing(self.ledger(name)) as ledger:
                check_budget(plan, ledger)
            endorsement = endorse(plan, Joined(plan, settings, b"").identity())
        if offered is not None:
            write_durably(self.folder / _POLICY, offered, mode=_PRIVATE)
        folder = self._plan_folder(plan.hash)
        write_durably(folder / "plan.toml", plan.source, mode=_PRIVATE)
        write_durably(folder / "endorsement", endorsement, mode=_PRIVATE)
        # Last: from here on it is joined.
        write_durably(folder / "settings.toml", _to_toml(settings), mode=_PRIVATE)
        return Joined(plan, settings, endorsement)

    def leave(self, plan_hash: bytes) -> None:
        """Answer nothing about that plan any more.  What was charged stays charged.

        The endorsement cannot be taken back: for the others this member is a dropout,
        until a new plan goes without it.  Raises UsageError where it is not joined.
        """
        self.find(plan_hash)
        folder = self._plan_folder(plan_hash)
        (folder / "settings.toml").unlink(missing_ok=True)
        sync_folder(folder)

    def find(self, plan_hash: bytes) -> Joined:
        """The plan with that hash.  Raises UsageError where it is not joined here."""
        folder = self._plan_folder(plan_hash)
        try:
            plan = Plan.known((folder / "plan.toml").read_bytes(), folder=folder)
        except FileNotFoundError:
            raise UsageError(
                f"the plan {plan_hash.hex()} was not joined here",
                hint="consent to it first: secure-fl join PLAN --key KEY --home HOME",
            ) from None
        try:
            settings = _of_toml((folder / "settings.toml").read_text())
            endorsement = (folder / "endorsement").read_bytes()
        except FileNotFoundError:
            raise UsageError(
                f"the plan {plan_hash.hex()} was left",
                hint="`secure-fl join` consents to it anew",
            ) from None
        if plan.hash != plan_hash:
            raise EngineError(
                f"{folder / 'plan.toml'} was changed",
                hint="join again with the file that all members joined",
            )
        return Joined(plan, settings, endorsement)

    def consent(self) -> Consent | None:
        """The policy as it stands now, or None.  Raises UsageError for a broken one."""
        path = self.folder / _POLICY
        return Consent.load(path) if path.exists() else None

    def _new_policy(self, path: Path) -> bytes:
        try:
            source = path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"cannot read {path}: {error.strerror}",
                hint="write a policy with `secure-fl policy new`",
            ) from None
        held = self.folder / _POLICY
        if held.exists() and held.read_bytes() != source:
            raise UsageError(
                f"{held} is another policy",
                hint="all plans of a home are under one: change that file yourself",
            )
        return source

    # -- what a process opens --------------------------------------------------------

    def ledger(self, name: str) -> Ledger:
        """Caller closes it.  Raises UsageError where it is another client's."""
        return Ledger(self.folder / "ledger.sqlite", client=name)

    def keystore(self, random: RandomSource) -> DiskKeystore:
        """Caller closes it.  Raises UsageError for one that was restored."""
        return DiskKeystore(
            self.folder / "keystore.sqlite",
            key_path=self.folder / "keystore.key",
            random=random,
        )

    # -- runs ----------------------------------------------------------------------

    def begin_run(self, run_id: bytes, entries: Sequence[bytes]) -> list[bytes]:
        """Keep a log's first entries.  Gives those that are kept: a run has one log."""
        path = self._run_folder(run_id) / "begin.cbor"
        data = wire.encode(list(entries))
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            create_once(path, lambda new: write_durably(new, data, mode=_PRIVATE))
        except OSError as error:
            raise EngineError(f"cannot write {path}: {error.strerror}") from None
        return self.begun(run_id)

    def begun(self, run_id: bytes) -> list[bytes]:
        """What :meth:`begin_run` kept; empty where the run has not begun here."""
        path = self._run_folder(run_id) / "begin.cbor"
        if not path.exists():
            return []
        try:
            value = wire.decode(path.read_bytes())
        except ProtocolError:
            value = b""
        if not isinstance(value, list):
            raise EngineError(
                f"{path} is damaged", hint="this member is out of the run"
            )
        return [item for item in value if isinstance(item, bytes)]

    def keep_model(self, run_id: bytes, model: GlobalModel) -> None:
        """In place of the round's before.  Raises EngineError for a full disk."""
        write_durably(self._model_file(run_id), model.to_bytes(), mode=_PRIVATE)

    def model(self, run_id: bytes) -> GlobalModel:
        """Raises UsageError where there is none."""
        return GlobalModel.load(self._model_file(run_id))

    def model_shapes(self, run_id: bytes) -> Mapping[str, tuple[int, ...]] | None:
        """Those of :meth:`model`, without reading its values; None where it is none."""
        try:
            with safe_open(self._model_file(run_id), "np") as file:
                names = file.keys()
                return {k: tuple(file.get_slice(k).get_shape()) for k in names}
        except (OSError, SafetensorError):
            return None

    @contextlib.contextmanager
    def training(self, run_id: bytes) -> Iterator[None]:
        """One process of this member at a time; the others wait for it to end."""
        path = self._run_folder(run_id) / "training.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = open(os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE), "w")  # noqa: SIM115
        except OSError as error:
            raise EngineError(f"cannot write {path}: {error.strerror}") from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # -- places ----------------------------------------------------------------------

    def _plan_folder(self, plan_hash: bytes) -> Path:
        return self.folder / "plans" / plan_hash.hex()

    def _run_folder(self, run_id: bytes) -> Path:
        return self.folder / "runs" / run_id.hex()

    def _model_file(self, run_id: bytes) -> Path:
        return self._run_folder(run_id) / "model.safetensors"

    def _create(self) -> None:
        try:
            for folder in (self.folder, self.folder / "plans", self.folder / "runs"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            mode = self.folder.stat().st_mode
        except OSError as error:
            raise UsageError(
                f"cannot create {error.filename}: {error.strerror}",
                hint="choose a home that is yours",
            ) from None
        if mode & 0o077:
            raise UsageError(
                f"others may look into {self.folder}",
                hint="the home of a ledger and a keystore has mode 0700: chmod 700",
            )

    def __repr__(self) -> str:
        return f"<MemberHome {self.folder}>"


def check_budget(plan: Plan, ledger: Ledger) -> None:
    """Raises BudgetExceeded where the plan's rounds would overspend."""
    ledger.check(
        plan.lineage,
        [plan.release] * plan.rounds.count,
        delta=plan.privacy.delta,
        limit=plan.privacy.epsilon,
        view=plan.view,
    )


def _party(plan: Plan, public_key: bytes) -> str | None:
    """Whose key that is: a member's name, ``KEY_HOLDER``, or None."""
    for member in plan.roster.members:
        if member.public_key == public_key:
            return member.name
    if plan.has_keyholder and plan.keyholder_key == public_key:
        return KEY_HOLDER
    return None


def _to_toml(settings: MemberSettings) -> bytes:
    entries = {"name": settings.name, "key": str(settings.key)}
    if settings.data is not None:
        entries["data"] = str(settings.data)
    return tomli_w.dumps(entries).encode()


def _of_toml(text: str) -> MemberSettings:
    try:
        match tomllib.loads(text):
            case {"name": str(name), "key": str(key), **rest}:
                data = rest.get("data")
                if data is None or isinstance(data, str):
                    where = None if data is None else Path(data)
                    return MemberSettings(name, Path(key), where)
    except tomllib.TOMLDecodeError:
        pass
    raise EngineError("the settings of a joined plan do not parse", hint="join again")
