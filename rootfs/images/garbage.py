"""Taking away what no name, no container and no ingest needs."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from typing import NamedTuple

from rootfs import host
from rootfs.images import names
from rootfs.images.image import InUse
from rootfs.images.lease import held
from rootfs.images.names import Name
from rootfs.images.places import Places, hex_of, try_lock

Stacks = Collection[tuple[str, ...]]


class Pruned(NamedTuple):
    """What was removed: names of images, layers, blobs, unfinished blobs; `size` in bytes."""

    images: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    size: int = 0


def prune(places: Places, in_use: InUse, *, unused: bool = False, older_than: float = 0.0) -> Pruned:
    """Remove images without a name, with `unused` all that no container is made of, and whatever nothing needs.

    Unfinished blobs that were not written to for `older_than` seconds go as well, if nobody writes to them.
    Raises RawpodError, before it removes anything, if a name's record is damaged.
    """
    with places.locked():
        stacks = in_use()
        images = [name for name in names.read_all(places) if (unused or not name.reference)]
        images = [name for name in images if not is_used(places, name, stacks)]
        for name in images:
            os.unlink(places.root / "names" / name.file)
        found = _collect(places, stacks, None)
        unfinished, size = _clear_ingest(places, older_than)
    places.clear_rubbish(in_use)
    places.clear_unpacked()
    host.prune(places.root, frozenset(digest for stack in in_use() for digest in stack))
    return found._replace(images=tuple(name.familiar for name in images), unfinished=unfinished, size=found.size + size)


def collect(places: Places, candidates: Collection[str], in_use: InUse) -> Pruned:
    """Remove those of the blobs and layers `candidates`, given by digest, that nothing needs any more."""
    with places.locked():
        found = _collect(places, in_use(), {hex_of(digest) for digest in candidates})
    places.clear_rubbish(in_use)
    return found


def is_used(places: Places, name: Name, stacks: Stacks) -> bool:
    """Whether a container is made of the image."""
    return name.image(places).stack in stacks


def _collect(places: Places, stacks: Stacks, candidates: set[str] | None) -> Pruned:
    """The store is locked. Blobs are unlinked, layers moved away."""
    kept = held(places) | {hex_of(layer) for stack in stacks for layer in stack}
    for name in names.read_all(places):
        kept.update(hex_of(digest) for digest in (*name.blobs, *name.layers))
    layers, blobs, size = [], [], 0
    for layer in _there(places, "layers", candidates) - kept:
        size += places.size(f"sha256:{layer}")
        places.discard_layer(layer)
        layers.append(f"sha256:{layer}")
    for blob in _there(places, "blobs/sha256", candidates) - kept:
        path = places.root / "blobs/sha256" / blob
        size += path.stat().st_size
        path.unlink()
        blobs.append(f"sha256:{blob}")
    for layer in _there(places, "sizes", candidates) - kept:
        places.size_file(f"sha256:{layer}").unlink()
    return Pruned(layers=tuple(sorted(layers)), blobs=tuple(sorted(blobs)), size=size)


def _there(places: Places, directory: str, candidates: set[str] | None) -> set[str]:
    found = set(os.listdir(places.root / directory))
    return found if candidates is None else found & candidates


def _clear_ingest(places: Places, older_than: float) -> tuple[tuple[str, ...], int]:
    """Remove unfinished blobs that nobody writes to; their digests and bytes. Streams have no digest yet."""
    removed, size = [], 0
    for name in os.listdir(places.root / "ingest"):
        path = places.root / "ingest" / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # finished just now
        try:
            status = os.fstat(fd)
            # Whoever waits for the lock looks afterwards whether the file is still there.
            if status.st_mtime <= time.time() - older_than and try_lock(fd) and status.st_nlink:
                path.unlink(missing_ok=True)
                size += status.st_size
                removed.append(name)
        finally:
            os.close(fd)
    return tuple(f"sha256:{name}" for name in sorted(removed) if len(name) == 64), size
