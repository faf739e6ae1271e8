# SPDX-License-Identifier: Apache-2.0
"""``secure-fl``: what every verb shares, errors and exit codes above all.

stdout carries the answer, stderr everything else.  An error is one ``secure-fl:
error:`` line and one ``secure-fl: hint:`` line; a traceback appears only where
SECURE_FL_DEBUG asks for it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from .. import __version__
from ..errors import SecureFLError
from . import (
    bench,
    certificates,
    join,
    keyholder,
    keys,
    ledger,
    node,
    plan,
    policy,
    results,
    run,
    watch,
)
from .output import say

__all__ = ["cli", "main"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80}
)
@click.version_option(__version__, prog_name="secure-fl")
def cli() -> None:
    """Private federated fine-tuning, and the report that proves its epsilon.

    \b
    secure-fl plan new > plan.toml      write a plan
    secure-fl plan check plan.toml      see what it would cost
    secure-fl run plan.toml --out out   all parties on this machine
    secure-fl verify out                check everything, offline
    """


cli.add_command(plan.group)
cli.add_command(policy.group)
cli.add_command(keys.group)
cli.add_command(join.join)
cli.add_command(join.leave)
cli.add_command(run.command)
cli.add_command(node.command)
cli.add_command(keyholder.command)
cli.add_command(certificates.group)
cli.add_command(watch.command)
cli.add_command(results.report)
cli.add_command(results.verify)
cli.add_command(ledger.group)
cli.add_command(bench.group)


def _fail(message: str, hint: str, exit_code: int) -> int:
    if os.environ.get("SECURE_FL_DEBUG"):
        traceback.print_exc()
    say("error", message)
    if hint:
        say("hint", hint)
    return exit_code


def main(args: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: never a traceback, never SystemExit."""
    try:
        outcome = cli.main(args, prog_name="secure-fl", standalone_mode=False)
        sys.stdout.flush()
        return outcome if isinstance(outcome, int) else 0
    except SecureFLError as error:
        return _fail(error.message, error.hint, error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "secure-fl"
        message = error.format_message().rstrip(".")
        return _fail(message[:1].lower() + message[1:], f"see `{command} --help`", 2)
    except (KeyboardInterrupt, click.Abort):
        say("error", "interrupted")
        say("hint", "a run that had begun goes on with --resume")
        return 130
    except SystemExit:
        # click's own way to say that whoever read our answer has closed the pipe.
        return 0
    except BrokenPipeError:
        # Whoever read our answer has seen enough; nothing is left to tell them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        hint = "check that the folder exists, may be written and has room"
        return _fail(f"{where}{error.strerror or error}", hint, 5)
    except Exception as error:
        return _fail(
            f"internal error: {type(error).__name__}: {error}",
            "please report it; SECURE_FL_DEBUG=1 shows where it happened",
            70,
        )
