# SPDX-License-Identifier: Apache-2.0
"""The key holder as a process of its own, which is sent keys and never a ciphertext.

It reads messages on its standard input and answers each on its standard output: 4
bytes, big-endian, that say how long it is, then the message.  An empty answer says that
there is none, and why comes behind it, as text in the same form.  The embedded engine
starts it over a pipe; anything that carries two streams does as well.
"""

from __future__ import annotations

import collections
import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final, NoReturn, final

from ..ckks import KeyHolder
from ..errors import EngineError, ProtocolError, SecureFLError
from ..randomness import RandomSource

__all__ = ["KeyHolderProcess", "serve"]

_LENGTH: Final = 4
_MOST: Final = 64 << 20  # bytes of one message: a thousand clients' keys are 10 MiB


def _read(stream: IO[bytes]) -> bytes | None:
    """The next message, or None where the stream ends before one."""
    head = stream.read(_LENGTH)
    if not head:
        return None
    size = int.from_bytes(head, "big")
    if len(head) < _LENGTH or size > _MOST:
        raise EngineError("what comes in is no message of this protocol")
    data = stream.read(size)
    if len(data) < size:
        raise EngineError("the stream ended within a message")
    return data


def _write(stream: IO[bytes], data: bytes) -> None:
    stream.write(len(data).to_bytes(_LENGTH, "big") + data)
    stream.flush()


def serve(
    holder: KeyHolder,
    incoming: IO[bytes],
    outgoing: IO[bytes],
    *,
    random: RandomSource,
    refused: Callable[[SecureFLError], None],
) -> None:
    """Answer messages until there are no more.

    ``refused`` is told of every message that gets no answer.
    """
    while (message := _read(incoming)) is not None:
        try:
            answer = holder.handle(message, random=random.bytes(32))
        except SecureFLError as error:
            refused(error)
            _write(outgoing, b"")
            answer = error.message.encode()
        _write(outgoing, answer)


@final
class KeyHolderProcess:
    """Starts ``secure-fl keyholder`` and passes messages; starts it anew if it ended.

    A key holder that was restarted is out of the context that was open, no more: what
    it released it remembers in its home.
    """

    def __init__(self, *, plan: Path, key: Path, home: Path) -> None:
        self._command = [sys.executable, "-m", "secure_fl", "keyholder", str(plan)]
        self._command += ["--key", str(key), "--home", str(home)]
        self._process: subprocess.Popen[bytes] | None = None
        self._words: collections.deque[str] = collections.deque(maxlen=20)
        self._listener: threading.Thread | None = None

    def handle(self, message: bytes) -> Iterator[bytes]:
        """Pass one message on; yields the answer.

        Raises ProtocolError where there is none, with the key holder's reason.
        """
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        self._words.clear()
        reason: bytes | None = None
        try:
            _write(process.stdin, message)
            answer = _read(process.stdout)
            if answer == b"":
                reason = _read(process.stdout)
        except OSError:
            answer = None
        if answer:
            yield answer
            return
        if reason is None:  # it has ended; all it said has come by now
            self.close()
        why = reason.decode(errors="replace") if reason is not None else self._why()
        raise ProtocolError(f"the key holder did not answer: {why}")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            try:
                # A session of its own: an interrupt is ours to handle, not its.
                process = subprocess.Popen(  # noqa: S603
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:
                raise EngineError(f"cannot start the key holder: {error}") from None
            self._process = process
            self._listener = threading.Thread(
                target=self._listen, args=(process.stderr,), daemon=True
            )
            self._listener.start()
        return self._process

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._words.append(line.decode(errors="replace").strip())

    def _why(self) -> str:
        errors = [w for w in self._words if w.startswith("secure-fl: error: ")]
        if not errors:
            return "it gave no reason"
        return errors[-1].removeprefix("secure-fl: error: ")

    def close(self) -> None:
        """End it: it has nothing to finish."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._listener is not None:
            self._listener.join(timeout=5)
        if process.stderr is not None:
            process.stderr.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a process is not copied or pickled")
