# SPDX-License-Identifier: Apache-2.0
"""``secure-fl watch``: what it shows, of a wrong folder too, and how it ends."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from secure_fl.cli.main import cli
from secure_fl.engines.result import Progress
from secure_fl.engines.status import Status, epsilon_of
from secure_fl.errors import UsageError
from secure_fl.report.cells import bound

from ..engines.banks import NAMES, Banks
from .support import Answer, call, snapshot

THREE = NAMES[:3]
VICTIM = "bank-b"
LEFT = "vectors: bank-b did not answer in time"


@pytest.fixture
def banks(desk: Path) -> Banks:
    """Three members that have joined; no run has begun."""
    return Banks(desk, names=THREE)


def begun(banks: Banks) -> Status:
    """A run in its second round, whose first sum a member missed."""
    status = Status(banks.plan, Path("state"))
    status.enter("joining")
    status.connected(["bank-a", "bank-b", "bank-c"])
    status.show(Progress(0, 3, 0, "vectors"))
    status.asked(THREE)
    for name in THREE:
        status.answered(name, fit=name != VICTIM)
    others = tuple(n for n in THREE if n != VICTIM)
    status.show(
        Progress(0, 3, 0, "opened", opened=1, inside=others, left={VICTIM: LEFT})
    )
    status.show(Progress(1, 3, 1, "keys", opened=1, inside=others))
    status.asked(THREE)
    status.answered("bank-a", fit=True)
    return status


def words(text: str) -> str:
    """Without line breaks and frames."""
    return re.sub(r"[\s│┃]+", " ", text)


def row(text: str, name: str) -> list[str]:
    """A table's row, cell by cell."""
    (line,) = [x for x in text.splitlines() if x.startswith(f"│ {name}")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_run_at_its_aggregator(banks: Banks) -> None:
    with begun(banks):
        answer = call("watch", "state", "--once")
    assert (answer.code, answer.err) == (0, "")
    assert max(map(len, answer.out.splitlines())) <= 80
    said = words(answer.out)
    assert "1 of 3 opened" in said
    assert "skipped" not in said
    assert "round 2, attempt 2: keys, for 0 s" in said
    one = bound(epsilon_of(banks.plan, 1))
    assert row(answer.out, "bank-a") == ["bank-a", "yes", "answered", "in", "1", one]
    assert row(answer.out, VICTIM) == [VICTIM, "yes", "awaited", "left out", "0", "0"]
    assert f"{VICTIM} was not in the last sum, {LEFT}" in said
    assert f"clinics ({banks.plan.hash.hex()[:16]})" in said
    assert "at delta 1e-05; its limit is 50." in said


def test_how_long_each_stage_took(
    banks: Banks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is over in less than a second is not worth a word."""
    seconds = iter([0.0, 0.0, 4.0, 4.5, 129.0])
    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic", lambda: next(seconds))
        status = Status(banks.plan, Path("state"))
        for stage in ("joining", "keys", "shares", "vectors"):
            status.enter(stage)
    said = words(call("watch", "state").out)
    assert "stages joining 4 s, shares 2 min 4 s ┏" in said


def test_how_it_ended(banks: Banks) -> None:
    with contextlib.suppress(UsageError), begun(banks):
        raise UsageError("no room", hint="make some")
    assert "UTC: no room (make some)" in words(call("watch", "state").out)
    with Status(banks.plan, Path("state")) as status:
        status.show(Progress(2, 3, 0, "opened", opened=2, inside=THREE))
    answer = words(call("watch", "state").out)
    assert "now finished 20" in answer
    assert "2 of 3 opened, 1 skipped" in answer


def test_a_process_that_is_gone_is_not_shown_at_work(
    banks: Banks, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(banks)

    def kill(pid: int, signal: int) -> None:
        assert signal == 0
        raise ProcessLookupError

    monkeypatch.setattr("os.kill", kill)
    said = words(call("watch", "state").out)
    assert "round 2, attempt 2, keys: cut off, its process is gone" in said


def test_a_run_as_json(banks: Banks) -> None:
    with begun(banks):
        run = call("watch", "state", "--json").json["aggregator"]
    assert run["run_id"] == banks.run_id.hex()
    assert run["plan_hash"] == banks.plan.hash.hex()
    assert (run["state"], run["cut_off"]) == ("running", False)
    assert (run["opened"], run["planned"], run["round"], run["attempt"]) == (1, 3, 1, 1)
    assert (run["stage"], run["delta"]) == ("keys", 1e-5)
    first, victim, _ = run["members"]
    assert first["epsilon"] == epsilon_of(banks.plan, 1)
    assert (first["in_sum"], victim["in_sum"], victim["why"]) == (True, False, LEFT)
    assert victim["epsilon"] == 0


def test_a_members_words_move_no_cursor(banks: Banks) -> None:
    status = begun(banks)
    status.show(Progress(1, 3, 1, "shares", left={VICTIM: "\x1b[2Jall is well\n\n"}))
    answer = call("watch", "state")
    assert answer.code == 0
    assert "\x1b" not in answer.out
    assert "\\x1b[2Jall is well" in answer.out


# -- a member --------------------------------------------------------------------------


def test_a_members_home(banks: Banks) -> None:
    banks.begin()
    banks.one_round(0)
    home = banks.homes["bank-a"].folder
    before = snapshot(home)
    answer = call("watch", home)
    assert (answer.code, answer.err) == (0, "")
    assert snapshot(home) == before
    assert max(map(len, answer.out.splitlines())) <= 80
    plan, ledger = [
        [c.strip() for c in x.strip("│").split("│")]
        for x in answer.out.splitlines()
        if x.startswith("│ clinics")
    ]
    one = bound(epsilon_of(banks.plan, 1))
    run = banks.run_id.hex()[:8]
    assert plan == ["clinics", "bank-a", "joined", run, "1", "1", one]
    assert ledger == ["clinics", one, "50", "1e-05", "2023-11-14"]
    assert "policy none" in words(answer.out)
    assert "active 0 s ago" in words(answer.out)
    member = call("watch", home, "--json").json["member"]
    assert member["ledgers"][0]["epsilon"] == epsilon_of(banks.plan, 1)
    assert member["ledgers"][0]["limit"] == 50
    assert member["plans"][0]["begun"] is True
    assert member["policy"] is None


def test_a_policy_and_what_it_refuses_now(banks: Banks) -> None:
    home = banks.homes["bank-a"].folder
    (home / "policy.toml").write_text(f"""\
schema = "secure-fl/policy/1"
year = 2026
lineage = "clinics"
largest_epsilon = 60
largest_epsilon_per_year = 55.5
largest_delta = 1e-5
smallest_cohort = 3
smallest_min_clients = 2
smallest_max_colluding = 0
modes = ["local"]
protections = ["masking"]
models = []
aggregators = ["{banks.plan.parties.aggregator}"]
""")
    answer = call("watch", home)
    assert row(answer.out, "clinics")[1:4] == ["bank-a", "refused", "not begun"]
    said = words(answer.out)
    assert "policy clinics: epsilon up to 60, and 55.5 in 2026, at delta 1e-05" in said
    assert "policy.tomlline12:models=[]:theplan'sis" in re.sub(r"\s", "", said)
    assert "spent nothing yet" in said
    member = call("watch", home, "--json").json["member"]
    assert member["policy"]["largest_epsilon"] == 60
    assert member["plans"][0]["epsilon"] is None


# -- the wrong folder ------------------------------------------------------------------


def run_folder() -> None:
    Path("it/report.json").write_text("{}")


def simulation_home() -> None:
    Path("it/clients").mkdir()


def client_of_a_simulation() -> None:
    Path("it/ledger.sqlite").write_bytes(b"")


def no_folder() -> None:
    Path("it").rmdir()


def a_file() -> None:
    Path("it").rmdir()
    Path("it").write_text("")


def aggregator_at_rest() -> None:
    Path("it/aggregator.key").write_bytes(b"")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (run_folder, "holds the files of a finished run"),
        (simulation_home, "is the home of runs on this machine"),
        (client_of_a_simulation, "is the home of runs on this machine"),
        (aggregator_at_rest, "no run has begun in it"),
        (lambda: None, "is neither an aggregator's home nor a member's"),
        (no_folder, "there is no folder it"),
        (a_file, "there is no folder it"),
    ],
)
def test_a_wrong_folder(desk: Path, make: Callable[[], None], said: str) -> None:
    Path("it").mkdir()
    make()
    answer: Answer = call("watch", "it")
    assert answer.code == 2
    assert answer.out == ""
    (error,) = answer.errors
    assert said in error
    assert len(answer.hints) == 1


# -- live ------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_it_goes_on_until_ctrl_c(banks: Banks, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens meanwhile is seen, a folder that cannot be read too, and Ctrl-C
    ends the view as a success."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    status = begun(banks)
    seen: list[str] = []
    screen = Terminal()

    def sleep(seconds: float) -> None:
        assert seconds == 1.0
        seen.append(screen.getvalue())
        match len(seen):
            case 1:
                status.show(Progress(2, 3, 0, "shares", opened=2, inside=THREE))
            case 2:
                Path("state").rename("elsewhere")
            case 3:
                Path("elsewhere").rename("state")
            case 5:
                raise KeyboardInterrupt

    monkeypatch.setattr("secure_fl.cli.watch.time.sleep", sleep)
    with contextlib.redirect_stdout(screen):
        code = cli.main(["watch", "state"], standalone_mode=False)
    assert code is None or code == 0
    first, second, third, fourth, _ = (
        new[len(old) :] for old, new in zip(["", *seen], seen, strict=False)
    )
    assert "1 of 3" in first
    assert "2 of 3" in second
    assert "shares of keys" in second
    assert "cannot look now" in third
    assert "2 of 3" in third
    assert "cannot look now" not in fourth
    assert "\x1b[?25h" in screen.getvalue()[len(seen[0]) :]  # the cursor is back


def test_its_help_says_which_folder(desk: Path) -> None:
    answer = call("watch", "--help")
    assert "aggregator's home, or a member's own" in words(answer.out)
