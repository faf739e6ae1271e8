# SPDX-License-Identifier: Apache-2.0
"""One process per message for a key holder, as ``client_process`` has it for a client.

A parent forks a process for each message, which opens the keystore, answers, and ends;
or ends itself by SIGKILL at the durable write, or the answer, that it is told to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secure_fl.identity import Identity
from secure_fl.keystore import DiskKeystore
from secure_fl.plan import Plan
from secure_fl.randomness import SystemRandom
from secure_fl.round.holder import ParkedKeyHolder

from .client_process import serve


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


def _answer(message: Message) -> list[bytes]:
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
    return [holder.handle(message.data)]


if __name__ == "__main__":
    # The plan was read, and so its sums of epsilon are made: nothing else is warmed.
    serve(_answer, warm=lambda plan: None)
