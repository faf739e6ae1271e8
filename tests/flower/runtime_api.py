# SPDX-License-Identifier: Apache-2.0
"""A SuperNode's own Runtime API in this process, with no SuperLink behind it.

Messages are put in as a SuperNode puts in what it has received, and replies are taken
out as it takes them to send them.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator, Mapping

import uvicorn
from flwr.app import Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.start_client_internal import _insert_message

__all__ = ["RuntimeApiInProcess", "runtime_api"]

RUN_ID, SERIES_ID, NODE_ID = 5, 6, 77


class RuntimeApiInProcess:
    """``address``: where it listens.  ``fab``: the app that comes with its run."""

    def __init__(
        self, *, secret: bytes | None, node_config: Mapping[str, str], fab: bytes
    ) -> None:
        stores = ObjectStoreFactory()
        factory = NodeStateFactory(stores)
        self._state, self._store = factory.state(), stores.store()
        self._state.set_node_id(NODE_ID)
        run = Run.create_empty(RUN_ID)
        run.fab_hash = hashlib.sha256(fab).hexdigest()
        run.series_id = SERIES_ID
        self._fab_hash = run.fab_hash
        self._state.store_run(run)
        self._state.store_fab(Fab(run.fab_hash, fab, {}))
        self._state.set_run_series_context(
            SERIES_ID, Context(RUN_ID, NODE_ID, dict(node_config), RecordDict(), {})
        )
        self._app = create_app(factory, secret)
        self.address = ""

    @contextlib.contextmanager
    def listening(self, port: int = 0) -> Iterator[None]:
        config = uvicorn.Config(
            self._app, host="127.0.0.1", port=port, log_level="error", ws="none"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            (listener,) = server.servers
            self.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            yield
        finally:
            server.should_exit = True
            thread.join()

    def put(
        self, content: RecordDict, kind: str, task: TaskType = TaskType.CLIENT_APP
    ) -> None:
        """A message of that kind arrives."""
        # What Flower sets in the process of a ServerApp.
        TaskIdentity.run_id, TaskIdentity.node_id = RUN_ID, SUPERLINK_NODE_ID
        TaskIdentity.task_id = 1
        message = Message(content, dst_node_id=NODE_ID, message_type=kind)
        created = self._state.create_task(task, RUN_ID, self._fab_hash)
        assert created is not None
        _insert_message(message, self._state, self._store)

    def reply(self, *, timeout: float = 30) -> Message:
        """The next reply, once it is whole."""
        deadline = time.monotonic() + timeout
        while not (replies := self._state.get_messages_legacy(is_reply=True)):
            assert time.monotonic() < deadline, "no reply"
            time.sleep(0.05)
        (head,) = replies
        if head.has_error():
            return head
        name = head.metadata.message_id
        parts = [
            one.object_id
            for one in iterate_object_tree(self._store.get_object_tree(name))
        ]
        while not all(map(self._store.get, parts)):
            assert time.monotonic() < deadline, "half a reply"
            time.sleep(0.05)
        contents = {part: self._store.get(part) or b"" for part in parts}
        whole = inflate_object_from_contents(name, contents)
        assert isinstance(whole, Message)
        return whole

    def task_statuses(self) -> list[str]:
        """Of all tasks: Flower's words, each with how it ended."""
        return [
            f"{t.status.status}:{t.status.sub_status}" for t in self._state.get_tasks()
        ]


@contextlib.contextmanager
def runtime_api(
    *,
    secret: bytes | None = None,
    node_config: Mapping[str, str] | None = None,
    fab: bytes = b"no app, but bytes",
) -> Iterator[RuntimeApiInProcess]:
    """Listening on a port of its own, and quiet afterwards."""
    api = RuntimeApiInProcess(secret=secret, node_config=node_config or {}, fab=fab)
    with api.listening():
        yield api
