# SPDX-License-Identifier: Apache-2.0
"""The executor of an organisation's SuperNode: messages come in, code does not.

Whoever starts a Flower run ships its app, and Flower's own executor unpacks and runs
that on every node.  This one takes the same messages from the SuperNode, leaves the app
that came with them unopened, and hands each to a ClientApp that is installed here and
was chosen here.  A SuperNode that runs with ``--isolation process`` starts no executor
itself, so that nothing but this process answers for it.

One message, one process: a fork of this one, in which our own modules are loaded
already.  The chosen app is imported in the fork, so that generators of random numbers
that it makes at import do not repeat themselves.  What a trainer leaks or breaks ends
with its message.  Where a fork dies, the SuperNode reports an error once it has missed
two heartbeats, a minute later.

Private to Flower, read in 1.41.0 and 1.42.0, and the reason why ``secure-fl node``
refuses other versions: all that is imported below from ``flwr.common``, ``.proto``,
``.supercore`` and ``.supernode``; and that an acquired task is answered by one message
and one output, between heartbeats.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final, NoReturn, final

import httpx
import numpy as np
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import (
    pull_task_input,
    push_message,
    push_task_output,
)

from ...errors import EngineError, SecureFLError, UsageError
from .mod import HOME_KEY
from .supernode import SuperNode, end_with_parent

__all__ = ["RuntimeApi", "load_app", "serve"]

_log = logging.getLogger("secure_fl")

_POLL: Final = 0.2  # seconds between two questions for a message
_AWAY: Final = 1.0  # the same, of a SuperNode that does not answer
_SILENCE: Final = 900.0  # without a message: longer than most, and it may hang
_HEARTBEAT: Final = 15.0  # the SuperNode's patience is 30 s, then 60 s

# A run may call itself an agent's.  Nobody else would take its messages, and the
# SuperNode waits for each reply, for ever.
_TASKS: Final = (TaskType.CLIENT_APP, TaskType.AGENT_APP)

# The last is what torch loads when it makes its first optimiser.
_WARM: Final = (
    "secure_fl.engines.flower.app",
    "dp_accounting",
    "secure_fl.training.builtin",
    "torch._dynamo",
)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_fork: Final = multiprocessing.get_context("fork")


@final
@dataclass(frozen=True)
class RuntimeApi:
    """Where a SuperNode gives out messages.

    address
        HOST:PORT
    root_certificates
        PEM, where it shows a TLS certificate; else it is asked over plain HTTP
    secret
        what its ``--superexec-auth-secret-file`` holds, where it has one
    """

    address: str
    root_certificates: bytes | None = None
    secret: bytes | None = field(default=None, repr=False)

    def client(self, token: str | None = None) -> RuntimeHttpClient:
        """For one task's calls, or to ask for tasks.  Caller closes it."""
        interceptors: list[ProtobufClientInterceptor] = []
        if token is not None:
            interceptors.append(RuntimeTokenHttpInterceptor(token))
        elif self.secret is not None:
            interceptors.append(
                SuperExecAuthHttpInterceptor(
                    master_secret=self.secret,
                    protected_methods={"/flwr.proto.Runtime/AcquireTask"},
                )
            )
        return RuntimeHttpClient.from_server_address(
            self.address,
            self.root_certificates is None,
            self.root_certificates,
            interceptors,
        )


def load_app(reference: str) -> ClientApp:
    """What ``module:attribute`` names, among what is installed here.

    Raises UsageError where that is no ClientApp.
    """
    module, _, attribute = reference.partition(":")
    try:
        app = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"cannot load the app {reference}: {error}",
            hint="name it module:attribute, and install it where secure-fl is",
        ) from None
    if not isinstance(app, ClientApp):
        raise UsageError(
            f"{reference} is no ClientApp",
            hint="name the one that the app's file makes",
        )
    return app


def serve(
    app: str,
    api: RuntimeApi,
    *,
    home: Path,
    supernode: SuperNode | None,
) -> NoReturn:
    """Answer a SuperNode's messages with ``app`` until SIGTERM, or SIGINT.

    app
        ``module:attribute``, see :func:`load_app`
    home
        the member's, of which the app hears as ``secure-fl-home`` in the node config
    supernode
        one to keep running meanwhile, and to stop at the end

    The message and the run config are whoever's who started the run: the app has to
    mistrust both.  A SuperNode that is away is asked again until it answers.  Each
    message is a line of the log.  One that is being worked on when the end comes is
    given up, as by a crash: what was charged stays charged.

    Raises SystemExit at the end, UsageError for an app that does not load, and
    EngineError where the SuperNode refuses to be asked.
    """
    with contextlib.ExitStack() as stack:
        _end_on_signals(stack)
        stack.callback(_end_forks)
        check = _begin(load_app, app)
        check.join()
        if _end(check) != 0:
            raise UsageError(
                f"the app {app} cannot be loaded", hint="the lines above say why"
            )
        if supernode is not None:
            stack.callback(supernode.stop)
            supernode.keep()
        _warm_up()  # while it starts
        client = stack.enter_context(api.client())
        _log.info("answering with %s, whatever app a run brings", app)
        _serve(client, app, api, home, supernode)


