"""What `rawpod cp` makes of two paths, beside what GNU cp makes of them: their rules are docker cp's."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BadInput, ContainerError, RawpodError
from rootfs.copying import rules, walk
from rootfs.copying.items import CAPABILITY, Item, Owners
from rootfs.copying.places import Root
from rootfs.copying.receiver import Receiver
from rootfs.copying.rules import Place, parse
from rootfs.copying.trees import copy_tree
from runtime.pod import copying


@pytest.mark.parametrize(
    ("text", "container", "path"),
    [
        ("web:/etc", "web", "/etc"),
        ("web:etc/x", "web", "/etc/x"),
        ("web:", "web", "/"),
        ("pod/side:/a:b", "pod/side", "/a:b"),
        ("/tmp/a:b", "", "/tmp/a:b"),
        ("./a:b", "", "./a:b"),
        ("../a:b", "", "../a:b"),
        ("a", "", "a"),
        ("-", "", "-"),
    ],
)
def test_a_colon_divides_container_and_path(text: str, container: str, path: str) -> None:
    assert parse(text) == Place(container, path)


@pytest.mark.parametrize("text", ["", ":/etc", "web:a\0b"])
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse(text)


@pytest.mark.parametrize(("source", "target"), [("a:/x", "b:/y"), ("x", "/y"), ("-", "-")])
def test_one_side_is_a_container(source: str, target: str) -> None:
    with pytest.raises(BadInput):
        rules.check_sides(parse(source), parse(target))


def layout(top: Path) -> Path:
    """A file, a directory with things in it, and links to both; and a directory to copy to."""
    for directory in ("source/d/s", "target/dir/d"):
        (top / directory).mkdir(parents=True)
    for file in ("source/f", "source/d/g", "source/d/s/h", "target/file", "target/dir/old", "target/dir/d/g"):
        (top / file).write_text(file)
        os.utime(top / file, ns=(10**18, 10**18))
    (top / "source/to_d").symlink_to("d")
    (top / "source/to_f").symlink_to("f")
    (top / "source/d/nowhere").symlink_to("/no/where")
    os.link(top / "source/d/g", top / "source/d/again")
    (top / "target/to_dir").symlink_to("dir")
    return top


def found(top: Path) -> dict[str, tuple[int, int, str]]:
    result = {}
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = Path(directory) / name
            status = path.lstat()
            held = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
            result[str(path.relative_to(top))] = (status.st_mode, 0 if path.is_dir() else status.st_nlink, held)
    return result


ENDINGS = st.sampled_from(["", "/", "//", "/."])
SOURCES = st.builds("".join, st.tuples(st.sampled_from(["f", "d", "d/s", "to_d", "to_f", "none", "d/../d"]), ENDINGS))
TARGETS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "./", "dir/../"]),
        st.sampled_from(["new", "file", "dir", "to_dir", "dir/x", "no/x"]),
        ENDINGS,
    ),
)


@given(SOURCES, TARGETS, st.booleans())
def test_copies_land_where_those_of_gnu_cp_do(source: str, target: str, follow: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        ours, theirs = layout(Path(directory) / "ours"), layout(Path(directory) / "theirs")
        command = [
            "cp",
            "-dR" if not follow else "-HR",
            "--preserve=mode,timestamps,links",
            source,
            f"../target/{target}",
        ]
        done = subprocess.run(command, cwd=theirs / "source", capture_output=True, text=True, check=False)
        root = os.open(ours, os.O_PATH | os.O_DIRECTORY)
        try:
            options = copying.Options(follow=follow)
            view = copying.View(Root(root), None)
            copying.copy_out(view, Place("c", f"/source/{source}"), Place("", f"{ours}/target/{target}"), options)
            failed = None
        except RawpodError as error:
            failed = error
        finally:
            os.close(root)
        assert (failed is None) == (done.returncode == 0), (failed, done)
        if failed is None:
            assert found(ours) == found(theirs)
        shutil.rmtree(directory, ignore_errors=True)
        os.mkdir(directory)


FILE = Item(mode=0o106755, uid=1000, gid=1000, atime_ns=0, mtime_ns=0, xattrs={CAPABILITY: bytes(20), "user.x": b"y"})
ROOTS = FILE.replace(uid=0, gid=0)


def test_what_a_program_may_do_goes_with_its_owner() -> None:
    """A payload's own set-user-ID program is not to become root's on the host. Fails with `privileged` always true."""
    dress = Owners(keep=False).dress(FILE)
    assert (dress.uid, dress.mode, list(dress.xattrs)) == (0, 0o755, ["user.x"])
    kept = Owners(keep=True).dress(FILE)
    assert (kept.uid, kept.mode, list(kept.xattrs)) == (1000, 0o6755, [CAPABILITY, "user.x"])
    assert Owners(keep=False).dress(ROOTS).mode == 0o6755


def test_the_root_of_a_containers_own_users_is_not_the_hosts() -> None:
    inside = ROOTS.replace(uid=65536, gid=65536)
    for keep in (True, False):
        dress = Owners(keep, source_ids=65536).dress(inside)
        assert (dress.uid, dress.mode, CAPABILITY in dress.xattrs) == (0, 0o755, False)
    assert Owners(True, source_ids=65536).dress(ROOTS).uid == 65534


def test_copies_for_a_containers_own_users_are_theirs() -> None:
    dress = Owners(True, target_ids=131072).dress(FILE)
    assert (dress.uid, dress.gid, dress.mode) == (132072, 132072, 0o6755)
    # vfs_ns_cap_data: revision 3, and the root that the capabilities are for.
    assert dress.xattrs[CAPABILITY] == b"\0\0\0\3" + bytes(16) + (131072).to_bytes(4, "little")
    with pytest.raises(BadInput, match="70000"):
        Owners(True, target_ids=131072).dress(FILE.replace(uid=70000))


def test_directories_too_deep_in_one_another_are_refused_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "DEPTH_MAX", 20)
    (tmp_path / "/".join(["a", *"d" * 20])).mkdir(parents=True)
    (tmp_path / "out").mkdir()
    place, target = (os.open(tmp_path / name, os.O_PATH | os.O_DIRECTORY) for name in ("a", "out"))
    opened = os.listdir("/proc/self/fd")
    with pytest.raises(ContainerError, match=r"'a/d/d.*more than 20 deep"):
        copy_tree(place, "a", target, Receiver(Owners(keep=False, uid=os.getuid(), gid=os.getgid())), "deep")
    assert os.listdir("/proc/self/fd") == opened
    os.close(place)
    os.close(target)
