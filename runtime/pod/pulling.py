"""Images brought from their registries for a pod: one worker process a pull, beside the monitor that asked for it.

The monitor asks, because it is what starts containers while no supervisor is there; what a pull needs (HTTP, TLS, tar)
is loaded in the worker alone. Pods that wait for one image share a pull: workers lock a file named after the image.
Whoever has the lock pulls, writes what came of it into the file and unlinks it; who waited for the lock finds its file
unlinked and has the answer in it. A worker that is killed leaves the file where it is, without an answer: the next one
takes the lock and goes on from what is in the store.

A worker dies with its monitor (PR_SET_PDEATHSIG). The store keeps what has arrived, and nothing by half.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from kernel import credentials
from kernel.errors import RawpodError
from kernel.process import clone3, close_range
from runtime.pod.directory import private
from runtime.pod.loop import Loop
from runtime.pod.pullpolicy import Registries
from runtime.settings import Settings

Fetch = Callable[[Settings, str, Registries], None]
Done = Callable[[RawpodError | None], None]

_MAX_ANSWER = 64 * 1024


class PullError(RawpodError):
    """An image could not be brought."""


class Pull:
    """A pull under way; `done` is called from the loop with what kept it from success, or None."""

    def __init__(self, loop: Loop, settings: Settings, image: str, registries: Registries, done: Done) -> None:
        self._loop, self._done = loop, done
        private(settings.state / "pulls")
        place = settings.state / "pulls" / _name(image, registries)
        self._answer, theirs = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        try:
            child = clone3(0)
            if child.pid == 0:
                _work(parent, theirs, place, lambda: fetch(settings, image, registries))
        except BaseException:
            os.close(self._answer)
            raise
        finally:
            os.close(theirs)
        self.pid, self._pidfd = child.pid, child.pidfd
        loop.add(self._pidfd, self._ended)

    def _ended(self) -> None:
        with os.fdopen(self._answer, "rb", closefd=False) as pipe:
            answer = pipe.read(_MAX_ANSWER)
        with suppress(ChildProcessError):  # the monitor's reap() came first
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        self._close()
        self._done(_error_in(answer))

    def cancel(self) -> None:
        """End the worker; `done` is not called. The monitor's reap() collects it: its disk may take a while."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._close()

    def _close(self) -> None:
        self._loop.remove(self._pidfd)
        os.close(self._pidfd)
        os.close(self._answer)


def fetch(settings: Settings, image: str, registries: Registries) -> None:
    """Bring the image into the store. Raises RawpodError."""
    from rootfs.registry.fetch import fetch as fetch_image

    fetch_image(settings.images, image, registries=settings.registries, auths=registries.auths)


def _name(image: str, registries: Registries) -> str:
    """Who has other credentials is not answered by what came of a pull without them."""
    told = json.dumps([image, dict(registries.auths)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _error_in(answer: bytes) -> RawpodError | None:
    try:
        told: dict[str, Any] = json.loads(answer)
    except ValueError:
        return PullError("the process that pulled it was killed")
    return PullError(told["error"], remedy=told["remedy"]) if told.get("error") else None


# --- in the worker ----------------------------------------------------------------------------------------------


def _work(parent: int, answer: int, place: Path, pull: Callable[[], None]) -> NoReturn:
    """The worker's life: nothing of the monitor's loop, signals and descriptors is used in it."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        credentials.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before the kernel was told
        credentials.set_name("rawpod-pull")
        _close_all_but(answer)
        os.write(answer, shared(place, lambda: _attempt(pull)))
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(70)
    os._exit(0)


def _close_all_but(kept: int) -> None:
    if kept > 3:
        close_range(3, kept - 1)
    close_range(kept + 1)


def _attempt(pull: Callable[[], None]) -> bytes:
    error = remedy = None
    try:
        pull()
    except RawpodError as failure:
        error, remedy = failure.message, failure.remedy
    except OSError as failure:
        error = str(failure)
    return json.dumps({"error": error and error[:4096], "remedy": remedy and remedy[:4096]}).encode()


def shared(place: Path, attempt: Callable[[], bytes]) -> bytes:
    """The answer of `attempt`, or of the same one that another process was at when it was asked for."""
    while True:
        fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                answer = attempt()
                os.pwrite(fd, answer, 0)
                os.unlink(place)
                return answer
            if answer := os.pread(fd, _MAX_ANSWER, 0):
                return answer
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
        finally:
            os.close(fd)