def _serve(
    client: RuntimeHttpClient,
    app: str,
    api: RuntimeApi,
    home: Path,
    supernode: SuperNode | None,
) -> NoReturn:
    answers = supernode is None  # one that begins now is no surprise
    heard = time.monotonic()
    while True:
        if supernode is not None:
            if time.monotonic() - heard > _SILENCE:
                # A line that is cut at a bad moment leaves it alive and deaf for ever.
                _log.info("no message for long: the SuperNode is started again")
                supernode.stop()
                heard = time.monotonic()
            supernode.keep()
        try:
            task = client.AcquireTask(AcquireTaskRequest(supported_task_types=_TASKS))
        except httpx.HTTPError as error:
            if supernode is None:  # one of ours refuses while its clock is set, say
                _check_refusal(error, api)
            if answers:
                _log.warning("the SuperNode at %s is away: %s", api.address, error)
            answers = False
            time.sleep(_AWAY)
            continue
        if not answers:
            _log.info("the SuperNode at %s answers", api.address)
        answers = True
        if task.token:
            _work(task.token, app, api, home, supernode)
            heard = time.monotonic()
        else:
            time.sleep(_POLL)


def _check_refusal(error: httpx.HTTPError, api: RuntimeApi) -> None:
    """Raises EngineError where asking again would not help."""
    if not isinstance(error, httpx.HTTPStatusError) or error.response.is_server_error:
        return
    code = error.response.status_code
    raise EngineError(
        f"the SuperNode at {api.address} refuses to be asked ({code})",
        hint="give its address, and the secret it was started with, if any",
    ) from None


def _work(
    token: str,
    app: str,
    api: RuntimeApi,
    home: Path,
    supernode: SuperNode | None,
) -> None:
    """Have one message answered, and tell the SuperNode meanwhile that it is."""
    child = _begin(_answer_task, token, app, api, home)
    given_up = False
    with api.client(token) as client:
        beat = time.monotonic() + _HEARTBEAT
        while child.exitcode is None and not given_up:
            child.join(1.0)
            if supernode is not None:
                supernode.keep()
            if time.monotonic() >= beat:
                given_up = not _beat(client)
                beat = time.monotonic() + _HEARTBEAT
    code = _end(child)
    if given_up:
        _log.error("a message was dropped: the SuperNode waits for it no more")
    elif code != 0:
        _log.error("a message was left unanswered: its process ended (%d)", code)


def _beat(client: RuntimeHttpClient) -> bool:
    """False where the SuperNode does not wait for this message any more."""
    try:
        return client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
    except httpx.HTTPStatusError as error:
        return error.response.is_server_error
    except httpx.HTTPError:
        return True  # it is away: perhaps for a moment


# -- in a fork -------------------------------------------------------------------------


def _answer_task(token: str, app: str, api: RuntimeApi, home: Path) -> None:
    begun = time.monotonic()
    with api.client(token) as client:
        # The third is about the run, and the fourth its app: nobody looks at them.
        message, context, _, _ = pull_task_input(client)
    context.node_config = {**context.node_config, HOME_KEY: str(home)}
    what = f"run {context.run_id}: a {message.metadata.message_type!r} message"
    reply = _reply(app, message, context)
    if reply.has_error():
        how = f"answered with error {reply.error.code}, {reply.error.reason!r},"
    else:
        how = "answered"
    with api.client(token) as client:  # the one from before may have been cut off
        push_message(client, reply, context)
        push_task_output(client, context, SubStatus.COMPLETED, "")
    _log.info("%s was %s in %.2f s", what, how, time.monotonic() - begun)


def _reply(app: str, message: Message, context: Context) -> Message:
    """What the app answers, or an error that tells no more than its kind."""
    try:
        reply = load_app(app)(message, context)
        if not isinstance(reply, Message):
            raise TypeError(f"the app returned {type(reply).__name__}, no Message")
    except (Exception, SystemExit) as error:
        _log.exception("the app failed")
        reason = f"this client's app failed: {type(error).__name__}"
        code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        return Message(Error(code, reason), reply_to=message)
    return reply


def _in_fork(act: Callable[..., object], *args: object) -> None:
    end_with_parent(signal.SIGKILL)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    np.random.seed()  # else all forks shuffle alike, for an app that uses this one
    try:
        act(*args)
    except Exception as error:
        if not isinstance(error, SecureFLError):
            _log.exception("internal error")
        else:
            _log.error("%s (%s)", error, error.hint)
        sys.exit(1)


# -- processes -------------------------------------------------------------------------


def _begin(act: Callable[..., object], *args: object) -> ForkProcess:
    process = _fork.Process(target=_in_fork, args=(act, *args))
    process.start()
    return process


def _end(process: ForkProcess) -> int:
    """Its exit code; it is killed where it still runs."""
    process.kill()
    process.join()
    code = process.exitcode
    process.close()
    assert code is not None
    return code


def _end_forks() -> None:
    """None is left to wait for, wherever a signal came between."""
    for process in multiprocessing.active_children():
        process.kill()


def _warm_up() -> None:
    """Load what messages need, once for all forks: 3 s of computing, 400 MB."""
    for name in _WARM:
        with contextlib.suppress(ImportError):  # a key holder needs no torch
            import_module(name)


def _end_on_signals(stack: contextlib.ExitStack) -> None:
    """SIGTERM and SIGINT raise SystemExit, once: what follows is not interrupted."""

    def end(number: int, frame: object) -> NoReturn:
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        _log.info("ended by %s", signal.Signals(number).name)
        raise SystemExit(0)

    for one in _SIGNALS:
        stack.callback(signal.signal, one, signal.signal(one, end))
