"""The holes of other runtimes that concern copies into and out of containers.

A docstring names the hole and how the test was seen to fail: what was taken out of the program, and put back.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel.errors import RawpodError
from kernel.inotify import inotify_add_watch, inotify_init1, read_changes
from rootfs.copying.items import Owners
from rootfs.copying.places import Root
from rootfs.copying.receiver import Receiver
from rootfs.copying.rules import Place
from rootfs.layers.copies import receive
from runtime.pod import copying, directory
from runtime.settings import Settings
from tests.linux.test_run import Rawpod, rawpod
from tests.rootfs_lab import in_child, swapping, tree

__all__ = ["rawpod"]

SWAPS = 1000
COPIES = 40 if os.environ.get("RAWPOD_VM") else 200  # at least; there it takes ten times as long
IN_ACCESS, IN_OPEN = 0x1, 0x20  # inotify(7)

# Exchanges the directory /w/x for a link to a directory of the host and back, and counts.
SWAPPER = """
import ctypes, os, sys
os.makedirs("/w/x/in"); open("/w/x/inside", "w").write("container"); os.symlink(sys.argv[1], "/w/y")
libc = ctypes.CDLL(None); count = os.open("/count", os.O_CREAT | os.O_WRONLY); done = 0
while True:
    for _ in range(100):
        assert libc.renameat2(-100, b"/w/x", -100, b"/w/y", 2) == 0
    done += 100
    os.pwrite(count, b"%d" % done, 0)
"""


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host that has to be the same after the test."""
    top = tmp_path / "outside"
    (top / "in").mkdir(parents=True)
    (top / "inside").write_text("secret of the host")
    (top / "in/deep").write_text("secret of the host")
    before = tree(top)
    yield top
    assert tree(top) == before


@contextmanager
def swapped_container(rawpod: Rawpod, settings: Settings, outside: Path) -> Iterator[copying.View]:
    """A container that goes on swapping while it is copied."""
    words = ("run", "-d", "--name", "web", "--network", "none", "host", "/usr/bin/python3", "-c", SWAPPER, str(outside))
    uid = rawpod(*words).stdout.strip()
    try:
        status = directory.read_status(settings.pod(uid))
        assert status is not None
        with copying.view(settings.pod(uid) / "containers/web", status, pause=False) as view:
            while swaps(view) < SWAPS:
                pass
            yield view
    finally:
        rawpod("rm", "-f", "web")


def swaps(view: copying.View) -> int:
    try:
        with os.fdopen(view.root.open("/count", os.O_RDONLY)) as file:
            return int(file.read() or 0)
    except RawpodError:
        return 0


def during_swaps(view: copying.View, copy: Callable[[int], object]) -> tuple[int, int]:
    """Copy until at least 1,000 swaps were made and both of the swapped things were met: (went well, was refused)."""
    first, well, refused, number = swaps(view), 0, 0, 0
    while number < COPIES or swaps(view) < first + SWAPS or not (well and refused):
        assert number < 20_000, (well, refused)
        number += 1
        try:
            copy(number)
            well += 1
        except RawpodError:
            refused += 1
    return well, refused


def test_row_28_swaps_under_a_copy_into_a_container(
    rawpod: Rawpod, settings: Settings, outside: Path, tmp_path: Path
) -> None:
    """CVE-2018-15664, CVE-2026-41568: the target, and a directory in it, become links to the host's and back.

    Nothing is frozen. Seen to fail with Root.open() by path below /proc/PID/root, and without O_NOFOLLOW in
    Receiver.directory() (`outside` gets files either time).
    """
    source = tmp_path / "source"
    (source / "x/in").mkdir(parents=True)
    (source / "x/in/new").write_text("copied")
    options = copying.Options()
    with swapped_container(rawpod, settings, outside) as view:

        def copy(number: int) -> None:
            (source / f"x/{number}").touch()
            copying.copy_in(view, Place("", f"{source}/."), Place("web", "/w"), options)
            copying.copy_in(view, Place("", f"{source}/x/."), Place("web", "/w/x"), options)
            copying.copy_in(view, Place("", f"{source}/x/{number}"), Place("web", "/w/x/in/deep"), options)
            (source / f"x/{number}").unlink()

        during_swaps(view, copy)


