"""Unpacking archives: what becomes of good ones, and that bad ones touch nothing outside the root."""

import os
import stat
import struct
import tarfile
import time
from pathlib import Path

import pytest

from rootfs.layers.limits import Limits
from rootfs.layers.unpack import LayerError, Unpacked, start_unpack, unpack
from tests.rootfs_lab import Archive, header, record, tree

REFUSED = pytest.raises(LayerError)


class Unpacker:
    """A root to unpack into, and a directory beside it that nothing may touch."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "root"
        self.outside = home / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text("untouched")
        self.root.mkdir()

    def __call__(self, archive: Archive | Path, limits: Limits | None = None) -> Unpacked:
        path = archive if isinstance(archive, Path) else archive.write(self.home / "archive.tar")
        before = tree(self.outside)
        fd, target = os.open(path, os.O_RDONLY), os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return unpack(fd, "layer", target, limits or Limits())
        finally:
            os.close(fd)
            os.close(target)
            assert tree(self.outside) == before


@pytest.fixture
def unpacker(tmp_path: Path) -> Unpacker:
    return Unpacker(tmp_path)


def test_a_root_as_tar_writes_it(unpacker: Unpacker) -> None:
    archive = Archive().directory(".", mode=0o751, mtime=1000).directory("etc/", mode=0o700, uid=3, gid=4, mtime=2000)
    archive.add("etc/file", b"contents", mode=0o4755, uid=5, gid=6, mtime=3000)
    archive.symlink("etc/absolute", "/outside/secret").symlink("etc/up", "../../../outside")
    archive.hard_link("hard", "./etc/file")
    archive.add("deep/er/file", b"x", mode=0o640)
    root = unpacker.root
    inode = root.stat().st_ino
    unpacked = unpacker(archive)
    assert (unpacked.entries, unpacked.size) == (7, 9)
    assert (root.stat().st_ino, root.stat().st_mode & 0o7777, root.stat().st_mtime) == (inode, 0o751, 1000)
    etc, file = (root / "etc").stat(), (root / "etc/file").stat()
    assert (etc.st_mode & 0o7777, etc.st_uid, etc.st_gid, etc.st_mtime) == (0o700, 3, 4, 2000)
    assert (file.st_mode & 0o7777, file.st_uid, file.st_gid, file.st_mtime) == (0o4755, 5, 6, 3000)
    assert (root / "etc/file").read_text() == "contents"
    assert os.readlink(root / "etc/absolute") == "/outside/secret"
    assert os.readlink(root / "etc/up") == "../../../outside"
    assert (root / "hard").stat().st_ino == file.st_ino
    assert (root / "deep/er").stat().st_mode & 0o7777 == 0o755


def test_the_digest_is_that_of_the_uncompressed_tar(unpacker: Unpacker) -> None:
    import gzip
    import hashlib

    plain = Archive().add("a", b"x" * 5000).bytes() + bytes(8192)
    path = unpacker.home / "archive.tar.gz"
    # Two gzip members, as pigz and zran-able layers have them.
    path.write_bytes(gzip.compress(plain[:3000]) + gzip.compress(plain[3000:]))
    assert unpacker(path).digest == "sha256:" + hashlib.sha256(plain).hexdigest()


def _release() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split(".")[:2])


def test_capabilities_and_user_attributes_are_restored_labels_are_not(unpacker: Unpacker) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep
    records = record("SCHILY.xattr.security.capability", capability)
    # tmpfs, where tests often are, knows user attributes since Linux 6.6.
    notes = {"user.note": b"n"} if _release() >= (6, 6) else {}
    for name in notes:
        records += record(f"SCHILY.xattr.{name}", "n")
    records += record("SCHILY.xattr.security.selinux", "system_u")
    unpacker(Archive().extended(b"x", records).add("ping", b"x", mode=0o755, uid=1))
    assert os.getxattr(unpacker.root / "ping", "security.capability") == capability
    assert {name: os.getxattr(unpacker.root / "ping", name) for name in notes} == notes


@pytest.mark.parametrize("name", ["trusted.overlay.redirect", "trusted.overlay.opaque", "user.overlay.redirect"])
def test_an_archive_cannot_steer_the_overlay(unpacker: Unpacker, name: str) -> None:
    """trusted.overlay.redirect would show another directory of the lower layers in place of this one."""
    with REFUSED as caught:
        unpacker(Archive().extended(b"x", record(f"SCHILY.xattr.{name}", "/etc")).directory("d"))
    assert name in caught.value.reason


@pytest.mark.parametrize("name", ["../outside/new", "a/../../outside/new", "/../outside/new", ".."])
def test_names_that_leave_the_root_are_refused(unpacker: Unpacker, name: str) -> None:
    with REFUSED as caught:
        unpacker(Archive().add(name, b"x"))
    assert caught.value.member == name


def test_an_absolute_name_is_one_from_the_root(unpacker: Unpacker) -> None:
    unpacker(Archive().add("/etc/file", b"x"))
    assert (unpacker.root / "etc/file").read_text() == "x"


@pytest.mark.parametrize("target", ["{outside}", "../outside", "../../../{outside}", "/proc/self/root/{outside}"])
@pytest.mark.parametrize("below", ["link/new", "link/secret", "link/sub/new", "link/../link/secret"])
def test_nothing_is_written_through_a_link(unpacker: Unpacker, target: str, below: str) -> None:
    """CVE-2014-6407, CVE-2025-47290. Checked by a RESOLVE of 0 in places.py: the kernel then leaves by the link."""
    link = target.format(outside=unpacker.outside)
    archive = Archive().symlink("link", link).add(below, b"inside")
    if ".." in below:
        with REFUSED:
            unpacker(archive)
        return
    unpacker(archive)
    inside = unpacker.root / (link.replace("../", "").lstrip("/"))
    assert (inside / below.removeprefix("link/")).read_text() == "inside"


def test_a_directory_that_is_a_link_of_the_same_layer_is_where_the_link_leads(unpacker: Unpacker) -> None:
    """As in layers put together from packages, whose files lie below /lib on a system where it is a link."""
    archive = (
        Archive().directory("usr/lib").symlink("lib", "usr/lib").symlink("usr/lib64", "../lib/.").add("lib/a", b"a")
    )
    archive.add("usr/lib64/b", b"b").hard_link("lib/c", "usr/lib64/a").symlink("early", "/made/later/").add(
        "early/d", b"d"
    )
    archive.directory("made/later", mode=0o700).add("lib/.wh.gone", b"").directory("lib/e")
    unpacker(archive)
    root = unpacker.root
    assert sorted(os.listdir(root / "usr/lib")) == ["a", "b", "c", "e", "gone"]
    assert (root / "usr/lib/a").stat().st_nlink == 2
    assert (root / "made/later/d").read_text() == "d"
    assert (root / "made/later").stat().st_mode & 0o7777 == 0o700
    assert (root / "lib").is_symlink()


def test_a_link_to_the_root_or_above_it_is_the_root(unpacker: Unpacker) -> None:
    unpacker(Archive().symlink("top", "/").symlink("d/up", "../../../..").add("top/a", b"a").add("d/up/b", b"b"))
    assert sorted(os.listdir(unpacker.root)) == ["a", "b", "d", "top"]


@pytest.mark.parametrize(
    "links", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "a/a/a"}, {str(n): str(n + 1) for n in range(50)}]
)
def test_links_that_lead_nowhere_end(unpacker: Unpacker, links: dict[str, str]) -> None:
    archive = Archive()
    for name, target in links.items():
        archive.symlink(name, target)
    with REFUSED as caught:
        unpacker(archive.add(next(iter(links)) + "/file", b"x"))
    assert "40 symbolic links" in caught.value.reason


def test_a_root_whose_files_inherit_an_acl_does_not_change_modes(on_disk: Path) -> None:
    """A default ACL replaces the umask (acl(5)). Checked by taking each root for one without it."""
    unpacker = Unpacker(on_disk)
    everybody = ((1, 7, -1), (2, 7, 1000), (4, 5, -1), (16, 5, -1), (32, 0, -1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in everybody)
    os.setxattr(unpacker.root, "system.posix_acl_default", acl)
    unpacker(Archive().add("a", b"x", mode=0o666).directory("d", mode=0o777).add("d/b", b"x", mode=0o777))
    modes = [(unpacker.root / name).stat().st_mode & 0o7777 for name in ("a", "d", "d/b")]
    assert modes == [0o666, 0o777, 0o777]


def test_a_file_on_the_way_is_refused(unpacker: Unpacker) -> None:
    with REFUSED as caught:
        unpacker(Archive().add("file", b"x").symlink("link", "file").add("link/below", b"x"))
    assert "its directory is a file" in caught.value.reason


def test_a_link_that_takes_another_ones_place_leads_elsewhere_at_once(unpacker: Unpacker) -> None:
    """Checked by keeping what is open when _replace() unlinks a link."""
    archive = Archive().symlink("link", "one").add("link/a", b"a").symlink("link", "two").add("link/b", b"b")
    unpacker(archive)
    assert (os.listdir(unpacker.root / "one"), os.listdir(unpacker.root / "two")) == (["a"], ["b"])


def test_directories_that_no_member_describes_are_the_same_each_time(unpacker: Unpacker) -> None:
    unpacker(Archive().add("a/b/c", b"x", mtime=5).add("d/.wh.e", b""))
    for name in ("a", "a/b", "d"):
        status = (unpacker.root / name).stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_mtime) == (0o755, 0, 0)


def test_a_directory_with_a_group_to_inherit_gives_its_files_their_own(unpacker: Unpacker) -> None:
    """Files of root's are made without a chown. Checked by giving directories their modes as they come."""
    archive = Archive().directory("var/mail", mode=0o2775, gid=8).add("var/mail/root", b"x", mode=0o640)
    unpacker(archive.directory("var/mail/below", mode=0o755))
    assert (unpacker.root / "var/mail").stat().st_mode & 0o7777 == 0o2775
    assert [(unpacker.root / f"var/mail{name}").stat().st_gid for name in ("", "/root", "/below")] == [8, 0, 0]
    assert (unpacker.root / "var/mail/below").stat().st_mode & 0o7777 == 0o755


