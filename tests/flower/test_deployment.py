# SPDX-License-Identifier: Apache-2.0
"""The harness on a trivial app: who gets in, what is killed, what comes back."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs secure-fl[flower]")

from secure_fl.engines.certificates import make_node_key

from .deployment import Deployment, deployment

ECHO = Path(__file__).parent / "echo"
NODES = {"bank-a": {"name": "bank a"}, "bank-b": {"name": "bank b"}}
CRASHED = 8  # flwr.common.constant.ErrorCode.CLIENT_APP_CRASHED


def echo(
    it: Deployment, *, timeout: float = 120, **config: str | int | float
) -> list[dict[str, Any]]:
    """What the server app of one echo run saw."""
    out = it.folder / "seen.json"
    ended = it.run(ECHO, {"out": str(out), **config}, timeout=timeout)
    assert ended.completed, ended
    seen: list[dict[str, Any]] = json.loads(out.read_text())
    return seen


def wait_for(condition: Callable[[], bool], *, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def shake_hands(it: Deployment, context: ssl.SSLContext) -> str | None:
    """The TLS version that a client with ``context`` gets from the SuperLink."""
    host, port = it.address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        return wrapped.version()


class Broken(Exception):
    """What a failing test raises."""


def check_who_gets_in(folder: Path) -> None:
    """TLS, the registered nodes, a stranger; and then it fails."""
    with deployment(folder, NODES) as it:
        key = make_node_key(folder / "stranger.key").private
        stranger = it.supernode("stranger", {"name": "stranger"}, key)
        stranger.start()

        trusting = ssl.create_default_context(cafile=it.tls.ca)
        assert shake_hands(it, trusting) == "TLSv1.3"
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(it, ssl.create_default_context())

        seen = echo(it)
        assert {(x["node"], x["name"], x["text"]) for x in seen} == {
            (str(node), NODES[name]["name"], f"message 0 to {node}")
            for name, node in it.node_ids.items()
        }
        assert len({x["process"] for x in seen}) == 2

        assert stranger.wait(timeout=30) != 0
        assert "Failed to activate SuperNode" in stranger.said()
        assert "SuperNode ID" not in stranger.said()

        raise Broken(it.processes())


@pytest.mark.long
def test_tls_and_node_authentication(tmp_path: Path) -> None:
    with pytest.raises(Broken) as caught:
        check_who_gets_in(tmp_path / "deployment")
    (processes,) = caught.value.args
    assert len(processes) >= 2 * 3  # a superexec with each daemon
    assert [process for process in processes if process.alive] == []


@pytest.mark.long
def test_processes_are_killed_and_come_back(tmp_path: Path) -> None:
    with deployment(tmp_path / "deployment", NODES) as it:
        # One message at a time: a node's second process begins when the first ended.
        seen = echo(it, messages=2, hold=1.0)
        for node in it.node_ids.values():
            first, second = sorted(
                (x for x in seen if x["node"] == str(node)), key=lambda x: x["begun"]
            )
            assert first["process"] != second["process"]
            assert first["ended"] < second["begun"]

        # A client app that is killed over a message: an error, within two heartbeats.
        marker = it.folder / "bank-a" / "handling"
        marker.unlink()
        out = it.folder / "killed.json"
        run = it.begin(ECHO, {"out": str(out), "hold": 5.0})
        wait_for(marker.exists)
        (app,) = it.client_apps("bank-a")
        assert app.pid == int(marker.read_text())
        app.kill()
        assert it.finish(run, timeout=120).completed
        by_node = {x["node"]: x for x in json.loads(out.read_text())}
        assert by_node[str(it.node_ids["bank-a"])]["error"] == CRASHED
        assert by_node[str(it.node_ids["bank-a"])]["seconds"] < 75
        assert by_node[str(it.node_ids["bank-b"])]["name"] == "bank b"

        # A node that is stopped comes back under its number at once; one that is
        # killed once the SuperLink has missed it.
        it.nodes["bank-a"].stop()
        assert it.statuses() == {"bank-a": "offline", "bank-b": "online"}
        it.start_node("bank-a", timeout=30)
        it.nodes["bank-b"].kill()
        it.start_node("bank-b")
        assert {x["name"] for x in echo(it)} == {"bank a", "bank b"}

        # A SuperLink that is killed still knows its nodes, which did not exit.
        it.superlink.kill()
        it.start_superlink()
        wait_for(lambda: set(it.statuses().values()) == {"online"})
        assert {x["name"] for x in echo(it)} == {"bank a", "bank b"}


@pytest.mark.long
def test_replies_of_forty_megabytes(tmp_path: Path) -> None:
    nodes = {"bank-a": NODES["bank-a"]}
    with deployment(tmp_path / "deployment", nodes) as it:
        for arrays in (1, 200):
            (seen,) = echo(it, bytes=40_000_000, arrays=arrays)
            assert seen["bytes"] == 40_000_000
