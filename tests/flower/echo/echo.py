# SPDX-License-Identifier: Apache-2.0
"""A Flower app that says back what it is told, and when."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

__all__ = ["client", "server"]

MARKER = "handling"


def echo_mod(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Signs each reply with the node's own name: mods see both directions."""
    reply = call_next(message, context)
    told = message.content["told"]
    said = reply.content["said"]
    assert isinstance(told, ConfigRecord)
    assert isinstance(said, ConfigRecord)
    said["name"] = str(context.node_config["name"])
    said["text"] = told["text"]
    return reply


client = ClientApp(mods=[echo_mod])


@client.query()
def answer(message: Message, context: Context) -> Message:
    """Holds the message for a while, so that a test can do something meanwhile."""
    begun = time.time()
    # Where the node's files are, and the one sign of life that a killed app leaves.
    Path(os.environ["FLWR_HOME"], MARKER).write_text(str(os.getpid()))
    told = message.content["told"]
    assert isinstance(told, ConfigRecord)
    hold, size, count = told["hold"], told["bytes"], told["arrays"]
    assert isinstance(hold, float)
    assert isinstance(size, int)
    assert isinstance(count, int)
    time.sleep(hold)
    reply = RecordDict()
    if size:
        part = size // count
        reply["payload"] = ArrayRecord(
            {
                str(i): Array("uint8", (part,), "echo", os.urandom(part))
                for i in range(count)
            }
        )
    reply["said"] = ConfigRecord(
        {"begun": begun, "ended": time.time(), "process": os.getpid()}
    )
    return Message(reply, reply_to=message)


server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Tells every node, and writes all replies with the seconds until each came."""
    config = context.run_config
    sent = time.time()
    messages = [
        Message(
            RecordDict(
                {
                    "told": ConfigRecord(
                        {
                            "text": f"message {i} to {node}",
                            "hold": float(config["hold"]),
                            "bytes": int(config["bytes"]),
                            "arrays": int(config["arrays"]),
                        }
                    )
                }
            ),
            dst_node_id=node,
            message_type="query",
        )
        for node in grid.get_node_ids()
        for i in range(int(config["messages"]))
    ]
    waiting = set(grid.push_messages(messages))
    replies: list[dict[str, object]] = []
    while waiting:
        for message in grid.pull_messages(waiting):
            waiting.discard(message.metadata.reply_to_message_id)
            replies.append(_seen(message, time.time() - sent))
        time.sleep(0.1)
    Path(str(config["out"])).write_text(json.dumps(replies))


def _seen(message: Message, seconds: float) -> dict[str, object]:
    seen: dict[str, object] = {
        "node": str(message.metadata.src_node_id),
        "seconds": seconds,
    }
    if message.has_error():
        return {**seen, "error": message.error.code, "reason": message.error.reason}
    said = message.content["said"]
    assert isinstance(said, ConfigRecord)
    seen.update(said)
    if "payload" in message.content:
        payload = message.content["payload"]
        assert isinstance(payload, ArrayRecord)
        seen["bytes"] = sum(len(array.data) for array in payload.values())
    return seen
