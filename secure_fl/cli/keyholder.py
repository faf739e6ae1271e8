# SPDX-License-Identifier: Apache-2.0
"""``secure-fl keyholder``: the one who releases sums of keys."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..errors import PlanError, SecureFLError, UsageError
from ..identity import Identity
from ..keystore import DiskKeystore
from ..plan import load_plan
from ..randomness import SystemRandom
from .keys import passphrase_option, secret_bytes
from .output import say

__all__ = ["command"]


@click.command("keyholder")
@click.argument("plan_path", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    help="The key holder's private key, made with `secure-fl keys new`.",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    envvar="SECURE_FL_HOME",
    required=True,
    help="Remembers what was released; the same at every start, never restored.",
)
@passphrase_option
def command(plan_path: Path, key: Path, home: Path, passphrase: str | None) -> None:
    """Release sums of keys for PLAN, each once.

    Reads the aggregator's messages on standard input and answers on standard output,
    each behind its length in 4 bytes; so it runs behind ssh, or any two pipes. It is
    sent keys, never a ciphertext. It ends with its input.
    """
    plan = load_plan(plan_path)
    if not plan.complete:
        raise PlanError(
            "the plan is not complete: it lacks keys or its run id",
            hint="a key holder serves the plan that all members have signed",
        )
    from ..engines.keyholder import serve
    from ..round import key_holder

    identity = Identity.load(key, name="keyholder", passphrase=secret_bytes(passphrase))
    if sys.stdin.isatty():
        raise UsageError(
            "standard input is a terminal, not the aggregator",
            hint="connect a pipe to it, with ssh for one",
        )
    random = SystemRandom()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    keystore = DiskKeystore(
        home / "keystore.sqlite", key_path=home / "keystore.key", random=random
    )
    try:
        holder = key_holder(plan, identity, keystore)
        serve(
            holder,
            sys.stdin.buffer,
            sys.stdout.buffer,
            random=random,
            refused=_refused,
        )
    finally:
        keystore.close()


def _refused(error: SecureFLError) -> None:
    say("error", error.message)
