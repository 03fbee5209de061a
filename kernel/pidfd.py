"""Processes by descriptor: pidfd_open(2), pidfd_send_signal(2), waitid(2), by the calls that the interpreter has."""

from __future__ import annotations

import _signal
import os

from kernel import events
from kernel.errors import SystemCallError
from kernel.record import Record


class ExitStatus(Record):
    """How a process ended: its exit code, or the signal that ended it (0 for none)."""

    code: int
    signal: int

    @property
    def shell(self) -> int:
        """As shells put it: the code, or 128 + signal."""
        return 128 + self.signal if self.signal else self.code


def pidfd_open(pid: int) -> int:
    """pidfd_open(2)."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        events.emit("pidfd_open", {"pid": pid}, None, error.errno or 0)
        raise SystemCallError("pidfd_open", {"pid": pid}, error.errno or 0) from None
    events.emit("pidfd_open", {"pid": pid}, pidfd)
    return pidfd


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """pidfd_send_signal(2): never reaches a stranger who got the same pid later."""
    shown = {"pidfd": pidfd, "signal": signum}
    try:
        _signal.pidfd_send_signal(pidfd, signum)
    except OSError as error:
        events.emit("pidfd_send_signal", shown, None, error.errno or 0)
        raise SystemCallError("pidfd_send_signal", shown, error.errno or 0) from None
    events.emit("pidfd_send_signal", shown, 0)


def wait_pidfd(pidfd: int) -> ExitStatus:
    """Wait for a child's end and reap it (waitid(2), P_PIDFD)."""
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert result is not None  # only with WNOHANG
    if result.si_code == os.CLD_EXITED:
        return ExitStatus(result.si_status, 0)
    return ExitStatus(0, result.si_status)


class Life(Record):
    """A process's state (fields 3 and 22 of /proc/PID/stat): "Z" for a zombie; its start in clock ticks since boot."""

    state: str
    start_time: int


def process_life(pid: int) -> Life:
    """Whether a process runs and since when. Raises ProcessLookupError."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The command's name is in parentheses and may hold any byte: count from the last one.
            fields = stat.read().rpartition(b")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    return Life(fields[0].decode(), int(fields[19]))


def process_start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot. Raises ProcessLookupError.

    With the pid it names a process for good: a pid is reused, the pair is not.
    """
    return process_life(pid).start_time
