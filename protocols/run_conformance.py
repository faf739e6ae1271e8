# SPDX-License-Identifier: Apache-2.0
"""Runs an implementation against the vectors: see CONFORMANCE.md.

    python protocols/run_conformance.py [options] -- COMMAND ARGS...

COMMAND is started once and answers one JSON line for each it reads. It is never told
what is expected. Needs Python 3.11 or newer and nothing beside it; imports no
implementation.
"""

import argparse
import contextlib
import dataclasses
import json
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import sealed_ckks
import sealed_shares
from ckks_recipes import Recipes
from plain_crypto import Wrong

PROTOCOL = "secure-fl/conformance/1"
SPECIFICATIONS = {
    "masking": "secure-fl/masking/1",
    "ckks": "secure-fl/ckks/1",
}
# A reply is never longer than the inboxes of one case; a line without end is none.
LONGEST_LINE = 1 << 24
SUCCESS = "something sent, and no error"
# What was parsed, encoded again: fields of the reply that must equal the input's.
AGAIN = {
    "wire": ["bytes"],
    "message": ["bytes"],
    "key_text": ["text"],
    "unpack": ["bytes"],
    "write": ["residues"],
    "leaves": ["root", "path"],
}


class CannotRun(Exception):
    """The command line is wrong: no vectors, or no implementation to ask."""


class Stopped(Exception):
    """The implementation can be asked no more; says why."""


class Ended(Stopped):
    """It is not there any more."""


class Differs(Exception):
    """One case is not answered as it must be; says in what."""


@dataclass(frozen=True)
class Case:
    kind: str
    description: str
    check: str
    input: dict[str, Any]
    expect: dict[str, Any]
    recipes: Recipes | None = None

    def plain(self) -> "Case":
        """The same, with all recipes of CKKS vectors written out."""
        if self.recipes is None:
            return self
        given, expect = self.recipes.plain(self.input), self.recipes.sent(self.expect)
        return dataclasses.replace(self, input=given, expect=expect)


@dataclass
class Tally:
    passed: int = 0
    failed: int = 0
    skipped: int = 0


@dataclass
class Done:
    """What is known after a run."""

    specification: str
    implementation: str = ""
    tallies: dict[str, Tally] = field(default_factory=dict)
    failures: list[tuple[Case, str]] = field(default_factory=list)
    stopped: str = ""


def read_cases(folder: Path, specification: str, kinds: set[str]) -> list[Case]:
    """All cases of `kinds` (empty: of every kind), their sessions resolved."""
    cases: list[Case] = []
    found = set()
    for path in sorted(folder.glob("*.json")):
        try:
            file = json.loads(path.read_text(encoding="utf-8"))
            kind, sessions = file["kind"], file.get("sessions", {})
            if file["spec"] != specification:
                raise CannotRun(f"{path}: vectors of {file['spec']}")
            found.add(kind)
            if kinds and kind not in kinds:
                continue
            recipes: dict[str, Recipes] = {}
            for case in file["cases"]:
                given = dict(case["input"])
                if isinstance(given.get("session"), str):
                    given["session"] = sessions[given["session"]]
                session, made = given.get("session"), None
                if specification == SPECIFICATIONS["ckks"]:
                    # One for each context, so that no recipe is followed twice.
                    made = Recipes(file.get("data", {}), session)
                    made = recipes.setdefault(json.dumps(session), made)
                named = (kind, case["description"], case.get("check", ""))
                cases.append(Case(*named, given, case["expect"], made))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CannotRun(f"{path}: not a file of vectors: {error!r}") from None
    if not found:
        raise CannotRun(f"{folder}: no vectors there")
    if kinds - found:
        raise CannotRun(f"no vectors of kind {', '.join(sorted(kinds - found))}")
    return cases


class Implementation:
    """The child process: one line out, one line in, each within `timeout` seconds."""

    def __init__(self, command: list[str], timeout: float) -> None:
        self.timeout = timeout
        self.requests: queue.Queue[bytes] = queue.Queue()
        self.lines: queue.Queue[bytes] = queue.Queue()
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise CannotRun(f"cannot start {command[0]}: {error.strerror}") from None
        # Pipes block: an implementation that does not read must still time out.
        for work, pipe in (
            (self._write, self.process.stdin),
            (self._read, self.process.stdout),
        ):
            threading.Thread(target=work, args=(pipe,), daemon=True).start()

    def _write(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError):  # it ended; the reader finds out
            while request := self.requests.get():
                pipe.write(request)
                pipe.flush()
            pipe.close()

    def _read(self, pipe: IO[bytes]) -> None:
        while line := pipe.readline(LONGEST_LINE):
            self.lines.put(line)
        self.lines.put(b"")

    def ask(self, number: int, kind: str, given: dict[str, Any]) -> dict[str, Any]:
        """Sends one request; the reply to it, without its number."""
        request = {"id": number, "kind": kind, "input": given}
        self.requests.put(json.dumps(request).encode() + b"\n")
        try:
            line = self.lines.get(timeout=self.timeout)
        except queue.Empty:
            raise Stopped(f"no answer within {self.timeout:g} s") from None
        if not line:
            raise Ended("it ended or closed its output")
        shown = line[:80].decode(errors="replace").strip()
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            raise Stopped(f"it printed a line that is no reply: {shown!r}") from None
        if not isinstance(reply, dict) or not equal(reply.pop("id", None), number):
            raise Stopped(f"it did not answer request {number}: {shown!r}")
        return reply

    def close(self) -> None:
        self.requests.put(b"")
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def without_answers(given: dict[str, Any]) -> dict[str, Any]:
    """The input as an implementation may see it: no operation says what it meets."""
    if "operations" not in given:
        return given
    operations = [
        {key: value for key, value in operation.items() if key != "refused"}
        for operation in given["operations"]
    ]
    return given | {"operations": operations}


