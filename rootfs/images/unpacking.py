"""Layers on their way from a blob to their place: unpacked aside in a worker process, checked, then moved."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rootfs.files import sync_filesystem
from rootfs.images.model import Descriptor
from rootfs.images.places import Places
from rootfs.layers.unpack import LayerError, Limits, Unpacked, Unpacking, start_unpack

if TYPE_CHECKING:
    from rootfs.images.ingest import Ingest


class LayerUnpacking:
    """A layer on its way from a blob to its place. A context manager; closing it ends the worker if it still runs."""

    def __init__(
        self, ingest: Ingest, places: Places, descriptor: Descriptor, diff_id: str | None, label: str, limits: Limits
    ) -> None:
        self._ingest = ingest
        self._diff_id = diff_id
        self._label = label
        self._temporaries = places.temporary()
        self._temporary = self._temporaries.__enter__()
        self._worker: Unpacking | None = None
        try:
            blob = os.open(places.blob(descriptor.digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self._worker = start_unpack(blob, label, self._temporary.fd, limits)
            finally:
                os.close(blob)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable once the worker has ended, when result() takes no longer than it takes to sync the files."""
        assert self._worker is not None
        return self._worker.fileno()

    @property
    def directory(self) -> int:
        """A descriptor of the layer's root."""
        return self._temporary.fd

    def result(self) -> Unpacked:
        """Wait for it, and put the layer in its place. Raises LayerError."""
        unpacked = self.unpacked()
        self.keep(unpacked)
        return unpacked

    def unpacked(self) -> Unpacked:
        """Wait for it, and see that it is what the configuration says. Raises LayerError."""
        assert self._worker is not None
        unpacked = self._worker.result()
        if self._diff_id not in (None, unpacked.digest):
            reason = f"its contents have the digest {unpacked.digest}, the image's configuration says {self._diff_id}"
            raise LayerError(self._label, reason)
        return unpacked

    def keep(self, unpacked: Unpacked) -> None:
        """Put the layer in its place, once it is on disk."""
        sync_filesystem(self._temporary.fd)
        self._ingest.hold_layer(unpacked, self._temporary)

    def close(self) -> None:
        """Let go of it; the temporary directory goes, unless it became a layer."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        self._temporaries.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ready(running: Sequence[LayerUnpacking]) -> list[LayerUnpacking]:
    """Those that have ended; waits for one."""
    poll = select.poll()
    for unpacking in running:
        poll.register(unpacking.fileno(), select.POLLIN)
    ended = {fd for fd, _ in poll.poll()}
    return [unpacking for unpacking in running if unpacking.fileno() in ended]
