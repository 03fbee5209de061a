"""The overlay that is a container's root, its directories, and how they are removed."""

import errno
import fcntl
import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.errors import BadInput, SystemCallError
from kernel.operation import Assembly, run
from rootfs import overlay
from rootfs.mounts import MakePropagation, OverlayRoot, PivotRoot, ReadOnlyRoot
from rootfs.removal import remove_tree
from rootfs.volumes import mount_memory, unmount_memory
from tests.rootfs_lab import ChildError, in_child


def layers(home: Path, count: int, name: str = "lower{}") -> tuple[str, ...]:
    """Lower directories, topmost first; each has a file of its own and all share one."""
    paths = []
    for number in range(count):
        path = home / name.format(number)
        path.mkdir(parents=True)
        (path / f"only{number}").touch()
        (path / "shared").write_text(str(number))
        paths.append(str(path))
    return tuple(paths)


def mounted(home: Path, lowers: tuple[str, ...], *more: PivotRoot | ReadOnlyRoot) -> list[str]:
    """What the root shows through an overlay: the shared file's text, the number of entries, and where we stand."""
    directories = overlay.create_upper(home / "overlay", "c1")

    def look() -> list[str]:
        assembly = Assembly()
        run((MakePropagation(), OverlayRoot(lowers, *directories), *more), assembly)
        os.fchdir(assembly.root)
        with open("shared") as shared:
            text = shared.read()
        os.close(os.open("written", os.O_CREAT | os.O_WRONLY))
        return [text, str(len(os.listdir("."))), os.getcwd()]

    result: list[str] = in_child(look)
    return result


def test_the_first_lower_is_on_top_and_writes_go_to_the_upper(tmp_path: Path) -> None:
    assert mounted(tmp_path, layers(tmp_path, 2))[:2] == ["0", "4"]
    assert os.listdir(tmp_path / "overlay/c1/upper") == ["written"]


@pytest.mark.parametrize("name", ["a:b{}", "a\\b{}", "a,b{}", "n" * 200 + "/" + "m" * 200 + "{}"])
def test_names_that_the_options_of_a_mount_cannot_carry(tmp_path: Path, name: str) -> None:
    """Before Linux 6.5 a comma ends an option; fsconfig(2) takes 255 bytes of one."""
    assert mounted(tmp_path, layers(tmp_path, 2, name))[:2] == ["0", "4"]


@pytest.mark.parametrize("count", [3, 40, 127])
def test_as_many_layers_as_images_have(tmp_path: Path, count: int) -> None:
    text, entries, _ = mounted(tmp_path, layers(tmp_path, count))
    assert (text, int(entries)) == ("0", count + 2)


@pytest.mark.parametrize("count", [1, 127])
def test_it_can_be_pivoted_to(tmp_path: Path, count: int) -> None:
    assert mounted(tmp_path, layers(tmp_path, count), PivotRoot()) == ["0", str(count + 2), "/"]


def test_a_read_only_root(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="Read-only file system"):
        mounted(tmp_path, layers(tmp_path, 1), ReadOnlyRoot(), PivotRoot())


def test_devices_of_an_image_are_dead(tmp_path: Path) -> None:
    """Checked with OverlayRoot(devices=True), which opens it."""
    lowers = layers(tmp_path, 1)
    os.mknod(Path(lowers[0]) / "null", 0o20666, os.makedev(1, 3))
    directories = overlay.create_upper(tmp_path / "overlay", "c1")

    def opened(devices: bool) -> bool:
        def look() -> bool:
            assembly = Assembly()
            run((MakePropagation(), OverlayRoot(lowers, *directories, devices)), assembly)
            try:
                os.close(os.open("null", os.O_RDONLY, dir_fd=assembly.root))
            except PermissionError:
                return False
            return True

        result: bool = in_child(look)
        return result

    assert not opened(devices=False)
    assert opened(devices=True)


