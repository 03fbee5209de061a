"""Runs the pods of the store on this machine, and adopts those that run already.

What should run is in the store, what does is in the state directory; a keeper a pod brings the two together.
"""

import asyncio
import json
import logging
import os
from collections.abc import Iterator

from kernel.errors import RawpodError
from runtime.pod import directory
from runtime.settings import Settings
from runtime.supervisor.keeper import Keeper
from runtime.supervisor.meta import name_of, uid_of
from runtime.supervisor.registry import Registry
from runtime.supervisor.spawnerlink import SpawnerLink
from runtime.supervisor.store import Change, Store

log = logging.getLogger("rawpod.node")


class Node:
    """All keepers. Begins when it is made: adopts, starts, and clears up what no pod of the store accounts for."""

    def __init__(self, store: Store, registry: Registry, settings: Settings, spawner: SpawnerLink) -> None:
        self._store, self._registry, self._settings, self._spawner = store, registry, settings, spawner
        self._keepers: dict[str, Keeper] = {}
        self._closing = False
        self._unwatch = store.watch(self._changed)
        for record in store.select("Pod"):
            self._begin(uid_of(record.item), name_of(record.item))
        for uid in self._strangers():
            log.warning("pod %s is in the state directory and not in the store, ending it", uid)
            self._begin(uid, ("", uid))

    def _begin(self, uid: str, key: tuple[str, str]) -> None:
        self._keepers[uid] = Keeper(
            uid,
            key,
            store=self._store,
            registry=self._registry,
            settings=self._settings,
            spawner=self._spawner,
            ended=self._ended,
        )

    def _ended(self, keeper: Keeper) -> None:
        self._keepers.pop(keeper.uid, None)
        if keeper.task.cancelled():
            return
        error = keeper.task.exception()
        if error is not None:
            log.error("pod %s: its keeper failed, starting another", keeper.label, exc_info=error)
            if not self._closing:
                asyncio.get_running_loop().call_later(1.0, self._begin, keeper.uid, keeper.key)

    def _changed(self, change: Change) -> None:
        item = change.record.item
        if change.kind == "Pod":
            keeper = self._keepers.get(uid_of(item))
            if keeper is not None:
                keeper.wake()
            elif change.type != "DELETED":
                self._begin(uid_of(item), name_of(item))
        elif change.kind in ("ConfigMap", "Secret"):
            for keeper in self._keepers.values():
                if keeper.key[0] == item["metadata"]["namespace"] and keeper.refers_to(change.kind, name_of(item)[1]):
                    keeper.wake()

    def _strangers(self) -> Iterator[str]:
        """Pods of a supervisor that are in no store: their deletion was cut short, or the database is a new one."""
        try:
            found = sorted(os.listdir(self._settings.pods))
        except FileNotFoundError:
            return
        for uid in found:
            if uid not in self._keepers and self._was_ours(uid):
                yield uid

    def _was_ours(self, uid: str) -> bool:
        """Whether a supervisor made the pod: pods of `rawpod run` are their own masters."""
        status = directory.read_status(self._settings.pod(uid))
        if status is not None:
            return bool(status["rawpod"].get("owner") == "supervisor")
        try:  # not a word from its monitor yet: an object out of a store has a version
            pod = json.loads((self._settings.pod(uid) / directory.POD).read_bytes())
            return "resourceVersion" in pod["metadata"]
        except (OSError, ValueError, KeyError, TypeError):
            return False

    async def stop_pods(self) -> None:
        """Ends all pods; the store still asks for them, so they come back with the next supervisor."""
        self._closing = True
        self._unwatch()
        await asyncio.gather(*(self._end(keeper) for keeper in list(self._keepers.values())))

    async def _end(self, keeper: Keeper) -> None:
        try:
            await keeper.end()
        except RawpodError as error:
            log.error("pod %s: %s", keeper.label, error)

    async def close(self) -> None:
        """Leaves the pods alone from now on; they run on."""
        self._closing = True
        self._unwatch()
        tasks = [keeper.task for keeper in self._keepers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
