# SPDX-License-Identifier: Apache-2.0
"""CKKS here beside CKKS as NVFLARE configures TenSEAL: sizes, machine and run alike.

    python benchmarks/against_tenseal.py [--quick] [--lengths 1000000,10000000]
        [--clients N] [--repeats K] [--json FILE]

Each side and setting runs in a process of its own.  ``client_seconds`` of both start
from a vector of float64 and end with the bytes to send.  Each side uses as many cores
as it does by itself: TenSEAL's ``ckks_vector`` one, ours all of them.  For one core on
both sides, start this under ``taskset -c 0``.

TenSEAL's side is what NVFLARE's ``HEBuilder``, ``HEModelEncryptor`` and
``HEInTimeAccumulateWeightedAggregator`` call, with their defaults: one key pair that
all clients share and the server lacks, ``encryption_type`` SYMMETRIC, N 8192, primes of
60, 40 and 40 bits, scale 2^40, relinearization keys, one ``ckks_vector`` for a layer
(here: the whole vector).  A client encrypts and serializes; the aggregator loads each
upload and adds it to the sum.  Not counted: NVFLARE's own messages, its division of the
sum by the weights, and sending the sum to every client.  Opening is what each client
then does: load the sum, and decrypt it.

Ours is ``bench_ckks`` (its figures are described there) with the rounding of floats to
words added.  Its clients sign and check, and with one-time keys also run the masking
protocol over their keys; all of that is on the clock.  The aggregator opens the sum.

Medians, over clients or over ``--repeats`` runs.  ``max_error`` is that of the mean
against the mean of the floats; ``exact``: every word of the sum is right.

``memory``, at the largest length: what a client's process holds at most (``ru_maxrss``)
while it makes its upload, and how much of that came on top of what it held before,
vector included.  Ours hands its pieces on as they are made.

The exit status is 1 where a result is wrong, 2 where tenseal is not there.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import operator
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LENGTHS = (1_000_000, 10_000_000)
QUICK = (100_000,)
BITS = (16, 24, 32)
KEYS = ("one-time", "keyholder")
RATIOS = (
    "client_seconds",
    "aggregator_seconds_per_client",
    "open_seconds",
    "bytes_up_per_value",
)


def vector(length: int) -> Any:
    """Values from -1 to 1, made in place: their peak is themselves."""
    import numpy as np

    values = np.random.default_rng(length).random(length)
    values *= 2.0
    values -= 1.0
    return values


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def held() -> int:
    """Bytes of memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# -- TenSEAL's side --------------------------------------------------------------------


def contexts() -> tuple[Any, Any]:
    """A client's, which has the secret key, and the aggregator's, which has not."""
    import tenseal as ts

    made = ts.context(
        ts.SCHEME_TYPE.CKKS,
        poly_modulus_degree=8192,
        coeff_mod_bit_sizes=[60, 40, 40],
        encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC,
    )
    made.generate_relin_keys()
    made.global_scale = 2**40

    def copy(client: bool) -> Any:
        return ts.context_from(
            made.serialize(
                save_public_key=client,
                save_secret_key=client,
                save_galois_keys=False,
                save_relin_keys=True,
            )
        )

    return copy(True), copy(False)


def tenseal_times(length: int, repeats: int) -> dict[str, Any]:
    import numpy as np
    import tenseal as ts

    client, aggregator = contexts()
    values = vector(length)
    encrypt, add = [], []
    total: Any = None
    size = 0
    for _ in range(repeats):
        seconds, data = timed(lambda: ts.ckks_vector(client, values).serialize())
        encrypt.append(seconds)
        size = len(data)
        load = functools.partial(ts.ckks_vector_from, aggregator, data)
        seconds, loaded = timed(load)
        del data, load
        if total is None:
            total = loaded
        else:
            more, total = timed(functools.partial(operator.add, total, loaded))
            add.append(seconds + more)
        del loaded
    sent = total.serialize()
    del total
    opening = []
    opened: Any = None
    for _ in range(repeats):
        opened = None
        seconds, opened = timed(lambda: ts.ckks_vector_from(client, sent).decrypt())
        opening.append(seconds)
    error = float(np.abs(np.array(opened) / repeats - values).max())
    return {
        "client_seconds": statistics.median(encrypt),
        "aggregator_seconds_per_client": statistics.median(add),
        "open_seconds": statistics.median(opening),
        "bytes_up_per_value": size / length,
        "ratio_to_float32": size / length / 4,
        "max_error": error,
    }


