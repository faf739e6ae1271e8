# SPDX-License-Identifier: Apache-2.0
"""The global model: one order, one hash, nothing that is not finite."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.errors import UsageError
from secure_fl.model import GlobalModel


def make() -> GlobalModel:
    return GlobalModel(
        {
            "b.bias": np.array([0.5, -1.0], np.float32),
            "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
            "c": np.array(7.0, np.float32),
        }
    )


def test_arrays_are_in_the_order_of_their_names() -> None:
    model = make()
    assert list(model.arrays) == ["a.weight", "b.bias", "c"]
    assert model.size == 9
    assert model.flatten().tolist() == [0, 1, 2, 3, 4, 5, 0.5, -1, 7]
    assert model.flatten().dtype == np.float32


def test_arrays_are_own_copies_and_read_only() -> None:
    source = np.zeros(3, np.float32)
    model = GlobalModel({"w": source})
    source[:] = 9
    assert model.flatten().tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        model.arrays["w"][0] = 1
    model.flatten()[0] = 1
    assert model.flatten().tolist() == [0, 0, 0]


def test_no_array_is_put_in_later() -> None:
    model = make()
    with pytest.raises(TypeError):
        model.arrays["w"] = np.zeros(1, np.float32)  # type: ignore[index]


def test_the_hash_is_over_names_shapes_and_values() -> None:
    base = {"a": np.zeros((2, 3), np.float32), "b": np.ones(1, np.float32)}
    digest = GlobalModel(base).digest()
    assert len(digest) == 32
    assert GlobalModel(dict(reversed(base.items()))).digest() == digest
    fortran = base | {"a": np.asfortranarray(base["a"])}
    assert GlobalModel(fortran).digest() == digest
    value = base["a"].copy()
    value[0, 0] = np.float32(1e-30)
    negative = -base["a"]
    others = [
        base | {"a": value},
        base | {"a": negative},
        base | {"a": base["a"].reshape(3, 2)},
        base | {"c": base["b"]},
        {"a": base["a"], "c": base["b"]},
    ]
    digests = {GlobalModel(o).digest() for o in others}
    assert len(digests | {digest}) == len(others) + 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="'w' of the model is not finite"):
        GlobalModel({"w": np.array([0.0, bad], np.float32)})
    with pytest.raises(UsageError, match="not finite"):
        GlobalModel({"w": np.zeros(2, np.float32)}).add(np.array([0.0, bad]))


def test_a_model_has_an_array() -> None:
    with pytest.raises(UsageError, match="at least one"):
        GlobalModel({})


def test_an_update_is_added_in_double_precision() -> None:
    model = make()
    delta = np.linspace(-1, 1, 9)
    after = model.add(delta)
    expected = (model.flatten().astype(np.float64) + delta).astype(np.float32)
    assert after.flatten().tolist() == expected.tolist()
    assert {n: a.shape for n, a in after.arrays.items()} == {
        n: a.shape for n, a in model.arrays.items()
    }
    assert make().digest() == model.digest()
    assert after.add(np.zeros(9)).digest() == after.digest()


@pytest.mark.parametrize("shape", [(8,), (10,), (9, 1), (3, 3), ()])
def test_an_update_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="not 9"):
        make().add(np.zeros(shape))


def test_safetensors_there_and_back(tmp_path: Path) -> None:
    model = make()
    path = tmp_path / "model.safetensors"
    path.write_bytes(model.to_bytes())
    for again in (GlobalModel.load(path), GlobalModel.load(str(path))):
        assert again.digest() == model.digest()
        assert again.to_bytes() == model.to_bytes()
    with pytest.raises(UsageError, match="cannot read"):
        GlobalModel.load(tmp_path / "missing")
    with pytest.raises(UsageError, match="cannot read"):
        GlobalModel.load(tmp_path)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_model_or_a_usage_error(data: bytes) -> None:
    with pytest.raises(UsageError):
        GlobalModel.from_bytes(data)


def test_mutated_files_are_models_or_usage_errors() -> None:
    good = make().to_bytes()
    draw = random.Random(0)
    for _ in range(1500):
        bad = bytearray(good)
        for _ in range(draw.randrange(1, 4)):
            bad[draw.randrange(len(bad))] = draw.randrange(256)
        data = bytes(bad[: draw.choice([len(bad), draw.randrange(len(bad))])])
        try:
            assert np.isfinite(GlobalModel.from_bytes(data).flatten()).all()
        except UsageError:
            continue