def test_row_28_swaps_under_a_copy_out_of_a_container(
    rawpod: Rawpod, settings: Settings, outside: Path, tmp_path: Path
) -> None:
    """CVE-2018-15664, CVE-2026-42306: what is copied becomes a link to the host's and back; none of it is read.

    Nothing is frozen. Seen to fail with Root.open() by path below /proc/PID/root, and with what walk() lists opened
    without O_NOFOLLOW ("secret of the host" is copied either time).
    """
    with swapped_container(rawpod, settings, outside) as view:

        def copy(number: int) -> None:
            out = tmp_path / f"out{number % 50}"
            out.mkdir(exist_ok=True)
            for follow in (False, True):
                options = copying.Options(follow=follow)
                copying.copy_out(view, Place("web", "/w/."), Place("", f"{out}/{follow}"), options)
            copying.copy_out(view, Place("web", "/w/x/inside"), Place("", f"{out}/file"), options)

        during_swaps(view, copy)
    for path in tmp_path.glob("out*/**/*"):
        if path.is_file() and not path.is_symlink() and outside.resolve() not in path.resolve().parents:
            assert path.read_text() == "container"


def test_row_28_swaps_on_the_hosts_side(outside: Path, tmp_path: Path) -> None:
    """CVE-2026-17106: a directory below the target on the host is swapped by who may write there.

    Seen to fail without O_NOFOLLOW in Receiver.directory().
    """
    root, target = tmp_path / "root", tmp_path / "target"
    (root / "x/in").mkdir(parents=True)
    target.mkdir()
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    view = copying.View(Root(fd), None)
    went = {True: 0, False: 0}
    with swapping(target, outside):
        for number in range(SWAPS):
            (root / f"x/{number}").touch()
            try:
                copying.copy_out(view, Place("c", "/."), Place("", str(target)), copying.Options())
                went[True] += 1
            except RawpodError:
                went[False] += 1
            (root / f"x/{number}").unlink()
    os.close(fd)
    assert went[True]
    assert went[False]


def test_row_29_nothing_is_loaded_or_executed_from_the_container(outside: Path, tmp_path: Path) -> None:
    """CVE-2019-14271, CVE-2014-9357, CVE-2026-41567: name service modules and decompressors of the container.

    Everything in it that a chroot'ed process would open or execute is watched. Seen to fail with a child
    of copy_in() that does os.chroot() and pwd.getpwall() (etc/passwd is opened).
    """
    root = tmp_path / "root"
    bait = ("etc/nsswitch.conf", "etc/passwd", "etc/ld.so.cache", "etc/localtime", "bin/gzip", "bin/unpigz", "bin/tar")
    bait += ("bin/zstd", "usr/bin/xz", "lib/x86_64-linux-gnu/libnss_files.so.2", "lib/x86_64-linux-gnu/libc.so.6")
    watch = inotify_init1(blocking=False)
    for name in bait:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("#!/bin/false\n")
        (root / name).chmod(0o755)
        inotify_add_watch(watch, root / name, IN_OPEN | IN_ACCESS)
    (root / "srv").mkdir()
    (root / "srv/file").write_text("x")
    with tarfile.open(tmp_path / "packed.tgz", mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("srv/streamed"))

    def work() -> None:
        view = copying.View(Root(os.open(root, os.O_PATH | os.O_DIRECTORY)), None)
        keep = copying.Options(keep_owner=True)
        copying.copy_in(view, Place("", str(outside)), Place("c", "/srv/in"), keep)
        copying.copy_out(view, Place("c", "/srv"), Place("", f"{tmp_path}/out"), keep)
        packed = os.open(tmp_path / "packed.tgz", os.O_RDONLY)
        receive(packed, view.root, "/", Receiver(Owners(keep=False)))

    in_child(work)
    assert (root / "srv/streamed").exists()
    assert (tmp_path / "out/in/in/deep").exists()
    assert read_changes(watch) == []
    os.close(watch)


