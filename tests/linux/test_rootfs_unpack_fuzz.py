"""Archives that nobody wrote by hand: hostile ones stay inside or are refused, harmless ones come out as GNU tar's."""

import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootfs.layers.limits import Limits
from rootfs.layers.pack import pack
from rootfs.layers.tar_header import TarError
from rootfs.layers.unpack import Unpacked, unpack_here
from tests.layers_lab import Entry, entries
from tests.rootfs_lab import Archive, record, tree

pytestmark = pytest.mark.userland

same_fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

SMALL = Limits(total_bytes=1 << 20, member_bytes=1 << 16, entries=100, extended_bytes=1 << 14, segments=8, deadline=20)


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def extracted(archive: bytes, root: Path, limits: Limits = SMALL) -> Unpacked:
    """Unpack in this process: a worker for each example would take most of the time."""
    with tempfile.TemporaryFile() as file:
        file.write(archive)
        file.seek(0)
        target = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return unpack_here(file.fileno(), target, limits)
        finally:
            os.close(target)


# A few names, so that members meet one another and the links among them; what is refused at once comes seldom.
_part = st.sampled_from(
    ["a", "b", "link", "..", ".", "", ".wh.a", ".wh..wh..opq", ".wh.", "outside", "secret", "n" * 260]
)
_ordinary = st.sampled_from(
    ["a", "b", "a/b", "b/a", "a/secret", "b/secret", "a/b/new", "./a/", "a/outside/secret", "b/.wh.a"]
)
_path = st.integers(0, 9).flatmap(
    lambda luck: st.lists(_part, min_size=1, max_size=4).map("/".join) if luck == 0 else _ordinary
)
_kind = st.integers(0, 19).flatmap(
    lambda luck: st.sampled_from([bytes([kind]) for kind in (b"\x00346SxgLK7Z" if luck == 0 else b"0011122255")])
)
_target = st.one_of(
    st.sampled_from(["OUTSIDE", "../outside", "OUTSIDE/secret", "../outside/secret"]),
    st.sampled_from(["OUTSIDE", "../outside", "OUTSIDE/secret", "../outside/secret"]),
    st.sampled_from(["/", "..", ".", "/proc/self/root", "a/../..", "../../../../../../../..OUTSIDE"]),
    _path,
)
_records = st.dictionaries(
    st.sampled_from(
        [
            *("path", "linkpath", "size", "uid", "mtime", "SCHILY.xattr.user.a", "SCHILY.xattr.trusted.overlay.opaque"),
            *(f"GNU.sparse.{key}" for key in ("map", "size", "name", "major", "realsize")),
        ]
    ),
    st.one_of(_target, st.sampled_from(["0", "1", "7", "-1", "0,5", "1,1,9,0", "99999999999999999999", "1.5", ""])),
    max_size=3,
)


