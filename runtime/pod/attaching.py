"""A running payload's output and input in other hands, too: the monitor's side of `rawpod attach`.

The client makes pipes and hands their ends over (SCM_RIGHTS, unix(7)). A reader that stalls never holds the payload up:
one that is too far behind is let go, and finds the rest in the log.
"""

from __future__ import annotations

import os
import stat

from kernel.errors import BadInput
from runtime.pod.loop import WRITE, Loop
from runtime.pod.streams import InputPump

_BEHIND = 1024 * 1024
"""Bytes kept for a reader that stalls."""


class Tap:
    """One stream's copies to one client. Owns `fd`, the writing end of the client's pipe."""

    def __init__(self, loop: Loop, fd: int) -> None:
        os.set_blocking(fd, False)
        self._loop, self._fd, self._rest, self._ending = loop, fd, b"", False
        self.open = True

    def write(self, data: bytes) -> None:
        """Copy what the payload wrote."""
        if not self.open:
            return
        if self._rest:
            self._rest += data
            if len(self._rest) > _BEHIND:
                self.close()
            return
        self._rest = self._write(data)
        if self._rest:
            self._loop.add(self._fd, self._ready, WRITE)

    def _write(self, data: bytes) -> bytes:
        try:
            return data[os.write(self._fd, data) :]
        except BlockingIOError:
            return data
        except OSError:  # the reader has gone
            self.close()
            return b""

    def _ready(self) -> None:
        self._rest = self._write(self._rest)
        if self.open and not self._rest:
            self._loop.remove(self._fd)
            if self._ending:
                self.close()

    def end(self) -> None:
        """No more will come: close once the reader has what there is."""
        self._ending = True
        if self.open and not self._rest:
            self.close()

    def close(self) -> None:
        """Close at once."""
        if self.open:
            self.open = False
            self._loop.remove(self._fd)
            os.close(self._fd)


class Attached:
    """A client's streams. `stdin` and `target` are copied from and to, and closed at the end; -1 for no input."""

    def __init__(self, loop: Loop, outputs: list[int], stdin: int, target: int) -> None:
        self._taps = [Tap(loop, fd) for fd in outputs]
        self._stdin = stdin
        self._input = InputPump(loop, stdin, target) if stdin >= 0 else None

    def write(self, stream: str, data: bytes) -> None:
        """Copy what the payload wrote to "stdout" or "stderr"; a client with one pipe gets both there."""
        self._taps[-1 if stream == "stderr" else 0].write(data)

    @property
    def open(self) -> bool:
        return any(tap.open for tap in self._taps)

    def end(self) -> None:
        """The payload has ended."""
        self._close_input()
        for tap in self._taps:
            tap.end()

    def close(self) -> None:
        """The client has gone."""
        self._close_input()
        for tap in self._taps:
            tap.close()

    def _close_input(self) -> None:
        if self._input is not None:
            self._input.close()
            os.close(self._stdin)
            self._input = None


def check(fds: list[int], outputs: int, stdin: bool) -> None:
    """Raises BadInput unless a client has handed over as many pipes as it said."""
    if len(fds) != outputs + stdin or not all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in fds):
        raise BadInput(f"attach takes {outputs + stdin} pipes", remedy="an end of a pipe for each stream")
