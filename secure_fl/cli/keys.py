# SPDX-License-Identifier: Apache-2.0
"""``secure-fl keys``: identities on disk."""

from __future__ import annotations

from pathlib import Path

import click

from ..engines import home
from ..identity import Identity, key_to_text
from ..randomness import SystemRandom

__all__ = ["group", "passphrase_option", "secret_bytes"]

passphrase_option = click.option(
    "--passphrase",
    envvar="SECURE_FL_PASSPHRASE",
    help="Passphrase of the private key (or the variable SECURE_FL_PASSPHRASE).",
)


def secret_bytes(passphrase: str | None) -> bytes | None:
    """What the option gave, or the file that SECURE_FL_PASSPHRASE_FILE names, as bytes;
    None where there is neither."""
    return home.passphrase() if passphrase is None else passphrase.encode()


@click.group("keys")
def group() -> None:
    """Make and show identities."""


@group.command("new")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Where the private key goes; never into a run's folder.",
)
@passphrase_option
def new(output: Path, passphrase: str | None) -> None:
    """Make a key pair and print the public line for the plan."""
    identity = Identity.new(output.stem, random=SystemRandom())
    identity.save(output, passphrase=secret_bytes(passphrase))
    click.echo(key_to_text(identity.public_key))


@group.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@passphrase_option
def show(file: Path, passphrase: str | None) -> None:
    """Print the public line of a private key FILE."""
    identity = Identity.load(file, passphrase=secret_bytes(passphrase))
    click.echo(key_to_text(identity.public_key))