def tenseal_memory(length: int) -> dict[str, Any]:
    import tenseal as ts

    client, _ = contexts()
    values = vector(length)
    before = held()
    data = ts.ckks_vector(client, values).serialize()
    return {"peak_bytes": peak(), "beyond": peak() - before, "sent": len(data)}


# -- our side --------------------------------------------------------------------------


def encoding(clients: int, bits: int) -> Any:
    from secure_fl.fixedpoint import Encoding, finest_step

    step = finest_step(clip=1.0, word_bits=bits, clients=clients, max_weight=1)
    return Encoding(1.0, step, bits, clients)


def our_times(
    keys: Any, bits: int, length: int, clients: int, repeats: int
) -> dict[str, Any]:
    import numpy as np

    from secure_fl.engines.bench_ckks import bench_ckks
    from secure_fl.randomness import SystemRandom
    from secure_fl.round.protections import encode_update

    values, rounds = vector(length), encoding(clients, bits)
    encode = []
    for _ in range(repeats):
        seconds, words = timed(
            lambda: encode_update(rounds, values, weight=1, random=SystemRandom())
        )
        encode.append(seconds)
    error = float(np.abs(rounds.decode(words[:-1]) - values).max())
    runs = [
        bench_ckks(keys=keys, clients=clients, length=length + 1, bits=bits)
        for _ in range(repeats)
    ]

    def median(name: str) -> float:
        return statistics.median(float(getattr(run, name)) for run in runs)

    one = runs[0]
    return {
        "keys": keys,
        "bits": bits,
        "client_seconds": median("client_seconds") + statistics.median(encode),
        "encode_seconds": statistics.median(encode),
        "aggregator_seconds_per_client": median("aggregator_seconds_per_client"),
        "open_seconds": median("open_seconds"),
        "round_seconds": median("round_seconds"),
        "bytes_up_per_value": max(r.bytes_up_per_value for r in runs),
        "ratio_to_float32": max(r.ratio_to_float32 for r in runs),
        "client_peak_bytes": max(r.client_peak_bytes for r in runs),
        "ring": one.ring,
        "fields": one.fields,
        "scale_bits": one.scale_bits,
        "step": rounds.step,
        "max_error": error,
        "exact": all(run.exact for run in runs),
    }


def our_memory(keys: Any, bits: int, length: int, clients: int) -> dict[str, Any]:
    from secure_fl.engines.bench_ckks import client_upload
    from secure_fl.randomness import SystemRandom
    from secure_fl.round.protections import encode_update

    values, rounds = vector(length), encoding(clients, bits)
    before = held()
    words = encode_update(rounds, values, weight=1, random=SystemRandom())
    upload = client_upload(words, keys=keys, clients=clients, bits=bits)
    sent = sum(map(len, upload))
    return {
        "keys": keys,
        "bits": bits,
        "peak_bytes": peak(),
        "beyond": peak() - before,
        "sent": sent,
    }


# -- processes -------------------------------------------------------------------------

WORKERS: dict[str, Callable[..., dict[str, Any]]] = {
    work.__name__: work
    for work in (tenseal_times, tenseal_memory, our_times, our_memory)
}


