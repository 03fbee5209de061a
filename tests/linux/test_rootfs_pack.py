"""Packing trees into layers: what comes out is what went in, nothing from outside, the same bytes each time."""

import gzip
import hashlib
import os
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rootfs.idmap import IdMaps
from rootfs.layers.output import Compression, Packed
from rootfs.layers.pack import PackError, pack, pack_union
from rootfs.layers.unpack import unpack
from tests.layers_lab import allocated, entries

pytestmark = pytest.mark.userland

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep


class Packer:
    """Packs into a file below `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tar = home / "layer.tar"

    def __call__(
        self, root: Path, *, upper: bool = False, compression: Compression | None = None, ids: IdMaps | None = None
    ) -> Packed:
        return self._with([root], lambda fds, out: pack(fds[0], out, upper=upper, compression=compression, ids=ids))

    def union(self, *roots: Path) -> Packed:
        return self._with(list(roots), lambda fds, out: pack_union(fds, out, compression=None))

    def _with(self, roots: list[Path], work: Callable[[list[int], int], Packed]) -> Packed:
        fds = [os.open(root, os.O_RDONLY | os.O_DIRECTORY) for root in roots]
        out = os.open(self.tar, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            return work(fds, out)
        finally:
            for fd in (*fds, out):
                os.close(fd)

    def unpacked(self, name: str = "again") -> Path:
        """What was packed last, unpacked."""
        root = self.home / name
        root.mkdir()
        archive, target = os.open(self.tar, os.O_RDONLY), os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            unpack(archive, "layer", target)
        finally:
            os.close(archive)
            os.close(target)
        return root

    def names(self) -> list[str]:
        with tarfile.open(self.tar) as archive:
            return archive.getnames()


@pytest.fixture
def packer(on_disk: Path) -> Packer:
    return Packer(on_disk)


@pytest.fixture
def root(on_disk: Path) -> Path:
    """A tree with one of everything."""
    root = on_disk / "root"
    (root / "etc/deep/er").mkdir(parents=True)
    (root / "etc/file").write_bytes(b"contents" * 1000)
    (root / "etc/empty").touch()
    (root / "etc/deep/hard").hardlink_to(root / "etc/file")
    (root / "etc/absolute").symlink_to("/etc/passwd")
    os.link(root / "etc/absolute", root / "etc/second", follow_symlinks=False)
    (root / ("etc/" + "t" * 200)).symlink_to("x" * 300)
    (root / ("etc/deep/" + "n" * 150)).write_text("long name")
    (root / "etc/ümläut").write_text("x")
    with open(os.fsencode(root) + b"/etc/\xff\xfe", "w") as file:
        file.write("not utf-8")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 1 << 18))
    os.mkfifo(root / "fifo")
    (root / "set").write_text("x")
    os.chown(root / "set", 7, 8)
    os.chmod(root / "set", 0o6755)
    (root / "rich").write_text("x")
    os.chown(root / "rich", 4_000_000_000, 3_000_000_000)
    os.setxattr(root / "set", "security.capability", CAPABILITY)
    os.setxattr(root / "set", "user.note", b"a\0b=\n")
    os.setxattr(root / "etc", "user.directory", b"")
    os.utime(root / "set", ns=(0, 1_700_000_000_123_456_789))
    os.utime(root / "rich", ns=(0, -1_250_000_000))
    os.utime(root / "etc/deep", ns=(0, 5_000_000_000))
    os.chmod(root / "etc/deep", 0o3711)
    with open(root / "sparse", "wb") as file:
        file.seek(5 << 20)
        file.write(b"data")
        file.truncate(40 << 20)
    with open(root / "hole", "wb") as file:
        file.truncate(3 << 20)
    os.chmod(root, 0o710)
    return root


@pytest.mark.parametrize("compression", ["gzip", "zstd", None])
def test_a_tree_comes_back_as_it_was(packer: Packer, root: Path, compression: Compression | None) -> None:
    packed = packer(root, compression=compression)
    again = packer.unpacked()
    assert entries(again) == entries(root)
    assert allocated(again) < 1 << 20
    written = packer.tar.read_bytes()
    assert (packed.digest, packed.size) == ("sha256:" + hashlib.sha256(written).hexdigest(), len(written))
    if compression != "zstd":
        tar = gzip.decompress(written) if compression else written
        assert packed.diff_id == "sha256:" + hashlib.sha256(tar).hexdigest()


def test_gnu_tar_reads_the_same_out_of_it(packer: Packer, root: Path) -> None:
    packer(root, compression="gzip")
    again = packer.home / "gnu"
    again.mkdir()
    command = ["tar", "-C", again, "-xpzf", packer.tar, "--xattrs", "--xattrs-include=*", "--numeric-owner"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    known = ("Ignoring unknown extended header keyword 'hdrcharset'", "implausibly old time stamp")
    assert [line for line in done.stderr.splitlines() if not any(words in line for words in known)] == []
    assert entries(again) == entries(root)


def test_the_same_tree_gives_the_same_bytes(packer: Packer, root: Path) -> None:
    first = packer(root, compression="gzip")
    (root / "etc/file").read_bytes()
    copy = packer.home / "copy"
    subprocess.run(["cp", "-a", root, copy], check=True)
    assert packer(copy, compression="gzip") == first


def test_sockets_are_left_out_with_their_links(packer: Packer, on_disk: Path) -> None:
    root = on_disk / "s"
    root.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    os.link(root / "socket", root / "second")
    packer(root)
    assert packer.names() == ["."]


@pytest.fixture
def upper(on_disk: Path) -> Path:
    """What a payload leaves of an overlay: gone/, kept/old gone, fresh/ made anew, etc/new."""
    lower, upper, work, merged = (on_disk / name for name in ("lower", "upper", "work", "merged"))
    for name in ("gone/below", "kept", "fresh", "etc"):
        (lower / name).mkdir(parents=True)
    (lower / "kept/old").write_text("old")
    (lower / "fresh/old").write_text("old")
    for directory in (upper, work, merged):
        directory.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        subprocess.run(["rm", "-r", merged / "gone", merged / "kept/old", merged / "fresh"], check=True)
        (merged / "fresh").mkdir()
        (merged / "fresh/new").write_text("new")
        (merged / "etc/new").write_text("new")
    finally:
        subprocess.run(["umount", merged], check=True)
    return upper


def test_an_upper_directory_becomes_a_layer_with_whiteouts(packer: Packer, upper: Path) -> None:
    packer(upper, upper=True)
    assert packer.names() == [
        ".", ".wh.gone", "etc", "etc/new", "fresh", "fresh/.wh..wh..opq", "fresh/new", "kept", "kept/.wh.old",
    ]  # fmt: skip
    again = packer.unpacked()
    assert os.getxattr(again / "fresh", "trusted.overlay.opaque") == b"y"
    assert stat.S_ISCHR((again / "kept/old").stat().st_mode)
    assert stat.S_ISCHR((again / "gone").stat().st_mode)
    assert (again / "etc/new").read_text() == "new"


def test_a_union_is_what_the_overlay_shows(packer: Packer, upper: Path) -> None:
    packer.union(upper, upper.parent / "lower")
    assert packer.names() == [".", "etc", "etc/new", "fresh", "fresh/new", "kept"]


def test_a_union_takes_files_links_and_attributes_from_the_topmost(packer: Packer, on_disk: Path) -> None:
    layers = [on_disk / name for name in ("top", "middle", "bottom")]
    for layer in layers:
        (layer / "d/e").mkdir(parents=True)
        (layer / "d/same").write_text(layer.name)
        (layer / "d" / layer.name).write_text(layer.name)
        (layer / "d" / f"{layer.name}-twin").hardlink_to(layer / "d" / layer.name)
    os.chmod(layers[0] / "d", 0o700)
    (layers[0] / "d/e").rmdir()
    (layers[0] / "d/e").write_text("a file over directories")
    os.mknod(layers[1] / "d/bottom", stat.S_IFCHR, 0)
    packer.union(*layers)
    again = packer.unpacked()
    assert (again / "d").stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(again / "d")) == ["bottom-twin", "e", "middle", "middle-twin", "same", "top", "top-twin"]
    assert (again / "d/same").read_text() == "top"
    assert (again / "d/e").read_text() == "a file over directories"
    assert (again / "d/middle").stat().st_ino == (again / "d/middle-twin").stat().st_ino


@pytest.mark.parametrize("name", ["trusted.overlay.redirect", "trusted.overlay.metacopy"])
def test_what_is_only_half_in_the_upper_directory_is_refused(packer: Packer, upper: Path, name: str) -> None:
    os.setxattr(upper / "etc", name, b"/elsewhere")
    with pytest.raises(PackError) as caught:
        packer(upper, upper=True)
    assert name in caught.value.reason
    assert caught.value.path == b"etc"


def test_a_name_that_would_hide_another_is_refused(packer: Packer, upper: Path) -> None:
    """A payload could have another file vanish from the image made of it. Checked by dropping the refusal."""
    (upper / "etc/.wh.passwd").touch()
    with pytest.raises(PackError) as caught:
        packer(upper, upper=True)
    assert caught.value.path == b"etc/.wh.passwd"


def test_links_are_packed_and_never_followed(packer: Packer, on_disk: Path) -> None:
    """The tree is a payload's. Checked by opening without O_NOFOLLOW and RESOLVE_*: the race below then reads out."""
    outside, root = on_disk / "outside", on_disk / "payload"
    outside.mkdir()
    (outside / "secret").write_text("of the host")
    root.mkdir()
    (root / "directory").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    from tests.rootfs_lab import swapping

    with swapping(root, outside):
        for _ in range(50):
            try:
                packer(root)
            except PackError:
                continue
            assert b"of the host" not in packer.tar.read_bytes()


