"""Images with a configuration, for tests as root: a busybox in a layer of its own, and what a test adds."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rootfs.images.names import write
from rootfs.images.store import Image, ImageStore
from tests.rootfs_lab import Archive

APPLETS = ("sh", "cat", "id", "ls", "pwd", "stat", "sleep", "env", "touch", "rm", "true", "false", "test", "kill")


def busybox() -> Archive:
    """A root file system in which a shell runs."""
    program = shutil.which("busybox")
    assert program is not None, "busybox-static is not installed"
    archive = Archive().directory("bin").directory("etc").directory("tmp", mode=0o1777)
    archive.add("bin/busybox", Path(program).read_bytes(), mode=0o755)
    for applet in APPLETS:
        archive.symlink(f"bin/{applet}", "busybox")
    archive.add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n")
    return archive.add("etc/group", b"root:x:0:\nweb:x:34:\nextra:x:35:web\n")


def make_image(
    images: Path, name: str, archive: Archive | None = None, platform: str | None = None, **config: Any
) -> Image:
    """The image `name` in the store at `images`, of one layer; `config` are fields of ImageConfig."""
    store = ImageStore(images)
    with TemporaryDirectory() as directory:
        tar = (archive or busybox()).write(Path(directory) / "root.tar")
        store.import_tar(name, tar, **config)
    if platform:
        found = store.find(name)
        write(store.places, found._replace(platform=platform))
    return store.get(name)