def apart(work: Callable[..., dict[str, Any]], *arguments: int | str) -> dict[str, Any]:
    """``work(*arguments)`` in a process of its own."""
    call = json.dumps([work.__name__, arguments])
    done = subprocess.run(
        [sys.executable, __file__, "--worker", call],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    # TenSEAL writes on the same stream; what we are told is its last line.
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def worker(call: str) -> None:
    name, arguments = json.loads(call)
    print("\n" + json.dumps(WORKERS[name](*arguments)))


def header(clients: int, repeats: int) -> dict[str, Any]:
    versions = ("secure-fl", "tenseal", "numpy", "cryptography", "zstandard")
    return {
        "machine": {
            "processor": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average": os.getloadavg()[0],
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in versions},
        },
        "repeats": repeats,
        "tenseal": {
            "as": "NVFLARE's HEBuilder configures it",
            "poly_modulus_degree": 8192,
            "coeff_mod_bit_sizes": [60, 40, 40],
            "scale_bits": 40,
            "encryption_type": "SYMMETRIC",
        },
        "ours": {"clients": clients, "max_colluding": 1, "clip": 1.0},
    }


def measure(length: int, clients: int, repeats: int) -> dict[str, Any]:
    say(f"{length} values: TenSEAL")
    theirs = apart(tenseal_times, length, repeats)
    ours = []
    for keys in KEYS:
        for bits in BITS:
            own = apart(our_times, keys, bits, length, clients, repeats)
            own["tenseal_over_ours"] = {n: theirs[n] / own[n] for n in RATIOS}
            ours.append(own)
            say(f"{length} values, {keys}, {bits} bits: TenSEAL over ours {line(own)}")
    return {"length": length, "tenseal": theirs, "ours": ours}


def memory(length: int, clients: int) -> dict[str, Any]:
    say(f"{length} values: memory")
    theirs = apart(tenseal_memory, length)
    ours = []
    for keys in KEYS:
        for bits in BITS:
            own = apart(our_memory, keys, bits, length, clients)
            own["tenseal_over_ours"] = theirs["beyond"] / own["beyond"]
            ours.append(own)
    return {"length": length, "tenseal": theirs, "ours": ours}


def line(own: dict[str, Any]) -> str:
    ratio = own["tenseal_over_ours"]
    return (
        f"client {ratio['client_seconds']:.1f}, aggregator "
        f"{ratio['aggregator_seconds_per_client']:.1f}, opening "
        f"{ratio['open_seconds']:.1f}, bytes {ratio['bytes_up_per_value']:.1f}"
        + ("" if own["exact"] and own["max_error"] <= own["step"] else "; WRONG")
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def several(text: str) -> list[int]:
    lengths = [int(part) for part in text.split(",")]
    if min(lengths) < 1:
        raise argparse.ArgumentTypeError("a vector has at least one value")
    return lengths


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1e5 values only")
    parser.add_argument("--lengths", type=several, help="values, comma-separated")
    parser.add_argument("--clients", type=int, default=10, help="on our side")
    parser.add_argument("--repeats", type=int, default=3, help="at least 2")
    parser.add_argument("--json", type=Path, help="a file instead of stdout")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        worker(options.worker)
        return 0
    for name in ("tenseal", "zstandard"):
        if importlib.util.find_spec(name) is None:
            say(f"this needs {name}: pip install 'secure-fl[ckks]'")
            return 2
    if options.repeats < 2 or options.clients < 3:
        parser.error("at least 2 repeats and 3 clients")
    lengths = options.lengths or (QUICK if options.quick else LENGTHS)
    document = {
        **header(options.clients, options.repeats),
        "rows": [measure(n, options.clients, options.repeats) for n in lengths],
        "memory": memory(max(lengths), options.clients),
        "load_average_after": os.getloadavg()[0],
    }
    text = json.dumps(document, indent=2)
    if options.json is None:
        print(text)
    else:
        options.json.write_text(text + "\n")
    good = all(
        own["exact"] and own["max_error"] <= own["step"]
        for row in document["rows"]
        for own in row["ours"]
    ) and all(row["tenseal"]["max_error"] < 1e-6 for row in document["rows"])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
