"""Where an image is loaded from: an OCI layout's directory, or a tar of one, or docker-archive's; plain or compressed.

An archive is read once, from its beginning to its end, so that it can come through a pipe. What can be a blob goes into
the store at once, under the digest that it turns out to have; what no image needs is removed in the end. No name in the
archive becomes a path of the host.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import stat
import time
from pathlib import Path
from typing import Protocol

from kernel.errors import BadInput, SystemCallError
from kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from rootfs.files import write_all
from rootfs.images.document import DOCUMENT_MAX, ImageError
from rootfs.images.ingest import Ingest
from rootfs.images.model import Descriptor
from rootfs.images.places import DIRECTORY, hex_of
from rootfs.layers.stream import Stream, StreamLimits
from rootfs.layers.tar import HARD_LINK, REGULAR, SYMBOLIC_LINK, HeaderLimits, Member, members
from rootfs.layers.tar_header import TarError
from rootfs.layers.unpack import LayerError

INDEX, LAYOUT, MANIFESTS = "index.json", "oci-layout", "manifest.json"

_DOCUMENTS = (INDEX, LAYOUT, MANIFESTS)
_CHUNK = 1 << 20
_MEMBERS_MAX = 100_000
_LINKS_MAX = 8
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
# Docker's own records of old, and other algorithms' blobs: there may be some, nobody reads them.
_IGNORED = re.compile(r"repositories|[^/]+/(VERSION|json)|blobs/.*")
_BLOB_LIKE = re.compile(r"[^/]+\.json|([^/]+/)?[^/]+\.tar(\.gz)?")


class Contents(Protocol):
    """What images are loaded from; `label` names it in errors."""

    label: str

    def document(self, name: str) -> bytes | None:
        """index.json, oci-layout or manifest.json; None if it is not there."""

    def fetch(self, ingest: Ingest, descriptor: Descriptor) -> None:
        """See to it that the blob is in the store. Raises ImageError."""

    def find(self, path: str) -> tuple[str, int]:
        """Digest and size of a file that docker-archive's manifest names. Raises ImageError."""


