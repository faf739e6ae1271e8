# SPDX-License-Identifier: Apache-2.0
"""The global model inside a user's module: what a round may change, and what not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import UsageError
from ..model import GlobalModel
from .steps import same_bits

__all__ = ["Weights", "check_all_trained", "difference", "fill"]

M = TypeVar("M", bound=nn.Module)


def fill(model: M, start: GlobalModel) -> M:
    """Copy ``start`` into ``model`` by name and return ``model``.

    Raises UsageError where names or shapes do not fit; then nothing was copied.
    """
    tensors = _by_name(model, start)
    with torch.no_grad():
        for name, array in start.arrays.items():
            # A copy: the arrays are read-only, which torch cannot express.
            tensors[name].copy_(torch.from_numpy(np.array(array)))
    return model


@final
class Weights:
    """What a round may change in a module, and what it must leave alone."""

    def __init__(self, model: nn.Module, start: GlobalModel) -> None:
        """Raises UsageError where ``model`` is not the global model to begin with."""
        self._start = start
        self._tensors = _by_name(model, start)
        for name, array in start.arrays.items():
            tensor = self._tensors[name].detach().to("cpu", torch.float32)
            if not same_bits(tensor.contiguous(), torch.from_numpy(np.array(array))):
                raise UsageError(
                    f"{name!r} of the model differs from the global model",
                    hint="call r.load(model) right before the round",
                )
        self.trained = [p for p in model.parameters() if p.requires_grad]
        if not self.trained:
            raise UsageError(
                "the model trains no parameter", hint="set requires_grad on the head"
            )
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.dtype not in (
                torch.float32,
                torch.float64,
            ):
                raise UsageError(
                    f"the trained parameter {name!r} is {parameter.dtype}",
                    hint="clip norms hold in float32: call .float() on trained layers",
                )
        trained = {id(p) for p in self.trained}
        self._frozen = [
            (name, tensor)
            for name, tensor in _named_tensors(model)
            if id(tensor) not in trained
        ]
        self._frozen_digest = self._digest()
        self._model = model
        self._held = _identities(model)

    def check_frozen(self) -> None:
        """Raises UsageError where a frozen parameter or a buffer has changed, or where
        another tensor stands in the place of one of the model's."""
        if _identities(self._model) != self._held:
            raise UsageError(
                "a tensor of the model was replaced in the round",
                hint="add or merge adapters before make_private, or after the round",
            )
        if self._digest() != self._frozen_digest:
            raise UsageError(
                "a frozen parameter or a buffer of the model changed in the round",
                hint="no exact statistic of records may stay in the model: put such "
                "layers into eval mode before make_private",
            )

    def delta(self) -> NDArray[np.float64]:
        """Now minus the global model, flat, in the order of the names."""
        return _minus(self._tensors, self._start)

    def flat(self, of_trained: Sequence[torch.Tensor]) -> NDArray[np.float64]:
        """One tensor per trained parameter as one vector of the global model's size, in
        the order of the names; the global model holds nothing else."""
        given = {
            id(p): t for p, t in zip(self.trained, of_trained, strict=True)
        }  # fmt: skip
        return _flat(given[id(self._tensors[name])] for name in self._start.arrays)

    def _digest(self) -> bytes:
        state = hashlib.sha256(b"secure-fl/training/1 frozen state")
        for name, tensor in self._frozen:
            state.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
            flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            state.update(flat.cpu().numpy().data)
        return state.digest()


def check_all_trained(model: nn.Module, start: GlobalModel) -> None:
    """Raises UsageError where ``start`` holds what ``model`` does not train.

    Every value of a distributed plan's model gets noise: frozen ones would be moved by
    nothing else, and a variance that a layer divides by might end below zero.
    """
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    tensors = _by_name(model, start)
    still = [name for name, tensor in tensors.items() if id(tensor) not in trained]
    if still:
        raise UsageError(
            f"the global model holds what is not trained: {', '.join(still)}",
            hint="start from trainable_model(model): each member keeps the frozen "
            "parameters and the buffers",
        )


def difference(model: nn.Module, start: GlobalModel) -> NDArray[np.float64]:
    """``model`` minus ``start``, flat, in the order of the names.

    Raises UsageError where names or shapes do not fit.
    """
    return _minus(_by_name(model, start), start)


def _minus(
    tensors: Mapping[str, torch.Tensor], start: GlobalModel
) -> NDArray[np.float64]:
    flat = _flat(tensors[name] for name in start.arrays)
    return flat - start.flatten().astype(np.float64)


def _flat(tensors: Iterable[torch.Tensor]) -> NDArray[np.float64]:
    return np.concatenate(
        [t.detach().to("cpu", torch.float64).numpy().ravel() for t in tensors]
    )


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers, tied ones under each of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _identities(model: nn.Module) -> dict[str, int]:
    return {name: id(tensor) for name, tensor in _named_tensors(model)}


def _by_name(model: nn.Module, start: GlobalModel) -> dict[str, torch.Tensor]:
    """The module's tensors that the global model holds.  Raises UsageError."""
    tensors = dict(_named_tensors(model))
    lacking = sorted(set(start.arrays) - set(tensors))
    if lacking:
        raise UsageError(
            f"the module has no {', '.join(lacking)}",
            hint="its names are those of model.named_parameters(); the global model's "
            "come from the plan's [model]",
        )
    found: dict[str, torch.Tensor] = {}
    seen: dict[int, str] = {}
    for name, array in start.arrays.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != array.shape:
            raise UsageError(
                f"{name!r} is {tuple(tensor.shape)} in the module, "
                f"{array.shape} in the global model",
                hint="build the module with the plan's sizes",
            )
        if id(tensor) in seen:
            raise UsageError(
                f"{name!r} and {seen[id(tensor)]!r} are one tensor in the module",
                hint="keep a tied parameter once in the global model",
            )
        seen[id(tensor)] = name
        found[name] = tensor
    lost = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and id(p) not in seen
    ]
    if lost:
        raise UsageError(
            f"the module trains what the global model does not hold: {', '.join(lost)}",
            hint="freeze it with requires_grad_(False), or add it to the global model",
        )
    return found
