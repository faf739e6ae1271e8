# SPDX-License-Identifier: Apache-2.0
"""Every numbered check of SPEC.md: a vector breaks it, and code makes it."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections import Counter
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

from secure_fl import context, fixedpoint, keys, masking, wire
from secure_fl.masking import aggregator, crypto, shamir

from .generate import FILES, FOLDER
from .test_vectors import Case, load, replay

SPEC_FILE = FOLDER.parents[1] / "SPEC.md"

# Checks that no vector can break, each with the reason why.  None so far.
WITHOUT_VECTOR: dict[str, str] = {}


def spec_ids() -> list[str]:
    """The first column of every table of checks."""
    text = SPEC_FILE.read_text(encoding="utf-8")
    return re.findall(r"^\| ([A-Z][0-9]+) \|", text, re.MULTILINE)


def failing() -> Iterator[tuple[str, Case]]:
    for kind in FILES:
        for case in load(kind):
            if "error" in case["expect"]:
                yield kind, case


# -- SPEC against vectors ---------------------------------------------------------


def test_every_check_is_broken_by_a_vector() -> None:
    ids = spec_ids()
    assert len(ids) == len(set(ids)), "an id stands twice in SPEC.md"
    broken = {case["check"] for _, case in failing()}
    assert broken == set(ids) - WITHOUT_VECTOR.keys()


@pytest.mark.parametrize("letter", ["A", "C", "E", "O", "P", "R"])
def test_ids_are_numbered_without_a_gap(letter: str) -> None:
    """A row that the parser of this file does not see would leave one."""
    numbers = sorted(int(i[1:]) for i in spec_ids() if i[0] == letter)
    assert numbers == list(range(1, len(numbers) + 1))


def test_no_table_of_checks_is_without_ids() -> None:
    """Sections 6 and 7: each row of each table begins with an id."""
    text = SPEC_FILE.read_text(encoding="utf-8")
    part = text[text.index("\n## 6") : text.index("\n## 8")]
    rows = [line for line in part.splitlines() if line.startswith("| ")]
    heads = [row for row in rows if row.startswith("| id |")]
    assert len(rows) - len(heads) == len(spec_ids())


def test_most_vectors_fail_and_only_they_name_a_check() -> None:
    counted = Counter[bool]()
    for kind in FILES:
        for case in load(kind):
            counted["error" in case["expect"]] += 1
            assert ("check" in case) == ("error" in case["expect"])
    assert counted[True] > counted[False]


def test_blame_is_as_the_spec_says() -> None:
    """The last column of a table, against the error of every vector of its checks."""
    text = SPEC_FILE.read_text(encoding="utf-8")
    words = {
        "aggregator": {"FaultyAggregator"},
        "dealer": {"FaultyClient"},
        "its client": {"FaultyClient"},
        "its dealer": {"FaultyClient"},
        "too few": {"TooFewClients"},
    }
    said: dict[str, set[str]] = {}
    for row in re.findall(r"^\| [CORA][0-9]+ \|.*\|$", text, re.MULTILINE):
        id_, *_, last = (cell.strip() for cell in row.strip("|").split("|"))
        said[id_] = words.get(re.split("[:,]", last)[0], {"FaultyClient"})
        if last in ("`needed`", "`t`"):
            said[id_] = words["too few"]
    for _, case in failing():
        if case["check"] in said:
            assert case["expect"]["error"] in said[case["check"]], case["description"]


# -- SPEC against code: take the check out, and a vector is no longer refused --------

MODULES: list[ModuleType] = [
    context,
    fixedpoint,
    keys,
    wire,
    *(
        importlib.import_module(f"{masking.__name__}.{found.name}")
        for found in pkgutil.iter_modules(masking.__path__)
    ),
]

# Where a check ends in a refusal of its own: what that statement says.
REFUSALS: dict[str, str] = {
    "C1": "the keys of {session.name(a.client)} are not signed by it",
    "C2": "its two keys are one",
    "C4": "our own keys are missing",
    "C5": "our own keys are missing",
    "C6": "its sealing key is not a key",
    "C7": "a box comes from outside the cohort",
    "C8": "our own shares are missing",
    "C12": "its sealed shares do not open",
    "C13": "a share is not the one it committed to",
    "C14": "a share is not the one it committed to",
    "C15": "its mask key is not a key",
    "C18": "names a client without shares",
    "C19": "leaves us out",
    "C20": "another vector for us",
    "C21": "another vector for us",
    "C22": "another vector for us",
    "C24": "a signature comes from outside",
    "C26": "raise TooFewClients(",
    "A1": "a message of another kind",
    "A2": "speaks in another client",
    "A3": "sent a second message",
    "A4": "sent a second message",
    "A6": "its two keys are one",
    "A7": "announced a key that is not usable",
    "A8": "announced a key that is not usable",
    "A9": "is not in the cohort",
    "A10": "dealt to another set than the cohort",
    "A12": "has dealt no shares",
    "A13": "a chunk is missing, late or repeated",
    "A14": "the padding of packed words is not zero",
    "A16": "masked for another set of clients",
    "A17": "its vector is not complete",
    "A18": "its chunks do not match their root",
    "A19": "is not in the statement",
    "A21": "is not in the statement",
    "A23": "revealed for another set of clients",
    "A24": "revealed the wrong kind of share",
    "A25": "a share that was not dealt to it",
    "A26": "a share that was not dealt to it",
    "O3": "do not add up to its self mask",
    "O4": "do not add up to its mask key",
    "R1": "the statement holds our vector",
    "R2": "a signature comes from outside",
    "R4": "raise TooFewClients(",
}


# Where one predicate makes several checks: it is replaced by one that says yes.
SIGNED = ("C1", "C11", "C25", "A5", "A11", "A15", "A20", "A22", "R3", "E14", "E15")
IN_TREE = ("C10", "E16", "E17", "E18", "E19")
NEEDED = ("C3", "C9", "C23")
TO_CLOSE = ("A27", "A28", "A29", "A30", "A31")
ELEMENTS = ("O1", "O2")
# Where bytes are compared: the function whose result is made equal to all.
COMPARED = (
    ("C16", "cohort_hash"),
    ("C17", "dealers_hash"),
    ("C13", "share_commitment"),
    ("C14", "share_commitment"),
    ("A16", "dealers_hash"),
    ("A25", "share_commitment"),
    ("A26", "share_commitment"),
    ("O3", "self_commitment"),
    ("O4", "public_key"),
)


class Same(bytes):
    """Bytes that are equal to any others: a comparison taken out."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes)

    def __ne__(self, other: object) -> bool:
        return not isinstance(other, bytes)

    __hash__ = bytes.__hash__


