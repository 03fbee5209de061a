"""Moving bytes between a payload and the outside, from the monitor's loop and without ever blocking it.

The caller's terminal, pipe or file is never handed to a payload: an inherited terminal takes pushed input (TIOCSTI),
and an inherited file can be opened again through /proc/self/fd, for writing too. Bytes are copied instead.
"""

import contextlib
import os
import select
import stat
from collections.abc import Callable

from runtime.pod.loop import READ, WRITE, Loop

_CHUNK = 256 * 1024

# What a pipe or a terminal can hold when its payload ends: fs.pipe-max-size is 1 MiB (pipe(7)), a terminal holds less.
_DRAINED = 1024 * 1024
# For a reader that stalls; more than what the two streams of a process that ends can leave.
_KEPT = 4 * 1024 * 1024


class Sink:
    """Where a payload's output is shown: our own standard output or error."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self._loop = loop
        self._fd, self._own = _nonblocking(fd, os.O_WRONLY)
        self._rest = b""
        self._resume: list[Callable[[], None]] = []

    def write(self, data: bytes, resume: Callable[[], None]) -> bool:
        """Whether `data` is through. If not it is kept, and `resume` is called once there is room for more.

        A reader that stalls while one attempt after the other ends misses some of it; the log has all.
        """
        if self._rest:
            if len(self._rest) < _KEPT:
                self._rest += data
        else:
            self._rest = self._write(data)
            if self._rest:
                self._loop.add(self._fd, self._ready, WRITE)
        if self._rest:
            self._resume.append(resume)
        return not self._rest

    def _write(self, data: bytes) -> bytes:
        try:
            return data[os.write(self._fd, data) :]
        except BlockingIOError:
            return data
        except OSError:
            return b""  # the reader has gone; the payload runs on and is still logged

    def _ready(self) -> None:
        self._rest = self._write(self._rest)
        if not self._rest:
            self._loop.remove(self._fd)
            waiting, self._resume = self._resume, []
            for resume in waiting:
                resume()

    def finish(self) -> None:
        """Write what is left, waiting for the reader, and close."""
        if self._rest:
            self._loop.remove(self._fd)
            os.set_blocking(self._fd, True)
            while self._rest:
                self._rest = self._write(self._rest)
        if self._own:
            os.close(self._fd)


def _nonblocking(fd: int, mode: int) -> tuple[int, bool]:
    """Our own non-blocking descriptor of the same pipe or terminal: O_NONBLOCK on `fd` would reach all its sharers."""
    kind = os.fstat(fd).st_mode
    if stat.S_ISFIFO(kind) or (stat.S_ISCHR(kind) and os.isatty(fd)):
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/fd/{fd}", mode | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), True
    return fd, False


def _has_readiness(fd: int) -> bool:
    """Whether epoll_ctl(2) takes it: a regular file and /dev/null are always ready, and refused."""
    with contextlib.closing(select.epoll()) as probe:
        try:
            probe.register(fd, 0)
        except PermissionError:
            return False
    return True


class OutputPump:
    """Reads a payload's pipe or terminal: every chunk goes to `consume`, and to a sink where there is one."""

    def __init__(
        self, loop: Loop, fd: int, consume: Callable[[bytes], None], sink: Sink | None, ended: Callable[[], None]
    ) -> None:
        os.set_blocking(fd, False)
        self._loop, self._fd, self._consume, self._sink, self._ended = loop, fd, consume, sink, ended
        self.open = True
        loop.add(fd, self._readable)

    def _readable(self) -> None:
        self._read_once()

    def _read_once(self) -> int:
        """How many bytes were read; 0 when there are no more for now."""
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""  # EIO: the last process has closed the terminal
        if not data:
            self.close()
            self._ended()
            return 0
        self._consume(data)
        if self._sink is not None and not self._sink.write(data, self._resume):
            self._loop.remove(self._fd)
        return len(data)

    def _resume(self) -> None:
        if self.open:
            self._loop.add(self._fd, self._readable)

    def drain(self) -> None:
        """Take what the payload has written so far. Its children may still write, without end: not for them."""
        left = _DRAINED
        while self.open and left > 0 and (count := self._read_once()):
            left -= count

    def close(self) -> None:
        """Stop reading, whatever is still in the pipe."""
        if self.open:
            self.open = False
            self._loop.remove(self._fd)
            os.close(self._fd)


class InputPump:
    """Copies our standard input to a payload's, and its end too. Owns `target`, never closes `source`."""

    def __init__(self, loop: Loop, source: int, target: int, *, close_at_end: bool = True) -> None:
        os.set_blocking(target, False)
        self._loop, self._source, self._target, self._close_at_end = loop, source, target, close_at_end
        self._buffer = b""
        self._file = not _has_readiness(source)
        self.open = True
        self._fill_later()

    def _fill_later(self) -> None:
        # Be driven by the other end alone where there is nothing to wait for.
        if self._file:
            self._loop.add(self._target, self._fill, WRITE)
        else:
            self._loop.add(self._source, self._fill, READ)

    def _fill(self) -> None:
        self._loop.remove(self._target if self._file else self._source)
        try:
            self._buffer = os.read(self._source, 65536)
        except BlockingIOError:
            self._fill_later()
            return
        except OSError:
            self._buffer = b""
        if self._buffer:
            self._loop.add(self._target, self._flush, WRITE)
        elif self._close_at_end:
            self.close()

    def _flush(self) -> None:
        try:
            self._buffer = self._buffer[os.write(self._target, self._buffer) :]
        except BlockingIOError:
            return
        except OSError:
            self.close()  # the payload has closed its standard input
            return
        if not self._buffer:
            self._loop.remove(self._target)
            self._fill_later()

    def close(self) -> None:
        """Stop copying and close the payload's end."""
        if self.open:
            self.open = False
            self._loop.remove(self._target)
            if not self._file:
                self._loop.remove(self._source)
            os.close(self._target)
