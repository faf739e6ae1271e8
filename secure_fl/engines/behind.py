# SPDX-License-Identifier: Apache-2.0
"""Work that goes on behind a reply, where each message meets a new process."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["behind"]


def behind(work: Callable[[], None]) -> None:
    """Run ``work`` in a process of its own, which outlives this one; returns at once.

    For a process that has not computed yet: threads do not come along, and files that
    are open here are not for ``work`` to use.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)  # it only begins the one that works
        return
    try:
        if os.fork() == 0:
            os.setsid()
            work()
    finally:
        os._exit(0)