def test_a_root_that_files_inherit_from_does_not_show(unpacker: Unpacker) -> None:
    """Checked by taking each root for one without it."""
    os.chown(unpacker.root, 5, 6)
    os.chmod(unpacker.root, 0o2755)
    unpacker(Archive().add("a", b"x", mode=0o644).directory("d").add("d/b", b"x").symlink("l", "a"))
    for name in ("a", "d", "d/b", "l"):
        status = (unpacker.root / name).lstat()
        assert (status.st_uid, status.st_gid) == (0, 0), name


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_member_replaces_a_link_and_never_what_it_points_to(unpacker: Unpacker, kind: bytes) -> None:
    """CVE-2021-32760 changed the mode of the link's target. Checked by dropping O_NOFOLLOW and O_EXCL."""
    archive = Archive().symlink("link", str(unpacker.outside / "secret"))
    unpacker(archive.add("link", kind=kind, mode=0o777, uid=9))
    assert not (unpacker.root / "link").is_symlink()


@pytest.mark.parametrize("target", ["{outside}/secret", "../outside/secret", "missing", "link/secret", "directory"])
def test_hard_links_reach_earlier_files_of_the_archive_only(unpacker: Unpacker, target: str) -> None:
    """Python's tarfile linked a file of the host, under any filter. Checked by linking what it names."""
    archive = Archive().symlink("link", str(unpacker.outside)).directory("directory")
    with REFUSED:
        unpacker(archive.hard_link("stolen", target.format(outside=unpacker.outside)))
    assert (unpacker.outside / "secret").stat().st_nlink == 1


