# SPDX-License-Identifier: Apache-2.0
"""Texts through a Hugging Face encoder: one normalised vector, or logits, per text.

Padding counts for nothing: the mean is over a text's own tokens.  That makes a row
depend on its own record only, which is what per-record clipping needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import UsageError

__all__ = ["TextClassifier", "TextEncoder", "mean_pooled"]


def mean_pooled(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The mean of each text's own token vectors, scaled to length 1.

    hidden
        (texts, tokens, width), an encoder's last hidden state
    attention_mask
        (texts, tokens), 1 for a token and 0 for padding

    Returns (texts, width).
    """
    mask = attention_mask.to(hidden)[:, :, None]
    total = (hidden * mask).sum(1)
    mean = total / mask.sum(1).clamp(min=1.0)
    return nn.functional.normalize(mean, dim=1)


class TextEncoder(nn.Module):
    """A list of texts in, their mean-pooled vectors (texts, width) out.

    The backbone for ``cached_features`` over texts.

    encoder
        a Hugging Face encoder (``AutoModel``), called with ``input_ids`` and
        ``attention_mask``
    tokenizer
        its tokenizer, of the fast kind: its state, and the encoder's configuration, are
        part of the cache's hash
    max_tokens
        longer texts are cut
    """

    def __init__(self, encoder: nn.Module, tokenizer: Any, *, max_tokens: int) -> None:
        super().__init__()
        if not getattr(tokenizer, "is_fast", False):
            raise UsageError(
                "the tokenizer is not a fast one: its state cannot be hashed",
                hint="load it with AutoTokenizer.from_pretrained",
            )
        self.encoder = encoder
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens

    def forward(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        )
        device = next(self.encoder.parameters()).device
        input_ids = tokens["input_ids"].to(device)
        attention_mask = tokens["attention_mask"].to(device)
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        return mean_pooled(hidden, attention_mask)

    def extra_repr(self) -> str:
        """What else the vectors follow from; ``cached_features`` hashes it."""
        tokenizer = json.loads(self._tokenizer.backend_tokenizer.to_str())
        for last in ("padding", "truncation"):  # those of its last call
            tokenizer.pop(last, None)
        encoder: Any = self.encoder.config
        state = {"tokenizer": tokenizer, "encoder": encoder.to_dict()}
        state["encoder"].pop("_name_or_path", None)  # the folder it came from
        digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
        return f"{digest}, max_tokens={self._max_tokens}"


class TextClassifier(nn.Module):
    """An encoder, the mean over tokens, and a linear ``head``: logits per text.

    Its head starts from ``seed`` alone, so that all members start alike; torch's
    global generator is left as it was.

    encoder
        a Hugging Face encoder (``AutoModel``) with ``config.hidden_size``
    """

    def __init__(self, encoder: nn.Module, *, classes: int, seed: int) -> None:
        super().__init__()
        self.encoder = encoder
        # Public on purpose: every member starts from the same weights.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config: Any = encoder.config
            self.head = nn.Linear(config.hidden_size, classes)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        logits: torch.Tensor = self.head(mean_pooled(hidden, attention_mask))
        return logits
