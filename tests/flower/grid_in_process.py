# SPDX-License-Identifier: Apache-2.0
"""A Grid whose ClientApps run in this process: real apps, mods, records and bytes.

Every message goes through Flower's own serialisation, as it does on its way through a
SuperLink, and meets a fresh Context, as in a fresh process.  Two hooks see each message
on its way and say what arrives in its place: nothing, itself, several, another one, or
one that came before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    validate_object_content,
)
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 7

Hook = Callable[[int, Message], Sequence[Message]]  # the client's node, the message


def passing(node: int, message: Message) -> Sequence[Message]:
    """The hook that changes nothing."""
    return [message]


@dataclass
class Node:
    """A SuperNode: the app it runs for each message, and what it was started with."""

    app: ClientApp
    config: UserConfig = field(default_factory=dict)
    run_config: UserConfig = field(default_factory=dict)


def carried(message: Message) -> tuple[Message, int]:
    """The message as it arrives, and the bytes it was."""
    if message.has_error():
        proto = message_to_proto(message)
        return message_from_proto(proto), proto.ByteSize()
    contents = {
        name: one.deflate() for name, one in get_all_nested_objects(message).items()
    }
    for content in contents.values():
        validate_object_content(content)
    size = sum(map(len, contents.values()))
    name = message.object_id
    arrived = inflate_object_from_contents(name, contents)
    assert isinstance(arrived, Message)
    arrived.metadata.__dict__["_message_id"] = name
    return arrived, size


def in_a_run() -> None:
    """What Flower sets in the process of a ServerApp: messages need it."""
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    TaskIdentity.task_id = 1


class GridInProcess(Grid):
    """``replies`` keeps all that ever reached the aggregator; ``sent`` what left it."""

    def __init__(
        self,
        nodes: Mapping[int, Node],
        *,
        requesting: Hook = passing,
        replying: Hook = passing,
    ) -> None:
        self.nodes = dict(nodes)
        self.requesting = requesting
        self.replying = replying
        self.sent: list[Message] = []
        self.replies: list[Message] = []
        self.largest = 0
        self._waiting: list[Message] = []
        self._open: set[str] = set()  # tickets without a reply
        in_a_run()

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        sent, size = carried(message)
        ticket = sent.metadata.message_id
        self.largest = max(self.largest, size)
        self.sent.append(sent)
        self._open.add(ticket)
        node = message.metadata.dst_node_id
        for one in self.requesting(node, sent):
            arrived, _ = carried(one)  # each its own: an app may change what it got
            arrived.metadata.__dict__["_message_id"] = one.metadata.message_id
            reply, size = carried(self._answer(node, arrived))
            self.largest = max(self.largest, size)
            self._waiting.extend(self.replying(node, reply))
        return ticket

    def _answer(self, node: int, message: Message) -> Message:
        at = self.nodes[node]
        context = Context(
            RUN_ID, node, dict(at.config), RecordDict(), dict(at.run_config)
        )
        try:
            return at.app(message, context)
        except Exception as error:  # what Flower's own process makes of it
            reason = f"{type(error)}:<'{error}'>"
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            return Message(Error(code, reason), reply_to=message)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to ``message_ids``, each once, and what else a network may bring:
        replies to nothing that is open."""
        asked, came, left = set(message_ids), [], []
        for reply in self._waiting:
            ticket = reply.metadata.reply_to_message_id
            if ticket in asked or ticket not in self._open:
                came.append(reply)
                self._open.discard(ticket)
            else:
                left.append(reply)
        self._waiting = left
        self.replies.extend(came)
        return came

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        raise NotImplementedError