class LayoutDirectory:
    """An OCI layout that is a directory."""

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._path = path

    def document(self, name: str) -> bytes | None:
        try:
            fd = self._open(name)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            data = file.read(DOCUMENT_MAX + 1)
        if len(data) > DOCUMENT_MAX:
            raise ImageError(f"{self.label}/{name}", f"is over the limit of {DOCUMENT_MAX} bytes")
        return data

    def fetch(self, ingest: Ingest, descriptor: Descriptor) -> None:
        if ingest.has_blob(descriptor.digest):
            return
        try:
            fd = self._open(f"blobs/sha256/{hex_of(descriptor.digest)}")
        except FileNotFoundError:
            raise ImageError(self.label, f"blob {descriptor.digest} is not there") from None
        with open(fd, "rb", buffering=0) as file, ingest.partial(descriptor.digest, descriptor.size) as partial:
            file.seek(partial.offset)
            while chunk := file.read(_CHUNK):
                partial.write(chunk)
            partial.commit()

    def find(self, path: str) -> tuple[str, int]:
        raise ImageError(self.label, f"{path!a} belongs to docker-archive, which is a tar")

    def _open(self, name: str) -> int:
        """A regular file of the directory; links in it lead nowhere else. Raises FileNotFoundError, ImageError."""
        top = os.open(self._path, DIRECTORY & ~os.O_NOFOLLOW)
        try:
            fd = openat2(top, name, os.O_RDONLY | os.O_NONBLOCK, resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
        except SystemCallError as error:
            if error.errno in (2, 20):  # ENOENT, ENOTDIR
                raise FileNotFoundError(name) from None
            raise ImageError(self.label, f"cannot open {name}: {error.strerror}") from None
        finally:
            os.close(top)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ImageError(self.label, f"{name} is not a regular file")
        return fd


class Archive:
    """A tar of images, which reading puts into the store."""

    def __init__(self, label: str, fd: int, ingest: Ingest) -> None:
        self.label = label
        limits = ingest.limits
        self._ingest = ingest
        self._documents: dict[str, bytes] = {}
        self._files: dict[str, tuple[str, int]] = {}
        self._links: dict[str, str] = {}
        source = Stream(fd, StreamLimits(limits.total_bytes, limits.ratio, time.monotonic() + limits.deadline))
        try:
            self._read(source, HeaderLimits(limits.member_bytes, limits.extended_bytes, limits.segments))
        except TarError as error:
            raise LayerError(label, error.reason, offset=error.offset, member=error.member) from None
        finally:
            source.close()

    def document(self, name: str) -> bytes | None:
        return self._documents.get(name)

    def fetch(self, ingest: Ingest, descriptor: Descriptor) -> None:
        if not ingest.has_blob(descriptor.digest):
            raise ImageError(self.label, f"blob {descriptor.digest} is not there")

    def find(self, path: str) -> tuple[str, int]:
        name = _normal(path)
        for _ in range(_LINKS_MAX):
            if name in self._files:
                return self._files[name]
            if name not in self._links:
                raise ImageError(self.label, f"{path!a} is not in the archive")
            name = self._links[name]
        raise ImageError(self.label, f"{path!a} is a link to a link, more than {_LINKS_MAX} times")

    def _read(self, source: Stream, limits: HeaderLimits) -> None:
        for number, member in enumerate(members(source, limits)):
            if number == _MEMBERS_MAX:
                raise TarError(f"more than {_MEMBERS_MAX} members", member.offset, member.name)
            name = _normal(member.name)
            if member.type == SYMBOLIC_LINK:
                self._links[name] = _normal(posixpath.join(posixpath.dirname(name), member.link))
            elif member.type == HARD_LINK:
                self._links[name] = _normal(member.link)
            elif member.type == REGULAR:
                self._add(name, member, source)
            else:
                source.skip(member.stored)
        source.drain()

    def _add(self, name: str, member: Member, source: Stream) -> None:
        if member.segments is not None:
            raise TarError("a sparse file has no place in an archive of images", member.offset, member.name)
        if name in self._files or name in self._documents:
            raise TarError("it is there twice", member.offset, member.name)
        if name in _DOCUMENTS:
            if member.stored > DOCUMENT_MAX:
                raise TarError(f"it is over the limit of {DOCUMENT_MAX} bytes", member.offset, member.name)
            self._documents[name] = source.read(member.stored)
            return
        blob = _BLOB.fullmatch(name)
        if blob is None and _IGNORED.fullmatch(name):
            source.skip(member.stored)
        elif blob is None and not _BLOB_LIKE.fullmatch(name):
            remedy = "rawpod image import, for the archive of a root file system"
            raise BadInput(f"{self.label!r} is no archive of images: {member.name[:200]!r} is in it", remedy=remedy)
        elif blob and self._ingest.has_blob(f"sha256:{blob[1]}"):
            source.skip(member.stored)
            self._files[name] = f"sha256:{blob[1]}", self._ingest.blob_size(f"sha256:{blob[1]}")
        else:
            self._files[name] = self._store(member, source, blob and f"sha256:{blob[1]}")

    def _store(self, member: Member, source: Stream, wanted: str | None) -> tuple[str, int]:
        sha256, left = hashlib.sha256(), member.stored
        with self._ingest.stream() as stream:
            while left:
                data = source.read(min(left, _CHUNK))
                sha256.update(data)
                write_all(stream.fd, data)
                left -= len(data)
            digest = "sha256:" + sha256.hexdigest()
            if wanted not in (None, digest):
                raise TarError(f"its digest is {digest}", member.offset, member.name)
            stream.keep(digest)
        return digest, member.stored


def _normal(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")
