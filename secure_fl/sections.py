# SPDX-License-Identifier: Apache-2.0
"""What a plan's file may say, section by section.  An unknown key is an error."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import PlanError

__all__ = [
    "Column",
    "Data",
    "Document",
    "MemberEntry",
    "Model",
    "Parties",
    "Privacy",
    "Protection",
    "Rounds",
    "Training",
    "read_document",
    "read_toml",
]

MOST_BYTES: Final = 2**20
# tomllib takes a time that grows with the square of the parts of one dotted key, and a
# key stands on one line.
_MOST_DOTS: Final = 200

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Cell = str | int | Finite


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class MemberEntry(_Section):
    """One member.  ``records`` is its public nominal size, never counted from data."""

    name: Name
    key: str | None = None
    records: Count
    weight: Annotated[int, Field(ge=1, le=1_000_000)] = 1


class Parties(_Section):
    members: Annotated[list[MemberEntry], Field(min_length=3, max_length=1000)]
    aggregator: str | None = None
    keyholder: str | None = None
    max_colluding: Annotated[int, Field(ge=0)] = 1
    threshold: int | None = None
    min_clients: int | None = None


class Rounds(_Section):
    """``spare`` releases are budgeted beyond ``count``, for attempts that crash.

    ``train_early``: across machines members train while keys are exchanged.  It saves
    their seconds, and charges a release for an attempt that too few have joined.
    """

    count: Annotated[int, Field(ge=1, le=100_000)]
    spare: Annotated[int, Field(ge=0, le=1000)] = 1
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 2
    train_early: bool = False


class Privacy(_Section):
    """No defaults where a number is a promise: epsilon, delta, clip norm, unit."""

    mode: Literal["local", "distributed"]
    unit: Literal["record", "client"]
    noise: Literal["skellam", "discrete-gaussian"] = "skellam"
    adjacency: Literal["add-or-remove-one"]
    overlap: Literal["disjoint", "overlapping"]
    epsilon: Positive
    delta: Annotated[float, Field(gt=0, lt=0.1)]
    clip_norm: Positive
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    local_steps: Annotated[int, Field(ge=1, le=1_000_000)]
    noise_multiplier: Positive | None = None
    lineage: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class Protection(_Section):
    """``keys``: how the sum of CKKS keys comes out; nothing to choose elsewhere.

    ``keep_vectors``: the run's folder keeps what an auditor opens every sum from again.
    """

    kind: Literal["masking", "plain", "ckks"]
    keys: Literal["one-time", "keyholder"] = "one-time"
    word_bits: Annotated[int, Field(ge=8, le=64)] = 32
    clip: Positive | None = None
    step: Positive | None = None
    chunk_words: Annotated[int, Field(ge=64, le=16_777_216)] = 65_536
    keep_vectors: bool = False

    @model_validator(mode="after")
    def _keys_are_of_ckks(self) -> Self:
        if self.kind != "ckks" and "keys" in self.model_fields_set:
            raise ValueError("`keys` belongs to kind = 'ckks'")
        return self


class Model(_Section):
    """``mlp`` is built from ``hidden`` and ``seed``; ``custom`` is the trainers' own.

    ``start`` is its safetensors file, unless the caller hands the start over.
    ``values``: how many numbers the model holds, on which a shared grid depends.
    """

    kind: Literal["mlp", "custom"]
    hidden: list[Annotated[int, Field(ge=1, le=100_000)]] = []
    seed: Seed = 0
    start: str | None = None
    start_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    values: Annotated[int, Field(ge=1, le=2**32)] | None = None

    @model_validator(mode="after")
    def _kind_has_its_entries(self) -> Self:
        if self.kind == "mlp" and self.start is not None:
            raise ValueError("`start` belongs to kind = 'custom'")
        return self


class Training(_Section):
    """``learning_rate`` and ``momentum`` are those of whoever takes the SGD steps."""

    way: Literal["opacus", "head"]
    learning_rate: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Literal["constant", "linear"] = "constant"


class Column(_Section):
    """Public knowledge of one column: numeric bounds, or the list of its values.

    ``missing_values``: cells that mean missing in this column, beside those of [data].
    """

    low: Finite | None = None
    high: Finite | None = None
    log: bool = False
    values: list[Cell] | None = None
    missing_values: list[str] = []

    @model_validator(mode="after")
    def _bounds_or_values(self) -> Self:
        numeric = self.low is not None and self.high is not None
        if numeric == (self.values is not None):
            raise ValueError("give either low and high, or values")
        if numeric and not self.low < self.high:  # type: ignore[operator]
            raise ValueError("low must lie below high")
        if self.values is not None and (self.log or len(self.values) < 2):
            raise ValueError("values are at least two, and have no logarithm")
        return self


class Data(_Section):
    """How a CSV becomes features: every constant here is public.

    A class is a value of the label, or the list of the values that it takes together.
    """

    label: str
    classes: Annotated[
        list[Cell | Annotated[list[Cell], Field(min_length=1)]], Field(min_length=2)
    ]
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    drop: list[str] = []
    missing: Literal["refuse", "midpoint"] = "refuse"
    missing_values: list[str] = [""]
    split: Literal["rows", "column", "files"]
    file: str | None = None
    files: dict[str, str] | None = None
    split_column: str | None = None
    split_values: dict[str, list[str]] | None = None
    header: list[str] | None = None
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    seed: Seed = 0

    @model_validator(mode="after")
    def _split_has_its_entries(self) -> Self:
        if (self.split == "files") != (self.files is not None):
            raise ValueError("`files` and split = 'files' go together")
        if (self.split == "files") == (self.file is not None):
            raise ValueError("give `file`, or split = 'files' and `files`")
        column = self.split_column is not None and self.split_values is not None
        if (self.split == "column") != column:
            raise ValueError(
                "split = 'column' goes with `split_column` and `split_values`"
            )
        return self


class _Run(_Section):
    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class Document(_Section):
    model_config = ConfigDict(protected_namespaces=())

    schema_: Annotated[Literal["secure-fl/plan/1"], Field(alias="schema")]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    run: _Run | None = None
    parties: Parties
    rounds: Rounds
    privacy: Privacy
    protection: Protection
    model: Model
    training: Training | None = None
    data: Data | None = None


def read_toml(source: bytes) -> dict[str, Any]:
    """A plan's entries as they stand.  Raises PlanError.

    What would take long to parse is refused first, here and so in every verifier
    (protocols/report/SPEC.md, 1 and 3.1).
    """
    if len(source) > MOST_BYTES:
        raise PlanError(f"the plan is larger than {MOST_BYTES} bytes")
    if any(line.count(b".") > _MOST_DOTS for line in source.split(b"\n")):
        raise PlanError(
            f"the plan has a line with more than {_MOST_DOTS} dots",
            hint="break long lists of numbers into several lines",
        )
    try:
        return tomllib.loads(source.decode())
    except UnicodeDecodeError:
        raise PlanError("the plan is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"the plan is not TOML: {error}") from None


def read_document(source: bytes) -> Document:
    """Parse a plan.  Raises PlanError naming the entry."""
    tree = read_toml(source)
    try:
        return Document.model_validate(tree)
    except ValidationError as error:
        # A misspelt key first: the one it leaves missing follows from it.
        first = min(
            error.errors(include_url=False),
            key=lambda e: e["type"] != "extra_forbidden",
        )
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise PlanError(
                "unknown key", key=key, hint="check its spelling and its section"
            ) from None
        message = first["msg"].removeprefix("Value error, ")
        raise PlanError(
            message[:1].lower() + message[1:],
            key=key,
            hint="`secure-fl plan new` prints a plan with every section explained",
        ) from None