def test_the_host_sees_none_of_it(tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    mounted(tmp_path, layers(tmp_path, 1))
    assert Path("/proc/self/mountinfo").read_text() == before


def test_the_kernels_own_words_are_in_the_error(tmp_path: Path) -> None:
    assembly = Assembly()
    with pytest.raises(SystemCallError) as caught:
        OverlayRoot((str(tmp_path / "missing"),), str(tmp_path), str(tmp_path)).execute(assembly)
    # Before Linux 6.5 overlay looks its layers up late and has one word for all that is wrong with them.
    assert caught.value.errno in (errno.ENOENT, errno.EINVAL)
    assert assembly.root == -1


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "-x", "a b", "a\n", "x" * 201, "ä"])
def test_names_of_containers(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput):
        overlay.upper_directories(tmp_path, name)
    with pytest.raises(BadInput):
        overlay.remove_upper(tmp_path, name)


def test_directories_are_closed_to_others_but_the_root_in_them_is_open(tmp_path: Path) -> None:
    directories = overlay.create_upper(tmp_path / "overlay", "c1")
    assert overlay.create_upper(tmp_path / "overlay", "c1") == directories
    modes = [Path(path).stat().st_mode & 0o777 for path in (tmp_path / "overlay/c1", *directories)]
    assert modes == [0o700, 0o755, 0o700]


def test_a_removal_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    overlay.create_upper(tmp_path, "c1")
    (tmp_path / ".removed-c1/upper/x").mkdir(parents=True)
    (tmp_path / ".removed-c2/upper/x").mkdir(parents=True)
    assert overlay.upper_names(tmp_path) == ["c1", "c2"]
    for name in ("c1", "c2", "never"):
        overlay.remove_upper(tmp_path, name)
    assert os.listdir(tmp_path) == []
    overlay.remove_upper(tmp_path / "missing", "c1")


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """No more than some tens of descriptors: a removal that opens one a level cannot work."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A directory where a hundred thousand files are made in less than a second."""
    mount_memory(tmp_path / "memory")
    yield tmp_path / "memory"
    unmount_memory(tmp_path / "memory")


def test_a_tree_deeper_than_any_path(in_memory: Path, few_descriptors: None) -> None:
    top = os.open(in_memory, os.O_RDONLY)
    fd = os.dup(top)
    for depth in range(5000):
        os.mkdir("d", dir_fd=fd)
        if depth % 100 == 0:
            os.symlink("/etc", "link", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    remove_tree(top, "d")
    assert os.listdir(in_memory) == ["link"]
    os.close(top)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_hundred_thousand_files(in_memory: Path, few_descriptors: None, place: str) -> None:
    home = in_memory if place == "memory" else in_memory.parent / "disk"
    upper = home / "c1/upper"
    (upper / "many").mkdir(parents=True)
    directory = os.open(upper / "many", os.O_RDONLY)
    for number in range(100_000 if place == "memory" else 5000):
        os.mknod(str(number), 0o600, dir_fd=directory)
    os.close(directory)
    for number in range(300):
        (upper / f".removing-{number}/d").mkdir(parents=True)
    overlay.remove_upper(home, "c1")
    assert os.listdir(home) == []


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    (tmp_path / "c1/upper").mkdir(parents=True)
    (tmp_path / "c1/upper/link").symlink_to(tmp_path / "outside")
    (tmp_path / "c2").symlink_to(tmp_path / "outside")
    overlay.remove_upper(tmp_path, "c1")
    overlay.remove_upper(tmp_path, "c2")
    assert (tmp_path / "outside/file").exists()
    assert os.listdir(tmp_path) == ["outside"]


def test_immutable_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / "c1/upper/d").mkdir(parents=True)
    (tmp_path / "c1/upper/d/file").touch()
    for path, flag in (("c1/upper/d/file", 0x20), ("c1/upper/d", 0x10)):
        fd = os.open(tmp_path / path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, 0x40086602, struct.pack("l", flag))
        except OSError:
            pytest.skip("the filesystem of temporary files has no such flags")
        finally:
            os.close(fd)
    overlay.remove_upper(tmp_path, "c1")
    assert os.listdir(tmp_path) == []
