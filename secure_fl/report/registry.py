# SPDX-License-Identifier: Apache-2.0
"""A draft entry for the public registry of deployments of differential privacy.

The form is that of the registry's own schema, tier 3, as of 2026: ``opendp/
deployments-registry-data``, ``schemas/deployments-schema.yaml``.  What a report cannot
know begins with ``TO FILL IN``; where the schema wants a date or one of a few words, it
refuses the entry until somebody did.  The registry is in English, so is the entry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ..errors import UsageError
from .cells import bound, is_infinite, number, word
from .claims import claim_of
from .strings import text
from .wording import adjacency, assumption, by_mode, by_unit, distributed, mechanism

__all__ = ["registry_yaml"]

_HEAD: Final = (
    "# A draft, written from report.json. Check every field, and fill in those that",
    '# begin with "TO FILL IN"; the report itself is in the run\'s folder.',
)

_SLUG: Final = re.compile("[^a-z0-9]+")

_NOISES: Final = ("float-noise", "integer-noise", "exact-noise")

_TRUST: Final[Mapping[str, str]] = {
    "local": "Every client adds its noise itself: the claim holds against everybody "
    "but the client that has the record.",
    "sum": "Every client adds its share of the noise, and only sums are opened: the "
    "claim holds against the aggregator and the clients that the plan lets collude, "
    "and rests on the protection.",
}


def registry_yaml(report: Mapping[str, Any]) -> str:
    """The entry as YAML.

    Its epsilon is the one of ``report.json``, to all digits.  Raises UsageError for a
    run about which nothing is claimed.
    """
    claim = claim_of(report)
    if report["insecure"] or is_infinite(claim["consortium"]["epsilon"]):
        raise UsageError(
            "a run without a finite epsilon has no place in the registry",
            hint="`secure-fl report DIR` says what went wrong",
        )
    return "\n".join([*_HEAD, *_lines(_entry(report, claim))]) + "\n"


def _say(key: str, /, **values: str) -> str:
    return text(key, language="en", values=values)


def _fill(what: str) -> str:
    return f"TO FILL IN: {what}"


def _entry(report: Mapping[str, Any], claim: Mapping[str, Any]) -> dict[str, Any]:
    name = report["plan"]["name"]
    slug = f"{name} {(report['dates']['last'] or '')[:4]}".lower()
    return {
        "url_slug": _SLUG.sub("-", slug).strip("-"),
        "deployment": {
            "basic": _basic(report, name),
            "dp_variant": {
                "variant_name": "Approximate DP",
                "data_domain": _fill("which records the clients hold"),
                "unprotected_quantities": _bullets(
                    _say(f"not_protected.{i}") for i in claim["not_protected"]
                ),
            },
            "privacy_loss": _loss(report, claim),
            "deployment_model": _model(report, claim),
            "implementation": _implementation(report),
            "administrative": {
                "status": "Draft",
                "registry_authors": [_fill("who made this entry")],
                "tier": 3,
            },
        },
    }


def _basic(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    clients, subject = len(report["ledgers"]), report["subject"]
    share = "its share of the " if distributed(report) else ""
    told = (
        f"A model ({word(_say, 'model', subject['kind'])}; {subject['values']} values) "
        f"trained by {clients} clients in {len(report['rounds'])} rounds of federated "
        f"learning; every client adds {share}noise before anything leaves it."
    )
    if report["simulation"]:
        told += " " + _say("stamp.simulation.why")
    return {
        "name": name,
        "data_curators": [
            {
                "data_curator_name": _fill("who publishes the model"),
                "data_curator_type": _fill("Government, Industry or Nonprofit"),
            }
        ],
        "description": told,
        "intended_use": _fill("what the model is for"),
        "data_product_type": "Machine learning model",
        "data_product_region": _fill("whose data, and whose laws"),
        "data_product_sector": _fill("Finance, Healthcare or another of the schema"),
        "publication_date": _fill("YYYY-MM-DD"),
    }


def _loss(report: Mapping[str, Any], claim: Mapping[str, Any]) -> dict[str, Any]:
    whole, unit = claim["consortium"], report["privacy_unit"]
    composition = report["composition"]
    lives = composition["ledgers_live_on"]
    lineage = "claims.lineage" if lives else "claims.lineage.thrown-away"
    curve = ", ".join(f"{number(d)}: {bound(e)}" for d, e in whole["profile"])
    group = by_unit(report, "claim.group")
    groups = "; ".join(
        f"{_say(group, records=str(k))}: {bound(e)}" for k, e in whole["group"]
    )
    rdp = [f"{_say('claim.rdp')}: {bound(whole['epsilon_rdp'])}"]
    plain = bound(whole["epsilon_without_amplification"])
    clients = [p for p in report["parties"] if p["role"] == "client"]
    return {
        "privacy_unit": _say(f"unit.{claim['unit']}"),
        "privacy_unit_details": _say(
            by_unit(report, "unit.line"),
            unit=_say(f"unit.{unit['kind']}"),
            adjacency=adjacency(report, _say),
            records=str(unit["max_records_per_unit"]),
            parties=str(unit["max_parties_per_unit"]),
        ),
        "number_of_privacy_units": len(clients)
        if claim["unit"] == "client"
        else sum(p["nominal_records"] for p in clients),
        "privacy_parameters": {"epsilon": whole["epsilon"], "delta": claim["delta"]},
        "privacy_parameters_details": _bullets(
            [
                _say(lineage, lineage=composition["lineage"]),
                f"{_say('claim.no_amplification')}: {plain}",
                *(rdp if report["accounting"]["primary"] != "RDP" else []),
                groups,
                f"{_say('profile.picture')}: {curve}",
                "The number of privacy units is nominal: it is not counted.",
            ]
        ),
    }


def _model(report: Mapping[str, Any], claim: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model_name": "Federated",
        "model_name_details": _TRUST[claim["view"].partition("-")[2]],
        "trust_assumptions": _bullets(
            f"{_say('evidence.' + row['evidence'])}: "
            f"{assumption(report, row['id'], _say)}"
            for row in claim["relies_on"]
        ),
        "actors": _bullets(
            f"{_say('who.' + row['who'])} sees: {_say('sees.' + row['sees'])}"
            for row in report["threat_model"]["adversaries"]
        ),
        "release_type": "One release",
        "release_type_details": "The model. Epsilon counts all that the clients sent "
        f"for it. {_fill('plans for the same data')}",
        "data_source_type": "Static",
        "access_type": "Non-interactive",
    }


def _implementation(report: Mapping[str, Any]) -> dict[str, Any]:
    n, composition = report["numerics"], report["composition"]
    sampling, tool = report["sampling"], report["tool"]
    drawn = by_unit(report, "sampling.full")
    if sampling["amplification"]:
        drawn = by_mode(report, "sampling.line")
    relied = [row["id"] for row in report["threat_model"]["assumptions"]]
    return {
        "preprocessing_and_hyperparameter_tuning": _bullets(
            [
                _say("not_protected.choices-before"),
                _say(f"composition.search.{composition['hyperparameters']}"),
                _fill("which preprocessing and tuning came before the run"),
            ]
        ),
        "mechanisms": _bullets(
            [
                mechanism(report, _say),
                _say(drawn, rate=number(sampling["rate"])),
                *(_say(f"assumption.{i}") for i in _NOISES if i in relied),
                f"{tool['name']} {tool['version']}".strip(),
            ]
        ),
        "composition": _bullets(
            [
                _say(f"composition.within.{composition['within_client']}"),
                _say(
                    by_unit(
                        report, f"composition.across.{composition['across_clients']}"
                    )
                ),
            ]
        ),
        "post_processing": _say(
            by_mode(report, "numerics.grid"),
            clip=number(n["update_clip"]),
            step=number(n["step"]),
            bits=str(n["word_bits"]),
        ),
        "justification": _fill("why these parameters, and who chose them"),
        "utility": _fill("scores that may be published"),
        "additional_information": f"plan {report['plan']['hash']}, model "
        f"{report['subject']['model_hash']}, report {report['report_id']}",
    }


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


# -- YAML ------------------------------------------------------------------------------


def _lines(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A mapping as YAML lines.  Its keys are the schema's own plain words."""
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(entry, indent + "  ")
        elif isinstance(entry, list):
            yield f"{indent}{key}:"
            for item in entry:
                if isinstance(item, Mapping):
                    first, *rest = _lines(item, indent + "    ")
                    yield f"{indent}  - {first.strip()}"
                    yield from rest
                else:
                    yield f"{indent}  - {_scalar(item)}"
        else:
            yield f"{indent}{key}: {_scalar(entry)}"


def _scalar(value: str | int | float) -> str:
    """Text in JSON's quotes, which are YAML's too once no odd character is left."""
    if isinstance(value, str):
        kept = "".join(c if c.isprintable() or c == "\n" else " " for c in value)
        return json.dumps(kept, ensure_ascii=False)
    digits = repr(value)
    mantissa, e, exponent = digits.partition("e")
    # Without a point YAML 1.1 reads 1e-05 as text.
    return digits if "." in mantissa or not e else f"{mantissa}.0e{exponent}"