def _without(module: ModuleType, text: str) -> tuple[CodeType, list[str]]:
    """The module's code without the statements that say ``text``, and where they were.

    A statement counts if it raises, or calls ``_blame``, which does nothing else.
    """
    tree = ast.parse(inspect.getsource(module))
    found: list[str] = []

    class Remove(ast.NodeTransformer):
        def __init__(self) -> None:
            self.path: list[str] = []

        def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
            return self._inside(node)

        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
            return self._inside(node)

        def _inside(self, node: ast.ClassDef | ast.FunctionDef) -> ast.AST:
            self.path = [*self.path, node.name]
            self.generic_visit(node)
            self.path = self.path[:-1]
            return node

        def _maybe(self, node: ast.Raise | ast.Expr) -> ast.AST:
            said = ast.unparse(node)
            refuses = isinstance(node, ast.Raise) or said.startswith("self._blame(")
            if not refuses or text not in said:
                return node
            found.append(".".join(self.path))
            return ast.copy_location(ast.Pass(), node)

        visit_Raise = _maybe
        visit_Expr = _maybe

    changed = ast.fix_missing_locations(Remove().visit(tree))
    return compile(changed, str(module.__file__), "exec", dont_inherit=True), found


def _code_of(code: CodeType, path: list[str]) -> CodeType:
    for name in path:
        inner = [c for c in code.co_consts if isinstance(c, CodeType)]
        code = next(c for c in inner if c.co_name == name)
    return code


