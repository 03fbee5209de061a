"""One repository of a registry, by its mirrors first: manifests, and blobs that are streamed to where they belong."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeVar

import aiohttp

from rootfs.images.document import DOCUMENT_MAX
from rootfs.images.model import INDEXES, MANIFESTS, Descriptor
from rootfs.images.reference import Reference, is_digest
from rootfs.registry.config import Endpoint, RegistryConfig
from rootfs.registry.credentials import Keyring
from rootfs.registry.errors import RegistryError
from rootfs.registry.timing import Timing
from rootfs.registry.tls import Contexts
from rootfs.registry.transport import BROKEN, Request, Transport, session

_ACCEPT = ", ".join(MANIFESTS + INDEXES)
_HEADWAY = 64 << 10  # bytes after which a broken connection is one of its own, not the next in a row
_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(?:\d{1,19}|\*)", re.ASCII)

T = TypeVar("T")


class Document(NamedTuple):
    """A manifest or index as it came; `digest` is that of `data`."""

    data: bytes
    media_type: str
    digest: str

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.data))


class Sink(Protocol):
    """Where a blob goes; `offset` bytes of it are there."""

    @property
    def offset(self) -> int: ...

    def write(self, chunk: bytes, /) -> None: ...


class Source(NamedTuple):
    """A repository at one endpoint."""

    transport: Transport
    endpoint: Endpoint
    repository: str

    @property
    def scope(self) -> str:
        return f"repository:{self.repository}:pull"


class Client:
    """A repository to pull from; an asynchronous context manager. `note` is told in a line what was got around."""

    def __init__(
        self,
        reference: Reference,
        config: RegistryConfig,
        keyring: Keyring,
        *,
        insecure: bool = False,
        mirrors: bool = True,
        timing: Timing = Timing(),  # noqa: B008
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.reference = reference
        self.timing = timing
        self.note = note
        self._contexts = Contexts(config.certificates)
        self._keyring = keyring
        endpoints = config.endpoints(reference.registry, insecure=insecure)
        self._endpoints = endpoints if mirrors else endpoints[-1:]
        self._sources: list[Source] = []
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = session(self.timing)
        try:
            self._sources = [self._source(self._session, endpoint) for endpoint in self._endpoints]
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType) -> None:
        if self._session:
            await self._session.close()

    def _source(self, session: aiohttp.ClientSession, endpoint: Endpoint) -> Source:
        repository = endpoint.repository(self.reference.repository)
        credentials = self._keyring.find(endpoint.name, repository)
        # A mirror is there to save time.
        timing = self.timing._replace(attempts=2, refused=1) if endpoint.mirror else self.timing
        where = f"{endpoint.name}/{repository}"
        return Source(Transport(session, endpoint, where, self._contexts, credentials, timing), endpoint, repository)

    @property
    def origin(self) -> Source:
        """The registry itself."""
        return self._sources[-1]

    async def _anywhere(self, get: Callable[[Source], Awaitable[T]], skip: int = 0) -> T:
        """What the first source gives that can, after `skip` mirrors. The last one's error is the one that counts."""
        for source in self._sources[skip:-1]:
            try:
                return await get(source)
            except RegistryError as error:
                self.note(f"mirror {error}")
        return await get(self._sources[-1])

    async def digest(self, name: str) -> str | None:
        """What a tag stands for, or the digest `name` itself, if it is there. None if the registry does not say."""
        return await self._anywhere(lambda source: self._digest(source, name))

    async def _digest(self, source: Source, name: str) -> str | None:
        url = await source.transport.url(f"{source.repository}/manifests/{name}")
        request = Request("HEAD", url, f"manifest {name!r}", source.scope, (200,), {"Accept": _ACCEPT})
        async with source.transport.send(request) as response:
            told = response.headers.get("Docker-Content-Digest", "")
        return told if is_digest(told) else None

    async def manifest(self, name: str) -> Document:
        """The manifest or index of that tag or digest, its digest checked."""
        return await self._anywhere(lambda source: self._manifest(source, name))

    async def _manifest(self, source: Source, name: str) -> Document:
        doing = f"manifest {name!r}"
        transport = source.transport
        url = await transport.url(f"{source.repository}/manifests/{name}")
        failed = 0
        while True:
            request = Request("GET", url, doing, source.scope, (200,), {"Accept": _ACCEPT})
            try:
                async with transport.send(request) as response:
                    data = await transport.read(response, DOCUMENT_MAX, doing)
                break
            except BROKEN:
                failed += 1
                if failed >= transport.timing.attempts:
                    raise self._broken(source, doing) from None
                await asyncio.sleep(self.timing.delay(failed))
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        told = name if is_digest(name) else response.headers.get("Docker-Content-Digest", digest)
        if told != digest and told.startswith("sha256:"):
            why = f"its digest is {digest}, not {told[:100]!a}"
            raise RegistryError(transport.where, doing, why, reason="digest", remedy="what came was discarded")
        return Document(data, response.headers.get("Content-Type", "").partition(";")[0].strip().lower(), digest)

    @property
    def sources(self) -> int:
        """How many places the repository is asked for at: its mirrors and the registry."""
        return len(self._sources)

    async def blob(self, descriptor: Descriptor, sink: Sink, progress: Callable[[int], None], *, skip: int = 0) -> None:
        """Stream a blob to `sink` from its offset on, through broken connections. Its digest is the sink's to check.

        `progress` is told how many bytes are there. `skip` passes over so many mirrors. Raises RegistryError.
        """
        await self._anywhere(lambda source: self._blob(source, descriptor, sink, progress), skip)

    async def _blob(self, source: Source, descriptor: Descriptor, sink: Sink, progress: Callable[[int], None]) -> None:
        doing = f"blob {descriptor.digest}"
        failed, ranges = 0, True
        while sink.offset < descriptor.size:
            before = sink.offset
            try:
                if not await self._stream(source, descriptor, sink, progress, ranges=ranges):
                    ranges = False
                    continue
                if sink.offset >= descriptor.size:
                    return
            except BROKEN as broken:
                if not isinstance(broken, aiohttp.ClientError | ConnectionError | TimeoutError):
                    raise  # the sink's: no space, no permission
            failed = 1 if sink.offset - before >= _HEADWAY else failed + 1
            if failed >= source.transport.timing.attempts:
                raise self._broken(source, doing, f" with {sink.offset} of {descriptor.size} bytes there")
            await asyncio.sleep(self.timing.delay(failed))

    async def _stream(
        self, source: Source, descriptor: Descriptor, sink: Sink, progress: Callable[[int], None], *, ranges: bool
    ) -> bool:
        """One connection's worth of a blob. False if the source cannot continue in the middle and gave nothing."""
        doing = f"blob {descriptor.digest}"
        url = await source.transport.url(f"{source.repository}/blobs/{descriptor.digest}")
        headers = {"Range": f"bytes={sink.offset}-"} if sink.offset and ranges else {}
        request = Request("GET", url, doing, source.scope, (200, 206, 416) if headers else (200,), headers)
        async with source.transport.send(request) as response:
            skip = 0
            if response.status == 206:
                match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
                if not match or int(match[1]) != sink.offset:
                    return False
            elif response.status == 416:
                return False
            else:
                length = response.content_length
                if length is not None and length != descriptor.size:
                    why = f"{length} bytes are announced where the manifest says {descriptor.size}"
                    raise RegistryError(source.transport.where, doing, why, reason="digest")
                # A server without ranges begins anew: the beginning is there, its digest tells if it was another.
                skip = sink.offset
            async for chunk in response.content.iter_any():
                if skip:
                    chunk, skip = chunk[skip:], max(0, skip - len(chunk))
                # More than was announced is nobody's.
                chunk = chunk[: descriptor.size - sink.offset]
                if chunk:
                    sink.write(chunk)
                    progress(sink.offset)
                if sink.offset >= descriptor.size:
                    break
        return True

    def _broken(self, source: Source, doing: str, what: str = "") -> RegistryError:
        why = f"the connection broke {source.transport.timing.attempts} times{what}"
        return RegistryError(source.transport.where, doing, why, reason="unreachable")
