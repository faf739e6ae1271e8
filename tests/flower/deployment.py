# SPDX-License-Identifier: Apache-2.0
"""A real Flower deployment on loopback: TLS, node authentication, separate processes.

``deployment(folder, nodes)`` is a SuperLink and one SuperNode per name, each a process
with a folder (``FLWR_HOME``, state, log) of its own.  A test runs apps on it, kills
and restarts any one process, and leaves nothing running.

What Flower 1.41.0 does, as far as a protocol over it has to know.  Seconds were
measured on two cores that others used as well.

One message at a time.  A SuperNode starts a process for each, sends its reply, and only
then takes the next.  What is sent to it meanwhile waits at the SuperLink.

An exchange takes 3.5 to 5.6 s.  3 s of it: a SuperNode that has just replied finds no
message yet and sleeps; nothing shortens that.  Then its superexec notices the task
(``FLWR_SUPEREXEC_TASK_POLL_INTERVAL``, 1 s; here 0.1), a process starts (1 s, and what
the app imports; no worker is kept warm outside Kubernetes), the SuperNode notices the
reply (every 0.5 s), and the server app pulls it: ``Grid.send_and_receive`` does so
every 3 s, ``push_messages`` and ``pull_messages`` when they are called.

Sizes.  An array travels in pieces of 5 MB, so no message is too large.  40 MB take 5 s
more, the same in 200 arrays 22 s; 400 MB take 20 to 27 s and, at their peak, 1.0 GB at
the client app, 1.0 at the SuperNode, 1.4 at the SuperLink and 1.3 to 1.8 at the server
app (2.3 where the reply before is still referred to).  With ``--database`` replies pass
through that file of the SuperLink's, which keeps its size.

Deaths.  A client app killed before it has fetched its message is run again on the same
message, after 30 s; one killed later makes an error reply, CLIENT_APP_CRASHED, up to
60 s after.  A SuperNode keeps its node id for as long as its key is registered (the
SuperLink remembers in ``--database``), over restarts of either.  One that is stopped
is let in again at once; after kill -9 it is refused, and exits, until the SuperLink has
missed it for 60 s, and so is a second one with the same key.  SuperNodes outlive a
SuperLink and reconnect; its run does not, and ends ``finished:failed`` 60 s after.

Trust.  One port serves members (/v1/fleet/), server apps (/v1/runtime/) and who starts
runs (/v1/control/).  Only the first asks for a registered key: whoever reaches the port
can register nodes, start an app on every node, and ask for a server app's task before
the superexec does (/v1/runtime/acquire-task).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomli_w

from secure_fl.engines.certificates import make_node_key, make_server_certificate

from .processes import Daemon, Member

__all__ = ["NODE", "Deployment", "Ended", "deployment"]

BIN: Final = Path(sys.executable).parent
CONNECTION: Final = "here"
"""The connection's name in config.toml."""
NODE: Final = (str(BIN / "secure-fl"), "node")
"""``secure-fl node``."""


@dataclass(frozen=True)
class Ended:
    """A run that is over.

    ``status`` is Flower's, such as ``finished:completed``; ``seconds`` are counted from
    when its server app began.
    """

    run_id: str
    status: str
    details: str
    log: str
    seconds: float

    @property
    def completed(self) -> bool:
        return self.status == "finished:completed"