def compare(case: Case, reply: dict[str, Any]) -> None:
    """Raises Differs unless `reply` is what the case expects."""
    if "operations" in case.input:
        compare_operations(case, reply)
    elif "error" in case.expect:
        same(case.expect, reply)
    else:
        again = AGAIN.get(case.kind, AGAIN.get(case.input.get("op", ""), []))
        if "leaves" in case.input:
            again = AGAIN["leaves"]
        expected = case.expect | {name: case.input[name] for name in again}
        if case.input.get("op") == "decode":
            reply = {"result": reals(reply.get("result"))}
            expected = reals(expected)
        same({"result": expected}, reply)


def equal(one: object, other: object) -> bool:
    """Whether both are the same JSON (to Python, `True == 1`)."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def same(expected: object, answered: object) -> None:
    if not equal(expected, answered):
        raise Differs(f"expected {brief(expected)}, answered {brief(answered)}")


def brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:140]} ... {text[-50:]}"


def reals(result: object) -> dict[str, Any]:
    """`x` as the bits of each binary64: its text may be written in several ways."""
    try:
        assert isinstance(result, dict)
        bits = [struct.pack(">d", float(text)).hex() for text in result["x"]]
        return result | {"x": bits}
    except (AssertionError, KeyError, TypeError, ValueError):
        raise Differs(f"not an object with reals: {brief(result)}") from None


def expected_outcomes(case: Case) -> Iterator[object]:
    """What each operation must come to; SUCCESS where only that is fixed."""
    sent = iter(case.expect.get("sent", []))
    operations = case.input["operations"]
    for operation in operations:
        if "error" in case.expect and operation is operations[-1]:
            yield case.expect
        elif "refused" in operation:
            yield operation["refused"]
        elif operation["op"] == "add":
            yield {}
        elif "error" in case.expect:
            yield SUCCESS
        else:
            opened = {key: case.expect[key] for key in case.expect if key != "sent"}
            message = next(sent, None)
            yield opened if message is None else {"sent": message}


def compare_operations(case: Case, reply: dict[str, Any]) -> None:
    """Operation by operation: what was sent, or the error that was met."""
    result = reply.get("result")
    outcomes = result.get("outcomes") if isinstance(result, dict) else None
    if not isinstance(outcomes, list):
        raise Differs(f"no outcomes in {brief(reply)}")
    for number, expected in enumerate(expected_outcomes(case)):
        operation = case.input["operations"][number]
        where = f"operation {number}, {operation['op']}"
        if number == len(outcomes):
            raise Differs(f"{where}: not done, {number} outcomes")
        try:
            compare_outcome(case, operation, expected, outcomes[number])
        except Differs as difference:
            raise Differs(f"{where}: {difference}") from None
    if len(outcomes) != len(case.input["operations"]):
        raise Differs("more outcomes than operations")


def compare_outcome(
    case: Case, operation: dict[str, Any], expected: object, answered: object
) -> None:
    if expected == SUCCESS:
        if not isinstance(answered, dict) or set(answered) != {"sent"}:
            raise Differs(f"expected {SUCCESS}, answered {brief(answered)}")
        return
    found = look_inside(case, operation, expected)
    if found is None:
        same(expected, answered)
        return
    name, look = found
    # Boxes are sealed afresh: these messages are compared by their parts.
    try:
        assert isinstance(answered, dict)
        assert set(answered) == {"sent"}
        look(answered["sent"])
    except (AssertionError, TypeError, ValueError):
        raise Differs(f"no {name} in {brief(answered)}") from None
    except Wrong as wrong:
        raise Differs(f"{name}: {wrong}") from None


def look_inside(
    case: Case, operation: dict[str, Any], expected: object
) -> tuple[str, Callable[[Any], None]] | None:
    """The message that answers an operation, and what checks it; None: bytes do."""
    given, session = case.input, case.input["session"]
    if not isinstance(expected, dict) or "error" in expected:
        return None
    if "ciphertexts" in expected:
        return "Input", lambda sent: sealed_ckks.check_upload(
            [bytes.fromhex(message) for message in sent], given, expected
        )
    described = expected.get("sent")
    if not isinstance(described, dict):
        return None
    if case.kind == "client":
        return "SealedShares", lambda sent: sealed_shares.check(
            bytes.fromhex(sent), session, given["client"], described
        )
    if case.kind == "keyholder":
        asked = bytes.fromhex(operation["message"])
        return "Release", lambda sent: sealed_ckks.check_release(
            bytes.fromhex(sent), asked, session, described
        )
    return None


def run(
    specification: str,
    cases: list[Case],
    implementation: Implementation,
    skips_fail: bool,
) -> Done:
    done = Done(specification, tallies={case.kind: Tally() for case in cases})
    try:
        done.implementation = greet(specification, implementation)
        for number, written in enumerate(cases, start=1):
            case = written.plain()
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{number} of {len(cases)} ")
            tally = done.tallies[case.kind]
            reply = implementation.ask(number, case.kind, without_answers(case.input))
            try:
                if reply == {"skip": True}:
                    tally.skipped += 1
                    if skips_fail:
                        done.failures.append((written, "skipped"))
                    continue
                compare(case, reply)
                tally.passed += 1
            except (Differs, RecursionError) as difference:
                tally.failed += 1
                done.failures.append((written, str(difference)))
    except Stopped as reason:
        done.stopped = str(reason)
    finally:
        if sys.stderr.isatty():
            sys.stderr.write("\r\n")
    return done


def greet(specification: str, implementation: Implementation) -> str:
    given = {"protocol": PROTOCOL, "specification": specification}
    try:
        result = implementation.ask(0, "hello", given).get("result")
    except Ended as error:
        raise CannotRun(f"cannot start the implementation: {error}") from None
    if not isinstance(result, dict) or result.get("specification") != specification:
        raise Stopped(f"it does not implement {specification}: {brief(result)}")
    return json.dumps(result.get("implementation", "an implementation without a name"))


def passes(done: Done) -> bool:
    passed = sum(tally.passed for tally in done.tallies.values())
    return not done.failures and not done.stopped and passed > 0


def as_text(done: Done, cases: list[Case]) -> str:
    lines = [f"{done.specification}: {done.implementation or 'no answer to hello'}"]
    lines.append(f"{'kind':<14}{'passed':>8}{'failed':>8}{'skipped':>9}")
    for kind, tally in done.tallies.items():
        row = f"{tally.passed:>8}{tally.failed:>8}{tally.skipped:>9}"
        lines.append(f"{kind:<14}{row}")
    for case, reason in done.failures:
        named = f"{case.kind} {case.check}".strip()
        lines.append(f"FAILED {named}: {case.description}: {reason}")
    asked = sum(t.passed + t.failed + t.skipped for t in done.tallies.values())
    if done.stopped:
        case = cases[asked]
        at = f"{case.kind}: {case.description}" if done.implementation else "hello"
        left = f"{len(cases) - asked} cases not run"
        lines.append(f"STOPPED at {at}: {done.stopped}; {left}")
    elif not passes(done) and not done.failures:
        lines.append("FAILED: every case was skipped, nothing is shown")
    skipped = [kind for kind, tally in done.tallies.items() if tally.skipped]
    but = f", but for what it skipped: {', '.join(skipped)}" if skipped else ""
    lines.append(f"conforms{but}" if passes(done) else "does not conform")
    return "\n".join(lines)


def as_json(done: Done) -> str:
    document = {
        "specification": done.specification,
        "implementation": done.implementation,
        "conforms": passes(done),
        "kinds": {kind: vars(tally) for kind, tally in done.tallies.items()},
        "failures": [
            {name: getattr(case, name) for name in ("kind", "check", "description")}
            | {"reason": reason}
            for case, reason in done.failures
        ],
        "stopped": done.stopped or None,
    }
    return json.dumps(document, indent=1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Runs an implementation against the vectors.",
        usage="%(prog)s [options] -- COMMAND ARGS...",
    )
    parser.add_argument("--spec", choices=SPECIFICATIONS, default="masking")
    parser.add_argument("--kinds", default="", help="only these, with commas between")
    parser.add_argument("--vectors", type=Path, help="their folder")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.add_argument("--require-all", action="store_true", help="a skip fails")
    parser.add_argument("--timeout", type=float, default=30, help="seconds for a case")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args()
    if not 0 < options.timeout <= 3600:
        parser.error("--timeout is more than 0 and at most 3600 seconds")
    return options


def main() -> int:
    options = arguments()
    specification = SPECIFICATIONS[options.spec]
    protocols = Path(__file__).resolve().parent
    folder = options.vectors or protocols / options.spec / "vectors" / "1"
    try:
        kinds = set(filter(None, options.kinds.split(",")))
        cases = read_cases(folder, specification, kinds)
        implementation = Implementation(options.command, options.timeout)
        try:
            done = run(specification, cases, implementation, options.require_all)
        finally:
            implementation.close()
    except CannotRun as error:
        print(f"run_conformance: {error}", file=sys.stderr)
        return 2
    print(as_json(done) if options.json else as_text(done, cases))
    return 0 if passes(done) else 1


if __name__ == "__main__":
    sys.exit(main())
