# SPDX-License-Identifier: Apache-2.0
"""``secure-fl report`` and ``verify``: what a finished run says, and its proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError, VerificationError
from ..report import Verified, render_html, render_text, to_json, verify_run
from ..report.cells import bound
from ..report.registry import registry_yaml
from .output import json_number, output_option, put, safe

__all__ = ["report", "verify"]

_DAMAGED = "`secure-fl verify DIR` says what else was changed"


@click.command("report", short_help="Render the epsilon report of the run in DIR.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "html", "json", "registry-yaml"]),
    default="text",
    show_default=True,
    help="registry-yaml: a draft entry for the registry of DP deployments.",
)
@click.option(
    "--lang",
    "language",
    type=click.Choice(["en", "zh"]),
    help="Language of text and html; English where none is given.",
)
@output_option
def report(folder: Path, form: str, language: str | None, output: Path | None) -> None:
    """Render the epsilon report of the run in DIR, unchecked: see `verify`."""
    if language is not None and form not in ("text", "html"):
        raise UsageError(
            f"{form} has no other language", hint="--lang is for text and html"
        )
    data, metrics = _load(folder, "report.json"), _load(folder, "metrics.json")
    try:
        match form:
            case "json":
                text = to_json(data).decode()
            case "registry-yaml":
                text = registry_yaml(data)
            case "html":
                text = render_html(data, metrics, language=language or "en")
            case _:
                text = render_text(data, metrics, language=language or "en")
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        raise VerificationError(
            "is not a report of this version",
            file="report.json",
            hint=_DAMAGED,
        ) from None
    put(text, output)


@click.command("verify")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(path_type=Path),
    help="Your own copy of the plan, to compare with the run's.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(folder: Path, plan_path: Path | None, as_json: bool) -> None:
    """Check the run in DIR offline: exit 0 if all holds, else 1."""
    try:
        verified = verify_run(folder, plan_path=plan_path)
    except VerificationError as error:
        if as_json:
            click.echo(json.dumps(_refusal(error), indent=2))
        raise
    if as_json:
        click.echo(json.dumps(_as_dict(verified), indent=2))
        return
    for line in verified.checks:
        click.echo(f"ok           {safe(line)}")
    for line in verified.not_checked:
        click.echo(f"not checked  {safe(line)}")
    click.echo("\ncompare with the other members, outside this system:")
    labels = ("plan hash", "run id", "report id", "model", "log head")
    for label, value in zip(labels, _compared(verified).values(), strict=True):
        click.echo(f"{label:9}  {value}")
    click.echo()
    width = max(map(len, verified.epsilon))
    for client, epsilon in verified.epsilon.items():
        click.echo(f"epsilon  {client:{width}}  {epsilon:.4g}")
    for claim in _load(folder, "report.json")["claims"][1:]:
        alone = bound(claim["consortium"]["epsilon"])
        click.echo(f"epsilon  {alone} at most, if everybody else colludes")
    click.echo(
        f"\nVERIFIED: all {len(verified.checks)} checks hold; "
        f"{len(verified.not_checked)} things cannot be checked from these files"
    )


def _load(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", hint="give a finished run's folder"
        ) from None
    except (ValueError, RecursionError):
        raise VerificationError("is not JSON", file=name, hint=_DAMAGED) from None
    if not isinstance(data, dict):
        raise VerificationError("is not a JSON object", file=name, hint=_DAMAGED)
    return data


def _compared(verified: Verified) -> dict[str, str]:
    return {
        "plan_hash": verified.plan_hash,
        "run_id": verified.run_id,
        "report_id": verified.report_id,
        "model_hash": verified.model_hash,
        "transcript_head": verified.transcript_head,
    }


# What `--json` prints is laid down in protocols/report/SPEC.md, 12.1.


def _as_dict(verified: Verified) -> dict[str, object]:
    return {
        "verified": True,
        **_compared(verified),
        "checks": list(verified.checks),
        "not_checked": list(verified.not_checked),
        "epsilon": {
            client: json_number(value) for client, value in verified.epsilon.items()
        },
    }


def _refusal(error: VerificationError) -> dict[str, object]:
    return {
        "verified": False,
        "file": error.file,
        "problem": error.message.removeprefix(f"{error.file}: "),
        "hint": error.hint,
    }