class Deployment:
    """Made by :func:`deployment`.  ``node_ids`` are Flower's, by name."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str], own_apps: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.nodes: dict[str, Daemon] = {}
        self.node_ids: dict[str, int] = {}
        self._settings = dict(settings)
        self._own_apps = dict(own_apps)
        self._runs: list[Daemon] = []
        self._supernodes: list[Daemon] = []
        self.tls = make_server_certificate(folder / "tls", ["127.0.0.1"], days=1)
        port = _free_port()
        self.address = f"127.0.0.1:{port}"
        home = self._home("superlink")
        self.superlink = Daemon(
            [
                str(BIN / "flower-superlink"),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--ssl-ca-certfile", str(self.tls.ca)),
                *("--ssl-certfile", str(self.tls.certificate)),
                *("--ssl-keyfile", str(self.tls.key)),
                "--enable-supernode-auth",
                "--disable-runtime-dependency-installation",
                *("--database", str(home / "state.db")),
            ],
            env=self._env(home),
            cwd=home,
            log=home / "log",
        )
        self._operator = self._home("operator")
        (self._operator / "config.toml").write_text(
            tomli_w.dumps(
                {
                    "superlink": {
                        "default": CONNECTION,
                        CONNECTION: {
                            "address": self.address,
                            "root-certificates": str(self.tls.ca),
                        },
                    }
                }
            )
        )

    def _home(self, name: str) -> Path:
        home = self.folder / name
        home.mkdir(mode=0o700)
        return home

    def _env(self, home: Path) -> dict[str, str]:
        """Nothing of the tester's own Flower, and no proxy, gets in."""
        kept = ("LANG", "LC_ALL", "TMPDIR", "TZ", "PYTHONPATH")
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "PATH": f"{BIN}:/usr/bin:/bin",
            "HOME": str(home),
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **self._settings,
        }

    def supernode(self, name: str, config: Mapping[str, str], key: Path) -> Daemon:
        """A SuperNode as a bank would run it; not started, not registered."""
        home = self._home(name)
        if name in self._own_apps:
            command = [
                *NODE,
                *("--auth-key", str(key)),
                *("--app", self._own_apps[name]),
                *("--home", config.get("secure-fl-home", str(home))),
            ]
        else:
            command = [
                str(BIN / "flower-supernode"),
                *("--auth-supernode-private-key", str(key)),
                *("--host", "127.0.0.1", "--port", str(_free_port())),
            ]
        supernode = Daemon(
            [
                *command,
                *("--superlink", self.address),
                *("--root-certificates", str(self.tls.ca)),
                *("--node-config", _config(config)),
            ],
            env=self._env(home),
            cwd=home,
            log=home / "log",
        )
        self._supernodes.append(supernode)
        return supernode

    def start_superlink(self, *, timeout: float = 30) -> None:
        """Start it, for the first time or again, and wait until it answers."""
        self.superlink.start()
        deadline = time.monotonic() + timeout
        host, port = self.address.split(":")
        while True:
            assert self.superlink.running, self.superlink.said()[-2000:]
            with contextlib.suppress(OSError):
                socket.create_connection((host, int(port)), timeout=1).close()
                return
            assert time.monotonic() < deadline, "the SuperLink does not listen"
            time.sleep(0.1)

    def add(self, nodes: Mapping[str, Mapping[str, str]]) -> None:
        """Make keys for new SuperNodes, register them, start them, wait for them."""
        calls = {}
        for name, config in nodes.items():
            key = make_node_key(self.folder / f"{name}.key")
            self.nodes[name] = self.supernode(name, config, key.private)
            calls[name] = self._flwr_begun(
                "supernode", "register", str(key.public), CONNECTION, "--format", "json"
            )
        for name, call in calls.items():
            self.node_ids[name] = int(_answer(call)["node-id"])
        begun = {name: self.nodes[name].start() for name in nodes}
        for name, begin in begun.items():
            self._wait_until_active(name, begin, timeout=60)

    def start_node(self, name: str, *, timeout: float = 90) -> None:
        """Start a SuperNode again, until the SuperLink takes it back.

        It refuses a node that it still takes to be online, and the SuperNode then
        exits: up to a minute after a kill -9 (two heartbeats of 30 s).
        """
        deadline = time.monotonic() + timeout
        while True:
            begin = self.nodes[name].start()
            with contextlib.suppress(ChildProcessError):
                self._wait_until_active(
                    name, begin, timeout=deadline - time.monotonic()
                )
                return
            assert time.monotonic() < deadline, self.nodes[name].said(begin)
            time.sleep(5)

    def _wait_until_active(self, name: str, begin: int, *, timeout: float) -> None:
        """Raises ChildProcessError where the SuperNode exits instead."""
        node = self.nodes[name]
        deadline = time.monotonic() + timeout
        while not re.search(
            rf"SuperNode ID: {self.node_ids[name]}\b", node.said(begin)
        ):
            if not node.running:
                raise ChildProcessError(node.said(begin)[-2000:])
            assert time.monotonic() < deadline, node.said(begin)[-2000:]
            time.sleep(0.1)

    def statuses(self) -> dict[str, str]:
        """What the SuperLink says of each node: ``online``, ``offline``, ..."""
        said = self.flwr("supernode", "list", CONNECTION, "--format", "json")
        by_id = {int(node["node-id"]): node["status"] for node in said["nodes"]}
        return {name: by_id[node_id] for name, node_id in self.node_ids.items()}

    def client_apps(self, name: str) -> list[Member]:
        """The ClientApp processes of a SuperNode that live now: one, or none."""
        family = self.nodes[name].family()
        if name in self._own_apps:
            forks = [x for x in family if x.command == family[0].command]
            return forks[1:]
        return [x for x in family if "flwr-clientapp" in x.command]

    def server_apps(self) -> list[Member]:
        """The ServerApp processes that live now."""
        return [
            member
            for member in self.superlink.family()
            if "flwr-serverapp" in member.command
        ]

    def begin(self, app: Path, config: Mapping[str, str | int | float]) -> Daemon:
        """``flwr run`` of an app's folder; goes on until :meth:`finish`.

        ``config`` overrides the app's run config.  The run's log is the Daemon's.
        """
        log = self._operator / f"run-{len(self._runs)}.log"
        command = [str(BIN / "flwr"), "run", str(app), CONNECTION, "--stream"]
        if config:
            command += ["--run-config", _config(config)]
        run = Daemon(command, env=self._env(self._operator), cwd=app, log=log)
        self._runs.append(run)
        run.start()
        return run

    def finish(self, run: Daemon, *, timeout: float) -> Ended:
        """Wait for a run's end, whether or not its log streams to there.

        Raises AssertionError, after ``flwr stop``, where it takes longer.
        """
        deadline = time.monotonic() + timeout
        try:
            run.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            run.kill()
        match = re.search(r"started run (\d+)", run.said())
        assert match is not None, f"no run was started\n{run.said()}"
        while True:
            said = self.flwr(
                "list", CONNECTION, "--run-id", match[1], "--format", "json"
            )
            state = said["runs"][0]
            if state["status"].startswith("finished"):
                break
            if time.monotonic() > deadline:
                self.flwr("stop", match[1], CONNECTION, "--format", "json")
                raise AssertionError(f"no end after {timeout} s\n{run.said()[-4000:]}")
            time.sleep(3)
        return Ended(
            run_id=match[1],
            status=state["status"],
            details=state["status-details"],
            log=run.said(),
            seconds=state["elapsed"],
        )

    def run(
        self,
        app: Path,
        config: Mapping[str, str | int | float],
        *,
        timeout: float,
    ) -> Ended:
        """Run an app to its end."""
        return self.finish(self.begin(app, config), timeout=timeout)

    def flwr(self, *args: str) -> Any:
        """``flwr ARGS`` as who may start runs, and the JSON it answered."""
        return _answer(self._flwr_begun(*args))

    def _flwr_begun(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(BIN / "flwr"), *args],
            env=self._env(self._operator),
            cwd=self._operator,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> list[Member]:
        """All that live now: daemons, what they started, and ``flwr run``."""
        return [member for daemon in self._daemons() for member in daemon.family()]

    def _daemons(self) -> list[Daemon]:
        return [*self._runs, *self._supernodes, self.superlink]

    def end(self) -> None:
        """kill -9 of everything, and a look that all of it is gone."""
        with contextlib.ExitStack() as stack:
            for daemon in self._daemons():  # each is ended, whatever happens to another
                stack.callback(daemon.end)


