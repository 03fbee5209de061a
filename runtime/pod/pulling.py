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
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernel.errors import RawpodError
from runtime.pod.directory import private
from runtime.pod.loop import Loop
from runtime.pod.pullpolicy import Registries
from runtime.pod.worker import MAX_ANSWER, Worker
from runtime.settings import Settings

Fetch = Callable[[Settings, str, Registries], None]
Done = Callable[[RawpodError | None], None]


class PullError(RawpodError):
    """An image could not be brought."""


class Pull:
    """A pull under way; `done` is called from the loop with what kept it from success, or None."""

    def __init__(
        self,
        loop: Loop,
        settings: Settings,
        image: str,
        registries: Registries,
        done: Done,
        bring: Fetch | None = None,
    ) -> None:
        """`bring` is called in the worker: fetch() if not given."""
        get = bring or fetch
        private(settings.state / "pulls")
        place = settings.state / "pulls" / _name(image, registries)
        self._worker = Worker(
            loop,
            "rawpod-pull",
            lambda: shared(place, lambda: _attempt(lambda: get(settings, image, registries))),
            lambda answer: done(_error_in(answer)),
        )

    @property
    def pid(self) -> int:
        """The worker's."""
        return self._worker.pid

    def cancel(self) -> None:
        """End it; `done` is not called."""
        self._worker.cancel()


def fetch(settings: Settings, image: str, registries: Registries) -> None:
    """Bring the image into the store. Raises RawpodError."""
    from rootfs.registry.fetch import fetch as fetch_image

    fetch_image(settings.images, image, registries=settings.registries, auths=registries.auths)


def _name(image: str, registries: Registries) -> str:
    """Who has other credentials is not answered by what came of a pull without them."""
    import hashlib

    told = json.dumps([image, dict(registries.auths)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _error_in(answer: bytes) -> RawpodError | None:
    try:
        told: dict[str, Any] = json.loads(answer)
    except ValueError:
        return PullError("the process that pulled it was killed")
    return PullError(told["error"], remedy=told["remedy"]) if told.get("error") else None


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
            if answer := os.pread(fd, MAX_ANSWER, 0):
                return answer
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
        finally:
            os.close(fd)
