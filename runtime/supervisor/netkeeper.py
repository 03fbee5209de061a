"""Keeps the pods' network whole: what somebody takes away from bridge, links or rules is put back.

Event-driven: the kernel tells of deletions (netns.watch), a moment later one repair looks at everything.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from kernel.errors import RawpodError
from netns.watch import Watch
from runtime.pod import directory
from runtime.pod.sandbox import Places, network_of
from runtime.settings import Settings

log = logging.getLogger("rawpod.network")

# A flush or the end of a pod arrives as many notices; the repair after the last of them sees all.
_SETTLE = 0.5
_RETRY = 5.0


class NetworkKeeper:
    """Begins when it is made, with a first repair: something may have been lost while no supervisor ran."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._watch = Watch()
        self._loop = asyncio.get_running_loop()
        self._due: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        for descriptor in self._watch.descriptors:
            self._loop.add_reader(descriptor, self._noticed)
        self._schedule(0)

    def _noticed(self) -> None:
        if self._watch.lost():
            self._schedule(_SETTLE)

    def _schedule(self, delay: float) -> None:
        if self._due is None:
            self._due = self._loop.call_later(delay, self._begin)

    def _begin(self) -> None:
        self._due = None
        if self._task is not None and not self._task.done():
            self._schedule(_SETTLE)
            return
        self._task = self._loop.create_task(self._repair())

    async def _repair(self) -> None:
        try:
            # In a thread: it waits for the kernel and for locks, and it enters pods' namespaces, which setns(2) does
            # for the calling thread alone.
            done = await asyncio.to_thread(self._repair_now)
        except (RawpodError, OSError) as error:
            log.warning("network: %s", error)
            self._schedule(_RETRY)
            return
        for line in done:
            log.info("network: %s", line)

    def _repair_now(self) -> list[str]:
        return network_of(self._settings).repair(self._pods)

    def _pods(self) -> dict[str, Path | None]:
        """Every pod that has a directory; its namespace once its monitor has set it up."""
        found: dict[str, Path | None] = dict.fromkeys(directory.uids(self._settings))
        for uid in found:
            status = directory.read_status(self._settings.pod(uid))
            namespace = Places(self._settings, uid).namespace("net")
            if status is not None and status.get("podIP") and namespace.exists():
                found[uid] = namespace
        return found

    async def close(self) -> None:
        """Stop watching; a repair that has begun is waited for."""
        for descriptor in self._watch.descriptors:
            self._loop.remove_reader(descriptor)
        if self._due is not None:
            self._due.cancel()
        if self._task is not None:
            await self._task
        self._watch.close()