def test_a_mount_in_the_tree_is_refused(packer: Packer, root: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "etc/deep"], check=True)
    try:
        with pytest.raises(PackError) as caught:
            packer(root)
    finally:
        subprocess.run(["umount", root / "etc/deep"], check=True)
    assert caught.value.path == b"etc/deep"
    assert "mounted" in caught.value.reason


def test_owners_of_a_mapped_container_are_those_it_sees(packer: Packer, on_disk: Path) -> None:
    root = on_disk / "mapped"
    root.mkdir()
    for name, owner in (("root", 65536), ("user", 65536 + 1000), ("able", 65536)):
        (root / name).touch()
        os.chown(root / name, owner, owner)
    capability = bytes.fromhex("0100000300040000000000000000000000000000") + (65536).to_bytes(4, "little")
    os.setxattr(root / "able", "security.capability", capability)
    os.chown(root, 65536, 65536)
    maps = IdMaps(((0, 65536, 65536),), ((0, 65536, 65536),))
    packer(root, ids=maps)
    again = packer.unpacked()
    assert {name: (again / name).stat().st_uid for name in (".", "root", "user")} == {".": 0, "root": 0, "user": 1000}
    assert os.getxattr(again / "able", "security.capability") == CAPABILITY
    os.chown(root / "user", 5, 65536)
    with pytest.raises(PackError) as caught:
        packer(root, ids=maps)
    assert "user 5" in caught.value.reason


def test_an_output_that_is_full_ends_the_work(packer: Packer, root: Path) -> None:
    from kernel.errors import RawpodError

    fds = os.open(root, os.O_RDONLY | os.O_DIRECTORY), os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(RawpodError) as caught:
        pack(*fds, upper=False, compression="gzip")
    assert "no space left" in str(caught.value)
    for fd in fds:
        os.close(fd)


def test_a_tree_too_deep_to_be_unpacked_is_refused(packer: Packer, on_disk: Path) -> None:
    root = on_disk / "deep"
    (root / "/".join(["d"] * 512)).mkdir(parents=True)
    packer(root)
    packer.unpacked()
    (root / "/".join(["d"] * 512) / "one").touch()
    with pytest.raises(PackError) as caught:
        packer(root)
    assert "512 names" in caught.value.reason
