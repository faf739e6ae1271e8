# SPDX-License-Identifier: Apache-2.0
"""One process per message for a key holder, as ``client_process`` has it for a client.

A parent forks a process for each message, which opens the keystore, answers, and ends;
or ends itself by SIGKILL at the durable write, or the answer, that it is told to.
"""

from __future__ import annotations

import os
import pickle
import resource
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from secure_fl.errors import SecureFLError
from secure_fl.identity import Identity
from secure_fl.keystore import DiskKeystore
from secure_fl.plan import Plan
from secure_fl.randomness import SystemRandom
from secure_fl.round.holder import ParkedKeyHolder

from .client_process import _HEAD, BROKEN, DONE, REFUSED, Record


@dataclass(frozen=True)
class Message:
    """One message, and what is to befall the process that gets it.

    ``folder`` holds plan.toml and holder.key; the keystore is in ``home``.  ``kill_at``
    and ``full_at`` as for a client.
    """

    folder: Path
    home: Path
    data: bytes
    kill_at: int | tuple[str, int] = 0
    full_at: int | None = None


def _answer(message: Message) -> bytes:
    plan = Plan((message.folder / "plan.toml").read_bytes())
    random = SystemRandom()
    holder = ParkedKeyHolder(
        plan,
        Identity.load(message.folder / "holder.key", name="keyholder"),
        DiskKeystore(
            message.home / "store", key_path=message.home / "store.key", random=random
        ),
        random,
    )
    return holder.handle(message.data)


def _child(message: Message, record: Record, out: int) -> int:
    record.kill_at = message.kill_at
    record.install()
    if message.full_at is not None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (message.full_at, hard))
    hand_over = record.around("piece", os.write)
    try:
        answer = _answer(message)
        hand_over(out, _HEAD.pack(b"P", len(answer)) + answer)
    except SecureFLError as error:
        record.write(f"error {type(error).__name__}: {error}")
        return REFUSED
    except BaseException:
        record.write(f"error {traceback.format_exc()}")
        return BROKEN
    return DONE


def main() -> None:
    """Messages on stdin, answers and ends on stdout, until stdin ends."""
    messages, out = sys.stdin.buffer, sys.stdout.fileno()
    while head := messages.read(4):
        message: Message = pickle.loads(messages.read(int.from_bytes(head, "little")))
        # Once here what each child would do anew: its plan's sums of epsilon.
        Plan((message.folder / "plan.toml").read_bytes())
        record = Record()
        child = os.fork()
        if child == 0:
            os._exit(_child(message, record, out))
        _, status = os.waitpid(child, 0)
        end = pickle.dumps((os.waitstatus_to_exitcode(status), record.lines()))
        os.write(out, _HEAD.pack(b"E", len(end)) + end)


if __name__ == "__main__":
    main()