@contextlib.contextmanager
def deployment(
    folder: Path,
    nodes: Mapping[str, Mapping[str, str]],
    *,
    settings: Mapping[str, str] | None = None,
    own_apps: Mapping[str, str] | None = None,
) -> Iterator[Deployment]:
    """A SuperLink and one SuperNode per name, all online; all dead afterwards.

    ``folder`` is empty or new.  ``nodes`` gives each name its node config, strings
    without a double quote.  ``settings`` are environment variables for every process.
    ``own_apps`` names nodes that are started with ``secure-fl node`` and run the app
    given there, whatever app a run brings.  It needs nothing but loopback.
    """
    folder.mkdir(exist_ok=True)
    it = Deployment(folder, settings or {}, own_apps or {})
    try:
        it.start_superlink()
        it.add(nodes)
        yield it
    finally:
        it.end()


def _answer(call: subprocess.Popen[str]) -> Any:
    out, err = call.communicate(timeout=60)
    said = json.loads(out) if out.strip().startswith("{") else {}
    assert said.get("success"), f"{call.args!r}\n{out}\n{err}"
    return said


def _config(values: Mapping[str, str | int | float]) -> str:
    """Flower's own form of key=value pairs, in which TOML values stand."""
    assert not any('"' in str(value) for value in values.values())
    return " ".join(
        f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}"
        for key, value in values.items()
    )


def _free_port() -> int:
    """One that nobody listens on, below those the kernel hands out by itself."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
