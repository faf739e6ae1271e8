# SPDX-License-Identifier: Apache-2.0
"""Masking at several sizes, beside the AES rate of this machine.  JSON on stdout.

    python benchmarks/masking.py [--quick]

The yardstick is one core's AES-256-CTR keystream through ``cryptography``: a client
with n - 1 peers must make n streams, so ``of_aes_rate`` is the share of its time that
the keystream alone would take.  Single timings on a shared machine are noise; compare
ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from secure_fl.engines.bench import bench_masking

CASES = [
    # clients, dropped, length, bits
    (10, 0, 100_000, 32),
    (10, 1, 1_000_000, 32),
    (10, 1, 1_000_000, 16),
    (32, 3, 100_000, 32),
    (32, 3, 1_000_000, 32),
    (100, 5, 100_000, 32),
]
QUICK = CASES[:1]


def aes_bytes_per_second() -> float:
    """AES-256-CTR keystream of one core, best of five, 256 KiB at a time."""
    size = 1 << 18
    zeros, out = bytes(size), bytearray(size + 15)
    best = 0.0
    for _ in range(5):
        cipher = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16)))
        encryptor = cipher.encryptor()
        begin = time.perf_counter()
        for _ in range(200):
            encryptor.update_into(zeros, out)
        best = max(best, 200 * size / (time.perf_counter() - begin))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the first case only")
    cases = QUICK if parser.parse_args().quick else CASES
    rate = aes_bytes_per_second()
    rows = []
    for clients, dropped, length, bits in cases:
        figures = bench_masking(
            clients=clients, dropped=dropped, length=length, bits=bits
        )
        keystream = clients * length * bits / 8 / rate
        rows.append(
            asdict(figures) | {"of_aes_rate": keystream / figures.client_seconds}
        )
    print(
        json.dumps(
            {
                "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
                "aes_256_ctr_bytes_per_second": rate,
                "masking": rows,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
