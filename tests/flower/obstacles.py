# SPDX-License-Identifier: Apache-2.0
"""What can happen to a host: its line is cut, its disk is full, its clock is wrong.

Each needs something of the machine that runs the tests (root for the first two, a C
compiler for the third): ``None`` where it cannot be made here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .processes import Daemon

__all__ = ["Clock", "Disk", "Line", "clock", "disk", "line"]


def _can(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


# -- the line --------------------------------------------------------------------------

_RELAY: Final = """
import asyncio, socket, struct, sys
here, port, there, beyond = sys.argv[1:]

def reset(sink):  # not closed: TLS would take that for its peer's own doing
    end = sink.get_extra_info("socket")
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sink.transport.abort()

async def copy(source, sink):
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()
    except OSError:
        reset(sink)

async def meet(source, sink):
    try:
        further, back = await asyncio.open_connection(there, int(beyond))
    except OSError:
        return reset(sink)
    await asyncio.gather(copy(source, back), copy(further, sink))

async def main():
    server = await asyncio.start_server(meet, here, int(port))
    await server.serve_forever()

asyncio.run(main())
"""


class Line:
    """A network namespace, and the one pair of veth by which it reaches the SuperLink.

    In it, the SuperLink is at its usual address: a relay listens there, and another
    one where the pair ends.  TLS passes through both.
    """

    def __init__(self, ip: str, folder: Path) -> None:
        number = os.getpid()
        self.name = f"sfl{number}"
        self._ip, self._folder = ip, folder
        self._outer, self._inner = f"sfl{number}o", f"sfl{number}i"
        self._net = f"10.213.{number % 250}"
        self._relays: list[Daemon] = []

    @property
    def prefix(self) -> list[str]:
        """In front of a command that shall run behind the line."""
        return [self._ip, "netns", "exec", self.name]

    def _do(self, *arguments: str) -> None:
        subprocess.run([self._ip, *arguments], check=True)

    def lay(self) -> None:
        self._do("netns", "add", self.name)
        ends = ("type", "veth", "peer", "name", self._inner, "netns", self.name)
        self._do("link", "add", self._outer, *ends)
        self._do("addr", "add", f"{self._net}.1/30", "dev", self._outer)
        self._do("link", "set", self._outer, "up")
        inside = ("-n", self.name)
        self._do(*inside, "addr", "add", f"{self._net}.2/30", "dev", self._inner)
        self._do(*inside, "link", "set", self._inner, "up")
        self._do(*inside, "link", "set", "lo", "up")

    def reach(self, address: str) -> None:
        """Make ``address``, of the outside's loopback, the inside's loopback's too."""
        host, port = address.split(":")
        end = [f"{self._net}.1", port]
        relay = [sys.executable, "-c", _RELAY]
        for place, command in enumerate(
            ([*relay, *end, host, port], [*self.prefix, *relay, host, port, *end])
        ):
            log = self._folder / f"relay-{place}.log"
            self._relays.append(
                Daemon(command, env=dict(os.environ), cwd=self._folder, log=log)
            )
            self._relays[-1].start()

    def cut(self) -> None:
        self._do("link", "set", self._outer, "down")

    def mend(self) -> None:
        self._do("link", "set", self._outer, "up")

    def remove(self) -> None:
        for relay in self._relays:
            relay.end()
        _can(self._ip, "link", "del", self._outer)
        _can(self._ip, "netns", "del", self.name)


@contextlib.contextmanager
def line(folder: Path) -> Iterator[Line | None]:
    """A line that can be cut; None where this user may make no network."""
    ip = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if ip is None or os.getuid() != 0:
        yield None
        return
    made = Line(ip, folder)
    try:
        try:
            made.lay()
        except subprocess.CalledProcessError:
            yield None
            return
        yield made
    finally:
        made.remove()


# -- the disk --------------------------------------------------------------------------


class Disk:
    """A file system of 4 MiB, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Disk | None]:
    """A small disk at ``folder``, which is empty; None where this user may not."""
    options = ("-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs")
    if os.getuid() != 0 or not _can("mount", *options, str(folder)):
        yield None
        return
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# -- the clock -------------------------------------------------------------------------

_SHIM: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long wrong_by(void) {
    char text[32];
    int file = open(getenv("WRONG_CLOCK"), O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    long size = read(file, text, sizeof text - 1);
    close(file);
    if (size < 0) return 0;
    text[size] = 0;
    return atol(text);
}

int clock_gettime(clockid_t which, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(which, out);
    if (!result && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        out->tv_sec += wrong_by();
    return result;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """What a process and its children take for the time, but for what ``set`` says."""

    def __init__(self, library: Path, setting: Path) -> None:
        self._library, self._setting = library, setting
        self.set(0)

    @property
    def prefix(self) -> list[str]:
        """In front of a command that shall go by this clock."""
        wrong = f"WRONG_CLOCK={self._setting}"
        return ["/usr/bin/env", f"LD_PRELOAD={self._library}", wrong]

    def set(self, seconds: int) -> None:
        """How far it is ahead from now on: of processes that run already, too."""
        new = self._setting.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._setting)


def clock(folder: Path) -> Clock | None:
    """A clock that can be wrong; None where there is no C compiler."""
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_SHIM)
    built = ["-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    if sys.platform != "linux" or not _can("cc", *built):
        return None
    return Clock(library, folder / "clock")
