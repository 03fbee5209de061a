"""Pushing an image: the blobs that its repository lacks, then the manifest, which makes them an image there.

A blob that another repository of the same registry has is mounted from there (distribution-spec, "Mounting a blob from
another repository"). An upload that breaks goes on where the registry says, or from the beginning if it has forgotten.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import aiohttp
from yarl import URL

from kernel.errors import RawpodError
from rootfs.images import model, names, reference
from rootfs.images.model import Descriptor, Manifest
from rootfs.images.names import Name
from rootfs.images.store import ImageStore
from rootfs.registry.client import Client
from rootfs.registry.errors import RegistryError
from rootfs.registry.pull import Event
from rootfs.registry.transport import Request

UPLOADS = 4
"""Blobs that go at once."""

_CHUNK = 1 << 20
_HEADWAY = 64 << 10
_AGAIN = frozenset({"unreachable", "timeout", "server", "rate-limit"})
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})", re.ASCII)


class Pushed(NamedTuple):
    """`digest` is the manifest's; `sent` counts the bytes of blobs that went over the line."""

    name: str
    digest: str
    sent: int


async def push(
    store: ImageStore, name: str, client: Client, progress: Callable[[Event], None] = lambda _: None
) -> Pushed:
    """Send the image `name` of the store to the client's reference. Raises RegistryError."""
    found = store.find(name)
    with store.ingest() as ingest:
        data = ingest.read_blob(found.digest)
        manifest = model.parse_manifest(data, document=f"manifest {found.digest}")
        assert isinstance(manifest, Manifest)  # names stand for nothing else
        for digest in found.blobs:
            ingest.has_blob(digest)  # holds it until all is sent
        return await _Push(store, found, client, progress).run(manifest, data)


