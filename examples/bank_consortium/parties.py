# SPDX-License-Identifier: Apache-2.0
"""The aggregator and the banks: a folder each, an environment, and what they type."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from .processes import descendants, die_with_parent, kill

__all__ = ["Bank", "Failed", "Party", "every", "same"]

_BIN: Final = Path(sys.executable).parent


class Failed(Exception):
    """What went wrong, for a person."""


class Party:
    """One organisation: a folder, what is in its environment, and what it types."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True, mode=0o700)
        self.variables = {
            "SECURE_FL_HOME": str(folder / "home"),
            "SECURE_FL_PASSPHRASE_FILE": str(folder / "passphrase"),
            "FLWR_HOME": str(folder / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "OMP_NUM_THREADS": "1",
        }

    def environment(self) -> dict[str, str]:
        """Nothing of ours gets in but the language, and where programs are."""
        kept = {k: os.environ[k] for k in ("LANG", "LC_ALL", "TZ") if k in os.environ}
        path = f"{_BIN}:/usr/local/bin:/usr/bin:/bin"
        quiet = {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
        home = {"HOME": str(self.folder), "PATH": path}
        return {**kept, **home, **quiet, **self.variables}

    def show(self, command: str) -> None:
        print(f"{self.name}$ {command}", flush=True)

    def type(self, command: str, *, shown: bool = True) -> str:
        """Run a line of shell in the party's folder, and return what it printed."""
        if shown:
            self.show(command)
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failed(f"{self.name}$ {command}\n{done.stdout}{done.stderr}".strip())
        return done.stdout

    def start(self, command: str, log: str) -> subprocess.Popen[bytes]:
        """The same for what goes on; it prints into a file of the party's folder."""
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us, and we stop it
                preexec_fn=die_with_parent,
            )

    def said(self, log: str) -> str:
        return (self.folder / log).read_text(errors="replace")


class Bank(Party):
    """A party with records and a node."""

    node: subprocess.Popen[bytes]
    command: str

    def start_node(self, address: str) -> None:
        self.command = (
            f"secure-fl node --superlink {address} --root-certificates ca.crt \\\n"
            "    --auth-key node.key --home home"
        )
        self.start_node_again()

    def start_node_again(self) -> None:
        (self.folder / "node.log").touch()
        self._said_before = len(self.said("node.log"))
        self.node = self.start(self.command, "node.log")

    @property
    def connected(self) -> bool:
        return "SuperNode ID:" in self.said("node.log")[self._said_before :]


def every(banks: Sequence[Bank], *commands: str) -> None:
    """All banks type ``commands``, at once; those of the first are shown."""
    first, *others = banks

    def quietly(bank: Bank) -> None:
        for command in commands:
            bank.type(command, shown=False)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        jobs = [pool.submit(quietly, bank) for bank in others]
        try:
            for command in commands:
                print(first.type(command), end="", flush=True)
            for job in jobs:
                job.result()
        except BaseException:  # the others shall not type on
            kill(descendants(os.getpid()), signal.SIGTERM)
            raise
    same(others)


def same(others: Sequence[Bank]) -> None:
    print(f"{', '.join(bank.name for bank in others)}: the same", flush=True)
