# SPDX-License-Identifier: Apache-2.0
"""Independent pieces of work on all cores.

Threads: ciphers, hashes, signatures and additions of whole chunks let go of the
interpreter while they work.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

__all__ = ["each", "in_order"]

_T = TypeVar("_T")
_MOST: Final = 8  # pieces under way: what bounds the memory of a client


def _workers(count: int) -> int:
    return min(len(os.sched_getaffinity(0)), _MOST, count)


def each(work: Callable[[int], _T], count: int) -> list[_T]:
    """``work(0)`` to ``work(count - 1)``, all done; raises what one of them raised."""
    workers = _workers(count)
    results: dict[int, _T] = {}
    errors: list[BaseException] = []

    def stripe(first: int) -> None:
        try:
            for index in range(first, count, workers):
                results[index] = work(index)
        except BaseException as error:  # into the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=stripe, args=(i,)) for i in range(1, workers)]
    for thread in threads:
        thread.start()
    if workers:
        stripe(0)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[index] for index in range(count)]


def in_order(work: Callable[[int], _T], count: int) -> Iterator[_T]:
    """``work(0)`` to ``work(count - 1)``, in order, a few of them ahead of the reader.

    At most as many as there are cores, and one more, are made or waiting at a time
    (cores beyond the eighth do not count).  One that raises does so when its turn
    comes.  Closing the iterator ends the work.
    """
    workers = _workers(count)
    if workers < 2:
        for index in range(count):
            yield work(index)
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[_T]] = deque()
        try:
            for index in range(count):
                if len(ahead) > workers:
                    yield ahead.popleft().result()
                ahead.append(pool.submit(work, index))
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
