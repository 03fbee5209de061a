"""Watch streams: the changes of a kind as lines of JSON, for as long as somebody reads."""

import asyncio
import contextlib
import time

from aiohttp import web

from runtime.supervisor.query import Query
from runtime.supervisor.resources import Resource
from runtime.supervisor.responses import encode, status_of
from runtime.supervisor.selectors import Matcher
from runtime.supervisor.store import Change, Compacted, Record, Store

QUEUE = 4096
"""Changes kept for a reader that is slower than they come; one further behind is told to list again."""


class Watch:
    """The changes of one kind that a reader wants, as encoded events."""

    def __init__(self, store: Store, kind: str, namespace: str | None, selects: Matcher, since: int | None) -> None:
        self._kind, self._namespace, self._selects = kind, namespace, selects
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._stop = store.watch(self._changed, store.version if since is None else since)
        if since is None:
            for record in store.select(kind, namespace, selects):
                self._put("ADDED", record.body)

    def _put(self, event: str, body: bytes) -> None:
        if self._events.qsize() < QUEUE:
            self._events.put_nowait(b'{"type":"%s","object":%s}\n' % (event.encode(), body))
        else:
            self.close()

    def _matches(self, record: Record | None) -> bool:
        return record is not None and self._selects(record.item)

    def _changed(self, change: Change) -> None:
        item = change.record.item
        if change.kind != self._kind or self._namespace not in (None, item["metadata"]["namespace"]):
            return
        before, now = self._matches(change.previous), self._matches(change.record)
        if change.type == "DELETED":
            if before:
                self._put("DELETED", change.record.body)
        elif now:
            # What comes to match is new to this reader, what matches no longer is gone for it.
            self._put("MODIFIED" if before else "ADDED", change.record.body)
        elif before:
            self._put("DELETED", change.record.body)

    async def next(self) -> bytes | None:
        """The next event; None when the reader is too far behind."""
        return await self._events.get()

    def close(self) -> None:
        """No more events; who waits for one is told."""
        self._stop()
        self._events.put_nowait(None)


async def stream(
    request: web.Request, store: Store, resource: Resource, namespace: str | None, query: Query
) -> web.StreamResponse:
    """Answers a watch. Raises Compacted if the version asked for is forgotten."""
    timeout = query.number("timeoutSeconds")
    deadline = None if timeout is None else time.monotonic() + timeout
    query.flag("allowWatchBookmarks")  # a permission, not a demand
    watch = Watch(store, resource.kind, namespace, query.selector(), query.version)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    try:
        await response.prepare(request)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                event = await asyncio.wait_for(watch.next(), left)
                if event is None:
                    gone = status_of(Compacted("the watch fell too far behind, list again"))
                    await response.write(b'{"type":"ERROR","object":%s}\n' % encode(gone))
                    break
                await response.write(event)
    finally:
        watch.close()
    return response