def test_a_hard_link_to_a_link_is_one_to_the_link_itself(unpacker: Unpacker) -> None:
    unpacker(Archive().symlink("link", str(unpacker.outside / "secret")).hard_link("second", "link"))
    assert (unpacker.root / "second").is_symlink()
    assert (unpacker.outside / "secret").stat().st_nlink == 1


def test_a_hard_link_to_itself_is_refused(unpacker: Unpacker) -> None:
    with REFUSED:
        unpacker(Archive().add("a", b"x").hard_link("a", "./a"))


@pytest.mark.parametrize("name", [".", "./", "/", ""])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.REGTYPE, tarfile.LNKTYPE])
def test_no_member_replaces_the_root(unpacker: Unpacker, name: str, kind: bytes) -> None:
    """umoci GHSA-9m95: a "." link let later members through. Checked by falling through for such a member."""
    inode = unpacker.root.stat().st_ino
    if name.endswith("/") and kind == tarfile.REGTYPE:
        unpacker(Archive().add(name, kind=kind, linkname="/outside", mode=0o755))  # a directory, as old archives say it
    else:
        with REFUSED:
            unpacker(Archive().add(name, kind=kind, linkname="/outside"))
    assert unpacker.root.stat().st_ino == inode


def test_a_directory_replaced_by_a_link_hides_nothing_behind_an_open_descriptor(unpacker: Unpacker) -> None:
    """The descriptor of the directory is in the cache when the link takes its place."""
    archive = Archive().add("d/file", b"x").symlink("d", str(unpacker.outside))
    unpacker(archive.add("d/secret", b"overwritten"))
    assert (unpacker.root / "d").is_symlink()
    assert unpacker.root.joinpath(*unpacker.outside.parts[1:], "secret").read_text() == "overwritten"