def take_out(patch: pytest.MonkeyPatch, text: str) -> None:
    """Remove every refusal that says ``text``, in place, from its function."""
    places = 0
    for module in MODULES:
        code, found = _without(module, text)
        for place in found:
            path = place.split(".")
            function: Any = module
            for name in path:
                function = inspect.getattr_static(function, name)
            function = getattr(function, "__func__", function)
            assert isinstance(function, FunctionType)
            patch.setattr(function, "__code__", _code_of(code, path))
            places += 1
    assert places, f"no refusal says {text!r}"


def patch_everywhere(
    patch: pytest.MonkeyPatch, name: str, function: Callable[..., object]
) -> None:
    """Where a function is defined, and wherever it was imported by name."""
    found = [module for module in MODULES if name in vars(module)]
    assert found, name
    for module in found:
        patch.setattr(module, name, function)


def outcomes(check: str) -> list[tuple[Case, Case]]:
    """What is expected of the vectors of a check, and what comes now."""
    out: list[tuple[Case, Case]] = []
    for kind, case in failing():
        if case["check"] == check:
            try:
                got = replay(kind, case)
            except Exception as error:  # it names nobody: no refusal
                got = {"exception": type(error).__name__}
            out.append((case["expect"], got))
    assert out
    return out


def assert_needed(check: str) -> None:
    """Some vector of ``check`` is no longer refused as it must be."""
    assert any(got != expect for expect, got in outcomes(check)), check


@pytest.mark.parametrize("check", REFUSALS)
def test_without_its_refusal_a_check_is_missed(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(got == expect for expect, got in outcomes(check))
    take_out(monkeypatch, REFUSALS[check])
    assert_needed(check)


def test_signatures_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.Signed, "by", lambda *_: True)
    for check in SIGNED:
        assert_needed(check)


def test_paths_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "verify_merkle_path", lambda *_, **__: True)
    for check in IN_TREE:
        assert_needed(check)


def test_enough_clients_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_everywhere(monkeypatch, "need", lambda *_: None)
    for check in NEEDED:
        assert_needed(check)


def test_closing_needs_enough_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    close = aggregator._Collect._close
    monkeypatch.setattr(
        aggregator._Collect, "_close", lambda self, _needed: close(self, 0)
    )
    for check in TO_CLOSE:
        assert_needed(check)


@pytest.mark.parametrize(("check", "name"), COMPARED)
def test_hashes_are_compared(
    check: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes as before, but equal to all: the comparison is what refused."""
    made = next(vars(m)[name] for m in MODULES if name in vars(m))
    patch_everywhere(monkeypatch, name, lambda *a, **k: Same(made(*a, **k)))
    assert_needed(check)


@pytest.mark.parametrize("check", ["A18", "C20"])
def test_roots_are_compared(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = wire.ChunkTree.root
    monkeypatch.setattr(wire.ChunkTree, "root", lambda self: Same(root(self)))
    assert_needed(check)


@pytest.mark.parametrize("check", ["A7", "A8"])
def test_points_of_low_order_are_looked_for(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crypto, "is_usable", lambda _: True)
    assert_needed(check)


@pytest.mark.parametrize("check", ELEMENTS)
def test_field_elements_are_below_the_prime(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that is right but for its form would open the sum."""
    monkeypatch.setattr(shamir, "from_bytes", lambda b: int.from_bytes(b, "little"))
    assert_needed(check)


def test_every_check_of_the_protocol_is_taken_out() -> None:
    """Form (E) and parameters (P) rest on their vectors alone."""
    covered = {*REFUSALS, *SIGNED, *IN_TREE, *NEEDED, *TO_CLOSE, *ELEMENTS}
    covered |= {check for check, _ in COMPARED}
    protocol = {i for i in spec_ids() if i[0] in "CAOR"}
    assert {i for i in covered if i[0] in "CAOR"} == protocol
