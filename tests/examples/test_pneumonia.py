# SPDX-License-Identifier: Apache-2.0
"""The backbone of the chest X-ray example is the network whose weights it loads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ..data import data_folder

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "pneumonia"
WEIGHTS = "squeezenet_v1.0_decoded.npz"


@pytest.fixture
def squeezenet(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's module, as its own programs import it."""
    torch.set_num_threads(1)
    monkeypatch.syspath_prepend(str(FOLDER))
    import squeezenet

    yield squeezenet
    del sys.modules["squeezenet"]


def test_the_sizes_are_those_of_the_paper(squeezenet: Any) -> None:
    network = squeezenet.SqueezeNet()
    x, sides = torch.zeros(1, 3, 227, 227), {}
    with torch.no_grad():
        for name, layer in network.layers.named_children():
            x = layer(x)
            sides[name] = tuple(x.shape[1:])
        features = network(torch.zeros(1, 28, 28, dtype=torch.uint8))
    assert features.shape == (1, 512)
    assert sides["conv1"] == (96, 111, 111)
    assert sides["pool1"] == (96, 55, 55)
    assert sides["pool4"] == (256, 27, 27)
    assert sides["pool8"] == (512, 13, 13)
    # 1,248,424 with the classifier, whose 1000 classes the example leaves out
    count = sum(p.numel() for p in network.parameters())
    assert count == 1_248_424 - 1000 * 513


def test_the_weights_fit_and_are_frozen(squeezenet: Any) -> None:
    network = squeezenet.load_squeezenet(data_folder("squeezenet") / WEIGHTS)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_photographs_are_told_apart(squeezenet: Any) -> None:
    """With its classifier put back, it knows a temple: order, centre and pools hold."""
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    from sklearn.datasets import load_sample_images

    path = data_folder("squeezenet") / WEIGHTS
    network = squeezenet.load_squeezenet(path)
    with np.load(path) as file:
        weight = torch.from_numpy(file["conv_final.weight"])
        bias = torch.from_numpy(file["conv_final.bias"])
    image = torch.from_numpy(load_sample_images().images[0].copy()).float()
    square = image[:, 106:533].permute(2, 0, 1)[None].flip(1)  # blue first
    x = torch.nn.functional.interpolate(square, (227, 227), mode="area")
    x = x - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    with torch.no_grad():
        scores = torch.nn.functional.conv2d(network.layers(x), weight, bias).relu()
    best = scores.mean((2, 3))[0].topk(3).indices.tolist()
    assert set(best) & {442, 663, 832}  # bell cote, monastery, stupa


@pytest.mark.parametrize("change", ["lacking", "shape"])
def test_other_weights_are_refused(
    squeezenet: Any, tmp_path: Path, change: str
) -> None:
    arrays = {
        name.replace(".", "/", 1) if name.startswith("fire") else name: p.numpy()
        for name, p in squeezenet.SqueezeNet()
        .requires_grad_(False)
        .layers.named_parameters()
    }
    np.savez(tmp_path / "whole.npz", **arrays)
    squeezenet.load_squeezenet(tmp_path / "whole.npz")
    if change == "lacking":
        del arrays["fire9/conv3x3_2.bias"]
    else:
        arrays["conv1.bias"] = arrays["conv1.bias"][:-1]
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match=r"other.npz does not hold"):
        squeezenet.load_squeezenet(tmp_path / "other.npz")
