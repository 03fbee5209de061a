"""A container's log over the door: what there is, and with follow what comes."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from kernel import inotify
from kernel.errors import BadInput, NotFound
from runtime.pod import logread
from runtime.pod.logoptions import LogOptions, Shown, attempts_back, before_now, moment
from runtime.pod.logs import LogDirectory
from runtime.settings import Settings
from runtime.supervisor.meta import finished, terminating
from runtime.supervisor.query import Query
from runtime.supervisor.resources import Object
from runtime.supervisor.store import Change, Store

_BATCH = 64 * 1024


def container_of(pod: Object, wanted: str | None) -> str:
    """The container meant: the one named, or the only one. Raises BadInput, NotFound."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    if wanted is not None:
        others = ("initContainers", "ephemeralContainers")
        names += [container["name"] for key in others for container in pod["spec"].get(key) or ()]
    elif len(names) > 1:
        raise BadInput("the pod has several containers", remedy=f"name one: {', '.join(names)}")
    if wanted is not None and wanted not in names:
        raise NotFound(f'no container "{wanted}" in the pod', remedy=f"it has {', '.join(names)}")
    return wanted or str(names[0])


async def stream(
    request: web.Request, store: Store, settings: Settings, pod: Object, query: Query
) -> web.StreamResponse:
    """Answers with the log of one container as text."""
    metadata = pod["metadata"]
    name = container_of(pod, query.text("container"))
    path = LogDirectory.of(settings.logs, metadata["namespace"], metadata["name"], metadata["uid"], name).path
    tail, shown, previous = query.number("tailLines"), Shown(_options(query)), query.flag("previous")
    back = attempts_back(_status_of(pod, name), previous)
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        if query.flag("follow") and not previous:
            async with _Following(store, pod, path) as following:
                while not shown.done and await following.more():
                    await _send(response, following.entries(tail), shown)
        else:
            await _send(response, logread.read(path, tail=tail, back=back), shown)
    return response


def _options(query: Query) -> LogOptions:
    seconds, since, limit = query.number("sinceSeconds"), query.text("sinceTime"), query.number("limitBytes")
    if seconds is not None and since is not None:
        raise BadInput("sinceSeconds and sinceTime at once", remedy="leave one of them out")
    for name, value in (("sinceSeconds", seconds), ("limitBytes", limit)):
        if value == 0:
            raise BadInput(f'{name} "0"', remedy="a whole number, 1 or more")
    start = moment(since) if since else before_now(seconds) if seconds else None
    return LogOptions(since=start, limit=limit, timestamps=query.flag("timestamps"))


def _status_of(pod: Object, container: str) -> Object:
    status = pod.get("status") or {}
    keys = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    entries = (entry for key in keys for entry in status.get(key) or ())
    return next((entry for entry in entries if entry["name"] == container), {"name": container})


async def _send(response: web.StreamResponse, entries: Iterator[logread.Entry], shown: Shown) -> None:
    batch = bytearray()
    for entry in entries:
        batch += shown.text(entry)
        if shown.done:
            break
        if len(batch) > _BATCH:
            await response.write(bytes(batch))
            batch.clear()
    if batch:
        await response.write(bytes(batch))


class _Following:
    """Turns, each with what was written since the one before, until the pod is over or gone."""

    def __init__(self, store: Store, pod: Object, path: Path) -> None:
        self._store, self._path = store, path
        self._uid = pod["metadata"]["uid"]
        self._over = finished(pod)
        self._last = False
        self._wake = asyncio.Event()
        self._wake.set()
        self._reader = logread.Reader(path)
        self._begun = False
        self._notify = -1

    async def __aenter__(self) -> "_Following":
        self._notify = inotify.inotify_init1(blocking=False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._notify, self._touched)
        self._unwatch = self._store.watch(self._changed)
        self._look()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._unwatch()
        self._loop.remove_reader(self._notify)
        os.close(self._notify)
        self._reader.close()

    def _look(self) -> None:
        """Watches the directory once it is there; until then a change of the pod's status is the occasion to look."""
        if self._path.is_dir():
            mask = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_DELETE_SELF
            inotify.inotify_add_watch(self._notify, self._path, mask)

    def _touched(self) -> None:
        inotify.read_changes(self._notify)
        self._wake.set()

    def _changed(self, change: Change) -> None:
        item = change.record.item
        if change.kind == "Pod" and item["metadata"]["uid"] == self._uid:
            self._over = change.type == "DELETED" or finished(item) or (self._over and terminating(item))
            self._look()
            self._wake.set()

    async def more(self) -> bool:
        """Waits until there may be more to read; False after the last turn."""
        if self._last:
            return False
        if not self._over:
            await self._wake.wait()
        self._wake.clear()
        self._last = self._over
        return True

    def entries(self, tail: int | None) -> Iterator[logread.Entry]:
        """What was written since the last turn; at the first, the last `tail` lines or all."""
        if not self._begun and self._path.is_dir():
            self._begun = True
            yield from self._reader.begin(tail)
        if self._begun:
            yield from self._reader.drain()