def test_row_30_a_hostile_tree_stays_below_the_target(outside: Path, tmp_path: Path) -> None:
    """CVE-2026-17106, CVE-2019-10152: links in the container's tree, and what a copy before left on the host.

    Seen to fail without O_NOFOLLOW in Receiver.directory(), and with Receiver.file() opening an existing name without
    O_EXCL ("overwritten" is then in `outside`).
    """
    root, target = tmp_path / "root", tmp_path / "out"
    (root / "evil").mkdir(parents=True)
    (root / "evil/a").symlink_to(outside)
    (root / "evil/b").symlink_to(outside / "inside")
    (root / "evil/..x").mkdir()
    (root / "evil/...").write_text("dots")
    (root / "evil/\\..\\..\\back\nslash").write_text("odd")
    os.mkfifo(root / "evil/fifo")
    with open(root / "evil/huge", "wb") as file:
        file.truncate(1 << 42)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    view = copying.View(Root(fd), None)

    def copy(source: str) -> None:
        copying.copy_out(view, Place("c", source), Place("", str(target)), copying.Options())

    copy("/evil")
    assert sorted(os.listdir(target)) == sorted(os.listdir(root / "evil"))
    assert os.readlink(target / "a") == str(outside)
    assert stat.S_ISFIFO((target / "fifo").lstat().st_mode)
    assert (target / "huge").stat().st_blocks < 1000
    # Now the links lead out of the target, and the container has something else below their names.
    for name in ("a", "b"):
        (root / "evil" / name).unlink()
    (root / "evil/a").mkdir()
    (root / "evil/a/inside").write_text("overwritten")
    (root / "evil/b").write_text("overwritten")
    with pytest.raises(RawpodError, match=r"'a'.*directory"):
        copy("/evil/.")
    (root / "evil/a/inside").unlink()
    (root / "evil/a").rmdir()
    copy("/evil/.")
    assert (target / "b").read_text() == "overwritten"
    assert not (target / "b").is_symlink()
    os.close(fd)


def test_row_30_a_link_at_the_target_of_a_copy_in_is_the_containers(outside: Path, tmp_path: Path) -> None:
    """CVE-2019-10152: the target in the container is a link to a path that exists on the host.

    Seen to fail with Root.open() by the joined path.
    """
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside / "inside")
    (root / "up").symlink_to("../../../../.." + str(outside))
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    view = copying.View(Root(fd), None)
    source = tmp_path / "source"
    source.write_text("copied")
    for path in ("/link", "/up/inside", "/up", "/../../.." + str(outside) + "/inside"):
        with pytest.raises(RawpodError, match="no directory"):
            copying.copy_in(view, Place("", str(source)), Place("c", path), copying.Options())
    os.close(fd)


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "/../escaped", "link/../../escaped"])
def test_row_30_names_of_an_archive_do_not_lead_out(outside: Path, tmp_path: Path, name: str) -> None:
    """CVE-2019-10152 and kin for archives: refused by name. Seen to fail without the look for ".." in _components()."""
    root = tmp_path / "root"
    (root / "srv/link").mkdir(parents=True)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    (tmp_path / "packed").write_bytes(data.getvalue())
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    with open(tmp_path / "packed", "rb") as packed, pytest.raises(RawpodError, match=r"'\.\.'"):
        receive(packed.fileno(), Root(fd), "/srv", Receiver(Owners(keep=False)))
    os.close(fd)
    assert not list(tmp_path.rglob("escaped"))
