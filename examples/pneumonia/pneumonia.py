# SPDX-License-Identifier: Apache-2.0
"""From photographs to chest X-rays: three hospitals with few labels each.

    python examples/pneumonia/pneumonia.py --data DIR [--labels 20] [--epsilon 8]

DIR holds ``pneumoniamnist/`` (MedMNIST v2) and ``squeezenet/``.  Each hospital has
labelled 20 X-rays, and SqueezeNet has only ever seen photographs.  They train a linear
head on its features; beside it stand each hospital alone, all labels in one place, the
same head on raw pixels, and a small network trained from scratch without privacy.
Features are computed once, for minutes, and kept under --cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import xrays as ours
from rich.console import Console
from rich.table import Table

import secure_fl as sfl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=int, default=20, help="of each hospital")
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("pneumonia-out"))
    parser.add_argument("--cache", type=Path, default=Path("pneumonia-features"))
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists already: name another folder by --out")
    xrays = ours.load(arguments.data)
    pretrained = ours.Head.pretrained(xrays, arguments.data, arguments.cache)
    torch.set_num_threads(1)  # what is left is tiny: more threads only wait
    deal = ours.deal(xrays, arguments.labels, arguments.seed)
    table = Table(title=f"pneumonia, {arguments.labels} labels a hospital")
    for column in ("trained", "epsilon", "auc", "accuracy"):
        table.add_column(column)

    def row(trained: str, epsilon: float | None, figures: ours.Figures) -> None:
        told = "none" if epsilon is None else f"{epsilon:.4g}"
        cells = (f"{figures[k]:.3f}" for k in ("auc", "accuracy"))
        table.add_row(trained, told, *cells)

    for name, head in (("", pretrained), (", raw pixels", ours.Head.pixels(xrays))):
        plan = head.plan(
            arguments.labels, epsilon=arguments.epsilon, mode="distributed"
        )
        finished = sfl.run(plan, head.trainers(deal), model=head.start)
        if head is pretrained:
            finished.save(arguments.out)
        spent = finished.report.claims[0]["consortium"]["epsilon"]
        row(f"together{name}", float(spent), head.figures(finished.model))
    for hospital, rows in zip(ours.NAMES, deal, strict=True):
        figures, spent = pretrained.one_holder(rows, arguments.epsilon)
        row(f"{hospital} alone", spent, figures)
    every = np.concatenate(deal)
    figures, spent = pretrained.one_holder(every, arguments.epsilon)
    row("pooled, private", spent, figures)
    row("pooled, not private", None, pretrained.not_private(every))
    scratch = ours.from_scratch(xrays, every, arguments.seed)
    row("pooled, from scratch, not private", None, scratch)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"report  {arguments.out / 'report.html'}", soft_wrap=True)
    console.print(f"check   secure-fl verify {arguments.out}", soft_wrap=True)


if __name__ == "__main__":
    main()
