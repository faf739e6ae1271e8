# SPDX-License-Identifier: Apache-2.0
"""A Flower app whose client part takes what it finds, and sends it in the clear."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

__all__ = ["client", "server"]

RECORDS = "records.csv"
MARKER = "was-here"

client = ClientApp()


@client.train()
def take(message: Message, context: Context) -> Message:
    """Reads the node's files, leaves one, and replies with what it read."""
    home = Path(os.environ["FLWR_HOME"])
    (home / MARKER).touch()
    loot = np.frombuffer((home / RECORDS).read_bytes(), np.uint8)
    arrays = ArrayRecord({"loot": Array(loot)})
    return Message(RecordDict({"arrays": arrays}), reply_to=message)


server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Asks every node once, and writes down what each said."""
    messages = [
        Message(RecordDict(), dst_node_id=node, message_type="train")
        for node in grid.get_node_ids()
    ]
    seen = {
        str(reply.metadata.src_node_id): _said(reply)
        for reply in grid.send_and_receive(messages)
    }
    Path(str(context.run_config["out"])).write_text(json.dumps(seen))


def _said(reply: Message) -> str:
    if reply.has_error():
        return f"error: {reply.error.reason}"
    arrays = reply.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    return arrays["loot"].numpy().tobytes().decode()
