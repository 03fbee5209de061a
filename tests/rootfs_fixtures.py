"""A small root and what is beside it. A plugin of the test modules that name it in pytest_plugins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rootfs_lab import tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image's root, nearly empty."""
    for name in ("root/etc", "root/tmp", "outside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (tmp_path / "outside/secret").write_text("untouched")
    return tmp_path / "root"


@pytest.fixture
def outside(root: Path) -> Iterator[Path]:
    """A directory of the host that has to be the same after the test, as the host's mounts have to."""
    directory = root.parent / "outside"
    before, mounted = tree(directory), Path("/proc/self/mountinfo").read_text()
    yield directory
    assert tree(directory) == before
    assert Path("/proc/self/mountinfo").read_text() == mounted
