"""Bringing an image in: blobs, then layers, then the name. Until then nobody sees it, and nobody removes it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import IO, Self

from kernel.errors import NotFound, RawpodError
from rootfs.files import write_all
from rootfs.images import model, names, reference
from rootfs.images.document import DOCUMENT_MAX, ImageError
from rootfs.images.garbage import collect
from rootfs.images.image import HOST, Image
from rootfs.images.lease import Lease
from rootfs.images.model import Config, Descriptor, Manifest
from rootfs.images.names import Name
from rootfs.images.partial import Partial, Stream
from rootfs.images.places import Places, Temporary, sync_directory
from rootfs.images.unpacking import LayerUnpacking, ready
from rootfs.layers.limits import Limits
from rootfs.layers.unpack import Unpacked

_CHUNK = 1 << 20


class Ingest:
    """A lease on the store: what it asks for or adds stays there until it is closed. A context manager.

    `limits` are those of each layer, and of an archive of images. It dies with its process, which leaves unfinished
    blobs to be resumed and whole ones that the next prune takes.
    """

    def __init__(self, places: Places, limits: Limits = Limits()) -> None:  # noqa: B008
        self._places = places
        self.limits = limits
        self._lease = Lease(places)
        self._added: set[str] = set()
        self._forget = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lease.close()
        if self._forget and self._added:
            collect(self._places, self._added, tuple)

    def forget(self) -> None:
        """At the end, remove what was added and no name stands for: for sources that nobody resumes."""
        self._forget = True

    def added(self, digest: str) -> None:
        """Note that a blob or layer was added by this ingest."""
        self._added.add(digest)

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there, in full."""
        self._lease.hold(digest)
        return self._places.blob(digest).exists()

    def read_blob(self, digest: str, limit: int = DOCUMENT_MAX) -> bytes:
        """A small document. Raises NotFound, and ImageError if it is larger or damaged."""
        self._lease.hold(digest)
        return read_blob(self._places, digest, limit)

    def blob_size(self, digest: str) -> int:
        """Bytes of a blob that is there."""
        return self._places.blob(digest).stat().st_size

    def first_bytes(self, digest: str, count: int) -> bytes:
        """How a blob that is there begins."""
        with open(self._places.blob(digest), "rb") as file:
            return file.read(count)

    def partial(self, digest: str, size: int, *, wait: bool = True) -> Partial:
        """An unfinished blob to write to, taken up where its last writer stopped.

        Waits while another process, or another task of this one, writes it; raises Conflict instead if not `wait`.
        """
        self._lease.hold(digest)
        self._added.add(digest)
        return Partial(self._places, digest, size, wait=wait)

    def add_blob(self, data: bytes) -> str:
        """Store a small document; its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        with self.partial(digest, len(data)) as partial:
            partial.restart()
            partial.write(data)
            partial.commit()
        return digest

    def stream(self) -> Stream:
        """A new blob whose digest is not known yet; a context manager."""
        return Stream(self, self._places)

    def add_stream(self, source: IO[bytes]) -> tuple[str, int]:
        """Store all that `source` has left; its digest and size in bytes."""
        with self.stream() as stream:
            sha256, size = hashlib.sha256(), 0
            while chunk := source.read(_CHUNK):
                write_all(stream.fd, chunk)
                sha256.update(chunk)
                size += len(chunk)
            digest = "sha256:" + sha256.hexdigest()
            stream.keep(digest)
        return digest, size

    def has_layer(self, diff_id: str) -> bool:
        """Whether the layer is there, unpacked."""
        self._lease.hold(diff_id)
        return self._places.layer(diff_id).exists()

    def unpack(self, descriptor: Descriptor, diff_id: str | None, *, label: str = "") -> Unpacked:
        """As start_unpack(), and wait for it."""
        with self.start_unpack(descriptor, diff_id, label=label) as unpacking:
            return unpacking.result()

    def start_unpack(self, descriptor: Descriptor, diff_id: str | None, *, label: str = "") -> LayerUnpacking:
        """Unpack a blob that is there, in a worker process; `label` names it in errors instead of its digest.

        Without `diff_id` the layer becomes what it turns out to be. The caller closes what this returns.
        """
        self._lease.hold(descriptor.digest)
        if diff_id:
            self._lease.hold(diff_id)
        return LayerUnpacking(self, self._places, descriptor, diff_id, label or descriptor.digest, self.limits)

    def unpack_all(self, layers: Iterable[tuple[Descriptor, str]]) -> None:
        """Unpack those that are not there, as many at once as there are processors. Raises at the first failure."""
        by_content = {diff_id: descriptor for descriptor, diff_id in layers}
        waiting = [(item, diff_id) for diff_id, item in by_content.items() if not self.has_layer(diff_id)]
        waiting.reverse()
        running: list[LayerUnpacking] = []
        try:
            while waiting or running:
                while waiting and len(running) < len(os.sched_getaffinity(0)):
                    running.append(self.start_unpack(*waiting.pop()))
                for done in ready(running):
                    done.result()
                    running.remove(done)
                    done.close()
        finally:
            for unpacking in running:
                unpacking.close()

    def commit(self, name: str, manifest_digest: str, *, repo_digest: str = "") -> Image:
        """Give the image `name`, taken from whatever had it before; "" leaves it without one, to be had by its digest.

        `repo_digest` is what a registry has it under, if that is not the manifest: an index's. Raises ImageError if
        something of the image is not there.
        """
        entry = self._entry(canonical_name(name) if name else "", manifest_digest, repo_digest)
        with self._places.locked():
            if not name:
                same = [other for other in names.read_all(self._places) if other.digest == manifest_digest]
                if same:
                    return same[0].image(self._places)
            give_name(self._places, entry)
        return entry.image(self._places)

    def hold_layer(self, unpacked: Unpacked, temporary: Temporary) -> None:
        """Move an unpacked layer to its place, if no other has it."""
        self._lease.hold(unpacked.digest)
        target = self._places.layer(unpacked.digest)
        self._added.add(unpacked.digest)
        with self._places.locked(shared=True):
            self._places.write_size(unpacked.digest, unpacked.size)
            try:
                os.rename(temporary.path, target)
            except OSError:  # rename(2) over a directory that is not empty
                if not target.exists():
                    raise
        sync_directory(target.parent)

    def _entry(self, canonical: str, digest: str, repo_digest: str) -> Name:
        document = f"image {canonical or digest}"
        manifest, config = self.read_image(digest)
        for descriptor in (manifest.config, *manifest.layers):
            self._check_blob(document, descriptor)
        for number, diff_id in enumerate(config.diff_ids):
            if not self.has_layer(diff_id):
                raise ImageError(document, f"layer {diff_id} is not unpacked", field=f"rootfs.diff_ids[{number}]")
        return Name(
            canonical,
            digest,
            manifest.config.digest,
            manifest.media_type,
            config.diff_ids,
            (digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)),
            sum(self._places.size(layer) for layer in dict.fromkeys(config.diff_ids)),
            config.created,
            str(config.platform),
            config.config,
            repo_digest if repo_digest != digest else "",
        )

    def _check_blob(self, document: str, descriptor: Descriptor) -> None:
        if not self.has_blob(descriptor.digest):
            raise ImageError(document, f"blob {descriptor.digest} is not there")
        size = self.blob_size(descriptor.digest)
        if size != descriptor.size:
            reason = f"blob {descriptor.digest} has {size} bytes where its descriptor says {descriptor.size}"
            raise ImageError(document, reason)

    def read_image(self, digest: str) -> tuple[Manifest, Config]:
        """Manifest and configuration, checked against one another. Raises ImageError."""
        self._lease.hold(digest)
        return read_image(self._places, digest)


def canonical_name(name: str) -> str:
    """The canonical reference that an image can be given as its name. Raises BadInput."""
    if name == HOST:
        raise reference.BadReference(name, 0, "'host' stands for the machine's own /usr: choose another name")
    return reference.parse(name).canonical


def give_name(places: Places, entry: Name) -> None:
    """Write the name. What it stood for until now is kept without a name if it has no other. The store is locked."""
    try:
        before = names.read(places, entry.file)
    except (FileNotFoundError, RawpodError):
        before = None
    if before is not None and before.digest != entry.digest:
        keep_nameless(places, before)
    names.write(places, entry)
    if entry.reference:
        (places.root / "names" / f"@{entry.digest}").unlink(missing_ok=True)


def keep_nameless(places: Places, entry: Name) -> None:
    """Keep an image that is about to lose this name, unless it has another. The store is locked."""
    others = (names.read(places, file) for file in names.files(places.root) if file != entry.file)
    if not any(other.digest == entry.digest for other in others):
        names.write(places, entry._replace(reference="", repo_digest=""))


def read_blob(places: Places, digest: str, limit: int = DOCUMENT_MAX) -> bytes:
    """A small document of the store. Raises NotFound, and ImageError if it is larger or damaged."""
    try:
        with open(places.blob(digest), "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise NotFound(f"blob {digest} is not in the image store") from None
    if len(data) > limit:
        raise ImageError(f"blob {digest}", f"is over the limit of {limit} bytes")
    if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
        raise ImageError(
            f"blob {digest}", "is damaged: its digest is another", remedy="rawpod image prune; pull it anew"
        )
    return data


def read_image(places: Places, digest: str) -> tuple[Manifest, Config]:
    """Manifest and configuration of an image in the store, checked against one another. Raises ImageError, NotFound."""
    manifest = model.parse_manifest(read_blob(places, digest), document=f"manifest {digest}")
    if not isinstance(manifest, Manifest):
        raise ImageError(f"manifest {digest}", "is an index: one of its manifests has to be chosen")
    document = f"config {manifest.config.digest}"
    config = model.parse_config(read_blob(places, manifest.config.digest), document)
    model.check_layers(manifest, config, document)
    return manifest, config
