# SPDX-License-Identifier: Apache-2.0
"""``secure-fl node``: what arrives is answered by the organisation's own app."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs secure-fl[flower]")

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.constant import TaskType

from secure_fl.cli.node import command
from secure_fl.engines.flower.node import load_app
from secure_fl.errors import EngineError, UsageError

from .deployment import NODE, deployment
from .hostile import hostile
from .processes import Daemon
from .runtime_api import RuntimeApiInProcess, runtime_api

HOSTILE = Path(hostile.__file__).parent
REFUSED = "this client answers secure aggregation only"

BANKS_OWN = '''
import os, signal, sys, time
import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

no_app = "a string"
generator = np.random.default_rng()
app = ClientApp()

def reply(message, **said):
    return Message(RecordDict({"said": ConfigRecord(said)}), reply_to=message)

@app.query()
def tell(message, context):
    """What it finds, and a number that no other message may see again."""
    return reply(
        message,
        process=os.getpid(),
        home=str(context.node_config.get("secure-fl-home")),
        own=str(context.node_config.get("own")),
        fresh=int(generator.integers(2**62)),
        global_=int(np.random.randint(2**62)),
        count=int(context.state.setdefault("count", ConfigRecord({"n": 0}))["n"]),
    )

@app.query("count")
def count(message, context):
    context.state["count"] = ConfigRecord({"n": 41})
    return reply(message)

@app.train()
def fail(message, context):
    raise ValueError("the records of Alice")

@app.train("hold")
def hold(message, context):
    open(context.node_config["own"], "w").write(str(os.getpid()))
    time.sleep(600)

@app.train("die")
def die(message, context):
    os.kill(os.getpid(), signal.SIGKILL)

@app.evaluate()
def nothing(message, context):
    return None

@app.evaluate("leave")
def leave(message, context):
    sys.exit(0)
'''


def wait_for(condition: Callable[[], bool], *, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts ``secure-fl node ARGS``, in whose Python ``banks_own`` is installed."""
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "banks_own.py").write_text(BANKS_OWN)
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(tmp_path / "installed"),
        "OMP_NUM_THREADS": "1",
    }
    begun: list[Daemon] = []

    def start(*args: str | Path) -> Daemon:
        log = tmp_path / f"log-{len(begun)}"
        line = [*NODE, "--home", str(tmp_path), *map(str, args)]
        begun.append(Daemon(line, env=env, cwd=tmp_path, log=log))
        begun[-1].start()
        return begun[-1]

    yield start
    for daemon in begun:
        daemon.end()


def said(reply: Message) -> ConfigRecord:
    assert reply.has_content(), reply.error
    record = reply.content["said"]
    assert isinstance(record, ConfigRecord)
    return record


def ask(api: RuntimeApiInProcess, kind: str, task: TaskType) -> Message:
    api.put(RecordDict(), kind, task)
    return api.reply()


# -- a SuperNode's Runtime API, and no more --------------------------------------------


def test_messages_get_the_banks_own_answer(
    tmp_path: Path, begin: Callable[..., Daemon]
) -> None:
    """The app that comes with the run is no app at all: nobody looks."""
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32))
    config = {"own": "its own", "secure-fl-home": "another"}
    with runtime_api(secret=secret.read_bytes(), node_config=config) as api:
        node = begin(
            *("--runtime-api", api.address, "--auth-secret-file", secret),
            *("--app", "banks_own:app"),
        )
        first = said(ask(api, "query", TaskType.CLIENT_APP))
        assert first["own"] == "its own"
        assert first["home"] == str(tmp_path)

        # A run that calls itself an agent's gets the same, not silence.
        second = said(ask(api, "query", TaskType.AGENT_APP))
        assert first["process"] != second["process"]
        assert first["fresh"] != second["fresh"]
        assert first["global_"] != second["global_"]

        # State lasts, as it does in Flower.
        said(ask(api, "query.count", TaskType.CLIENT_APP))
        assert said(ask(api, "query", TaskType.CLIENT_APP))["count"] == 41

        # What fails says what kind of failure it was, and nothing of the records.
        failed = ask(api, "train", TaskType.CLIENT_APP)
        assert failed.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        assert failed.error.reason == "this client's app failed: ValueError"
        for kind in ("evaluate", "evaluate.leave", "train.unknown"):
            assert ask(api, kind, TaskType.CLIENT_APP).has_error()

        wait_for(lambda: set(api.task_statuses()) == {"finished:completed"})
        assert node.stop() == 0
    assert node.said().count(" was answered ") == 8


