"""Carries out what the reconciler asks for, whenever an object changes."""

import asyncio
import logging
import time
from collections.abc import Callable

from kernel.errors import RawpodError
from runtime.supervisor.actions import Action, Adopt, Create, Delete, Release, Remove, Scale, UpdateStatus
from runtime.supervisor.meta import uid_of
from runtime.supervisor.reconcile import Objects, reconcile
from runtime.supervisor.registry import Registry, disown
from runtime.supervisor.resources import RESOURCES, Object
from runtime.supervisor.store import Change, Store, Transaction

log = logging.getLogger("rawpod.controller")

_MAX_PASSES = 64
_RETRY = 1.0


def everything(store: Store) -> Objects:
    """All objects, as the reconciler takes them."""
    return {one.kind: [record.item for record in store.select(one.kind)] for one in RESOURCES}


def carry_out(writes: Transaction, registry: Registry, action: Action) -> None:
    """One action as writes of a transaction. An object that has gone or been replaced meanwhile is left alone."""
    if isinstance(action, Create):
        registry.create(writes, action.item)
        return
    record = writes.find(action.kind, action.namespace, action.name)
    if record is None or uid_of(record.item) != action.uid:
        return
    item = record.item
    match action:
        case Delete(foreground=foreground):
            registry.delete(writes, item, foreground=foreground)
        case Remove():
            writes.delete(action.kind, action.namespace, action.name)
        case Scale(replicas=replicas):
            registry.scale(writes, item, replicas)
        case Adopt(reference=reference):
            references = [*(item["metadata"].get("ownerReferences") or ()), reference]
            writes.put(_with_metadata(item, ownerReferences=references))
        case Release(owner_uid=owner_uid):
            writes.put(disown(item, owner_uid))
        case UpdateStatus(status=status):
            registry.set_status(writes, item, status)


def _with_metadata(item: Object, **fields: object) -> Object:
    return {**item, "metadata": {**item["metadata"], **fields}}


class Controller:
    """Reconciles after every change; changes that come together are answered together."""

    def __init__(self, store: Store, registry: Registry, clock: Callable[[], float] = time.time) -> None:
        self._store, self._registry, self._clock = store, registry, clock
        self._loop = asyncio.get_running_loop()
        self._due = False
        self._timer: asyncio.TimerHandle | None = None
        self._unwatch = store.watch(self._changed)
        self._wake()

    def _changed(self, _change: Change) -> None:
        self._wake()

    def _wake(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        wake = None
        if self._timer is not None:
            self._timer.cancel()
        try:
            wake = self.settle()
        except RawpodError as error:
            log.error("cannot reconcile, trying again in %g s: %s", _RETRY, error)
            wake = self._clock() + _RETRY
        finally:
            self._due = False  # our own writes have been seen by the passes of settle
        if wake is not None:
            self._timer = self._loop.call_later(max(0.0, wake - self._clock()), self._wake)

    def settle(self) -> float | None:
        """Passes until nothing is left to do; returns when to look again, if time alone will change something."""
        for _ in range(_MAX_PASSES):
            outcome = reconcile(everything(self._store), self._clock())
            if not outcome.actions:
                return outcome.wake
            # What is derived here is derived again after a power cut, so it need not be on disk before we go on.
            with self._store.transaction(durable=False) as writes:
                for action in outcome.actions:
                    carry_out(writes, self._registry, action)
            for action in outcome.actions:
                _tell(action)
        raise RawpodError(f"the objects did not settle in {_MAX_PASSES} passes")

    def close(self) -> None:
        """Stops reconciling."""
        self._unwatch()
        self._due = True
        if self._timer is not None:
            self._timer.cancel()


def _tell(action: Action) -> None:
    match action:
        case Create(item=item):
            metadata = item["metadata"]
            name = metadata.get("name") or metadata["generateName"] + "…"
            log.info("create %s %s/%s", item["kind"].lower(), metadata["namespace"], name)
        case Scale():
            log.info("scale %s %s/%s to %d", action.kind.lower(), action.namespace, action.name, action.replicas)
        case UpdateStatus():
            pass
        case _:
            verb, kind = type(action).__name__.lower(), action.kind.lower()
            log.info("%s %s %s/%s", verb, kind, action.namespace, action.name)
