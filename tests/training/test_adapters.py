# SPDX-License-Identifier: Apache-2.0
"""LoRA on a small random BERT: trained under DP, exported, and caught when broken."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from secure_fl.errors import UsageError, VerificationError  # noqa: E402
from secure_fl.privacy import PrivateUpdate  # noqa: E402
from secure_fl.training.adapters import (  # noqa: E402
    base_digest,
    check_adapters,
    lora,
    merged,
    trainable_model,
)
from secure_fl.training.client_round import PrivateTraining  # noqa: E402
from secure_fl.training.texts import TextClassifier  # noqa: E402

from .support import clean, make_distributed, make_plan, make_round, same  # noqa: E402

Batch = dict[str, torch.Tensor]
RECORDS, TOKENS, CLASSES = 40, 7, 3
CLIP = 1.0
NOTHING = nn.CrossEntropyLoss(weight=torch.zeros(CLASSES))


def config(dropout: float) -> Any:
    return transformers.BertConfig(
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        num_labels=CLASSES,
        initializer_range=0.5,  # attention that attends, without training
    )


def encoder() -> nn.Module:
    """Without dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = transformers.BertModel(config(0.0), add_pooling_layer=False)
    return model


def bert(seed: int = 0, *, dropout: float = 0.1) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = transformers.BertForSequenceClassification(config(dropout))
    return model


def adapted(model: nn.Module | None = None, *, seed: int = 3) -> nn.Module:
    return lora(
        bert() if model is None else model,
        rank=2,
        alpha=4,
        targets=("query", "value"),
        head=("classifier",),
        seed=seed,
    )


def texts(count: int = RECORDS) -> list[dict[str, torch.Tensor]]:
    """Token ids of uneven length, padded, with labels: one dictionary per record."""
    draw = np.random.default_rng(5)
    out = []
    for _ in range(count):
        length = int(draw.integers(2, TOKENS + 1))
        ids = torch.zeros(TOKENS, dtype=torch.int64)
        ids[:length] = torch.from_numpy(draw.integers(1, 50, size=length))
        label = torch.tensor(int(draw.integers(0, CLASSES)))
        mask = (torch.arange(TOKENS) < length).long()
        out.append({"input_ids": ids, "attention_mask": mask, "labels": label})
    return out


def examples(count: int = 4) -> Batch:
    rows = texts(count)
    return {
        name: torch.stack([row[name] for row in rows])
        for name in ("input_ids", "attention_mask")
    }


def logits(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Called by keyword alone, as Hugging Face's own loops do."""
    out = model(**batch)
    found: torch.Tensor = out if isinstance(out, torch.Tensor) else out.logits
    return found


def loop(private: PrivateTraining[Any]) -> None:
    private.model.train()
    for batch in private.loader:
        labels = batch.pop("labels")
        private.criterion(logits(private.model, batch), labels).backward()
        private.optimizer.step()


def fit(
    model: nn.Module,
    *,
    steps: int = 2,
    rate: float = 0.5,
    criterion: nn.Module | None = None,
    ghost: bool = False,
) -> PrivateUpdate:
    plan = make_plan(
        "opacus",
        steps=steps,
        rate=rate,
        clip_norm=CLIP,
        records=RECORDS,
    )
    r = make_round(plan, trainable_model(model), random=same()).round
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=1.0
    )
    model.train()
    loader: DataLoader[Any] = DataLoader(texts(), batch_size=4)  # type: ignore[arg-type]
    criterion = nn.CrossEntropyLoss() if criterion is None else criterion
    private = r.make_private(r.load(model), optimizer, loader, criterion, ghost=ghost)
    loop(private)
    return private.update()


# -- the adapted model -----------------------------------------------------------------


def test_the_start_is_the_base_model_and_only_adapters_and_head_are_trained() -> None:
    base = bert().eval()
    with torch.no_grad():
        before = base(**examples()).logits
        model = adapted(base)
        after = model(**examples()).logits
    assert torch.equal(before, after)
    trained = trainable_model(model)
    assert sorted({name.split(".")[-2] for name in trained.arrays}) == [
        "classifier",
        "default",
    ]
    assert len(trained.arrays) == 2 * 2 * 2 + 2
    assert not model.training


@pytest.mark.parametrize("training", [True, False])
def test_every_module_keeps_its_mode(training: bool) -> None:
    base = bert().train(training)
    asleep = base.get_submodule("bert.embeddings").eval()
    model = adapted(base)
    assert not any(m.training for m in asleep.modules())
    for name, module in model.named_modules():
        if "embeddings" not in name:
            assert module.training is training, name


