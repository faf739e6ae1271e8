# SPDX-License-Identifier: Apache-2.0
"""Runs under CKKS: verified without a CKKS backend, and reported as they are."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secure_fl.errors import VerificationError
from secure_fl.identity import key_to_text
from secure_fl.privacy import read_export
from secure_fl.report import render_html, render_text, verify_run

from .support import METRICS, NAMES, Made, source_plan, with_file
from .test_ledgers import book_of, entries_of, refused

KEYS = ("one-time", "keyholder")
RUNS = {"one-time": "one_time", "keyholder": "with_holder"}


@pytest.fixture(params=KEYS)
def sealed(request: pytest.FixtureRequest) -> Made:
    made = request.getfixturevalue(RUNS[request.param])
    assert isinstance(made, Made)
    return made


def report_of(made: Made) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(made.files["report.json"])
    return report


def pages(report: Mapping[str, Any]) -> list[str]:
    """Both pages as one line each."""
    drawn = render_html(report, METRICS), render_text(report, METRICS)
    return [" ".join(html.unescape(page).split()) for page in drawn]


# -- verifying -------------------------------------------------------------------------


def test_a_good_run_is_accepted(sealed: Made, tmp_path: Path) -> None:
    verified = verify_run(sealed.write(tmp_path / "run"))
    figures = report_of(sealed)["claims"][0]["clients"]
    assert set(verified.epsilon) == set(NAMES)
    for name, value in verified.epsilon.items():
        assert value == pytest.approx(figures[name]["epsilon"], rel=1e-5)
    holder = sealed.plan.has_keyholder
    released = [x for x in verified.checks if "key holder released the keys" in x]
    agreed = [x for x in verified.checks if "one set was agreed on" in x]
    assert (len(released), len(agreed)) == ((1, 0) if holder else (0, 1))
    # What no file can show is said where there are two who could.
    apart = [x for x in verified.not_checked if "aggregator and the key holder" in x]
    assert bool(apart) is holder


def test_the_two_runs_hold_what_they_should_test(
    one_time: Made, with_holder: Made
) -> None:
    """An update that was freed and sent again; the log says why it could be."""
    for made, client in ((one_time, "bank-d"), (with_holder, "bank-a")):
        (twice,) = (
            r
            for r in read_export(
                made.files[f"ledgers/{client}.cbor"],
                public_key=made.identities[client].public_key,
                client=client,
            ).releases()
            if len(r.contexts) == 2
        )
        assert (twice.round_index, twice.state) == (1, "released")
    states = [r["state"] for r in report_of(with_holder)["releases"]["bank-c"]]
    assert states == ["sent", "released", "omitted"]


_WITHOUT = """
import sys
for name in ("tenseal", "tenseal.sealapi", "zstandard"):
    sys.modules[name] = None
from secure_fl.ckks import require_backend
from secure_fl.errors import UsageError
from secure_fl.report import verify_run
try:
    require_backend()
except UsageError:
    sys.stdout.write(f"{len(verify_run(sys.argv[1]).checks)} checks")
