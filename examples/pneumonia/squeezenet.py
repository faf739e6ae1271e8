# SPDX-License-Identifier: Apache-2.0
"""SqueezeNet 1.0, the public backbone: photographs of ImageNet taught it.

The architecture is that of Iandola et al. 2016 (arXiv 1602.07360), as the shapes of the
weights give it.  The weights are an ``.npz`` of float32 arrays named ``<layer>.weight``
(out, in, height, width) and ``<layer>.bias``.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

__all__ = ["Fire", "SqueezeNet", "load_squeezenet"]

_SIDE = 227  # pixels: what the weights were trained on
_MEAN = (104.0, 117.0, 123.0)  # of blue, green and red in ImageNet, 0 to 255

# Per Fire module: channels in, squeezed to, and given out by each of its two branches.
_FIRES = {
    "fire2": (96, 16, 64),
    "fire3": (128, 16, 64),
    "fire4": (128, 32, 128),
    "fire5": (256, 32, 128),
    "fire6": (256, 48, 192),
    "fire7": (384, 48, 192),
    "fire8": (384, 64, 256),
    "fire9": (512, 64, 256),
}
_CLASSIFIER = "conv_final."  # photographs' classes: of no use here


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


class Fire(nn.Module):
    """A 1x1 squeeze, then 1x1 and 3x3 kernels side by side."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.conv1x1_1 = nn.Conv2d(inputs, squeezed, 1)
        self.conv1x1_2 = nn.Conv2d(squeezed, expanded, 1)
        self.conv3x3_2 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1x1_1(x).relu()
        return torch.cat([self.conv1x1_2(x), self.conv3x3_2(x)], dim=1).relu()


class SqueezeNet(nn.Module):
    """Grey images (n, height, width), 0 to 255, to features (n, 512).

    The features are the mean activations of the last Fire module, as the classifier of
    the original would see them.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = nn.Conv2d(3, 96, 7, stride=2)
        layers["relu1"] = nn.ReLU()
        layers["pool1"] = _pool()
        for name, sizes in _FIRES.items():
            layers[name] = Fire(*sizes)
            if name in ("fire4", "fire8"):
                layers[f"pool{name[-1]}"] = _pool()
        self.layers = nn.Sequential(layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = nn.functional.interpolate(
            images[:, None].float(), (_SIDE, _SIDE), mode="bilinear"
        )
        activations: torch.Tensor = self.layers(
            x - torch.tensor(_MEAN, device=x.device)[:, None, None]
        )
        return activations.mean((2, 3))


def load_squeezenet(path: Path) -> SqueezeNet:
    """The pretrained network, in eval mode and frozen.

    Raises ValueError where a name or a shape is not that of SqueezeNet 1.0.
    """
    with np.load(path) as file:
        arrays = {
            name.replace("/", "."): torch.from_numpy(file[name])
            for name in file.files
            if not name.startswith(_CLASSIFIER)
        }
    network = SqueezeNet().eval().requires_grad_(False)
    shapes = {name: p.shape for name, p in network.layers.named_parameters()}
    if {name: a.shape for name, a in arrays.items()} != shapes:
        raise ValueError(f"{path} does not hold the arrays of SqueezeNet 1.0")
    network.layers.load_state_dict(arrays)
    return network
