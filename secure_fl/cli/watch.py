# SPDX-License-Identifier: Apache-2.0
"""``secure-fl watch``: a run while it goes on, at the aggregator or at a member."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..errors import SecureFLError, UsageError
from ..report.cells import bound
from .output import json_number, safe

if TYPE_CHECKING:
    from ..engines.member_status import MemberView
    from ..engines.status import MemberStatus, RunStatus
    from ..plan import Plan

__all__ = ["command"]

_REFRESH_SECONDS: Final = 1.0
_STAGES: Final = {
    "joining": "waiting for the members",
    "shares": "shares of keys",
    "vectors": "training and updates",
    "consistency": "agreeing on who is in",
    "unmask": "opening the sum",
    "release": "opening the sum",
    "opened": "the sum is open",
    "failed": "the attempt has failed",
    "signatures": "signatures over the log",
    "ledgers": "ledgers for the report",
}


@click.command("watch", short_help="Show a run while it goes on.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Print what there is now, and leave.")
@click.option("--json", "as_json", is_flag=True, help="The same once, as JSON.")
def command(folder: Path, once: bool, as_json: bool) -> None:
    """Show a run while it goes on: rounds, stages, who is in, epsilon.

    FOLDER is the aggregator's home, or a member's own. It is only read, and whoever
    works in it is not held up. Ctrl-C ends the view, and nothing else.
    """
    seen = _look(folder)
    if as_json:
        click.echo(json.dumps(seen.as_dict(), indent=2))
        return
    console = Console(highlight=False, markup=False)
    if once or not sys.stdout.isatty():
        console.print(seen.shown())
        return
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(seen.shown(), console=console, auto_refresh=False) as live,
    ):
        while True:
            time.sleep(_REFRESH_SECONDS)
            note = ""
            try:
                seen = _look(folder)
            except SecureFLError as error:  # it may be readable again in a moment
                note = f"cannot look now: {error}"
            live.update(seen.shown(note), refresh=True)


@dataclass(frozen=True)
class _Seen:
    """What a folder held at one moment; one of the two at least."""

    run: tuple[RunStatus, Plan] | None
    home: MemberView | None

    def as_dict(self) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        if self.run is not None:
            answer["aggregator"] = _run_dict(*self.run)
        if self.home is not None:
            answer["member"] = _home_dict(self.home)
        return answer

    def shown(self, note: str = "") -> RenderableType:
        parts: list[RenderableType] = []
        if self.run is not None:
            parts += _run_parts(*self.run)
        if self.home is not None:
            parts += _home_parts(self.home)
        if note:
            parts.append(_line("note", note))
        return Group(*parts)


def _look(folder: Path) -> _Seen:
    from ..engines.member_status import is_home, view_home
    from ..engines.status import latest

    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder}", hint="give an aggregator's or member's home"
        )
    run = latest(folder)
    home = view_home(folder) if is_home(folder) else None
    if run is None and home is None:
        raise _nothing_in(folder)
    return _Seen(run, home)


def _nothing_in(folder: Path) -> UsageError:
    from ..engines.setup import AGGREGATOR_FILE, REPORT_FILE

    if (folder / REPORT_FILE).exists():
        return UsageError(
            f"{folder} holds the files of a finished run",
            hint="`secure-fl report` and `secure-fl verify` show it",
        )
    if (folder / "clients").is_dir() or (folder / "ledger.sqlite").exists():
        return UsageError(
            f"{folder} is the home of runs on this machine, which show a bar of their"
            " own",
            hint="`secure-fl ledger show --home` says what was spent",
        )
    if (folder / AGGREGATOR_FILE).exists():
        return UsageError(
            f"no run has begun in {folder}", hint="start the aggregator first"
        )
    return UsageError(
        f"{folder} is neither an aggregator's home nor a member's",
        hint="give the aggregator's, or the one that `secure-fl join` was given",
    )


# -- the aggregator's run --------------------------------------------------------------


def _run_dict(run: RunStatus, plan: Plan) -> dict[str, Any]:
    from ..engines.status import epsilon_of

    answer = run.model_dump(by_alias=True)
    for member, row in zip(run.members, answer["members"], strict=True):
        row["epsilon"] = json_number(epsilon_of(plan, member.releases))
    return {**answer, "cut_off": run.cut_off, "delta": plan.privacy.delta}


def _run_parts(run: RunStatus, plan: Plan) -> list[RenderableType]:
    skipped = (run.planned if run.state == "finished" else run.round) - run.opened
    rounds = f"{run.opened} of {run.planned} opened"
    if skipped > 0:
        rounds += f", {skipped} skipped"
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        Text("rounds ", "bold"),
        ProgressBar(run.planned, run.opened, width=30),
        Text(rounds),
    )
    return [
        _line("plan", f"{run.plan} ({run.plan_hash[:16]}), run {run.run_id[:8]}"),
        bar,
        _line("now", _now(run)),
        *_stages(run),
        _members(run, plan),
        *_reasons(run),
        Text(_epsilon_note(plan), "dim"),
    ]


def _now(run: RunStatus) -> str:
    if run.state == "finished":
        return f"finished {_day(run.written)}"
    if run.state == "failed":
        hint = f" ({run.hint})" if run.hint else ""
        return f"failed {_day(run.written)}: {run.reason}{hint}"
    place = f"round {run.round + 1}"
    if run.attempt:
        place += f", attempt {run.attempt + 1}"
    stage = _STAGES.get(run.stage, run.stage)
    if run.cut_off:
        return f"{place}, {stage}: cut off, its process is gone; start it again"
    return f"{place}: {stage}, for {_length(time.time() - run.since)}"


def _stages(run: RunStatus) -> list[RenderableType]:
    shown = [f"{k} {_length(spent)}" for k, spent in run.seconds.items() if spent >= 1]
    return [_line("stages", ", ".join(shown))] if shown else []


def _members(run: RunStatus, plan: Plan) -> Table:
    from ..engines.status import epsilon_of

    table = _table("member", "connected", "this stage", "last sum")
    for heading in ("updates", "epsilon"):
        table.add_column(heading, justify="right")
    for member in run.members:
        table.add_row(
            safe(member.name),
            "yes" if member.connected else "no",
            _answer(member),
            {True: "in", False: "left out", None: ""}[member.in_sum],
            str(member.releases),
            bound(json_number(epsilon_of(plan, member.releases))),
        )
    return table


def _answer(member: MemberStatus) -> str:
    return "left" if member.left or member.answer == "failed" else member.answer


def _reasons(run: RunStatus) -> list[RenderableType]:
    out: list[RenderableType] = []
    for m in run.members:
        if m.left:
            out.append(_line(m.name, f"left this attempt, {m.left}"))
        if m.why and m.why != m.left:
            out.append(_line(m.name, f"was not in the last sum, {m.why}"))
    return out


def _epsilon_note(plan: Plan) -> str:
    against = (
        f", against {plan.parties.max_colluding} that collude"
        if plan.distributed
        else ""
    )
    return (
        f"epsilon: of the updates that arrived in this run, by the plan, at delta "
        f"{plan.privacy.delta:g}{against}; its limit is {plan.privacy.epsilon:g}. A "
        "member's own ledger also counts what was lost on the way, and earlier runs."
    )


# -- a member's home -------------------------------------------------------------------


def _home_dict(home: MemberView) -> dict[str, Any]:
    limits = home.limits
    return {
        "plans": [
            {
                "plan": view.plan.name,
                "plan_hash": view.plan.hash.hex(),
                "name": view.name,
                "state": view.state,
                "why": view.why,
                "run_id": (view.plan.run_id or b"").hex(),
                "begun": view.begun,
                "releases": view.releases,
                "in_sums": view.in_sums,
                "epsilon": None if view.epsilon is None else json_number(view.epsilon),
            }
            for view in home.plans
        ],
        "ledgers": [
            {
                "client": account.book.client,
                "lineage": account.book.lineage,
                "epsilon": json_number(account.spent.total.epsilon),
                "limit": json_number(account.spent.last.limit),
                "delta": account.spent.delta,
                "last": account.spent.total.last.isoformat(),
            }
            for account in home.accounts
        ],
        "policy": None
        if limits is None
        else {
            "lineage": limits.lineage,
            "largest_epsilon": limits.epsilon,
            "largest_epsilon_per_year": limits.epsilon_per_year,
            "year": limits.year,
            "largest_delta": limits.delta,
        },
        "last_activity": home.last_activity,
    }


def _home_parts(home: MemberView) -> list[RenderableType]:
    plans = _table("plan", "as", "state", "run")
    for heading in ("releases", "in sums", "epsilon"):
        plans.add_column(heading, justify="right")
    whys: list[RenderableType] = []
    for view in home.plans:
        plans.add_row(
            safe(view.plan.name),
            safe(view.name),
            view.state,
            (view.plan.run_id or b"").hex()[:8] if view.begun else "not begun",
            str(view.releases),
            str(view.in_sums),
            "" if view.epsilon is None else bound(json_number(view.epsilon)),
        )
        if view.why:
            whys.append(_line(view.plan.name, view.why))
    ledgers = _table("data set")
    for heading in ("epsilon spent", "limit", "at delta", "last release"):
        ledgers.add_column(heading, justify="right")
    for account in home.accounts:
        spent = account.spent
        ledgers.add_row(
            safe(account.book.lineage),
            bound(json_number(spent.total.epsilon)),
            bound(json_number(spent.last.limit)),
            f"{spent.delta:g}",
            spent.total.last.isoformat(),
        )
    policy = "none: any plan that is joined is answered"
    if (limits := home.limits) is not None:
        policy = (
            f"{limits.lineage}: epsilon up to {limits.epsilon:g}, and "
            f"{limits.epsilon_per_year:g} in {limits.year}, at delta {limits.delta:g}"
        )
    ago = _length(max(0.0, time.time() - home.last_activity))
    return [
        plans,
        *whys,
        *([ledgers] if home.accounts else [_line("spent", "nothing yet")]),
        _line("policy", policy),
        _line("active", f"{ago} ago"),
    ]


# -- words -----------------------------------------------------------------------------


def _table(*headings: str) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _line(label: str, text: str) -> Text:
    """One paragraph; what a peer has worded moves no cursor."""
    return Text.assemble((f"{safe(label):7} ", "bold"), safe(" ".join(text.split())))


def _day(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _length(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d"