class _Push:
    def __init__(self, store: ImageStore, found: Name, client: Client, progress: Callable[[Event], None]) -> None:
        self._store = store
        self._found = found
        self._source = client.origin
        self._transport = client.origin.transport
        self._reference = client.reference
        self._progress = progress
        self._scope = f"repository:{self._source.repository}:pull,push"
        self._slots = asyncio.Semaphore(UPLOADS)
        self._sent = 0

    async def run(self, manifest: Manifest, data: bytes) -> Pushed:
        blobs = {blob.digest: blob for blob in (*manifest.layers, manifest.config)}
        for blob in blobs.values():
            self._tell(blob, "waiting", 0)
        try:
            async with asyncio.TaskGroup() as tasks:
                for blob in blobs.values():
                    tasks.create_task(self._blob(blob))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        await self._manifest(manifest.media_type, data)
        return Pushed(self._reference.familiar, self._found.digest, self._sent)

    async def _manifest(self, media_type: str, data: bytes) -> None:
        name = self._reference.tag or self._found.digest
        doing = f"pushing manifest {name!r}"
        url = await self._transport.url(f"{self._source.repository}/manifests/{name}")
        headers = {"Content-Type": media_type}
        async with self._transport.send(Request("PUT", url, doing, self._scope, (201,), headers, data)) as response:
            told = response.headers.get("Docker-Content-Digest", self._found.digest)
        if told != self._found.digest:
            why = f"the registry calls it {told[:100]!a} instead of {self._found.digest}"
            raise RegistryError(self._transport.where, doing, why, reason="digest")

    async def _blob(self, blob: Descriptor) -> None:
        async with self._slots:
            doing = f"pushing blob {blob.digest}"
            url = await self._transport.url(f"{self._source.repository}/blobs/{blob.digest}")
            async with self._transport.send(Request("HEAD", url, doing, self._scope, (200, 404))) as response:
                there = response.status == 200
            if there:
                self._tell(blob, "exists", blob.size)
                return
            mounted = await self._mount(blob, doing)
            if isinstance(mounted, URL) or mounted is None:
                await self._upload(blob, doing, mounted or await self._begin(doing))
            self._tell(blob, "mounted" if mounted is True else "done", blob.size)

    async def _mount(self, blob: Descriptor, doing: str) -> URL | bool | None:
        """True if the registry took the blob from another repository; where to upload it; or None if neither."""
        other = self._repository_with(blob.digest)
        if other is None:
            return None
        url = await self._transport.url(f"{self._source.repository}/blobs/uploads/")
        url = URL(f"{url}?mount={blob.digest}&from={other}", encoded=True)
        scope = f"{self._scope} repository:{other}:pull"
        try:
            async with self._transport.send(Request("POST", url, doing, scope, (201, 202))) as response:
                return True if response.status == 201 else self._location(response, url, doing)
        except RegistryError as error:
            # Whoever may not read the other repository can still upload.
            if error.reason in _AGAIN:
                raise
            return None

    def _repository_with(self, digest: str) -> str | None:
        """Another repository of the registry that an image of ours with this blob came from or went to."""
        for name in names.files(self._store.root):
            try:
                found = names.read(self._store.places, name)
            except (OSError, RawpodError):
                continue
            if digest in found.blobs and found.reference:
                other = reference.parse(found.reference)
                if other.registry == self._reference.registry and other.repository != self._reference.repository:
                    return self._source.endpoint.repository(other.repository)
        return None

    async def _begin(self, doing: str) -> URL:
        url = await self._transport.url(f"{self._source.repository}/blobs/uploads/")
        async with self._transport.send(Request("POST", url, doing, self._scope, (202,))) as response:
            return self._location(response, url, doing)

    async def _upload(self, blob: Descriptor, doing: str, location: URL) -> None:
        offset = failed = best = 0
        while True:
            try:
                if 0 < offset < blob.size:
                    location = await self._continue(blob, doing, location, offset)
                await self._finish(blob, doing, location, offset)
                return
            except RegistryError as error:
                if error.reason not in _AGAIN:
                    raise
                failure = error
            resumed = await self._status(doing, location)
            if resumed is None:
                location, offset = await self._begin(doing), 0
            else:
                location, offset = resumed
            failed = 1 if offset >= best + _HEADWAY else failed + 1
            best = max(best, offset)
            if failed >= self._transport.timing.attempts:
                raise failure
            await asyncio.sleep(self._transport.timing.delay(failed))

    async def _continue(self, blob: Descriptor, doing: str, location: URL, offset: int) -> URL:
        """Send the rest from `offset` on (PATCH)."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{offset}-{blob.size - 1}",
            "Content-Length": str(blob.size - offset),
        }
        body = self._reader(blob, offset)
        request = Request("PATCH", location, doing, self._scope, (202, 204), headers, body, again=False)
        async with self._transport.send(request) as response:
            return self._location(response, location, doing)

    async def _finish(self, blob: Descriptor, doing: str, location: URL, offset: int) -> None:
        """Close the upload with its digest (PUT); the whole blob goes along if nothing went before."""
        closing = URL(f"{location}{'&' if location.raw_query_string else '?'}digest={blob.digest}", encoded=True)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(0 if offset else blob.size)}
        body = b"" if offset else self._reader(blob, 0)
        async with self._transport.send(
            Request("PUT", closing, doing, self._scope, (201, 204), headers, body, again=False)
        ):
            pass

    async def _status(self, doing: str, location: URL) -> tuple[URL, int] | None:
        """Where to go on, and from which byte. None if the registry knows nothing of the upload any more."""
        try:
            async with self._transport.send(Request("GET", location, doing, self._scope, (204,))) as response:
                match = _RANGE.fullmatch(response.headers.get("Range", ""))
                if match is None:
                    return None
                # "0-0" is what distribution says of an upload without a byte, and of one with a single byte.
                last = int(match[1])
                return self._location(response, location, doing), last + 1 if last else 0
        except RegistryError as error:
            if error.reason in _AGAIN:
                raise
            return None

    def _location(self, response: aiohttp.ClientResponse, base: URL, doing: str) -> URL:
        location = response.headers.get("Location", "")
        return self._transport.join(base, location, doing) if location else base

    def _reader(self, blob: Descriptor, offset: int) -> Callable[[], AsyncIterator[bytes]]:
        async def read() -> AsyncIterator[bytes]:
            fd = os.open(self._store.places.blob(blob.digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                there = offset
                while chunk := os.pread(fd, _CHUNK, there):
                    yield chunk
                    there += len(chunk)
                    self._sent += len(chunk)
                    self._tell(blob, "pushing", there)
            finally:
                os.close(fd)

        return read

    def _tell(self, blob: Descriptor, state: str, current: int) -> None:
        self._progress(Event(blob.digest, state, current, blob.size))
