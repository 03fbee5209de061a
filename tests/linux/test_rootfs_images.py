"""The image store: names, layers by content, imports that die half way."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kernel.errors import BadInput, Conflict, NotFound, RawpodError
from kernel.inotify import IN_CREATE, inotify_add_watch, inotify_init1, read_changes
from rootfs.images.store import ImageConfig, ImageStore
from rootfs.layers.unpack import LayerError
from tests.rootfs_lab import Archive, header


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def root_tar(tmp_path: Path) -> Path:
    return Archive().directory("etc").add("etc/os-release", b"ID=test\n").directory("bin").write(tmp_path / "root.tar")


def test_an_imported_image_is_found_by_its_name(store: ImageStore, root_tar: Path) -> None:
    made = store.import_tar("debian/web:1", root_tar)
    assert store.get("debian/web:1") == made
    assert (made.lowers[0] / "etc/os-release").read_text() == "ID=test\n"
    assert made.lowers[0].stat().st_mode & 0o7777 == 0o755
    assert made.config == ImageConfig()
    assert made.size == 8
    assert [image.name for image in store.list()] == ["debian/web:1", "host"]


def test_names_that_are_no_names_are_refused_with_the_grammar(store: ImageStore, root_tar: Path) -> None:
    """CVE-2014-9358. A name never becomes a path: "/" is written as "%", which no name holds."""
    for name in ("", "../x", "/x", "X", "a b", "a\n", "a%b", "x" * 129, ".hidden", "-o"):
        with pytest.raises(BadInput, match="a-z 0-9"):
            store.import_tar(name, root_tar)
        with pytest.raises(BadInput, match="a-z 0-9"):
            store.get(name)
    store.import_tar("a/../../../x", root_tar)
    assert os.listdir(store.root / "names") == ["a%..%..%..%x"]
    store.import_tar("a" + "/" * 127, root_tar)


def test_the_same_content_is_kept_once(store: ImageStore, root_tar: Path) -> None:
    import gzip

    compressed = root_tar.with_suffix(".gz")
    compressed.write_bytes(gzip.compress(root_tar.read_bytes()))
    one, two = store.import_tar("one", root_tar), store.import_tar("two", compressed)
    assert one.digest == two.digest
    assert one.lowers == two.lowers
    store.remove("one")
    assert store.get("two").lowers[0].exists()
    store.remove("two")
    assert os.listdir(store.root / "layers") == []
    with pytest.raises(NotFound, match="'two'"):
        store.get("two")


def test_a_name_given_again_stands_for_the_new_image(store: ImageStore, root_tar: Path, tmp_path: Path) -> None:
    old = store.import_tar("app", root_tar)
    other = Archive().add("etc/new", b"x").directory("bin").write(tmp_path / "new.tar")
    new = store.import_tar("app", other)
    assert store.get("app") == new
    assert old.lowers[0].exists(), "containers may still use it"
    store.prune(in_use=[old.digest])
    assert old.lowers[0].exists()
    store.prune()
    assert not old.lowers[0].exists()
    assert new.lowers[0].exists()


def test_an_image_in_use_stays(store: ImageStore, root_tar: Path) -> None:
    made = store.import_tar("app", root_tar)
    with pytest.raises(Conflict, match="in use"):
        store.remove("app", in_use=[made.digest])
    assert store.get("app") == made


def test_the_host_image_is_always_there_and_nobody_elses(store: ImageStore, root_tar: Path) -> None:
    assert store.get("host").binds
    with pytest.raises(BadInput):
        store.import_tar("host", root_tar)
    with pytest.raises(BadInput):
        store.remove("host")


def test_a_refused_archive_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    bad = Archive().add("etc/a", b"x").add("../b", b"x").write(tmp_path / "bad.tar")
    with pytest.raises(LayerError, match=r"bad\.tar"):
        store.import_tar("app", bad)
    for directory in ("tmp", "layers", "names"):
        assert os.listdir(store.root / directory) == []


def test_files_that_cannot_be_archives(store: ImageStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("missing", "fifo", "."):
        with pytest.raises(BadInput):
            store.import_tar("app", tmp_path / name)


@pytest.mark.parametrize("name", ["manifest.json", "oci-layout", "debian-root/etc/passwd"])
def test_archives_of_something_else_are_told_apart(store: ImageStore, tmp_path: Path, name: str) -> None:
    archive = Archive().add(name, b"[]").write(tmp_path / "image.tar")
    with pytest.raises(BadInput) as caught:
        store.import_tar("app", archive)
    assert caught.value.remedy


def test_a_damaged_record_is_named_and_hides_no_other_image(store: ImageStore, root_tar: Path) -> None:
    store.import_tar("good", root_tar)
    store.import_tar("bad", root_tar)
    for text in ("", "{", "[]", '{"digest": "sha256:../../etc"}', json.dumps({"digest": 1, "layers": ["../../x"]})):
        (store.root / "names/bad").write_text(text)
        with pytest.raises(RawpodError, match="'bad'"):
            store.get("bad")
    assert [image.name for image in store.list()] == ["good", "host"]
    with pytest.raises(RawpodError, match="'bad'"):
        store.prune()
    assert store.get("good").lowers[0].exists()


def first_entry(directory: Path) -> str:
    """Wait until there is something in the directory."""
    watching = inotify_init1()
    try:
        inotify_add_watch(watching, directory, IN_CREATE)
        return next(iter(os.listdir(directory)), "") or read_changes(watching)[0].name
    finally:
        os.close(watching)


def test_an_import_that_was_killed_leaves_rubbish_that_the_next_one_clears(
    store: ImageStore, root_tar: Path, tmp_path: Path
) -> None:
    """Checked by leaving out _clear_temporary()."""
    endless = tmp_path / "endless.tar"
    # A member that promises more than the file has, in a file that is a hole: the worker is busy for a while.
    endless.write_bytes(header("etc", b"0", size=1 << 32))
    os.truncate(endless, 1 << 32)
    code = f"""
from pathlib import Path
from kernel.inotify import IN_CREATE, inotify_add_watch, inotify_init1, read_changes
from rootfs.images.store import ImageStore
ImageStore(Path({str(store.root)!r})).import_tar("app", Path({str(endless)!r}))
"""
    home = Path(__file__).parents[2]
    store.import_tar("other", root_tar)
    importer = subprocess.Popen([sys.executable, "-c", code], cwd=home, stderr=subprocess.DEVNULL)
    unfinished = first_entry(store.root / "tmp")
    first_entry(store.root / "tmp" / unfinished)
    # Somebody else's import does not disturb it while it lives.
    store.import_tar("other", root_tar)
    assert os.listdir(store.root / "tmp") == [unfinished]
    importer.send_signal(signal.SIGKILL)
    importer.wait()
    # The worker dies with its parent (PR_SET_PDEATHSIG) and lets go of the lock.
    held = os.open(store.root / "tmp" / unfinished, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    os.close(held)
    store.import_tar("other", root_tar)
    assert os.listdir(store.root / "tmp") == []
    assert [image.name for image in store.list()] == ["host", "other"]


def test_images_of_a_whole_userland_keep_owners_and_links(store: ImageStore, tmp_path: Path) -> None:
    tar = tmp_path / "etc.tar"
    subprocess.run(["tar", "-C", "/", "-cf", tar, "etc/alternatives", "etc/terminfo", "bin"], check=True)
    made = store.import_tar("part", tar)
    differences = subprocess.run(
        ["diff", "-r", "--no-dereference", "/etc/alternatives", made.lowers[0] / "etc/alternatives"], check=False
    )
    assert differences.returncode == 0
