# SPDX-License-Identifier: Apache-2.0
"""LoRA on a Hugging Face encoder, through peft: small matrices trained, the rest kept.

The federation's model is the adapters and the head.  The frozen base stays with each
member; all must hold the same one, which ``base_digest`` lets them compare.

A LoRA that trains is not yet a LoRA that works: with Opacus and peft, runs are known
whose loss fell and whose epsilon was right, while the saved adapters had never moved.
``check_adapters`` looks at what the model computes, not at how training went.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors.torch import load_model, save_model
from torch import nn

from ..errors import UsageError, VerificationError
from ..model import GlobalModel
from .features import tensors_digest

__all__ = ["base_digest", "check_adapters", "lora", "merged", "trainable_model"]

# In units of the largest output.  Merging only reorders float32 sums: 1e-6, seen.
_MOVED: Final = 1e-5
_SAME: Final = 1e-4


def lora(
    model: nn.Module,
    *,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    head: Sequence[str],
    seed: int,
) -> nn.Module:
    """``model`` with an adapter in every linear layer named by ``targets``.

    Each adapts its layer's weight W to W + alpha / rank * B A, with B zero to begin
    with, so that the start computes what ``model`` does, and A drawn from ``seed``
    alone: all members start alike, and torch's global generator is left as it was.

    targets
        endings of layer names, as ("query", "value")
    head
        names of the modules that are trained whole, as ("classifier",).  They keep the
        weights they have: a head that ``transformers`` has just made is random, and
        another one at every member until ``ClientRound.load`` has filled it.

    Everything else is frozen.  ``model`` itself is changed and wrapped by what is
    returned, in the mode (training or eval) it was in; that is called as ``model`` was.
    There is no dropout on adapters.  Move the model to its device before this call.

    Raises UsageError where a name matches nothing, a target is not a plain
    ``nn.Linear``, or the model holds adapters already; and where peft is not installed.
    """
    peft = _peft()
    if rank < 1 or not alpha > 0 or not targets:
        raise UsageError(
            "an adapter needs a rank of 1 or more, a positive alpha and a target",
            hint='begin with rank=8, alpha=16, targets=("query", "value")',
        )
    if any(
        isinstance(m, peft.tuners.tuners_utils.BaseTunerLayer) for m in model.modules()
    ):
        raise UsageError(
            "the model holds adapters already", hint="begin with a model freshly loaded"
        )
    heads = [_submodule(model, name) for name in head]
    layers = _linear_layers(model, targets, head)
    modes = [(module, module.training) for module in model.modules()]
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=layers,
        lora_dropout=0.0,
        bias="none",
    )
    # Public on purpose: every member starts from the same weights.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = cast("nn.Module", peft.get_peft_model(model, config))
    # In place, and not as peft's modules_to_save: that would keep a second, frozen
    # copy of the head, and disabling the adapters would bring it back.
    for module in heads:
        module.requires_grad_(True)
    adapted.train(model.training)
    for module, training in modes:  # a frozen BatchNorm sleeps on
        module.training = training
    return adapted


def trainable_model(model: nn.Module) -> GlobalModel:
    """The trained parameters by name: of a LoRA model, adapters and head.

    The start of a plan of kind "custom", and what ``ClientRound.load`` fills.
    """
    return GlobalModel(
        {
            name: parameter.detach().to("cpu", torch.float32).numpy()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
    )


def base_digest(model: nn.Module) -> str:
    """SHA-256, in hex, of everything that is not trained: names, types and bytes.

    Members whose digests differ do not train the same model; compare before a run.
    """
    return tensors_digest(b"secure-fl/base/1", _frozen(model)).hex()


def merged(model: nn.Module) -> nn.Module:
    """A copy of a LoRA model without adapters: each added to its layer's weight.

    It is of the class that :func:`lora` was given, in eval mode, and needs no peft: an
    encoder of transformers is exported by its own ``save_pretrained``, and read by
    ``from_pretrained``.  ``model`` is left as it is.

    Raises UsageError where ``model`` is not a LoRA model, and VerificationError where
    the merged weights are not finite.
    """
    _layers(model)
    try:
        plain = copy.deepcopy(model).merge_and_unload(safe_merge=True)  # type: ignore[operator]
    except ValueError as error:
        raise VerificationError(
            f"the adapters cannot be merged: {error}", hint="their training diverged"
        ) from None
    return cast("nn.Module", plain).eval()


def check_adapters(
    model: nn.Module, examples: Mapping[str, torch.Tensor] | torch.Tensor
) -> None:
    """That the adapters of a trained LoRA model work, and survive being exported.

    1. No adapter is zero, and the outputs differ from those with adapters disabled by
       more than 1e-5 of the largest output.
    2. A merged copy, written to a file and read into a model of NaN, gives the same
       outputs within 1e-4 of the largest, and within a tenth of what the adapters do.

    examples
        a batch of records for the model's forward (``model(**examples)`` for a
        mapping; without labels); a few will do.  Use public ones, or keep the outcome
        to yourself.

    The model is left as it was; three times its size is held meanwhile.  Raises
    VerificationError that says which part failed, UsageError for what is no LoRA model.
    """
    names = _layers(model)
    for name, layer in names.items():
        for adapter in layer.lora_A:
            if not bool(layer.get_delta_weight(adapter).any()):
                raise VerificationError(
                    f"the adapter of {name} is zero: it never moved",
                    hint="check that the optimizer holds the adapters' parameters, and "
                    "that the model was on its device before adapters and optimizer",
                )
    with torch.no_grad():
        trial = copy.deepcopy(model).eval()
        adapted = _outputs(trial, examples)
        with trial.disable_adapter():  # type: ignore[operator]
            without = _outputs(trial, examples)
        del trial
        scale = float(adapted.abs().max())
        effect = float((adapted - without).abs().max())
        if not effect > _MOVED * scale:
            raise VerificationError(
                "the adapters change nothing: the model computes the same without them",
                hint="they may be inactive: model.active_adapters names those in use",
            )
        error = float((_outputs(_reloaded(model), examples) - adapted).abs().max())
    if not error <= min(_SAME * scale, 0.1 * effect):
        raise VerificationError(
            f"merged, saved and read again, the model's outputs differ by {error:.1e}, "
            f"where the adapters move them by {effect:.1e}",
            hint="do not ship this model; look at the adapters' scaling and types",
        )


def _reloaded(model: nn.Module) -> nn.Module:
    """The merged model after a trip through a file."""
    plain = merged(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(plain, str(path))
        for parameter in plain.parameters():
            parameter.fill_(torch.nan)  # what the file lacks is seen
        load_model(plain, path)
    return plain


def _outputs(
    model: nn.Module, examples: Mapping[str, torch.Tensor] | torch.Tensor
) -> torch.Tensor:
    found = model(examples) if isinstance(examples, torch.Tensor) else model(**examples)
    out = found if isinstance(found, torch.Tensor) else found[0]
    if not out.numel() or not bool(out.isfinite().all()):
        raise VerificationError(
            "the model's outputs are empty or not finite",
            hint="give at least one example; or its training diverged",
        )
    return cast("torch.Tensor", out.double())


def _layers(model: nn.Module) -> dict[str, Any]:
    """The adapted layers by name.  Raises UsageError where there are none."""
    kind = _peft().tuners.lora.Linear
    found = {n: m for n, m in model.named_modules() if isinstance(m, kind)}
    if not found:
        raise UsageError(
            "the model holds no LoRA adapters", hint="make it with lora(model, ...)"
        )
    return found


def _frozen(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            yield name, parameter
    yield from model.named_buffers(remove_duplicate=False)


def _ends(name: str, targets: Sequence[str]) -> bool:
    return any(name == t or name.endswith(f".{t}") for t in targets)


def _linear_layers(
    model: nn.Module, targets: Sequence[str], head: Sequence[str]
) -> list[str]:
    """The names that end in one of ``targets``.  Raises UsageError."""
    found = [n for n, _ in model.named_modules() if _ends(n, targets)]
    for target in targets:
        if not any(_ends(name, (target,)) for name in found):
            raise UsageError(
                f"the model has no layer called {target!r}",
                hint="model.named_modules() lists the names",
            )
    for name in found:
        layer = model.get_submodule(name)
        if type(layer) is not nn.Linear:
            raise UsageError(
                f"{name} is a {type(layer).__name__}",
                hint="adapters go into plain linear layers only",
            )
        if any(name == h or name.startswith(f"{h}.") for h in head):
            raise UsageError(
                f"{name} is a target and part of the head",
                hint="train a layer whole, or through an adapter",
            )
    return found


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise UsageError(
            f"the model has no module called {name!r}",
            hint="model.named_modules() lists the names",
        ) from None


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise UsageError(
            "LoRA needs peft", hint="pip install 'secure-fl[train,hf]'"
        ) from None
    return peft
