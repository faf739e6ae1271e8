# SPDX-License-Identifier: Apache-2.0
"""``secure-fl certs``: TLS and node authentication for a Flower deployment."""

from __future__ import annotations

from pathlib import Path

import click

from ..engines.certificates import MAX_DAYS, make_node_key, make_server_certificate

__all__ = ["group"]


@click.group("certs")
def group() -> None:
    """Make what a Flower deployment authenticates with.

    Each is made where it is used; no private key has to travel. Identities of the
    protocol are another matter: see `secure-fl keys`.
    """


@group.command("superlink")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--host",
    "hosts",
    multiple=True,
    required=True,
    help="A DNS name or IP address the SuperLink is reached by; may be repeated.",
)
@click.option(
    "--days",
    type=click.IntRange(1, MAX_DAYS),
    default=365,
    show_default=True,
    help="How long the certificate is valid.",
)
def superlink(folder: Path, hosts: tuple[str, ...], days: int) -> None:
    """Make a SuperLink's TLS certificate.

    In FOLDER, on the host that the SuperLink runs on. Nothing is overwritten, and the
    authority's own key is not kept: to renew, make another FOLDER and give every
    member its ca.crt.
    """
    made = make_server_certificate(folder, hosts, days=days)
    click.echo(f"""\
{made.key}
    stays on this host: whoever has it is the SuperLink
{made.certificate}
    beside it; valid until {made.valid_until:%Y-%m-%d %H:%M} UTC
{made.ca}
    to every member, and to whoever starts runs. They compare its SHA-256 by
    phone:
    {made.fingerprint[:48]}
    {made.fingerprint[48:]}
The SuperLink starts with
    flower-superlink --host 0.0.0.0 --enable-supernode-auth \\
        --disable-runtime-dependency-installation --database FILE \\
        --ssl-ca-certfile {made.ca} \\
        --ssl-certfile {made.certificate} \\
        --ssl-keyfile {made.key}
Whoever reaches its port may also start runs and register nodes, unless a proxy
in front of it lets members reach nothing but /v1/fleet/.""")


@group.command("supernode")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def supernode(file: Path) -> None:
    """Make a SuperNode's key pair.

    FILE and FILE.pub, at the member whose node it is. Nothing is overwritten. The
    private key has no passphrase, for Flower cannot ask for one: keep it on an
    encrypted disk.
    """
    made = make_node_key(file)
    click.echo(f"""\
{made.private}
    stays on this host: whoever has it is this SuperNode
{made.public}
    to whoever runs the SuperLink. They compare its fingerprint by phone:
    {made.fingerprint}
    and then let it in: flwr supernode register {made.public.name}
The node starts with
    secure-fl node --superlink HOST:PORT --root-certificates ca.crt \\
        --auth-key {made.private} --home HOME""")