"""


def test_verify_needs_no_backend(sealed: Made, tmp_path: Path) -> None:
    """In a fresh process that finds neither tenseal nor zstandard."""
    folder = sealed.write(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == f"{len(verify_run(folder).checks)} checks"


def test_the_auditors_copy_of_the_plan(with_holder: Made, tmp_path: Path) -> None:
    """The source plan names no key holder yet; one that names another is refused."""
    folder = with_holder.write(tmp_path / "run")
    copy_ = tmp_path / "copy.toml"
    source = source_plan(
        kind="ckks", rate="1.0", overlap="disjoint", keys="keyholder"
    ).source
    copy_.write_bytes(source)
    verify_run(folder, plan_path=copy_)
    other = key_to_text(with_holder.identities["bank-a"].public_key)
    line = f'[parties]\nkeyholder = "{other}"\n'.encode()
    copy_.write_bytes(source.replace(b"[parties]\n", line))
    with pytest.raises(VerificationError) as caught:
        verify_run(folder, plan_path=copy_)
    assert caught.value.file == "plan.toml"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("keys", "one-time"),
        ("ring_degree", 8192),
        ("security_bits", 256),
        ("values_per_coefficient", 9),
    ],
)
def test_a_report_that_says_another_encryption(
    with_holder: Made, tmp_path: Path, key: str, value: Any
) -> None:
    report = report_of(with_holder)
    assert report["threat_model"]["encryption"][key] != value
    report["threat_model"]["encryption"][key] = value
    data = json.dumps(report).encode()
    files = with_file(with_holder, "report.json", data, resign=True)
    folder = replace(with_holder, files=files).write(tmp_path / "run")
    with pytest.raises(VerificationError) as caught:
        verify_run(folder)
    assert caught.value.file == "report.json"
    assert f"threat_model.encryption.{key}" in str(caught.value)


# -- ledgers ---------------------------------------------------------------------------


def test_a_release_left_out_of_a_ledger(sealed: Made, tmp_path: Path) -> None:
    """The input that arrived names it, whichever protection carried it."""
    last = entries_of(sealed, "bank-a")[-1].of
    book = book_of(sealed, "bank-a", keep=lambda e: last not in (e.hash, e.of))
    error = refused(sealed, tmp_path, "bank-a", book)
    assert error.file == "ledgers/bank-a.cbor"
    assert "arrived in round 1 that stands under no reservation" in str(error)


def test_an_update_that_nobody_refused_is_not_freed(
    with_holder: Made, tmp_path: Path
) -> None:
    """bank-c left while it uploaded in round 0: no refusal says that it stays shut."""
    book = book_of(with_holder, "bank-c")
    release = book.releases()[0]
    assert (release.round_index, release.state) == (0, "sent")
    step = book.next_step(
        release.entry_hash, "omitted", ctx=release.contexts[-1], now=0
    )
    assert step is not None
    book.append(step)
    error = refused(with_holder, tmp_path, "bank-c", book)
    assert error.file == "ledgers/bank-c.cbor"
    assert "no signed statement or refusal" in str(error)


# -- the report ------------------------------------------------------------------------


def test_the_encryption_in_report_json(sealed: Made) -> None:
    report = report_of(sealed)
    threat = report["threat_model"]
    packing = sealed.plan.packing(20)  # the model has 20 values
    assert (threat["protection"], threat["security"]) == ("ckks", "computational")
    assert threat["encryption"] == {
        "specification": "secure-fl/ckks/1",
        "keys": sealed.plan.protection.keys,
        "ring_degree": packing.ring.degree,
        "modulus_bits": len(packing.ring.primes) * packing.ring.bits,
        "primes": len(packing.ring.primes),
        "security_bits": 192,
        "values_per_coefficient": packing.fields,
        "scale_bits": packing.scale_bits,
        "ciphertexts_per_update": 1,
    }


def test_the_parties(sealed: Made) -> None:
    others = [p for p in report_of(sealed)["parties"] if p["role"] != "client"]
    assert others[0]["public_key"] == key_to_text(sealed.aggregator.public_key)
    if sealed.keyholder is None:
        assert [p["role"] for p in others] == ["aggregator"]
        return
    key = key_to_text(sealed.keyholder.public_key)
    assert others[1:] == [{"role": "keyholder", "public_key": key}]
    for page in pages(report_of(sealed)):
        assert "key holder" in page
        assert key in page


def secure(made: Made) -> dict[str, Any]:
    """The report as it would be with true randomness: a seeded run claims nothing."""
    report = report_of(made)
    report["insecure"] = False
    for claim in report["claims"]:
        claim["evidence"] = "proved"
    return report


def test_who_can_open_what(one_time: Made, with_holder: Made) -> None:
    nobody = "Nobody holds a key that opens one client's update"
    both = "The aggregator and the key holder together can open every client's update."
    for page in pages(secure(one_time)):
        assert nobody in page
        assert "the encryption is broken" in page
        assert "key holder" not in page
        assert "Threshold 3, at least 3 clients per sum" in page
    for page in pages(secure(with_holder)):
        assert nobody not in page
        assert both in page
        assert "the aggregator, the key holder and all other clients collude" in page
        assert "at least 3 of 4 clients" in page


def test_together_comes_first(one_time: Made, with_holder: Made) -> None:
    """Of all that the claim relies on, in report.json and on both pages."""
    report = report_of(with_holder)
    claim = report["claims"][0]
    assert claim["relies_on"][0] == {"id": "keyholder-together", "evidence": "proved"}
    assert claim["relies_on"] == report["threat_model"]["assumptions"]
    told = "TOGETHER they can open every client's update"
    for page in pages(report):
        assert page.index(told) < page.index("Each client runs this package")
        assert page.index(told) < page.index("2. What the figures mean")
    other = report_of(one_time)["claims"][0]
    assert other["relies_on"] == claim["relies_on"][1:]
    for page in pages(report_of(one_time)):
        assert told not in page


def test_ring_and_packing_are_told(sealed: Made) -> None:
    report = report_of(sealed)
    encryption = report["threat_model"]["encryption"]
    encryption["values_per_coefficient"] = 3
    encryption["ciphertexts_per_update"] = 17
    degree, bits = encryption["ring_degree"], encryption["modulus_bits"]
    for page in pages(report):
        assert f"Ring of degree {degree} with a modulus of {bits} bits" in page
        assert "at least 192 bits of security by the table of the Homomorphic" in page
        assert "protocols/ckks/SPEC.md, section 9" in page
        assert "Values in each coefficient: 3; ciphertexts per update: 17." in page
        assert "computational, and the claim does not need it" in page


def test_the_claim_is_that_of_local_privacy(made: Made, with_holder: Made) -> None:
    """Protection does not enter: equal releases cost the same under masking."""
    mine = report_of(with_holder)["claims"][0]
    masked = report_of(made)["claims"][0]
    assert mine["clients"]["bank-a"] == masked["clients"]["bank-a"]
    assert mine["view"] == masked["view"] == "record-local"
    assert set(mine) == set(masked)


def test_there_is_no_key_holder_elsewhere(made: Made) -> None:
    """Nothing about encryption or its keys stands in a report of masking."""
    report = report_of(made)
    assert "encryption" not in report["threat_model"]
    assert [p["role"] for p in report["parties"][4:]] == ["aggregator"]
    assert "keyholder" not in [a["who"] for a in report["threat_model"]["adversaries"]]
    relied = [row["id"] for row in report["claims"][0]["relies_on"]]
    assert "keyholder-together" not in relied
