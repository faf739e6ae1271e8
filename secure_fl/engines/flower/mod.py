# SPDX-License-Identifier: Apache-2.0
"""What keeps a Flower client's update from the aggregator: a mod on the ClientApp.

Every message goes to the member's own home on this machine.  Where it asks for an
update, the app's train function is called as Flower would call it, and what it gives
back stays here: only messages of the protocol leave.
"""

from __future__ import annotations

import contextvars
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict

from ...errors import EngineError, ProtocolError, SecureFLError, UsageError
from ...privacy import PrivateUpdate, Unprotected, unprotected
from ...randomness import SystemRandom
from ..behind import behind
from ..home import MemberHome, MemberSettings
from ..member import Member
from .models import difference, to_arrays
from .records import from_records, is_parcel, to_records

if TYPE_CHECKING:
    from ...plan import Plan
    from ...training import ClientRound
    from ..local import Trainer

__all__ = [
    "HOME_KEY",
    "SecureAggregationMod",
    "answer",
    "client_round",
    "private_reply",
    "secure_aggregation_mod",
]

_log = logging.getLogger("secure_fl")

HOME_KEY: Final = "secure-fl-home"
_PARTITION: Final = "{partition}"  # in a home's place: of a client that is simulated
_REFUSED: Final = 6  # Flower's code for what a mod does not let through
_REASON: Final = "trained without privacy"

ClientFunction = Callable[[Message, Context], Message]


# -- what a train function may call ----------------------------------------------------


@final
class _Running:
    """One call of a train function, and what it has done about privacy."""

    def __init__(self, client_round: ClientRound, message: Message) -> None:
        self.round = client_round
        self.message = message
        self.asked = False
        self.update: PrivateUpdate | None = None
        self.reply: Message | None = None

    def update_of(self, reply: object) -> PrivateUpdate | Unprotected:
        """What the train function meant by ``reply``.  Raises UsageError."""
        if not isinstance(reply, Message):
            raise UsageError(
                f"the train function returned {type(reply).__name__}, no Message",
                hint="return Message(content, reply_to=message), or private_reply(...)",
            )
        if self.update is not None:
            if reply is not self.reply:
                raise UsageError(
                    "a private reply was made, and another one returned",
                    hint="return what private_reply(...) gave, through no other mod",
                )
            return self.update
        if self.asked:
            raise UsageError(
                "the train function began a private round, and returned plain arrays",
                hint="return private_reply(private.update())",
            )
        if not reply.has_content():
            raise EngineError("the train function returned an error")
        records = list(reply.content.array_records.values())
        if len(records) != 1:
            raise UsageError(
                f"the train function returned {len(records)} array records, not one",
                hint="return the trained arrays; metrics stay here, whatever they are",
            )
        return unprotected(difference(records[0], self.round.model), reason=_REASON)


_running: contextvars.ContextVar[_Running] = contextvars.ContextVar("running")


def _current() -> _Running:
    running = _running.get(None)
    if running is None:
        raise UsageError(
            "no round of secure aggregation is running here",
            hint="call this within the train function, in its own thread, of an app "
            "with mods=[secure_aggregation_mod]",
        )
    return running


def client_round() -> ClientRound:
    """The round that the calling train function trains for: it has ``make_private``,
    and for plans in distributed mode ``gradient_sum`` or ``clipped_update``.

    Whoever asks for it hands its update over with :func:`private_reply`; plain arrays
    are refused from then on.  Raises UsageError outside of a train function.
    """
    running = _current()
    running.asked = True
    return running.round


def private_reply(update: PrivateUpdate) -> Message:
    """What a train function returns instead of its arrays: ``update`` stays inside.

    update
        what ``private.update()`` of this very round gave, or ``gradient_sum``, or
        ``clipped_update``

    Raises UsageError for anything else, a second time in a round, and outside of a
    train function.
    """
    running = _current()
    if not isinstance(update, PrivateUpdate):
        raise UsageError(
            f"a private reply holds a PrivateUpdate, not {type(update).__name__}",
            hint="give it private.update()",
        )
    if running.update is not None:
        raise UsageError("this round has its private reply already")
    running.update = update
    running.reply = Message(RecordDict(), reply_to=running.message)
    return running.reply


