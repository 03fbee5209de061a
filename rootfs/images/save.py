"""Saving images: as an OCI layout, in a directory or a tar, or as docker-archive."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from kernel.errors import Conflict
from rootfs.files import new_file, write_all
from rootfs.images import model, reference
from rootfs.images.archive import INDEX, LAYOUT, MANIFESTS
from rootfs.images.document import ImageError
from rootfs.images.importing import descriptor_document
from rootfs.images.ingest import Ingest
from rootfs.images.load import IMAGE_NAME, REF_NAME
from rootfs.images.model import Descriptor
from rootfs.images.names import Name
from rootfs.images.places import DIRECTORY, Places, hex_of, sync_directory
from rootfs.layers.stream import Stream, StreamLimits
from rootfs.layers.tar import REGULAR
from rootfs.layers.tar_header import TarError
from rootfs.layers.tar_write import Common, encode, padding

_CHUNK = 1 << 20
_MODE = 0o644


class Target(Protocol):
    """Where files are saved to. `name` is relative, of our own making."""

    def add(self, name: str, data: bytes) -> None:
        """A small file."""

    def copy(self, name: str, fd: int, size: int) -> None:
        """The `size` bytes of an open file, from its beginning."""

    def finish(self) -> None:
        """All is there."""


class DirectoryTarget:
    """A directory, which is made or has to be empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)
        if os.listdir(path):
            raise Conflict(f"directory {str(path)!r} is not empty", remedy="name one that is, or that does not exist")

    def add(self, name: str, data: bytes) -> None:
        self._in(name, lambda directory, last: new_file(directory, last, data, mode=_MODE))

    def copy(self, name: str, fd: int, size: int) -> None:
        def write(directory: int, last: str) -> None:
            target = os.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _MODE, dir_fd=directory)
            try:
                _copy(fd, size, lambda data: write_all(target, data))
            finally:
                os.close(target)

        self._in(name, write)

    def finish(self) -> None:
        sync_directory(self._path)

    def _in(self, name: str, action: Callable[[int, str], None]) -> None:
        parent = (self._path / name).parent
        parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(parent, DIRECTORY)
        try:
            action(fd, name.rpartition("/")[2])
        finally:
            os.close(fd)


class TarTarget:
    """A tar, written to a descriptor. The same images give the same bytes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def add(self, name: str, data: bytes) -> None:
        write_all(self._fd, self._header(name, len(data)) + data + padding(len(data)))

    def copy(self, name: str, fd: int, size: int) -> None:
        write_all(self._fd, self._header(name, size))
        _copy(fd, size, lambda data: write_all(self._fd, data))
        write_all(self._fd, padding(size))

    def finish(self) -> None:
        write_all(self._fd, bytes(1024))

    def _header(self, name: str, size: int) -> bytes:
        return encode(name.encode(), REGULAR, Common(mode=_MODE), size=size)


def save_layout(places: Places, ingest: Ingest, images: Sequence[Name], target: Target) -> None:
    """As an OCI layout (image-layout.md): blobs as they came, so that every digest stays what it is."""
    target.add(LAYOUT, b'{"imageLayoutVersion":"1.0.0"}')
    for digest in dict.fromkeys(blob for image in images for blob in image.blobs):
        _copy_blob(places, ingest, digest, f"blobs/sha256/{hex_of(digest)}", target)
    index = {"schemaVersion": 2, "mediaType": model.OCI_INDEX, "manifests": _index(places, images)}
    target.add(INDEX, json.dumps(index, separators=(",", ":")).encode())
    target.finish()


def _index(places: Places, images: Sequence[Name]) -> list[dict[str, object]]:
    """Descriptors with both annotations that name an image; a tag that two would share is written as a whole name."""
    parsed = [reference.parse(image.reference) if image.reference else None for image in images]
    tags = Counter(one.tag for one in parsed if one)
    entries = []
    for image, one in zip(images, parsed, strict=True):
        size = places.blob(image.digest).stat().st_size
        entry = descriptor_document(Descriptor(image.media_type, image.digest, size))
        if image.platform:
            system, _, architecture = image.platform.partition("/")
            architecture, _, variant = architecture.partition("/")
            platform = {"architecture": architecture, "os": system, "variant": variant}
            entry["platform"] = {key: value for key, value in platform.items() if value}
        if one:
            short = one.tag if one.tag and tags[one.tag] == 1 else one.canonical
            entry["annotations"] = {IMAGE_NAME: one.canonical, REF_NAME: short}
        entries.append(entry)
    return entries


def save_docker(places: Places, ingest: Ingest, images: Sequence[Name], target: Target) -> None:
    """As docker-archive: layers uncompressed, under their diff_ids; ids of images stay, digests of manifests do not."""
    entries: dict[str, dict[str, object]] = {}
    written: set[str] = set()
    for image in images:
        manifest, config = ingest.read_image(image.digest)
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            if diff_id not in written:
                _copy_layer(places, ingest, layer.digest, diff_id, target)
                written.add(diff_id)
        if image.id not in entries:
            _copy_blob(places, ingest, image.id, f"{hex_of(image.id)}.json", target)
            layers = [f"{hex_of(diff_id)}.tar" for diff_id in config.diff_ids]
            entries[image.id] = {"Config": f"{hex_of(image.id)}.json", "RepoTags": [], "Layers": layers}
        tags = entries[image.id]["RepoTags"]
        if image.reference and reference.parse(image.reference).tag and isinstance(tags, list):
            tags.append(image.reference)
    target.add(MANIFESTS, json.dumps(list(entries.values()), separators=(",", ":")).encode())
    target.finish()


def _copy_layer(places: Places, ingest: Ingest, digest: str, diff_id: str, target: Target) -> None:
    """A layer's tar, decompressed into a file first: its size comes before its contents."""
    name = f"{hex_of(diff_id)}.tar"
    if digest == diff_id:
        _copy_blob(places, ingest, digest, name, target)
        return
    with ingest.stream() as stream:
        blob = _open(places, ingest, digest)
        source = Stream(blob, StreamLimits(1 << 62, 1 << 31, float("inf")))  # limits were kept when it was unpacked
        try:
            size = source.copy_all(stream.fd)
            if source.digest() != diff_id:
                raise ImageError(f"blob {digest}", f"is damaged: its contents are not {diff_id}")
        except TarError as error:
            raise ImageError(f"blob {digest}", f"is damaged: {error.reason}") from None
        finally:
            source.close()
            os.close(blob)
        target.copy(name, stream.fd, size)


def _copy_blob(places: Places, ingest: Ingest, digest: str, name: str, target: Target) -> None:
    fd = _open(places, ingest, digest)
    try:
        target.copy(name, fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _open(places: Places, ingest: Ingest, digest: str) -> int:
    if not ingest.has_blob(digest):
        raise ImageError(f"blob {digest}", "is not in the image store any more", remedy="pull the image anew")
    return os.open(places.blob(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _copy(fd: int, size: int, write: Callable[[bytes], None]) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    while size:
        data = os.read(fd, min(size, _CHUNK))
        if not data:
            raise ImageError("a file that is being saved", f"ended {size} bytes too early")
        write(data)
        size -= len(data)
