# SPDX-License-Identifier: Apache-2.0
"""Cached features: each row its own record's, kept whole, and never trusted blindly."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from secure_fl.errors import EngineError, UsageError
from secure_fl.training.features import cached_features

IMAGES = torch.from_numpy(
    np.random.default_rng(3).normal(size=(70, 1, 8, 8)).astype(np.float32)
)


class Counted(nn.Module):
    """A small convolutional backbone that counts the rows it computes."""

    def __init__(self, seed: int = 0, norm: nn.Module | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(1, 4, 3),
                nn.BatchNorm2d(4) if norm is None else norm,
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Flatten(),
            )
        self.rows = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows += len(x)
        out: torch.Tensor = self.body(x)
        return out


def quiet(done: int, total: int) -> None:
    """No bar."""


def features(
    backbone: nn.Module,
    cache: Path,
    *,
    records: torch.Tensor = IMAGES,
    recipe: str = "test",
    batch_size: int = 16,
) -> NDArray[np.float32]:
    return cached_features(
        backbone,
        records,
        cache=cache,
        recipe=recipe,
        batch_size=batch_size,
        progress=quiet,
    )


def computed(backbone: Counted, act: Callable[[], object]) -> bool:
    before = backbone.rows
    act()
    return backbone.rows > before


# -- the rows --------------------------------------------------------------------------


def test_rows_are_the_backbones_in_eval_mode(tmp_path: Path) -> None:
    backbone = Counted()
    backbone.train()
    backbone.body[2].eval()
    found = features(backbone, tmp_path)
    assert [m.training for m in backbone.body] == [True, True, False, True, True]
    assert backbone.body[1].num_batches_tracked == 0
    with torch.no_grad():
        expected = backbone.eval()(IMAGES).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert all(p.grad is None for p in backbone.parameters())


@pytest.mark.parametrize("batch_size", [1, 7, 70, 1000])
def test_batch_size_and_order_change_nothing(tmp_path: Path, batch_size: int) -> None:
    reference = features(Counted(), tmp_path / "reference")
    order = torch.randperm(len(IMAGES), generator=torch.Generator().manual_seed(1))
    found = features(
        Counted(), tmp_path / "other", records=IMAGES[order], batch_size=batch_size
    )
    np.testing.assert_allclose(found, reference[order.numpy()], atol=1e-6)


class Centred(nn.Module):
    """Takes the batch's mean off: a row depends on the others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) - x.flatten(1).mean(0)


