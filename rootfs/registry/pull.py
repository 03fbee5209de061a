"""Pulling an image: its manifest, its configuration, and its layers in parallel, unpacked while others still come.

Nothing has the image's name until all of it is there. What was downloaded of a layer stays for the next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple, TypeVar

from kernel.errors import Conflict, NotFound, NotSupported
from rootfs.images import model
from rootfs.images.document import DOCUMENT_MAX, ImageError
from rootfs.images.image import Image
from rootfs.images.ingest import Ingest
from rootfs.images.model import Config, Descriptor, Manifest
from rootfs.images.partial import Partial
from rootfs.images.platform import Platform, here
from rootfs.images.store import ImageStore
from rootfs.images.unpacking import LayerUnpacking
from rootfs.registry.client import Client, Document
from rootfs.registry.errors import RegistryError

DOWNLOADS = 4
"""Layers that come at once: one connection seldom fills the line, many are rude."""
UNPACKS = 2

_LOCK_SECONDS = 0.2  # between looks at a blob that another process is writing

T = TypeVar("T")
C = TypeVar("C", bound=AbstractContextManager[object])


class Event(NamedTuple):
    """How far a layer is: `current` of `total` bytes of its blob.

    `state` is one of waiting, downloading, downloaded, unpacking, done; or exists, for what was there before.
    """

    layer: str
    state: str
    current: int
    total: int


class Pulled(NamedTuple):
    """`digest` is what the registry calls it, that of an index perhaps. `changed` unless all of it was there."""

    image: Image
    digest: str
    changed: bool


async def pull(
    store: ImageStore,
    client: Client,
    platform: Platform | None = None,
    progress: Callable[[Event], None] = lambda _: None,
) -> Pulled:
    """Bring the client's reference into the store, for `platform` or this machine.

    Raises RegistryError, ImageError for documents that are not in order, LayerError.
    """
    reference = client.reference
    if reference.digest and not reference.digest.startswith("sha256:"):
        raise NotSupported(f"{reference.canonical}: digests other than sha256 are not supported")
    known = _known(store, reference.canonical, platform)
    if known and not reference.digest:
        digest = await client.digest(str(reference.tag))
        if digest in (known.digest, known.repo_digest):
            return Pulled(known, str(digest), changed=False)
    elif known:
        return Pulled(known, str(reference.digest), changed=False)
    with store.ingest() as ingest:
        return await _Pull(ingest, client, platform, progress).run()


def _known(store: ImageStore, name: str, platform: Platform | None) -> Image | None:
    """What the store has under the name, if it is what would be chosen for the platform."""
    try:
        image = store.get(name)
    except NotFound:
        return None
    # Of an index something better than what was chosen once may be wanted now.
    wanted = (platform or here()).runs()[: 1 if image.repo_digest else None]
    return image if image.platform in map(str, wanted) else None


class _Pull:
    """One pull, with its lease on the store."""

    def __init__(
        self, ingest: Ingest, client: Client, platform: Platform | None, progress: Callable[[Event], None]
    ) -> None:
        self._ingest = ingest
        self._client = client
        self._asked = platform
        self._platform = platform or here()
        self._progress = progress
        self._downloads = asyncio.Semaphore(DOWNLOADS)
        self._unpacks = asyncio.Semaphore(UNPACKS)

    async def run(self) -> Pulled:
        reference = self._client.reference
        root = await self._document(reference.digest or str(reference.tag))
        descriptor, manifest = await self._resolve(root)
        await self._download(manifest.config)
        config = self._config(manifest)
        layers = dict(zip(config.diff_ids, manifest.layers, strict=True))
        for layer in layers.values():
            self._tell(layer, "waiting", 0)
        # The same bytes may be there for two layers: one of them downloads.
        blobs: dict[str, list[str]] = {}
        for diff_id, layer in layers.items():
            blobs.setdefault(layer.digest, []).append(diff_id)
        try:
            async with asyncio.TaskGroup() as tasks:
                for diff_ids in blobs.values():
                    tasks.create_task(self._layer(layers[diff_ids[0]], diff_ids))
                for layer in {layer.digest: layer for layer in manifest.layers}.values():
                    if layer.digest not in blobs:
                        tasks.create_task(self._download(layer))
        except BaseExceptionGroup as failures:
            # The first has ended the others.
            raise failures.exceptions[0] from None
        image = self._ingest.commit(reference.canonical, descriptor.digest, repo_digest=root.digest)
        return Pulled(image, root.digest, changed=True)

    async def _document(self, name: str) -> Document:
        if name.startswith("sha256:") and self._ingest.has_blob(name):
            return Document(self._ingest.read_blob(name), "", name)
        return await self._client.manifest(name)

    async def _resolve(self, root: Document) -> tuple[Descriptor, Manifest]:
        """Through indexes to the manifest, which is stored."""
        documents = {root.digest: root}
        search = model.resolve(root.descriptor, self._platform)
        wanted = next(search)
        while True:
            document = documents.get(wanted.digest) or await self._document(wanted.digest)
            if len(document.data) != wanted.size:
                why = f"has {len(document.data)} bytes where the index says {wanted.size}"
                raise ImageError(f"manifest {wanted.digest}", why)
            try:
                wanted = search.send(document.data)
            except StopIteration as found:
                descriptor, manifest = found.value
                if not self._ingest.has_blob(descriptor.digest):
                    self._ingest.add_blob(document.data)
                return descriptor, manifest

    def _config(self, manifest: Manifest) -> Config:
        document = f"config {manifest.config.digest}"
        config = model.parse_config(self._ingest.read_blob(manifest.config.digest), document)
        model.check_layers(manifest, config, document)
        if config.platform not in self._platform.runs():
            what = f"image {self._client.reference.familiar!r} is for {config.platform}, not for {self._platform}"
            if self._asked:
                raise NotFound(what)
            self._client.note(what)
        return config

    async def _layer(self, layer: Descriptor, diff_ids: list[str]) -> None:
        missing = [diff_id for diff_id in diff_ids if not self._ingest.has_layer(diff_id)]
        came = await self._download(layer)
        for diff_id in missing:
            async with self._unpacks:
                self._tell(layer, "unpacking", layer.size)
                # In a thread: what unpackings left that died is removed first. The worker dies with the thread that
                # started it (PR_SET_PDEATHSIG), and those of the loop live as long as the loop.
                with await _opened(partial(self._ingest.start_unpack, layer, diff_id)) as unpacking:
                    await _ended(unpacking)
                    await _in_thread(unpacking.result)
        self._tell(layer, "done" if missing or came else "exists", layer.size)

    async def _download(self, blob: Descriptor) -> bool:
        """Have the blob in the store. Returns whether it was not there before."""
        if blob.media_type in model.CONFIGS and blob.size > DOCUMENT_MAX:
            raise ImageError(f"config {blob.digest}", f"{blob.size} bytes are over the limit of {DOCUMENT_MAX}")
        if self._ingest.has_blob(blob.digest):
            return False
        async with self._downloads:
            damaged = 0  # how often it came with the wrong digest: the next mirror is asked, the registry twice
            while True:
                with await self._partial(blob) as unfinished:
                    if unfinished.complete:
                        return True
                    self._tell(blob, "downloading", unfinished.offset)
                    await self._client.blob(
                        blob, unfinished, lambda there: self._tell(blob, "downloading", there), skip=damaged
                    )
                    try:
                        await _in_thread(unfinished.commit)
                        break
                    except ImageError as error:
                        damaged += 1
                        if damaged > self._client.sources:
                            raise self._wrong(blob, error) from None
        self._tell(blob, "downloaded", blob.size)
        return True

    async def _partial(self, blob: Descriptor) -> Partial:
        """The unfinished blob, once no other process writes it."""
        while True:
            try:
                # In a thread: what is there of it has to be hashed first.
                return await _opened(partial(self._ingest.partial, blob.digest, blob.size, wait=False))
            except Conflict:
                self._tell(blob, "waiting", 0)
                await asyncio.sleep(_LOCK_SECONDS)

    def _wrong(self, blob: Descriptor, error: ImageError) -> RegistryError:
        where = self._client.origin.transport.where
        remedy = "what came was discarded, nothing was changed"
        return RegistryError(where, f"blob {blob.digest}", error.reason, reason="digest", remedy=remedy)

    def _tell(self, blob: Descriptor, state: str, current: int) -> None:
        if blob.media_type not in model.CONFIGS:
            self._progress(Event(blob.digest, state, current, blob.size))


async def _ended(unpacking: LayerUnpacking) -> None:
    """Until the worker has ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(unpacking.fileno(), ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(unpacking.fileno())


async def _opened(call: Callable[[], C]) -> C:
    """What `call` opens in a thread. If nobody waits for it any more by then it is closed."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if task.exception() is None:
            task.result().__exit__(None, None, None)
        raise


async def _in_thread(call: Callable[[], T]) -> T:
    """As asyncio.to_thread, but never left behind: what it works on is closed by whoever is cancelled."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