def test_a_directory_given_twice_keeps_what_is_in_it(unpacker: Unpacker) -> None:
    unpacker(Archive().directory("d").add("d/file", b"x").directory("d", mode=0o700, mtime=5))
    assert (unpacker.root / "d/file").exists()
    assert (unpacker.root / "d").stat().st_mode & 0o7777 == 0o700
    assert (unpacker.root / "d").stat().st_mtime == 5


def test_a_file_replaces_a_directory_with_all_in_it(unpacker: Unpacker) -> None:
    """Checked by keeping what is open when _replace() removes a directory."""
    archive = Archive().add("d/e/f", b"x").add("d", b"file").add("e/f", b"x").add("e", b"y")
    unpacker(archive.directory("e").add("e/g", b"z"))
    assert (unpacker.root / "d").read_text() == "file"
    assert os.listdir(unpacker.root / "e") == ["g"]


def test_devices_and_fifos(unpacker: Unpacker) -> None:
    archive = Archive().add("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, gid=5)
    archive.add("disk", kind=tarfile.BLKTYPE, devmajor=8, devminor=1, mode=0o660).add("fifo", kind=tarfile.FIFOTYPE)
    unpacker(archive)
    null, disk = (unpacker.root / "null").stat(), (unpacker.root / "disk").stat()
    assert (stat.S_ISCHR(null.st_mode), null.st_rdev, null.st_gid) == (True, os.makedev(1, 3), 5)
    assert (null.st_mode & 0o7777, disk.st_mode & 0o7777) == (0o666, 0o660)
    assert stat.S_ISBLK(disk.st_mode)
    assert (unpacker.root / "fifo").is_fifo()
    with REFUSED:
        unpacker(Archive().add("whiteout", kind=tarfile.CHRTYPE, devmajor=0, devminor=0))


def test_whiteouts_become_overlays_own(unpacker: Unpacker) -> None:
    archive = Archive().add("etc/.wh.gone", b"").add("var/.wh..wh..opq", b"").add("new/.wh.kept", b"")
    archive.add("new/kept/file", b"x").add("old/dir/file", b"y").add("old/.wh.dir", b"").add(".wh..wh.plnk/x", b"")
    with REFUSED:
        unpacker(archive)  # aufs' records are passed over, not what pretends to lie below one


def test_whiteouts_hide_lower_layers_and_nothing_of_their_own(unpacker: Unpacker) -> None:
    archive = Archive().add("etc/.wh.gone", b"").add("var/.wh..wh..opq", b"").add("new/.wh.kept", b"")
    archive.directory("new/kept").add("new/kept/file", b"x").add("old/dir/file", b"y").add("old/.wh.dir", b"")
    archive.add("old/file", b"z").add("old/.wh.file", b"").add(".wh..wh.aufs", b"")
    unpacker(archive)
    root = unpacker.root
    gone = (root / "etc/gone").stat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    for opaque in ("var", "new/kept", "old/dir"):
        assert os.getxattr(root / opaque, "trusted.overlay.opaque") == b"y"
    assert (root / "new/kept/file").exists()
    assert (root / "old/dir/file").exists()
    assert (root / "old/file").read_text() == "z"
    assert not (root / ".wh..wh.aufs").exists()


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh..", ".wh...", ".wh.x/y", ".wh..wh..opq/y"])
def test_whiteouts_of_nothing_are_refused(unpacker: Unpacker, name: str) -> None:
    with REFUSED as caught:
        unpacker(Archive().add(name, b""))
    assert "whiteout" in caught.value.reason


def test_sparse_files_have_their_holes(unpacker: Unpacker) -> None:
    size = 8 << 20
    archive = Archive().extended(b"x", record("GNU.sparse.size", str(size)) + record("GNU.sparse.map", "4096,3,8192,0"))
    unpacker(archive.raw(header("s", b"0", 3) + b"abc" + bytes(509)))
    status = (unpacker.root / "s").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 < 1 << 20
    with open(unpacker.root / "s", "rb") as file:
        file.seek(4096)
        assert file.read(4) == b"abc\0"


@pytest.mark.parametrize(
    ("limits", "reason", "key"),
    [
        (Limits(total_bytes=4096), "more than 4096 bytes", "total-size"),
        (Limits(member_bytes=1000), "over the limit of 1000", "file-size"),
        (Limits(entries=2), "more than 2 members", "entries"),
        (Limits(depth=2), "more than 2 names", "depth"),
        (Limits(extended_bytes=20), "is over 20", "header-size"),
    ],
)
def test_limits(unpacker: Unpacker, limits: Limits, reason: str, key: str) -> None:
    """CVE-2020-1702, CVE-2023-25153, CVE-2017-14992. What can be done about it is said, too."""
    archive = Archive().add("a", b"x" * 2000).add("b/c/d", b"x" * 900).extended(b"x", record("comment", "a" * 30))
    with REFUSED as caught:
        unpacker(archive.add("c", b"x" * 4000), limits)
    assert reason in caught.value.reason
    assert repr(key) in (caught.value.remedy or "")


def test_a_compression_bomb_ends_at_the_limit(unpacker: Unpacker) -> None:
    import gzip

    bomb = unpacker.home / "bomb.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        file.write(header("zeros", b"0", size=256 << 20))
        for _ in range(256):
            file.write(bytes(1 << 20))
    with REFUSED as caught:
        unpacker(bomb, Limits(total_bytes=16 << 20))
    assert "bytes uncompressed" in caught.value.reason
    assert sum(path.stat().st_size for path in unpacker.root.iterdir()) <= 17 << 20


def test_the_deadline_ends_the_worker(unpacker: Unpacker) -> None:
    started = time.monotonic()
    with REFUSED as caught:
        unpacker(Archive().add("a", b"x"), Limits(deadline=0.001))
    assert "within" in caught.value.reason
    assert time.monotonic() - started < 5


def test_names_too_long_for_a_filesystem_are_refused(unpacker: Unpacker) -> None:
    with REFUSED as caught:
        unpacker(Archive().extended(b"x", record("path", "n" * 256)).add("a", b"x"))
    assert "255" in caught.value.reason


def test_a_path_of_two_thousand_directories(unpacker: Unpacker) -> None:
    path = "/".join(["d"] * 2000)
    unpacker(Archive().extended(b"x", record("path", path)).add("a", b"x"), Limits(depth=2000))
    from rootfs.removal import remove_tree

    home = os.open(unpacker.home, os.O_RDONLY)
    remove_tree(home, "root")
    os.close(home)
    assert not unpacker.root.exists()


@pytest.mark.parametrize("cut", [100, 600])
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_truncated_archives_name_layer_and_offset(unpacker: Unpacker, compression: str, cut: int) -> None:
    import gzip

    from backports import zstd

    plain = Archive().add("a", os.urandom(2000)).bytes()
    path = unpacker.home / "cut"
    path.write_bytes((gzip.compress(plain) if compression == "gzip" else zstd.compress(plain))[:cut])
    with REFUSED as caught:
        unpacker(path)
    assert caught.value.layer == "layer"
    assert caught.value.offset is not None
    assert "cannot decompress" in caught.value.reason


@pytest.mark.parametrize(("start", "word"), [(b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"hello", "truncated")])
def test_what_is_no_archive_is_named(unpacker: Unpacker, start: bytes, word: str) -> None:
    path = unpacker.home / "file"
    path.write_bytes(start)
    with REFUSED as caught:
        unpacker(path)
    assert word in caught.value.reason


def test_an_archive_without_members_is_refused(unpacker: Unpacker) -> None:
    with REFUSED:
        unpacker(Archive())


def test_nothing_of_the_archive_is_imported(unpacker: Unpacker, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2019-14271 loaded libraries of the container. Checked by starting the worker without -I and with this cwd."""
    archive = Archive()
    for module in ("json.py", "isal.py", "encodings/__init__.py", "rootfs/layers/unpack.py"):
        archive.add(module, f"open({str(unpacker.home / 'executed')!r}, 'w')".encode())
    monkeypatch.chdir(unpacker.root)
    monkeypatch.setenv("PYTHONPATH", str(unpacker.root))
    unpacker(archive)
    unpacker(Archive().add("second", b"x"))
    assert not (unpacker.home / "executed").exists()


def test_two_layers_at_once_each_with_a_descriptor_to_wait_for(tmp_path: Path) -> None:
    import select

    started = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        archive = Archive().add(name, b"x" * 3_000_000).write(tmp_path / f"{name}.tar")
        fd, target = os.open(archive, os.O_RDONLY), os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY)
        started.append(start_unpack(fd, name, target))
        os.close(fd)
        os.close(target)
    poll = select.poll()
    for unpacking in started:
        poll.register(unpacking, select.POLLIN)
    ended = set()
    while len(ended) < 2:
        for fd, _ in poll.poll(60_000):
            ended.add(fd)
            poll.unregister(fd)
    for unpacking, name in zip(started, ("one", "two"), strict=True):
        with unpacking:
            assert unpacking.result().size == 3_000_000
        assert (tmp_path / name / name).stat().st_size == 3_000_000


def test_a_worker_can_be_killed_and_its_result_says_so(tmp_path: Path) -> None:
    read, write = os.pipe()
    target = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with start_unpack(read, "layer", target) as unpacking:
        unpacking.kill()
        with REFUSED as caught:
            unpacking.result()
    assert "status -9" in caught.value.reason
    for fd in (read, write, target):
        os.close(fd)


def test_the_stores_limits_are_an_administrators(tmp_path: Path) -> None:
    from rootfs.images.store import ImageStore

    (tmp_path / "images").mkdir()
    (tmp_path / "images/limits.toml").write_text("entries = 1\n")
    archive = Archive().directory("bin").add("bin/sh", b"x").write(tmp_path / "root.tar")
    with REFUSED as caught:
        ImageStore(tmp_path / "images").import_tar("name", archive)
    assert "more than 1 members" in caught.value.reason
