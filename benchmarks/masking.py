# SPDX-License-Identifier: Apache-2.0
"""Masking at several sizes, beside the AES rate of this machine.  JSON on stdout.

    python benchmarks/masking.py [--quick]

The yardstick is one core's AES-256-CTR keystream through ``cryptography``.
``expansion_of_aes_rate`` is how close one thread's masks come to it, additions and all.
A client with n - 1 peers must make n streams: ``of_aes_rate`` is what they alone would
take one core, over the client's seconds in all five steps (on several cores it can pass
1).  Single timings on a shared machine are noise; compare ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from secure_fl.engines.bench import bench_masking, client_peak_bytes
from secure_fl.masking.crypto import MaskStream

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


def expansion_bytes_per_second(seeds: int = 32, chunk_words: int = 65_536) -> float:
    """Masks of ``seeds`` streams added to 32-bit words by one thread, best of five."""
    stream = MaskStream(word_bits=32, plus=[os.urandom(32) for _ in range(seeds)])
    words = np.zeros(chunk_words, np.uint32)
    best = 0.0
    for _ in range(5):
        begin = time.perf_counter()
        for chunk in range(20):
            stream.apply(words, chunk)
        made = 20 * seeds * words.nbytes
        best = max(best, made / (time.perf_counter() - begin))
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
                "expansion_of_aes_rate": expansion_bytes_per_second() / rate,
                "client_peak_bytes_at_1e8_values": None
                if cases is QUICK
                else client_peak_bytes(clients=10, length=100_000_000, bits=32),
                "masking": rows,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
