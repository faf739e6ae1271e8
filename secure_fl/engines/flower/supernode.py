# SPDX-License-Identifier: Apache-2.0
"""A SuperNode as a child process: kept running, asked for messages, told to end.

Of Flower it relies on the options of ``flower-supernode`` alone.  With ``--isolation
process`` that starts no executor of its own: what arrives waits for whoever asks.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final, final

from ...errors import UsageError
from ...randomness import RandomSource

__all__ = ["SuperNode", "end_with_parent"]

_log = logging.getLogger("secure_fl")

_PAUSE: Final = 5.0  # seconds before one that ended is started again
_PATIENCE: Final = 10.0  # for its farewell to the SuperLink

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


@final
class SuperNode:
    """A ``flower-supernode`` that is this process's child, and runs no code of others.

    Its Runtime API is on loopback, behind a secret that nobody else has: other accounts
    of this machine can take no message from it.  It ends when this process does.

    address
        of its Runtime API
    secret
        who asks there for messages has to know it
    """

    def __init__(
        self,
        superlink: str,
        *,
        root_certificates: Path | None,
        auth_key: Path,
        node_config: str | None,
        random: RandomSource,
    ) -> None:
        """Not started yet: see :meth:`keep`.

        superlink
            HOST:PORT; always over TLS
        root_certificates
            PEM; None for the system's
        auth_key
            made with ``secure-fl certs supernode``
        node_config
            as ``flower-supernode --node-config`` takes it, for an app of your own
        """
        program = shutil.which(
            "flower-supernode",
            path=os.pathsep.join(
                [str(Path(sys.executable).parent), *os.get_exec_path()]
            ),
        )
        if program is None:
            raise UsageError(
                "there is no flower-supernode", hint="install secure-fl[flower]"
            )
        host, port = "127.0.0.1", _free_port()
        self.address = f"{host}:{port}"
        self.secret = random.bytes(32)
        self._command = [
            program,
            *("--superlink", superlink),
            *("--auth-supernode-private-key", str(auth_key)),
            *("--isolation", "process"),
            *("--host", host, "--port", str(port)),
        ]
        if root_certificates is not None:
            self._command += ["--root-certificates", str(root_certificates)]
        if node_config is not None:
            self._command += ["--node-config", node_config]
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0

    def keep(self) -> None:
        """Start it, or again where it has ended; at once, or some seconds later.

        After a kill -9 the SuperLink refuses it for a minute.
        """
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            _log.warning("the SuperNode ended (%d); it is started again", code)
            self._process = None
            self._not_before = time.monotonic() + _PAUSE
        if time.monotonic() >= self._not_before:
            self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        """The secret goes through a pipe: no file holds it."""
        read, write = os.pipe()
        try:
            os.write(write, self.secret)
            os.close(write)
            secret = ("--superexec-auth-secret-file", f"/dev/fd/{read}")
            return subprocess.Popen(  # noqa: S603
                [*self._command, *secret],
                env={
                    "FLWR_TELEMETRY_ENABLED": "0",  # the environment may say otherwise
                    "FLWR_DISABLE_UPDATE_CHECK": "1",
                    **os.environ,
                },
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                pass_fds=(read,),
                preexec_fn=partial(end_with_parent, signal.SIGTERM),
            )
        finally:
            os.close(read)

    def stop(self) -> None:
        """Let it take its leave of the SuperLink, and end it; :meth:`keep` starts it
        again."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_with_parent(number: signal.Signals) -> None:
    """Call it first in a new process, which gets ``number`` when its parent ends.

    On Linux; elsewhere whoever kills this process has to look for its children.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
