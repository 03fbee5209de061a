"""The image store: images by name, their blobs and layers by content. places.py says what is where.

To look an image up reads one small file; whatever else there is to do is imported when it is done.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kernel.errors import BadInput, Conflict, NotFound, RawpodError
from rootfs import host
from rootfs.images import names, reference
from rootfs.images.image import HOST, Healthcheck, Image, ImageConfig, InUse
from rootfs.images.names import Name
from rootfs.images.places import Places

if TYPE_CHECKING:
    from rootfs.images.garbage import Pruned
    from rootfs.images.ingest import Ingest
    from rootfs.layers.limits import Limits

__all__ = ["HOST", "Healthcheck", "Image", "ImageConfig", "ImageStore"]

_HEX = frozenset("0123456789abcdef")
_DIGITS_MIN = 4


class ImageStore:
    """The images below `root`, /var/lib/rawpod/images. Several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.places = Places(root)

    def get(self, name: str) -> Image:
        """The image of that name; also by a digest, with or without a repository.

        Raises NotFound, BadInput for what can be no name, RawpodError for a damaged record.
        """
        return self._host() if name == HOST else self._find(name).image(self.places)

    def look_up(self, name: str) -> Image:
        """As get(), and by the first digits of a digest or an id: for people, not for manifests."""
        return self._host() if name == HOST else self.find(name).image(self.places)

    def find(self, name: str) -> Name:
        """What the name stands for, any but `host`, as look_up() finds it. Raises as get() does."""
        try:
            return self._find(name)
        except NotFound:
            if _HEX.issuperset(name) and len(name) >= _DIGITS_MIN:
                return self._by_id(name, name)
            raise

    def _find(self, name: str) -> Name:
        if _is_id(name):
            return self._by_id(name.removeprefix("sha256:"), name)
        parsed = reference.parse(name)
        with suppress(FileNotFoundError):
            return names.read(self.places, names.file_name(parsed.canonical))
        if parsed.digest is not None:
            # A tag beside a digest says nothing, as with Docker.
            for found in self._readable():
                of = reference.parse(found.reference) if found.reference else None
                if of and of.name == parsed.name and parsed.digest in (found.digest, found.repo_digest):
                    return found
        raise _missing(name)

    def list(self) -> list[Image]:
        """All images by name, `host` among them. One whose record is damaged is left out."""
        return sorted([self._host(), *(found.image(self.places) for found in self._readable())], key=lambda i: i.name)

    def ingest(self, limits: Limits | None = None) -> Ingest:
        """A lease, to bring an image in; a context manager. `limits` other than those of limits.toml are for tests."""
        from rootfs.images.ingest import Ingest
        from rootfs.layers.limits import FILE, read_limits

        return Ingest(self.places, limits or read_limits(self.root / FILE))

    def import_tar(self, name: str, path: Path | IO[bytes], limits: Limits | None = None, **changes: Any) -> Image:
        """Make the root file system in a tar (plain, gzip or zstd) the image `name`, which another one may lose.

        `changes` are fields of ImageConfig, besides `author` and `comment`. Raises LayerError for a bad archive,
        BadInput for a bad name.
        """
        from rootfs.images.importing import import_tar

        with self.ingest(limits) as ingest:
            return import_tar(ingest, name, path, **changes)

    def tag(self, source: str, target: str) -> Image:
        """Give the image `source` one more name, taken from whatever had it. Raises as get() does."""
        from rootfs.images.ingest import canonical_name, give_name

        canonical = canonical_name(target)
        if source == HOST:
            raise BadInput(f"image {HOST!r} is the machine's own and has no other name")
        with self.places.locked():
            entry = self.find(source)._replace(reference=canonical)
            give_name(self.places, entry)
        return entry.image(self.places)

    def remove(self, name: str, in_use: InUse = tuple, *, force: bool = False) -> tuple[str, ...]:
        """Take the name away, and with the last name the image's blobs and layers, as far as no other needs them.

        Raises NotFound, and Conflict if a container is made of the image: with `force` the name goes all the same, the
        layers stay. By its id an image is removed with all its names, which needs `force` if there are several.
        What was removed: names, and digests of the images that are gone.
        """
        from rootfs.images.garbage import collect, is_used
        from rootfs.images.ingest import keep_nameless

        if name == HOST:
            raise BadInput(f"image {HOST!r} is always there", remedy="it holds no more than a few small files")
        with self.places.locked():
            if (damaged := self._damaged(name)) is not None:
                os.unlink(damaged)
                return (name,)
            doomed = self._names_for(name, force)
            stays = [other for other in names.read_all(self.places) if other.file not in {one.file for one in doomed}]
            last = not any(other.digest == doomed[0].digest for other in stays)
            used = last and is_used(self.places, doomed[0], in_use())
            if used and not (force and doomed[0].reference):
                raise Conflict(f"image {name!r} is in use", remedy="remove the containers that use it first")
            if used:
                keep_nameless(self.places, doomed[0])
            for one in doomed:
                os.unlink(self.root / "names" / one.file)
        if not last or used:
            return tuple(one.familiar for one in doomed)
        collect(self.places, (*doomed[0].blobs, *doomed[0].layers), in_use)
        return (*(one.familiar for one in doomed if one.reference), doomed[0].digest)

    def prune(self, in_use: InUse = tuple, *, unused: bool = False, older_than: float = 0.0) -> Pruned:
        """Remove images without a name, with `unused` all that no container is made of, and whatever nothing needs.

        Unfinished downloads that were not written to for `older_than` seconds go as well, if nobody writes to them.
        """
        from rootfs.images import garbage

        return garbage.prune(self.places, in_use, unused=unused, older_than=older_than)

    def _names_for(self, name: str, force: bool) -> tuple[Name, ...]:
        """The names that `remove` takes away: one, or all of an image that was given by its id."""
        found = self.find(name)
        try:
            if found.file == names.file_name(reference.parse(name).canonical):
                return (found,)
        except BadInput:
            pass  # an id
        same = tuple(other for other in names.read_all(self.places) if other.digest == found.digest)
        if len(same) > 1 and not force:
            listed = ", ".join(other.familiar for other in same)
            raise Conflict(f"image {name!r} has several names: {listed}", remedy="remove it by a name, or by force")
        return same

    def _damaged(self, name: str) -> Path | None:
        """The file of a name whose record cannot be read: to be removable it need not be understood, nor be a name."""
        candidates = {name.replace("/", "%")}
        with suppress(BadInput):
            candidates.add(names.file_name(reference.parse(name).canonical))
        for file in candidates.intersection(names.files(self.root)):
            try:
                names.read(self.places, file)
            except RawpodError:
                return self.root / "names" / file
        return None

    def _by_id(self, digits: str, name: str) -> Name:
        def begins(digest: str) -> bool:
            return digest.removeprefix("sha256:").startswith(digits)

        found = [one for one in self._readable() if begins(one.digest) or begins(one.id) or begins(one.repo_digest)]
        if not found:
            raise _missing(name)
        if len({one.digest for one in found}) > 1:
            raise BadInput(f"image id {name!r} is ambiguous", remedy="give more of its digits")
        return min(found, key=lambda one: (not one.reference, one.reference))

    def _readable(self) -> tuple[Name, ...]:
        found = []
        for file in names.files(self.root):
            with suppress(RawpodError, FileNotFoundError):
                found.append(names.read(self.places, file))
        return tuple(found)

    def _host(self) -> Image:
        made = host.ensure(self.root)
        layers = (made.digest,)
        return Image(HOST, made.digest, (made.root,), made.size, made.created, ImageConfig(), made.binds, layers=layers)


def _is_id(name: str) -> bool:
    """Whether it can be nothing but a digest, or one without its algorithm."""
    digits = name.removeprefix("sha256:")
    return len(digits) == 64 and _HEX.issuperset(digits)


def _missing(name: str) -> NotFound:
    remedy = f"rawpod pull {name}; rawpod image ls shows what is there"
    return NotFound(f"image {name!r} does not exist", remedy=remedy)