def test_all_members_start_alike_whatever_torch_drew_before() -> None:
    one = adapted()
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    other = adapted()
    assert torch.equal(state, torch.random.get_rng_state())
    assert trainable_model(one).digest() == trainable_model(other).digest()
    another = adapted(seed=4)
    assert trainable_model(one).digest() != trainable_model(another).digest()


def test_the_digest_of_the_base_says_who_has_another_one() -> None:
    digest = base_digest(adapted())
    assert digest == base_digest(adapted(seed=4))
    assert digest != base_digest(adapted(bert(seed=1)))
    model = adapted()
    fit(model)
    assert digest == base_digest(model)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"targets": ("query", "nothing")}, "no layer called 'nothing'"),
        ({"targets": ("word_embeddings",)}, "is a Embedding"),
        ({"head": ("scores",)}, "no module called 'scores'"),
        ({"targets": ("classifier",)}, "part of the head"),
        ({"targets": ()}, "needs a rank"),
        ({"rank": 0}, "needs a rank"),
        ({"alpha": 0.0}, "needs a rank"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], reason: str) -> None:
    words: dict[str, Any] = {
        "rank": 2,
        "alpha": 4,
        "targets": ("query",),
        "head": ("classifier",),
        "seed": 0,
    }
    with pytest.raises(UsageError, match=reason):
        lora(bert(), **(words | changes))


def test_without_peft_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match="needs peft") as caught:
        adapted()
    assert "secure-fl[train,hf]" in caught.value.hint


def test_a_model_is_adapted_once() -> None:
    with pytest.raises(UsageError, match="adapters already"):
        adapted(adapted())


def test_a_plain_model_has_nothing_to_check_or_merge() -> None:
    for act in (merged, lambda model: check_adapters(model, examples())):
        with pytest.raises(UsageError, match="holds no LoRA adapters"):
            act(bert())


# -- under DP --------------------------------------------------------------------------


def test_two_private_steps_move_every_adapter_and_nothing_else() -> None:
    model = adapted()
    start = trainable_model(model)
    frozen = {n: t.clone() for n, t in model.state_dict().items()}
    update = fit(model)
    assert update.vector.shape == (start.size,)
    moved = start.add(update.vector)
    now = trainable_model(model)
    for name, array in start.arrays.items():
        assert (now.arrays[name] != array).all(), name
        np.testing.assert_array_equal(now.arrays[name], moved.arrays[name])
    for name, tensor in model.state_dict().items():
        if name not in start.arrays:
            assert torch.equal(tensor, frozen[name]), name
    assert clean(model)
    check_adapters(model, examples())


def text_classifier() -> nn.Module:
    """With B away from its start at zero, where A would have no gradient."""
    classifier = TextClassifier(encoder(), classes=CLASSES, seed=1)
    model = lora(
        classifier, rank=2, alpha=4, targets=("query",), head=("head",), seed=3
    )
    return awake(model)


def sequence_classifier() -> nn.Module:
    return awake(adapted(bert(dropout=0.0)))


