"""Stores of images for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rootfs.images.store import ImageStore


@pytest.fixture
def store() -> Iterator[ImageStore]:
    """An empty one, in memory: on a disk most of a test's time would be fsync(2)."""
    with TemporaryDirectory(prefix="rp-store-", dir="/dev/shm") as directory:
        yield empty(Path(directory) / "images")


def empty(root: Path) -> ImageStore:
    """Complete with its directories."""
    made = ImageStore(root)
    with made.places.locked():
        pass
    return made
