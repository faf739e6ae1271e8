# SPDX-License-Identifier: Apache-2.0
"""The second verifier, `protocols/report/verify.py`, on good folders and broken ones.

The folders are those of the published vectors, and one that a run leaves.  Mutations by
forgers who hold keys are in `test_mutations.py`; the published failing cases in
`tests/vectors/test_report_vectors.py`.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

PROTOCOLS = Path(__file__).parents[2] / "protocols"
SCRIPT = PROTOCOLS / "report" / "verify.py"
VECTORS = PROTOCOLS / "report" / "vectors" / "1"
KINDS = (
    *("masking", "plain", "ckks-one-time", "ckks-keyholder", "kept", "sampled"),
    *("distributed-record", "distributed-client"),
)
# Runs the verifier as a script, and says what it imported.
STARTED = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    packages = {name.partition(".")[0] for name in sys.modules}
    assert "secure_fl" not in packages
"""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("second_verifier", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["second_verifier"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


second = load()


def good_files(kind: str) -> dict[str, bytes]:
    rows = json.loads((VECTORS / f"{kind}.json").read_text())["files"]
    return {
        name: row["text"].encode() if "text" in row else base64.b64decode(row["base64"])
        for name, row in rows.items()
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def refusal(folder: Path, copy: bytes | None = None) -> Any:
    with pytest.raises(second.Refused) as caught:
        second.verify(folder, copy)
    return caught.value


def start(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", STARTED, str(SCRIPT), str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_folder_is_verified(kind: str, tmp_path: Path) -> None:
    write(tmp_path, good_files(kind))
    expected = json.loads((VECTORS / f"{kind}.json").read_text())["expected"]
    verdict = second.verify(tmp_path)
    for name, value in expected["epsilon"].items():
        assert verdict.epsilon[name] == pytest.approx(float(value), rel=1e-5)
    opened_again = [line for line in verdict.checks if line.startswith("sums")]
    assert len(opened_again) == (kind == "kept" or kind.startswith("distributed"))


def test_started_by_itself_it_never_imports_the_package(tmp_path: Path) -> None:
    write(tmp_path, good_files("ckks-keyholder"))
    done = start(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "VERIFIED"
    kinds = {line.split("  ")[0] for line in lines[:-1]}
    assert kinds == {"ok", "not checked", "compare"}


def test_a_refusal_is_one_line_that_names_file_and_check(tmp_path: Path) -> None:
    files = good_files("plain")
    write(tmp_path, {**files, "metrics.json": b"{}"})
    done = start(tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert re.fullmatch(r"REFUSED metrics\.json: .* \[V-FILE-4\]\n", done.stdout)


def test_json_says_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = good_files("plain")
    write(tmp_path, files)
    assert second.main([str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verified"] is True
    report = json.loads(files["report.json"])
    assert found["plan_hash"] == report["plan"]["hash"]
    assert found["run_id"] == report["plan"]["run_id"]
    assert found["report_id"] == report["report_id"]
    assert found["model_hash"] == report["subject"]["model_hash"]
    assert found["transcript_head"] == report["transcript_head"]
    assert found["checks"]
    assert found["not_checked"]
    assert set(found["epsilon"]) == {"bank-a", "bank-b", "bank-c", "bank-d"}
    (tmp_path / "plan.toml").write_bytes(files["plan.toml"] + b"#")
    assert second.main([str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"verified", "file", "check", "problem"}
    assert found["verified"] is False
    assert (found["file"], found["check"]) == ("plan.toml", "V-PLAN-1")


@pytest.mark.parametrize("kind", KINDS)
def test_any_byte_of_any_file(kind: str, tmp_path: Path) -> None:
    files = good_files(kind)
    write(tmp_path, files)
    for name, data in files.items():
        path = tmp_path / name
        places = {len(data) * i // 12 for i in range(12)} | {len(data) - 1}
        changed = [
            data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
            for at in sorted(places)
        ]
        for broken in (*changed, data[:-1], data[: len(data) // 2], data + b"\n", b""):
            path.write_bytes(broken)
            assert refusal(tmp_path).file == name
        path.unlink()
        assert refusal(tmp_path).file == name
        path.symlink_to(tmp_path)
        assert refusal(tmp_path).file == name
        path.unlink()
        path.write_bytes(data)
    second.verify(tmp_path)


def test_every_field_of_the_report_is_compared() -> None:
    report = json.loads(good_files("sampled")["report.json"])
    second_report = sys.modules["report"]

    def leaves(value: Any, *path: Any) -> list[tuple[Any, ...]]:
        if isinstance(value, dict) and value:
            return [p for key, item in value.items() for p in leaves(item, *path, key)]
        if isinstance(value, list) and value:
            return [p for i, item in enumerate(value) for p in leaves(item, *path, i)]
        return [path]

    places = leaves(report)
    assert len(places) > 500
    for *path, last in places:
        changed = json.loads(json.dumps(report))
        holder = changed
        for key in path:
            holder = holder[key]
        old = holder[last]
        holder[last] = "x" if not isinstance(old, float) else old * 1.02 + 1e-9
        with pytest.raises(second.Refused):
            second_report.compare(changed, report, "", 1e-4)
    second_report.compare(report, report, "", 1e-4)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_no_figure_is_infinite(number: str) -> None:
    with pytest.raises(second.Malformed):
        second.read_json(f'{{"epsilon": {number}}}'.encode())


def test_the_auditors_own_copy(tmp_path: Path) -> None:
    files = good_files("masking")
    write(tmp_path, files)
    plan = files["plan.toml"]
    second.verify(tmp_path, plan)
    assert (
        refusal(tmp_path, plan.replace(b"[rounds]", b"[rounds] ")).check == "V-PLAN-6"
    )
    broken = refusal(tmp_path, b"= 3")
    assert broken.check == "V-PLAN-6"
    assert broken.file not in files


def test_a_draft_does_not_show_whose_keys_they_are(tmp_path: Path) -> None:
    files = good_files("ckks-keyholder")
    write(tmp_path, files)
    plan = files["plan.toml"].decode()
    draft, _, _ = plan.partition("[run]")
    none = re.sub(r"(?m)^(key|aggregator|keyholder) = .*\n", "", draft)
    said = second.verify(tmp_path, none.encode())
    assert "plan: its settings are those of the auditor's own copy" in said.checks
    unknown = [line for line in said.not_checked if "copy" in line]
    assert unknown == ["that the keys in it are the members': the copy names none"]

    some = re.sub(r"(?m)^key = .*\n", "", draft, count=1)
    unknown = second.verify(tmp_path, some.encode()).not_checked
    assert [x for x in unknown if "copy lacks" in x and x.endswith(": bank-a")]

    whole = second.verify(tmp_path, plan.encode())
    assert "plan: it is the auditor's own copy" in whole.checks
    assert not [line for line in whole.not_checked if "copy" in line]
    for wrong in (
        none.replace("[parties]", "[[parties]]"),
        none.replace("= 8.0", "= 8"),
    ):
        assert wrong != none
        assert refusal(tmp_path, wrong.encode()).file == "plan.toml"


def test_a_wrong_call_is_no_refusal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for call in ([str(tmp_path)], [str(tmp_path / "nowhere")], []):
        with pytest.raises(SystemExit) as caught:
            second.main(call)
        assert caught.value.code == 2
    write(tmp_path, good_files("plain"))
    with pytest.raises(SystemExit) as caught:
        second.main([str(tmp_path), "--plan", str(tmp_path / "nowhere")])
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


def test_other_files_are_named_and_not_read(tmp_path: Path) -> None:
    write(tmp_path, {**good_files("plain"), "ledgers/bank-x.cbor": b"", "notes": b""})
    named = [line for line in second.verify(tmp_path).not_checked if "no file" in line]
    assert len(named) == 2


def cases_of(vectors: str) -> list[Any]:
    found: list[Any] = json.loads((PROTOCOLS / vectors).read_text())["cases"]
    return found


def test_values_decode_as_the_masking_vectors_say() -> None:
    canonical = sys.modules["canonical"]
    cases = cases_of("masking/vectors/1/wire.json")
    for case in cases:
        data = bytes.fromhex(case["input"]["bytes"])
        if "check" in case:
            with pytest.raises(canonical.Malformed):
                canonical.decode(data)
        else:
            assert canonical.encode(canonical.decode(data)) == data
    assert {case.get("check") for case in cases} >= {f"E{i}" for i in range(1, 14)}


def test_boxes_open_as_the_masking_vectors_say() -> None:
    canonical, streams = sys.modules["canonical"], sys.modules["streams"]
    for case in cases_of("masking/vectors/1/box.json"):
        given = case["input"]
        key, ctx, cohort, box = (
            bytes.fromhex(given[name])
            for name in ("private_key", "ctx", "cohort", "box")
        )
        where = [ctx, cohort, given["dealer"], given["to"]]
        info = canonical.encode(["secure-fl/masking/1 box", *where])
        if "check" in case:
            with pytest.raises(canonical.Malformed):
                streams.open_box(key, info, box)
        else:
            plain = streams.open_box(key, info, box)
            assert plain.hex() == case["expect"]["plain"]


def test_packings_are_those_of_the_ckks_vectors() -> None:
    packing = sys.modules["packing"].packing
    cases = cases_of("ckks/vectors/1/parameters.json")
    chosen = [case for case in cases if case["input"]["op"] == "choose"]
    assert len(chosen) > 10
    for case in chosen:
        given, expect = case["input"], case["expect"]
        plan = SimpleNamespace(
            members=[None] * given["clients"],
            word_bits=given["word_bits"],
            rounds=1,
            max_attempts=1,
        )
        found = packing(plan, given["length"])
        assert (found.degree, found.prime_bits) == (expect["N"], expect["prime_bits"])
        assert (found.fields, found.scale_bits) == (
            expect["fields"],
            expect["scale_bits"],
        )


def test_polynomials_are_those_of_the_ckks_vectors() -> None:
    canonical, lattice = sys.modules["canonical"], sys.modules["lattice"]
    rings = sys.modules["packing"]
    for case in cases_of("ckks/vectors/1/polynomial.json"):
        given, ctx = case["input"], bytes.fromhex(case["input"]["ctx"])
        degree, bits = given["N"], given["prime_bits"]
        ring = rings.Packing(degree, bits, 0, 1, 1, 1)
        primes = rings.primes_of(ring)
        key = canonical.digest("secure-fl/ckks/1 polynomials", ctx)
        if "seed" in given:
            cover = ctx, given["client"], bytes.fromhex(given["seed"])
            key = canonical.digest("secure-fl/ckks/1 cover", *cover)
        for at, (prime, row) in enumerate(
            zip(primes, case["expect"]["polynomials"], strict=True)
        ):
            counter = given["block"] * len(primes) + at
            drawn = lattice.drawn(key, counter, prime, bits, degree)
            data = struct.pack(f"<{degree}Q", *drawn)
            assert hashlib.sha256(data).hexdigest() == row["sha256"]


def test_public_keys_are_of_large_order() -> None:
    canonical = sys.modules["canonical"]
    prime = 2**255 - 19
    small = [0, 1, prime - 1, prime, prime + 1, 2**255 - 1]
    assert not any(canonical.large_order(y.to_bytes(32, "little")) for y in small)
    base = bytes([0x58]) + bytes([0x66] * 31)
    assert canonical.large_order(base)
    assert canonical.public_key(canonical.key_text(base)) == base


def test_roots_are_those_of_the_ckks_specification() -> None:
    lattice = sys.modules["lattice"]
    text = (PROTOCOLS / "ckks" / "SPEC.md").read_text()
    rows = re.findall(
        r"^\| (4096|8192) \| (\d+) \| ([\d, ]+) \| ([\d, ]+) \|$", text, re.M
    )
    assert len(rows) == 14
    for degree, bits, gaps, roots in rows:
        for gap, root in zip(gaps.split(","), roots.split(","), strict=True):
            prime = 2 ** int(bits) - int(gap)
            assert lattice.least_root(prime, int(degree)) == int(root)


def test_polynomials_are_multiplied_as_in_the_ring() -> None:
    lattice = sys.modules["lattice"]
    prime, degree = 2**54 - 172031, 8
    ring = lattice.ring(prime, degree)
    one, other = [3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]
    expected = [0] * degree
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            sign = 1 if i + j < degree else -1
            expected[(i + j) % degree] += sign * a * b
    pairs = zip(
        lattice.transform(one, ring), lattice.transform(other, ring), strict=True
    )
    product = lattice.back([a * b % prime for a, b in pairs], ring)
    assert product == [value % prime for value in expected]


PLAN = """\
schema = "secure-fl/plan/1"
name = "second"
[parties]
members = [
  { name = "bank-a", records = 60 },
  { name = "bank-b", records = 60 },
  { name = "bank-c", records = 60 },
]
[rounds]
count = 2
[privacy]
mode = "local"
unit = "record"
adjacency = "add-or-remove-one"
overlap = "disjoint"
epsilon = 3.0
delta = 1e-5
clip_norm = 1.0
sampling_rate = 0.1
local_steps = 2
[protection]
KIND
[model]
kind = "mlp"
[training]
way = "head"
learning_rate = 0.5
[data]
file = "table.csv"
label = "target"
classes = [0, 1]
split = "rows"
test_fraction = 0.1
[data.columns]
age = { low = 18, high = 100 }
"""
PROTECTIONS = {
    "masking": 'kind = "masking"\nkeep_vectors = true',
    "one-time": 'kind = "ckks"\nkeep_vectors = true',
    "keyholder": 'kind = "ckks"\nkeys = "keyholder"\nkeep_vectors = true',
    "plain": 'kind = "plain"',
}


# What else a plan says whose sums alone are private.
SUMS = {
    "": {},
    "record": {"local_steps": "1", "mode": '"distributed"', "epsilon": "8.0"},
    "client": {
        "mode": '"distributed"',
        "unit": '"client"',
        "sampling_rate": "1.0",
        "epsilon": "8.0",
    },
}


def check_run(protection: str, sums: str, folder: Path) -> None:
    """What a run leaves passes both verifiers, with the same figures."""
    rows = [f"{18 + i * 7 % 80},{i % 2}" for i in range(200)]
    (folder / "table.csv").write_text("\n".join(["age,target", *rows]) + "\n")
    plan = folder / "plan.toml"
    text = PLAN.replace("KIND", PROTECTIONS[protection])
    for name, value in SUMS[sums].items():
        text = re.sub(f"(?m)^{name} = .*$", f"{name} = {value}", text, count=1)
    plan.write_text(text)
    command = [sys.executable, "-m", "secure_fl"]
    out = folder / "out"
    run = [*command, "run", str(plan), "--data", str(folder), "--out", str(out)]
    subprocess.run(run, check=True, capture_output=True, timeout=300)
    first = [*command, "verify", str(out), "--json"]
    done = subprocess.run(first, check=True, capture_output=True, text=True)
    verdict = second.verify(out, plan.read_bytes())
    assert verdict.epsilon == pytest.approx(json.loads(done.stdout)["epsilon"])
    opened_again = [line for line in verdict.checks if line.startswith("sums: 2")]
    assert len(opened_again) == (protection != "plain")


# In the ordinary suite fresh runs come from `test_mutations.py`.
@pytest.mark.long
@pytest.mark.parametrize(
    ("protection", "sums"),
    # Sums that alone are private are never plain.
    [(p, s) for p in PROTECTIONS for s in SUMS if p != "plain" or not s],
)
def test_a_run_passes_both_verifiers(
    protection: str, sums: str, tmp_path: Path
) -> None:
    check_run(protection, sums, tmp_path)