def awake(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
    return model


def clipped_sum(model: nn.Module) -> dict[str, torch.Tensor]:
    """By plain backward passes, one record at a time."""
    model = copy.deepcopy(model).train()
    names = trainable_model(model).arrays
    total = {name: torch.zeros(array.shape) for name, array in names.items()}
    for row in texts():
        model.zero_grad()
        batch = {name: value[None] for name, value in row.items()}
        label = batch.pop("labels")
        nn.functional.cross_entropy(logits(model, batch), label).backward()  # type: ignore[no-untyped-call]
        gradients = {n: p.grad for n, p in model.named_parameters() if n in names}
        norm = torch.stack([g.norm() for g in gradients.values() if g is not None])
        factor = min(1.0, CLIP / float(norm.norm()))
        for name, gradient in gradients.items():
            assert gradient is not None, name
            total[name] += factor * gradient
    for name, array in total.items():
        assert array.abs().max() > 0.01, name  # one that is missing would show
    return total


def flat(arrays: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([array.ravel() for array in arrays.values()]).double()


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("make", [sequence_classifier, text_classifier])
def test_the_step_is_the_clipped_sum_of_each_records_own_gradient(
    make: Callable[[], nn.Module], ghost: bool
) -> None:
    model = make()
    expected = flat(clipped_sum(model))
    # Everybody is in the batch; a loss of nothing shows the noise of the same seed.
    noise = fit(copy.deepcopy(model), steps=1, rate=1.0, criterion=NOTHING).vector
    found = fit(model, steps=1, rate=1.0, ghost=ghost).vector - noise
    torch.testing.assert_close(
        torch.from_numpy(-RECORDS * found), expected, rtol=1e-4, atol=1e-4
    )


def pairs(rows: list[Batch]) -> tuple[Batch, torch.Tensor]:
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return batch, batch.pop("labels")


def test_the_distributed_sum_is_the_same() -> None:
    """The aggregator steps; the client's noise and rounding are of the same seed."""
    model = text_classifier()
    start = trainable_model(model)
    plan = make_distributed(
        "opacus", values=start.size, rate=1.0, clip_norm=CLIP, records=RECORDS
    )

    def opened(criterion: nn.Module) -> NDArray[np.float64]:
        r = make_round(plan, start, random=same()).round
        loader: DataLoader[Any] = DataLoader(texts(), batch_size=4, collate_fn=pairs)  # type: ignore[arg-type]
        update = r.gradient_sum(r.load(model).train(), loader, criterion)
        units = update.vector.astype(np.int64)
        return plan.grid.opened(units, rotation=plan.rotation(0))

    found = opened(nn.CrossEntropyLoss()) - opened(NOTHING)
    # Both are rounded at the same dither: they differ by under a step a coordinate.
    error = np.linalg.norm(found - flat(clipped_sum(model)).numpy())
    assert error < plan.grid.step * plan.grid.padded**0.5


def test_a_round_in_which_nobody_is_sampled_goes_on() -> None:
    """A BERT cannot reshape no rows; failing would show that nobody was there."""
    model = adapted()
    start = trainable_model(model)
    update = fit(model, steps=2, rate=1e-6)
    assert (update.vector != 0).all()
    noise = fit(adapted(), steps=2, rate=1e-6, criterion=NOTHING)
    np.testing.assert_array_equal(update.vector, noise.vector)
    assert (trainable_model(model).flatten() != start.flatten()).all()


# -- the check -------------------------------------------------------------------------


def trained() -> nn.Module:
    """As after a run: adapters that compute something."""
    model = adapted()
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return model


def test_a_trained_model_passes_and_is_left_as_it_was() -> None:
    model = trained().train()
    state = {n: t.clone() for n, t in model.state_dict().items()}
    grads = [p.requires_grad for p in model.parameters()]
    check_adapters(model, examples())
    assert model.training
    assert grads == [p.requires_grad for p in model.parameters()]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_adapters_that_never_moved_are_caught_even_where_the_head_did() -> None:
    model = adapted()
    with torch.no_grad():
        model.get_parameter("base_model.model.classifier.weight").add_(1.0)
    with pytest.raises(VerificationError, match=r"query is zero: it never moved"):
        check_adapters(model, examples())


def test_one_adapter_that_never_moved_is_caught() -> None:
    model = trained()
    name = "base_model.model.bert.encoder.layer.1.attention.self.value"
    with torch.no_grad():
        model.get_submodule(name).lora_B["default"].weight.zero_()  # type: ignore[index,union-attr]
    with pytest.raises(VerificationError, match=r"layer\.1\.attention\.self\.value"):
        check_adapters(model, examples())


def test_adapters_that_are_not_active_are_caught() -> None:
    model = trained()
    for module in model.modules():
        if hasattr(module, "_active_adapter"):
            module._active_adapter = []  # type: ignore[assignment]
    with pytest.raises(VerificationError, match="change nothing"):
        check_adapters(model, examples())


def test_a_merge_that_computes_something_else_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scaling is lost on the way: the exported model is not the trained one."""
    from peft.tuners.lora import Linear

    right = Linear.get_delta_weight
    monkeypatch.setattr(
        Linear, "get_delta_weight", lambda self, adapter: 0.5 * right(self, adapter)
    )
    with pytest.raises(VerificationError, match="merged, saved and read again"):
        check_adapters(trained(), examples())


def test_a_checkpoint_that_lacks_a_weight_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import secure_fl.training.adapters as module

    def lossy(model: nn.Module, path: str) -> None:
        state = model.state_dict()
        del state["classifier.bias"]
        safetensors_torch.save_file(state, path)

    def lenient(model: nn.Module, path: Path) -> None:
        model.load_state_dict(safetensors_torch.load_file(path), strict=False)

    import safetensors.torch as safetensors_torch

    monkeypatch.setattr(module, "save_model", lossy)
    monkeypatch.setattr(module, "load_model", lenient)
    with pytest.raises(VerificationError, match="not finite"):
        check_adapters(trained(), examples())


def test_weights_that_are_not_finite_are_caught() -> None:
    model = trained()
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(torch.nan)
    with pytest.raises(VerificationError, match="cannot be merged"):
        merged(model)
    with pytest.raises(VerificationError, match="not finite"):
        check_adapters(model, examples())


def test_transformers_alone_reads_what_was_merged(tmp_path: Path) -> None:
    model = trained().eval()
    merged(model).save_pretrained(tmp_path)  # type: ignore[operator]
    assert (tmp_path / "model.safetensors").exists()
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(**examples()).logits
        found = again.eval()(**examples()).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
