# SPDX-License-Identifier: Apache-2.0
"""Masking beside the SecAgg+ of Flower 1.41.0: same sizes, machine and run.  JSON out.

    pip install -c constraints.txt -e . flwr==1.41.0      (in an environment of its own)
    python benchmarks/against_flower.py [--quick] [--cases 10x100000:1,...]
        [--shares K] [--max-seconds S] [--json FILE]

A case is CLIENTSxVALUES:DROPPED.  The dropped clients take part until they are asked
for their masked vector and then never answer, on both sides.

Flower's side is its own ``secaggplus_mod`` and ``SecAggPlusWorkflow``, unmodified, in
this process: a loop stands in for its network.  Each message is written to and read
back from its protobuf form, as between machines; that time is reported on its own
(``delivery_seconds``) and counted for no one.  Nor is the client app counted, which
only hands out its vector.  The strategy hands the opened mean on instead of averaging
it again, and no model is sent down.  A client's seconds are those inside the mod; the
aggregator's are those of the workflow outside the loop.

Our side is ``bench_masking``, with the time to round a vector of floats to words
added (``encode_seconds``), as the mod rounds too.  Its messages are made and read in
wire form on the clock.  Its clients sign, and agree on who is in, before anything is
opened; SecAgg+ has no such step.

Choices for SecAgg+.  Shares go to every client (complete graph) and the threshold is
ours, floor((n + 1) / 2) + 1.  ``quantization_range`` 2^22, ``modulus_range`` 2^32 and
``max_weight`` 1000 are its defaults; every client reports 1000 examples, that is
weight one.  ``clipping_range`` is 1 as ours is (default 8): it only scales.  Ours has
32-bit words.

Flower has no default for the number of shares.  ``--shares K`` (odd) gives each of
its clients K - 1 neighbours and a threshold of floor((K + 1) / 2) + 1; ours keeps the
complete graph.

``exact``, ours: the opened sum equals the sum of the words.  Flower's: the mean is
right to a millionth of its step on the sixteenth of the values that lie on its grid.
``max_error`` is that of the mean of the clients' vectors of floats, in both cases.
The exit status is 1 where a result is wrong, 2 where flwr is not there.

Each side uses as many cores as it does by itself: SecAgg+ one, ours all of them.  For
one core on both sides, start it under ``taskset -c 0``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _flower_secagg import (
    CLIP,
    EXAMPLES,
    MODULUS_RANGE,
    QUANTIZATION_RANGE,
    Vectors,
    secaggplus,
)
from numpy.typing import NDArray

from secure_fl.engines.bench import bench_masking
from secure_fl.fixedpoint import Encoding, Word, finest_step
from secure_fl.masking import default_threshold
from secure_fl.randomness import SystemRandom
from secure_fl.round.protections import encode_update

FLOWER = "1.41.0"
CASES = (
    "10x100000:0,10x100000:1,32x100000:0,32x100000:3,"
    "10x1000000:0,10x1000000:1,32x1000000:0,32x1000000:3,"
    "100x100000:0,100x100000:5,10x10000000:0,10x10000000:1,"
    "32x10000000:0,32x10000000:3,100x1000000:0,100x1000000:5"
)
QUICK = "10x100000:0,10x100000:1"
BITS = 32
RATIOS = (
    "client_seconds",
    "aggregator_seconds",
    "round_seconds",
    "bytes_up_per_value",
)


@dataclass(frozen=True)
class Case:
    clients: int
    length: int
    dropped: int

    def __str__(self) -> str:
        return f"{self.clients}x{self.length}:{self.dropped}"

    def mask_values(self, shares: int) -> int:
        """How many values of mask SecAgg+ makes in all, clients and aggregator."""
        staying = self.clients - self.dropped
        return (staying * (shares + 1) + self.dropped * (shares - 1)) * self.length


def parse(text: str) -> list[Case]:
    cases = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)x(\d+):(\d+)", part.strip())
        if match is None:
            raise argparse.ArgumentTypeError(f"{part!r} is not CLIENTSxVALUES:DROPPED")
        case = Case(*map(int, match.groups()))
        # With three, the threshold would be all of them, which SecAgg+ refuses.
        if case.clients < 4 or case.length < 1:
            raise argparse.ArgumentTypeError(f"{case}: 4 clients and 1 value at least")
        if case.clients - case.dropped < default_threshold(case.clients, 1):
            raise argparse.ArgumentTypeError(f"{case}: fewer stay than the threshold")
        cases.append(case)
    return cases


def ours(case: Case, vectors: Vectors) -> dict[str, Any]:
    figures = bench_masking(
        clients=case.clients, dropped=case.dropped, length=case.length, bits=BITS
    )
    step = finest_step(clip=CLIP, word_bits=BITS, clients=case.clients, max_weight=1)
    encoding = Encoding(CLIP, step, BITS, case.clients)
    random = SystemRandom()
    staying = range(case.dropped, case.clients)
    total: NDArray[Word] = np.zeros(case.length, encoding.dtype)
    encode = []
    for client in staying:
        vector = vectors.of(client)
        begin = time.perf_counter()
        words = encode_update(encoding, vector, weight=1, random=random)
        encode.append(time.perf_counter() - begin)
        total += words[:-1]  # the last one counts clipped values
    mean = encoding.decode(total) / len(staying)
    error = float(np.abs(mean - vectors.mean(staying)).max())
    median = statistics.median(encode)
    return {
        "client_seconds": figures.client_seconds + median,
        "aggregator_seconds": figures.aggregator_seconds,
        "round_seconds": figures.round_seconds + sum(encode),
        "encode_seconds": median,
        "bytes_up_per_value": figures.bytes_up_per_value,
        "step": step,
        "max_error": error,
        "within_quantisation": error <= step,
        "exact": figures.exact,
    }


def measure(case: Case, shares: int) -> dict[str, Any]:
    vectors = Vectors(case.length)
    threshold = default_threshold(shares, 1)
    own = ours(case, vectors)
    theirs = secaggplus(
        clients=case.clients,
        dropped=case.dropped,
        shares=shares,
        threshold=threshold,
        vectors=vectors,
    )
    return {
        **asdict(case),
        "threshold": default_threshold(case.clients, 1),
        "flower_shares": shares,
        "flower_threshold": threshold,
        "ours": own,
        "flower": theirs,
        "flower_over_ours": {name: theirs[name] / own[name] for name in RATIOS},
    }


class Guess:
    """Seconds a case will take: so much per value of mask and per share of a share.

    Shamir's scheme is cubic in the clients; a short case shows what it costs.
    """

    def __init__(self, seconds: float, shares: int) -> None:
        self._cubic = seconds / shares**3
        self._per_value = 0.0

    def seconds(self, case: Case, shares: int) -> float:
        return self._fixed(case, shares) + self._per_value * case.mask_values(shares)

    def learn(self, case: Case, shares: int, seconds: float) -> None:
        rest = max(seconds - self._fixed(case, shares), 0.0)
        self._per_value = rest / case.mask_values(shares)

    def _fixed(self, case: Case, shares: int) -> float:
        return self._cubic * case.clients * shares**2


def found() -> str:
    try:
        return importlib.metadata.version("flwr")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def header(sparse: bool) -> dict[str, Any]:
    versions = ("numpy", "cryptography", "pycryptodome")
    return {
        "machine": {
            "processor": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in versions},
        },
        "flower": {
            "version": FLOWER,
            "graph": "sparse" if sparse else "complete",
            "clipping_range": CLIP,
            "quantization_range": QUANTIZATION_RANGE,
            "modulus_range": MODULUS_RANGE,
            "max_weight": EXAMPLES,
            "num_examples": EXAMPLES,
            "mask_generator": "MT19937 (numpy.random.RandomState)",
            "messages": "written and read as protobuf, off the clock",
        },
        "ours": {
            "graph": "complete",
            "clip": CLIP,
            "word_bits": BITS,
            "max_colluding": 1,
            "mask_generator": "AES-256-CTR",
            "messages": "written and read in wire form, on the clock",
        },
    }


def save(path: Path | None, document: dict[str, Any]) -> None:
    """Whole or not at all, so that an interrupted run keeps the rows it has."""
    if path is not None:
        beside = path.with_name(path.name + ".part")
        beside.write_text(json.dumps(document, indent=2) + "\n")
        beside.replace(path)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def line(row: dict[str, Any]) -> str:
    ratio = row["flower_over_ours"]
    return (
        f"Flower over ours: client {ratio['client_seconds']:.1f}, aggregator "
        f"{ratio['aggregator_seconds']:.1f}, round {ratio['round_seconds']:.1f}, "
        f"bytes {ratio['bytes_up_per_value']:.2f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10 clients, 1e5 values")
    parser.add_argument("--cases", type=parse, help="CLIENTSxVALUES:DROPPED,...")
    parser.add_argument("--shares", type=int, help="SecAgg+ on a sparse graph: odd")
    parser.add_argument("--max-seconds", type=float, help="skip what would not fit")
    parser.add_argument("--json", type=Path, help="written anew after each case")
    options = parser.parse_args()
    if found() != FLOWER:
        say(f"this needs flwr {FLOWER} (found: {found()}): see the top of this script")
        return 2
    if options.shares is not None and (options.shares < 5 or options.shares % 2 == 0):
        parser.error("--shares is odd and at least 5")
    cases = options.cases or parse(QUICK if options.quick else CASES)
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    importlib.import_module("flwr.server.workflow")
    logging.getLogger("flwr").setLevel(logging.CRITICAL)

    rows: list[dict[str, Any]] = []
    document = {**header(options.shares is not None), "rows": rows}
    try:
        save(options.json, document)
    except OSError as error:
        parser.error(f"{options.json}: {error.strerror}")
    small = Case(10, 1_000, 1)
    measure(small, 10)  # loads both sides
    started = time.perf_counter()
    measure(small, 10)
    begin = time.perf_counter()
    guess = Guess(begin - started, 10)
    wrong = False
    for number, case in enumerate(cases, 1):
        shares = min(case.clients, options.shares or case.clients)
        started = time.perf_counter()
        needed = guess.seconds(case, shares)
        left = (options.max_seconds or 0.0) - (started - begin)
        if options.max_seconds is not None and needed > left:
            why = f"about {needed:.0f} s, and {max(left, 0):.0f} s are left"
            rows.append({**asdict(case), "skipped": why})
            shown = f"skipped, {why}"
        else:
            row = measure(case, shares)
            guess.learn(case, shares, time.perf_counter() - started)
            rows.append(row)
            sides = (row["ours"], row["flower"])
            good = all(side["exact"] and side["within_quantisation"] for side in sides)
            wrong = wrong or not good
            shown = line(row) + ("" if good else "; a result is WRONG")
            shown += f" ({time.perf_counter() - started:.1f} s)"
        say(f"{number}/{len(cases)} {case}: {shown}")
        save(options.json, document)
    if options.json is None:
        print(json.dumps(document, indent=2))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
