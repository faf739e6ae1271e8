# SPDX-License-Identifier: Apache-2.0
"""Models that cannot take a batch of nobody take it, and have no gradient of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from secure_fl.training.empty import accept_empty


class Scores(NamedTuple):
    logits: torch.Tensor
    chosen: torch.Tensor
    name: str


class Reshaping(nn.Module):
    """As many models do: the last size is whatever is left, which none is of none."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> Any:
        logits = scale * self.layer(x.reshape(len(x), -1))
        return {"scores": [Scores(logits, logits.argmax(1), "mlp")], 7: logits.mean()}


NONE = torch.zeros(0, 2, 3)


def test_the_plain_model_cannot() -> None:
    with pytest.raises(RuntimeError, match="ambiguous"):
        Reshaping()(NONE)


def test_no_rows_come_back_in_the_same_form_and_without_a_gradient() -> None:
    model = Reshaping()
    accept_empty(model)
    for out in (model(NONE), model(x=NONE), model(NONE, scale=2.0)):
        (scores,) = out["scores"]
        assert isinstance(scores, Scores)
        assert scores.logits.shape == (0, 3)
        assert scores.chosen.shape == (0,)
        assert (scores.chosen.dtype, scores.name) == (torch.int64, "mlp")
        scores.logits.sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in model.parameters())


def test_batches_with_records_are_the_models_own() -> None:
    model = Reshaping()
    x = torch.randn(4, 2, 3)
    expected = model(x)["scores"][0].logits
    accept_empty(model)
    found = model(x)["scores"][0].logits
    assert torch.equal(found, expected)
    found.sum().backward()
    assert model.layer.weight.grad is not None


@pytest.mark.parametrize("own", [False, True])
def test_the_model_gets_its_own_forward_back(own: bool) -> None:
    model = Reshaping()
    if own:  # another library has put itself in between

        def forward(x: torch.Tensor) -> int:
            return len(x)

        model.forward = forward  # type: ignore[assignment,method-assign]
    end = accept_empty(model)
    assert "forward" in vars(model)
    end()
    assert ("forward" in vars(model)) is own
    assert not own or model(NONE) == 0