class Restless(nn.Module):
    """Dropout that eval mode does not stop."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x.flatten(1), 0.5, training=True)


@pytest.mark.parametrize("backbone", [Centred(), Restless()])
def test_a_backbone_that_mixes_records_is_refused(
    tmp_path: Path, backbone: nn.Module
) -> None:
    with pytest.raises(UsageError, match="changes with the records beside it"):
        features(backbone, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_batch_norm_without_statistics_is_refused(tmp_path: Path) -> None:
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(UsageError, match="no running statistics"):
        features(Counted(norm=norm), tmp_path)


class Summed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(0, keepdim=True)


def test_what_is_no_row_per_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one row per record"):
        features(Summed(), tmp_path)
    with pytest.raises(UsageError, match="no records") as caught:
        features(Counted(), tmp_path, records=IMAGES[:0])
    assert caught.value.hint
    with pytest.raises(UsageError, match="batch_size is 0"):
        features(Counted(), tmp_path, batch_size=0)


@pytest.mark.parametrize("row", [0, 41])
def test_a_row_that_is_not_finite_is_named(tmp_path: Path, row: int) -> None:
    records = IMAGES.clone()
    records[row, 0, 3, 3] = torch.nan
    with pytest.raises(UsageError, match=f"record {row} are not finite"):
        features(nn.Flatten(), tmp_path, records=records)
    assert not list(tmp_path.iterdir())


# -- what is kept ----------------------------------------------------------------------


def test_the_second_time_nothing_is_computed(tmp_path: Path) -> None:
    backbone = Counted()
    first = features(backbone, tmp_path)
    assert not computed(
        backbone, lambda: np.testing.assert_array_equal(
            features(backbone, tmp_path, batch_size=5), first
        ),
    )  # fmt: skip


def test_any_change_of_what_goes_in_computes_again(tmp_path: Path) -> None:
    backbone = Counted()
    features(backbone, tmp_path)
    one = IMAGES.clone()
    one[69, 0, 7, 7] += 1e-3
    assert computed(backbone, lambda: features(backbone, tmp_path, records=one))
    assert computed(backbone, lambda: features(backbone, tmp_path, recipe="other"))
    state = backbone.state_dict()
    state["body.1.running_var"][0] += 1e-3  # a buffer, not a parameter
    assert computed(backbone, lambda: features(backbone, tmp_path))
    assert isinstance(backbone.body[1], nn.BatchNorm2d)
    backbone.body[1].eps = 1e-2  # no tensor, but it is printed
    assert computed(backbone, lambda: features(backbone, tmp_path))
    assert len(list(tmp_path.iterdir())) == 5


def test_records_of_the_same_bytes_in_another_shape_are_others(tmp_path: Path) -> None:
    wide = features(nn.Flatten(), tmp_path, records=torch.zeros(4, 6))
    narrow = features(nn.Flatten(), tmp_path, records=torch.zeros(6, 4))
    assert (wide.shape, narrow.shape) == ((4, 6), (6, 4))


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "cache"
    features(Counted(), cache)
    (file,) = cache.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def cut(data: bytes) -> bytes:
    return data[:-1]


def flipped(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


def emptied(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut, flipped, emptied])
def test_a_damaged_file_is_computed_again_and_mended(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    backbone = Counted()
    first = features(backbone, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert computed(
        backbone,
        lambda: np.testing.assert_array_equal(features(backbone, tmp_path), first),
    )
    assert file.read_bytes() == whole


def test_another_models_file_under_this_name_is_not_taken(tmp_path: Path) -> None:
    features(Counted(seed=1), tmp_path)
    (other,) = tmp_path.iterdir()
    foreign = other.read_bytes()
    backbone = Counted()
    first = features(backbone, tmp_path)
    (file,) = set(tmp_path.iterdir()) - {other}
    file.write_bytes(foreign)
    assert computed(
        backbone,
        lambda: np.testing.assert_array_equal(features(backbone, tmp_path), first),
    )


class Stop(Exception):
    pass


def test_an_interrupted_computation_leaves_nothing_and_begins_again(
    tmp_path: Path,
) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 32:
            raise Stop

    backbone = Counted()
    backbone.train()
    with pytest.raises(Stop):
        cached_features(backbone, IMAGES, cache=tmp_path, recipe="test", progress=stop)
    assert backbone.body[1].training
    assert not list(tmp_path.iterdir())
    assert features(backbone, tmp_path).shape == (70, 144)


def test_a_full_disk_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match="No space left on device"):
        features(Counted(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(EngineError, match="cannot make"):
        features(Counted(), tmp_path / "cache")


def test_two_at_once_come_to_one_file(tmp_path: Path) -> None:
    """Both are past the look-up before either writes."""
    barrier = threading.Barrier(2)
    found: list[NDArray[np.float32]] = []

    def work(backbone: Counted) -> None:
        def meet(done: int, total: int) -> None:
            if done == total:
                barrier.wait(timeout=60)

        found.append(
            cached_features(
                backbone, IMAGES, cache=tmp_path, recipe="test", progress=meet
            )
        )

    # Made here: torch's generator, which their weights come from, is all threads'.
    threads = [threading.Thread(target=work, args=[Counted()]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one, other = found
    np.testing.assert_array_equal(one, other)
    assert len(list(tmp_path.iterdir())) == 1
    again = Counted()
    assert not computed(again, lambda: features(again, tmp_path))


# -- progress --------------------------------------------------------------------------


def test_progress_counts_records_to_the_last(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    cached_features(
        Counted(),
        IMAGES,
        cache=tmp_path,
        recipe="test",
        batch_size=32,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(32, 70), (64, 70), (70, 70)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "shown"), [(Terminal(), True), (io.StringIO(), False)]
)
def test_a_bar_is_shown_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, shown: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    cached_features(Counted(), IMAGES, cache=tmp_path, recipe="test")
    assert ("70/70" in stream.getvalue()) is shown
