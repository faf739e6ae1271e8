# SPDX-License-Identifier: Apache-2.0
"""``secure-fl node``: an organisation's Flower node that runs no code of others."""

from __future__ import annotations

import importlib.metadata
import logging
import re
from pathlib import Path
from typing import Final

import click

from ..errors import EngineError, UsageError
from ..randomness import SystemRandom

__all__ = ["command"]

_FLOWER: Final = ((1, 41), (1, 43))  # as pyproject.toml has it: at least, and below

_file = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("node", short_help="Answer a consortium as one bank, with its own code.")
@click.option("--superlink", metavar="HOST:PORT", help="Start a SuperNode of it.")
@click.option(
    "--root-certificates",
    type=_file,
    help="The SuperLink's ca.crt; without it, the system's authorities.",
)
@click.option(
    "--auth-key", type=_file, help="Made with `secure-fl certs supernode`, registered."
)
@click.option(
    "--node-config", help="For an app of your own: what the SuperNode tells it."
)
@click.option(
    "--runtime-api",
    metavar="HOST:PORT",
    help="Serve a SuperNode that runs with --isolation process already.",
)
@click.option(
    "--runtime-root-certificates",
    type=_file,
    help="Its CA, where it was started with --ssl-certfile.",
)
@click.option(
    "--auth-secret-file",
    type=_file,
    help="As it was given in --superexec-auth-secret-file.",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="SECURE_FL_HOME",
    required=True,
    help="The folder that `secure-fl join` made.",
)
@click.option(
    "--app",
    metavar="MODULE:ATTRIBUTE",
    default="secure_fl.engines.flower.app:client_app",
    show_default=True,
    help="Your ClientApp, installed here.",
)
def command(
    superlink: str | None,
    root_certificates: Path | None,
    auth_key: Path | None,
    node_config: str | None,
    runtime_api: str | None,
    runtime_root_certificates: Path | None,
    auth_secret_file: Path | None,
    home: Path,
    app: str,
) -> None:
    """Answer a consortium's messages, and run no code that comes with them.

    \b
    secure-fl node --superlink HOST:PORT --root-certificates ca.crt \\
        --auth-key bank-a.pem --home HOME

    starts a SuperNode and keeps it running. With --runtime-api it serves one that you
    started. Flower's own nodes run the app that whoever starts a run sends them; this
    one runs --app. It needs no inbound port, and ends with SIGTERM.
    """
    _check_flower()
    from ..engines.flower.node import RuntimeApi, serve
    from ..engines.flower.supernode import SuperNode

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each question
    if (superlink is None) == (runtime_api is None):
        raise UsageError(
            "name a SuperLink, or a SuperNode's Runtime API",
            hint="--superlink HOST:PORT starts a SuperNode, --runtime-api serves one",
        )
    for address in (superlink, runtime_api):
        if address is not None and not re.fullmatch(r"[^\s/@]+:\d{1,5}", address):
            raise UsageError(f"{address!r} is no address", hint="write HOST:PORT")
    home = home.resolve()
    if runtime_api is not None:
        _refuse(
            {
                "--root-certificates": root_certificates,
                "--auth-key": auth_key,
                "--node-config": node_config,
            },
            without="--superlink",
        )
        api = RuntimeApi(
            runtime_api,
            root_certificates=_read(runtime_root_certificates),
            secret=_read(auth_secret_file),
        )
        serve(app, api, home=home, supernode=None)
    assert superlink is not None
    _refuse(
        {
            "--runtime-root-certificates": runtime_root_certificates,
            "--auth-secret-file": auth_secret_file,
        },
        without="--runtime-api",
    )
    if auth_key is None:
        raise UsageError(
            "a node needs a key",
            hint="--auth-key FILE, made with `secure-fl certs supernode FILE`",
        )
    supernode = SuperNode(
        superlink,
        root_certificates=root_certificates,
        auth_key=auth_key,
        node_config=node_config,
        random=SystemRandom(),
    )
    api = RuntimeApi(supernode.address, secret=supernode.secret)
    serve(app, api, home=home, supernode=supernode)


def _check_flower() -> None:
    """What the node relies on is private to Flower: other versions are refused."""
    try:
        version = importlib.metadata.version("flwr")
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(
            "Flower is not installed", hint="install secure-fl[flower]"
        ) from None
    first, second = (int(part) for part in version.split(".")[:2])
    least, below = _FLOWER
    if not least <= (first, second) < below:
        raise EngineError(
            f"a node relies on what is private to Flower 1.41 and 1.42, not {version}",
            hint='pip install "flwr>=1.41,<1.43"',
        )


def _refuse(options: dict[str, object], *, without: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise UsageError(
                f"{name} means nothing without {without}", hint="leave one out"
            )


def _read(file: Path | None) -> bytes | None:
    return None if file is None else file.read_bytes()