@st.composite
def hostile(draw: st.DrawFn, outside: Path) -> bytes:
    """An archive of a few members that try to leave, in headers of every kind, cut or damaged now and then."""
    archive = Archive()
    if draw(st.booleans()):
        archive.symlink(draw(st.sampled_from(["a", "b", "a/b"])), draw(st.sampled_from([str(outside), "../outside"])))
    for _ in range(draw(st.integers(1, 6))):
        if records := draw(_records) if draw(st.integers(0, 9)) == 0 else {}:
            data = b"".join(record(key, value.replace("OUTSIDE", str(outside))) for key, value in records.items())
            archive.extended(draw(st.sampled_from([b"x", b"x", b"g"])), data)
        link = draw(_target).replace("OUTSIDE", str(outside))
        archive.add(
            draw(_path),
            draw(st.sampled_from([b"", b"overwritten", b"x" * 600])),
            kind=draw(_kind),
            linkname=link,
            mode=draw(st.sampled_from([0, 0o644, 0o7777])),
            devmajor=draw(st.integers(0, 1)),
        )
    data = archive.bytes()
    match draw(st.integers(0, 9)):
        case 0:
            return data[: draw(st.integers(0, len(data)))]
        case 1:
            damaged = bytearray(data)
            damaged[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
            return bytes(damaged)
        case _:
            return data


@settings(same_fixtures, max_examples=settings().max_examples * 2)
@given(st.data())
def test_hostile_archives_stay_inside_or_are_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Rows 31 to 33 and 37. Checked by a RESOLVE of 0 in places.py, and by linking what the member names."""
    home = Path(tempfile.mkdtemp(dir=tmp_path))
    root, outside = home / "root", home / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("untouched")
    before, inode = tree(outside), root.stat().st_ino
    began = time.monotonic()
    try:
        extracted(data.draw(hostile(outside)), root)
    except TarError:
        pass
    assert time.monotonic() - began < 10
    assert tree(outside) == before
    assert (outside / "secret").stat().st_nlink == 1
    assert root.stat().st_ino == inode
    assert sorted(os.listdir(home)) == ["outside", "root"]
    shutil.rmtree(home)


_names = st.text(st.sampled_from("abü \n-$'*"), min_size=1, max_size=6).filter(lambda name: name.strip(".") != "")
_long_names = st.one_of(_names, _names, st.text("xyz", min_size=90, max_size=250))


@st.composite
def harmless(draw: st.DrawFn) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Members whose directories come first, each described; names differ, but for directories that come twice."""
    directories, files, used = [""], list[str](), set[str]()
    members: list[tuple[tarfile.TarInfo, bytes]] = []

    def member(name: str, kind: bytes, data: bytes = b"", **fields: Any) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(data)
        info.mode = draw(st.integers(0, 0o7777)) if kind in (tarfile.REGTYPE, tarfile.DIRTYPE) else 0o640
        info.uid = draw(st.sampled_from([0, 0, 0, 1000, 3_000_000]))
        info.gid = draw(st.sampled_from([0, 0, 0, 50, 3_000_000]))
        info.mtime = draw(st.sampled_from([0, 1_700_000_000, 1_600_000_000.5, 2**33]))
        for field, value in fields.items():
            setattr(info, field, value)
        members.append((info, data))

    for _ in range(draw(st.integers(1, 12))):
        parent = draw(st.sampled_from(directories))
        path = parent + draw(_long_names)
        if path in used:
            continue
        used.add(path)
        kind = draw(st.sampled_from(["file", "file", "directory", "symlink", "hard", "fifo", "device", "again"]))
        if kind == "directory":
            member(path, tarfile.DIRTYPE)
            directories.append(path + "/")
        elif kind == "symlink":
            member(path, tarfile.SYMTYPE, linkname=draw(st.one_of(_names, st.just("/etc/passwd"), st.just("l" * 300))))
        elif kind == "hard" and files:
            # GNU tar gives all names what the last of them says: say the same again.
            target = draw(st.sampled_from(files))
            first = next(info for info, _ in members if info.name == target)
            member(
                path, tarfile.LNKTYPE, linkname=target, uid=first.uid, gid=first.gid, mode=first.mode, mtime=first.mtime
            )
        elif kind == "fifo":
            member(path, tarfile.FIFOTYPE)
        elif kind == "device":
            member(path, tarfile.CHRTYPE, devmajor=1, devminor=draw(st.sampled_from([3, 5, 300])))
        elif kind == "again" and len(directories) > 1:
            member(draw(st.sampled_from(directories[1:])).rstrip("/"), tarfile.DIRTYPE)
        else:
            attributes = draw(st.sampled_from([{}, {}, {"SCHILY.xattr.user.note": "text"}]))
            member(path, tarfile.REGTYPE, draw(st.binary(max_size=1500)), pax_headers=dict(attributes))
            files.append(path)
    return members


@settings(same_fixtures, max_examples=settings().max_examples // 2)
@given(members=harmless(), form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_harmless_archives_come_out_as_gnu_tar_has_them(
    on_disk: Path, members: list[tuple[tarfile.TarInfo, bytes]], form: int
) -> None:
    """Entry by entry: type, mode, owner, time, contents, target, names of the same file, attributes."""
    home = Path(tempfile.mkdtemp(dir=on_disk))
    ours, theirs = home / "ours", home / "theirs"
    ours.mkdir()
    theirs.mkdir()
    data = bytearray()
    for info, contents in members:
        data += info.tobuf(form, "utf-8", "surrogateescape") + contents + bytes(-len(contents) % 512)
    archive = bytes(data) + bytes(1024)
    extracted(archive, ours, Limits())
    subprocess.run(
        ["tar", "-C", theirs, "-xpf", "-", "--numeric-owner", "--delay-directory-restore", "--xattrs-include=*"],
        input=archive,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    assert _below(ours) == _below(theirs)
    subprocess.run(["rm", "-rf", home], check=True)


@settings(same_fixtures, max_examples=settings().max_examples // 2)
@given(members=harmless(), hidden=st.lists(st.sampled_from(["gone", "new", "."]), max_size=3), data=st.data())
def test_a_layer_packed_and_unpacked_again_is_the_same_layer(
    on_disk: Path, members: list[tuple[tarfile.TarInfo, bytes]], hidden: list[str], data: st.DataObject
) -> None:
    """With whiteouts and opaque directories; and packed once more it has the same digest."""
    home = Path(tempfile.mkdtemp(dir=on_disk))
    directories = [info.name + "/" for info, _ in members if info.type == tarfile.DIRTYPE] + [""]
    archive = Archive()
    for info, contents in members:
        archive.raw(info.tobuf(tarfile.PAX_FORMAT) + contents + bytes(-len(contents) % 512))
    for name in hidden:
        parent = data.draw(st.sampled_from(directories))
        archive.add(f"{parent}{'.wh..wh..opq' if name == '.' else f'.wh.{name}'}")
    if not members and not hidden:
        archive.directory(".")
    layer, packed = archive.bytes(), []
    for root in (home / "first", home / "second"):
        root.mkdir()
        extracted(layer, root, Limits())
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        with tempfile.TemporaryFile() as file:
            packed.append(pack(fd, file.fileno(), upper=True, compression=None))
            file.seek(0)
            layer = file.read()
        os.close(fd)
    assert entries(home / "first", overlay=True) == entries(home / "second", overlay=True)
    assert packed[0] == packed[1]
    subprocess.run(["rm", "-rf", home], check=True)


def _below(root: Path) -> dict[str, Entry]:
    return {path: entry for path, entry in entries(root).items() if path != "."}