# -- the mod ---------------------------------------------------------------------------


@final
class SecureAggregationMod:
    """The first mod of a ClientApp: ``ClientApp(mods=[secure_aggregation_mod])``.

    It answers requests of the aggregator that the member's plan names, out of the
    member's home (``secure-fl-home`` in the SuperNode's node config, or the variable
    SECURE_FL_HOME), and refuses every other message: neither train function nor
    evaluate function is then called.  In Flower's simulation engine all clients share
    one variable: ``{partition}`` in it stands for each one's partition-id.

    The app's train function gets the global model, float32, and a config that holds
    ``server-round`` alone.  Arrays are in the order of their names (see
    :func:`~secure_fl.engines.flower.models.to_arrays`).  Of its reply the arrays count,
    and as the difference to the global model; metrics and numbers of examples go
    nowhere.  Such an update has no privacy of its own, and the report says epsilon is
    infinity; :func:`client_round` and :func:`private_reply` change that.

    Mods in front of it see messages of the protocol only; mods behind it see the train
    function's own.  An app of Flower's older kind, with a ``client_fn``, has no train
    function to call, and its bank is a dropout.
    """

    def __init__(
        self, *, arrayrecord_key: str = "arrays", configrecord_key: str = "config"
    ) -> None:
        """The keys under which the train function looks for its records."""
        self._arrays = arrayrecord_key
        self._config = configrecord_key

    def __call__(
        self, message: Message, context: Context, call_next: ClientFunction
    ) -> Message:
        def fit(r: ClientRound) -> PrivateUpdate | Unprotected:
            message.content = RecordDict(
                {
                    self._arrays: to_arrays(r.model),
                    self._config: ConfigRecord({"server-round": r.round + 1}),
                }
            )
            running = _Running(r, message)
            token = _running.set(running)
            try:
                return running.update_of(call_next(message, context))
            finally:
                _running.reset(token)

        return answer(message, context, lambda plan, settings: fit)


secure_aggregation_mod: Final = SecureAggregationMod()


def answer(
    message: Message,
    context: Context,
    trainer: Callable[[Plan, MemberSettings], Trainer],
) -> Message:
    """The member's answer to one Flower message; never raises.

    What is no request of ours gets an error that tells nothing of this client.
    """
    if not message.has_content() or not is_parcel(message.content):
        _log.warning("a %r message was refused", message.metadata.message_type)
        return _refusal(message, "this client answers secure aggregation only")
    try:
        member = Member(
            MemberHome(_home(context)),
            trainer,
            random=SystemRandom(),
            now=_now,
            behind=behind,
        )
        parcel = from_records(message.content)
        reply = to_records(member.handle(parcel, node=context.node_id))
    except ProtocolError as error:
        _log.error("a message was refused: %s", error)
        return _refusal(message, error.message)
    except Exception as error:  # its words may be about files, or data
        hint = error.hint if isinstance(error, SecureFLError) else ""
        _log.error("cannot answer: %s (%s)", error, hint or type(error).__name__)
        return _refusal(message, f"this client cannot answer: {type(error).__name__}")
    return Message(reply, reply_to=message)


def _refusal(message: Message, reason: str) -> Message:
    return Message(Error(_REFUSED, reason), reply_to=message)


def _home(context: Context) -> Path:
    home = context.node_config.get(HOME_KEY) or os.environ.get("SECURE_FL_HOME")
    if not isinstance(home, str):
        raise UsageError(
            "this client has no home",
            hint=f"start its SuperNode with --node-config '{HOME_KEY}=\"FOLDER\"', or "
            "set SECURE_FL_HOME; `secure-fl join` makes the folder",
        )
    if _PARTITION not in home:
        return Path(home)
    place = context.node_config.get("partition-id")
    if place is None:
        raise UsageError(
            f"{home} is many homes, and this client has no partition-id",
            hint="only Flower's simulation engine gives its clients one",
        )
    return Path(home.replace(_PARTITION, str(place)))


def _now() -> int:
    return int(time.time())