def test_a_node_outlives_its_supernode_and_its_apps(
    tmp_path: Path, begin: Callable[..., Daemon]
) -> None:
    marker = tmp_path / "held"
    with runtime_api(node_config={"own": str(marker)}) as api:
        address = api.address
        node = begin("--runtime-api", address, "--app", "banks_own:app")
        said(ask(api, "query", TaskType.CLIENT_APP))
    wait_for(lambda: " is away: " in node.said())

    # Another SuperNode at the same address; an app that crashes; one that hangs.
    again = RuntimeApiInProcess(secret=None, node_config={"own": str(marker)}, fab=b"")
    with again.listening(int(address.rpartition(":")[2])):
        said(ask(again, "query", TaskType.CLIENT_APP))
        again.put(RecordDict(), "train.die")
        wait_for(lambda: "its process ended (-9)" in node.said())
        again.put(RecordDict(), "train.hold")
        wait_for(lambda: marker.exists() and marker.read_text() != "")
        (_, child) = node.family()
        assert child.pid == int(marker.read_text())
        assert node.stop() == 0
        assert not child.alive
    assert "ended by SIGTERM" in node.said()


def test_a_stranger_is_not_served(tmp_path: Path, begin: Callable[..., Daemon]) -> None:
    """Whoever else is on this machine takes no message from the SuperNode."""
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"another secret")
    with runtime_api(secret=b"the secret") as api:
        node = begin("--runtime-api", api.address, "--auth-secret-file", wrong)
        assert node.wait(timeout=60) == 5
    assert "refuses to be asked (401)" in node.said()


def test_an_app_that_is_not_there_ends_the_node(begin: Callable[..., Daemon]) -> None:
    node = begin("--runtime-api", "127.0.0.1:1", "--app", "banks_own:no_app")
    assert node.wait(timeout=60) == 2
    assert "banks_own:no_app is no ClientApp" in node.said()
    assert "the app banks_own:no_app cannot be loaded" in node.said()


@pytest.mark.parametrize("app", ["json", "json:", ":x", "json:dumps", "nothing:app"])
def test_an_app_is_a_module_and_its_client_app(app: str) -> None:
    with pytest.raises(UsageError, match=app):
        load_app(app)


# -- the command line ------------------------------------------------------------------

KEY = ("--auth-key", __file__)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "name a SuperLink, or a SuperNode's Runtime API"),
        (("--superlink", "a:1", "--runtime-api", "b:1", *KEY), "name a SuperLink"),
        (("--superlink", "a:1"), "a node needs a key"),
        (("--superlink", "https://a:1/", *KEY), "is no address"),
        (("--runtime-api", "a:1", *KEY), "--auth-key means nothing without"),
        (
            ("--superlink", "a:1", *KEY, "--auth-secret-file", __file__),
            "--auth-secret-file means nothing without",
        ),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        command.main(["--home", str(tmp_path), *options], standalone_mode=False)


@pytest.mark.parametrize("version", ["1.40.0", "1.43.0", "2.0.0"])
def test_another_flower_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    with pytest.raises(EngineError, match=f"1.41 and 1.42, not {version}"):
        command.main(
            ["--home", str(tmp_path), "--runtime-api", "a:1"], standalone_mode=False
        )


# -- with everything -------------------------------------------------------------------


def test_a_hostile_app_runs_on_flowers_node_and_not_on_ours(tmp_path: Path) -> None:
    """The lying aggregator: it starts a run whose app is not what was agreed."""
    names = ("flowers", "ours")
    with deployment(
        tmp_path / "deployment",
        {name: {"name": name} for name in names},
        own_apps={"ours": "secure_fl.engines.flower.app:client_app"},
    ) as it:
        for name in names:
            (it.folder / name / hostile.RECORDS).write_text(f"records of {name}")
        out = it.folder / "seen.json"
        ended = it.run(HOSTILE, {"out": str(out)}, timeout=120)
        assert ended.completed, ended
        seen = json.loads(out.read_text())
        assert seen == {
            str(it.node_ids["flowers"]): "records of flowers",
            str(it.node_ids["ours"]): f"error: {REFUSED}",
        }
        assert (it.folder / "flowers" / hostile.MARKER).exists()
        assert not (it.folder / "ours" / hostile.MARKER).exists()
        # Nor was it unpacked there, to be run by somebody later.
        left = [p.name for p in (it.folder / "ours").rglob("*")]
        assert not any("hostile" in name for name in left), left

        # kill -9 of the node: nothing of it is left.
        family = it.nodes["ours"].family()
        assert len(family) == 2  # itself, and its SuperNode
        it.nodes["ours"].kill()
        wait_for(lambda: not any(member.alive for member in family))
