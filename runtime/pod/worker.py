"""Work that a monitor leaves to a process beside it: what it answers is a few bytes, and it ends with its monitor."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from kernel import credentials
from kernel.process import clone3, close_range
from runtime.pod.loop import Loop

MAX_ANSWER = 64 * 1024
"""Bytes of an answer: what a pipe holds, so that nobody has to read while the work is done (pipe(7))."""


class Worker:
    """A process that does `work`; `done` is called from the loop with its answer, b"" if it was killed.

    The monitor's reap() leaves `pid` alone until then. `name` is what the process is called in lists of processes.
    """

    def __init__(self, loop: Loop, name: str, work: Callable[[], bytes], done: Callable[[bytes], None]) -> None:
        self._loop, self._done = loop, done
        self._answer, theirs = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        try:
            child = clone3(0)
            if child.pid == 0:
                _live(parent, name, theirs, work)
        except BaseException:
            os.close(self._answer)
            raise
        finally:
            os.close(theirs)
        self.pid, self._pidfd = child.pid, child.pidfd
        loop.add(self._pidfd, self._ended)

    def _ended(self) -> None:
        with os.fdopen(self._answer, "rb", closefd=False) as pipe:
            answer = pipe.read(MAX_ANSWER)
        with suppress(ChildProcessError):  # the monitor's reap() came first
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        self._close()
        self._done(answer)

    def cancel(self) -> None:
        """End it; `done` is not called. The monitor's reap() collects it: its disk may take a while."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._close()

    def _close(self) -> None:
        self._loop.remove(self._pidfd)
        os.close(self._pidfd)
        os.close(self._answer)


def _live(parent: int, name: str, answer: int, work: Callable[[], bytes]) -> NoReturn:
    """The process's life: nothing of the monitor's loop, signals and descriptors is used in it."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        credentials.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before the kernel was told
        credentials.set_name(name)
        if answer > 3:
            close_range(3, answer - 1)
        close_range(answer + 1)
        os.write(answer, work()[:MAX_ANSWER])
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(70)
    os._exit(0)
