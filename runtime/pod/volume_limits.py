"""emptyDir.sizeLimit on disk: volumes are measured, and a pod that has more than its limit is evicted, as by kubelet.

A limit by the kernel takes project quotas, which few hosts have their disks mounted with (xfs_quota(8)). A volume in
memory is a tmpfs of that size and needs no watch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from kernel.record import Record
from rootfs.usage import usage
from runtime.pod.loop import Loop, Timer
from runtime.pod.objects import Pod
from runtime.pod.quantities import memory_bytes
from runtime.pod.worker import Worker

_FIRST = 1.0  # what fills a disk often does it at once
_INTERVAL = 10.0  # as kubelet


class DiskLimit(Record):
    """A volume that may take `size` bytes; `text` is how the manifest has it."""

    volume: str
    path: str
    size: int
    text: str

    def exceeded(self) -> str:
        """In kubelet's words."""
        return f'Usage of EmptyDir volume "{self.volume}" exceeds the limit "{self.text}". '


def limits_of(pod: Pod, disk: Path) -> list[DiskLimit]:
    """The pod's limited volumes on disk, given where its volumes are."""
    return [
        DiskLimit(volume.name, str(disk / volume.name), memory_bytes(volume.empty_dir.size_limit), text)
        for volume in pod.spec.volumes
        if volume.empty_dir and volume.empty_dir.medium != "Memory" and (text := volume.empty_dir.size_limit)
    ]


class LimitWatch:
    """Measures in a process beside the monitor, as a tree of many files takes its time. `exceeded` is called once."""

    def __init__(self, loop: Loop, limits: Sequence[DiskLimit], exceeded: Callable[[str], None]) -> None:
        self._loop, self._limits, self._exceeded = loop, limits, exceeded
        self._delay = _FIRST
        self._timer: Timer | None = None
        self._worker: Worker | None = None

    @property
    def workers(self) -> set[int]:
        """The pid of the process that measures."""
        return {self._worker.pid} if self._worker else set()

    def start(self) -> None:
        """Begin, if anything is limited."""
        if self._limits and self._timer is None:
            self._timer = self._loop.call_later(self._delay, self._measure)

    def stop(self) -> None:
        """No more of it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._worker is not None:
            self._worker.cancel()
            self._worker = None

    def _measure(self) -> None:
        limits = self._limits
        self._worker = Worker(
            self._loop,
            "rawpod-usage",
            lambda: json.dumps([_usage(one.path) for one in limits]).encode(),
            self._measured,
        )

    def _measured(self, answer: bytes) -> None:
        self._worker = None
        for limit, size in zip(self._limits, json.loads(answer or b"[]"), strict=False):
            if size > limit.size:
                self._exceeded(limit.exceeded())
                return
        self._delay = min(_INTERVAL, self._delay * 2)
        self._timer = self._loop.call_later(self._delay, self._measure)


def _usage(path: str) -> int:
    try:
        return usage(path)
    except OSError:
        return 0
