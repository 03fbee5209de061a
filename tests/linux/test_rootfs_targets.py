"""An image cannot make a mount appear anywhere but inside its root, nor choose what is mounted."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from kernel import mounts as kernel_mounts
from kernel.mounts import PROC_SUPER_MAGIC, TMPFS_MAGIC, statfs_type
from kernel.operation import Assembly
from kernel.paths import open_in_root
from rootfs.mounts import (
    Bind,
    BindRoot,
    Dev,
    Mask,
    PivotRoot,
    Proc,
    Sysfs,
    Tmpfs,
    from_oci,
)
from tests.rootfs_lab import ChildError, assembled, in_child, swapping

pytest_plugins = ["tests.rootfs_fixtures"]


@pytest.mark.parametrize("path", ["/proc", "/sys", "/dev", "/sys/fs/cgroup", "/dev/mqueue"])
@pytest.mark.parametrize("target", ["/etc", "../outside", "{outside}", "/missing"])
def test_links_in_place_of_the_kernels_directories_are_refused(
    root: Path, outside: Path, path: str, target: str
) -> None:
    """CVE-2019-16884, -19921, CVE-2023-27561, -28642, CVE-2026-41579. Checked by using target_directory() instead."""
    (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
    (root / path[1:]).symlink_to(target.format(outside=outside))
    types = {"/proc": "proc", "/sys": "sysfs", "/dev": "tmpfs", "/sys/fs/cgroup": "cgroup", "/dev/mqueue": "mqueue"}
    with pytest.raises(ChildError, match="is not a directory"):
        assembled(root, [from_oci(path, types[path], None)])


def test_what_is_mounted_is_what_was_asked_for(root: Path) -> None:
    def look(assembly: Assembly) -> list[int]:
        return [statfs_type(open_in_root(assembly.root, path, os.O_PATH)) for path in ("proc", "dev")]

    (root / "proc/self").mkdir(parents=True)  # a fake one
    (root / "dev").mkdir()
    (root / "dev/null").write_text("a file")
    assert assembled(root, [Proc("/proc"), Dev()], look) == [PROC_SUPER_MAGIC, TMPFS_MAGIC]


def test_targets_below_links_are_inside_the_root(root: Path, outside: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310, CVE-2024-5154. Checked by opening targets with os.open of root + path."""
    (root / "etc/resolv.conf").symlink_to("../../../../run/systemd/resolv.conf")
    (root / "absolute").symlink_to(outside)
    (root / "up").symlink_to("../outside")
    for inside in (root / "outside", root / str(outside)[1:]):
        inside.mkdir(parents=True)

    def look(assembly: Assembly) -> list[str]:
        def read(path: str) -> str:
            return os.read(open_in_root(assembly.root, path, os.O_RDONLY), 100).decode()

        return [read("/run/systemd/resolv.conf"), read("absolute/secret"), read("/outside/new/secret")]

    secret = str(outside / "secret")
    binds = [Bind(secret, "/etc/resolv.conf"), Bind(secret, "/absolute/secret"), Bind(secret, "/up/new/secret")]
    assert assembled(root, binds, look) == ["untouched"] * 3
    assert (root / "run/systemd/resolv.conf").read_text() == ""
    assert (root / "outside/new").is_dir()


def test_a_directory_is_not_made_through_a_link_that_dangles(root: Path, outside: Path) -> None:
    (root / "absolute").symlink_to(outside)
    with pytest.raises(ChildError, match="no such file"):
        assembled(root, [Bind("/etc", "/absolute/etc")])
    assert sorted(os.listdir(root)) == ["absolute", "etc", "tmp"]


def test_links_that_go_round_are_refused(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(ChildError):
        assembled(root, [Bind("/etc", "/a")])


def test_a_link_swapped_in_under_a_target_leads_nowhere(root: Path, outside: Path) -> None:
    """CVE-2021-30465 with the other half of the race in another process.

    Checked with os.makedirs() of the joined path in place of mkdir_in_root(): the host gets directories at once.
    """
    (root / "d").mkdir()

    def work() -> int:
        assembly = Assembly()
        BindRoot(str(root)).execute(assembly)
        refused = 0
        for number in range(500):
            try:
                Tmpfs(f"/d/x/new{number}/below").execute(assembly)
            except Exception:
                refused += 1  # the link dangles inside the root
        with open("/proc/self/mountinfo") as file:
            points = [line.split()[4] for line in file]
        assert not [point for point in points if str(outside) in point]
        return refused

    with swapping(root / "d", outside):
        assert in_child(work) < 500


def test_the_source_of_a_bind_is_what_it_was_when_it_was_opened(root: Path, outside: Path) -> None:
    """CVE-2017-1002101, CVE-2021-25741: the source is looked up inside the volume, whose links cannot lead out.

    Checked by leaving `within` away and joining the two.
    """
    volume = root.parent / "volume"
    volume.mkdir()

    def work() -> list[str]:
        assembly = Assembly()
        BindRoot(str(root)).execute(assembly)
        seen = set()
        for _ in range(300):
            try:
                Bind("x", "/etc", within=str(volume)).execute(assembly)
            except Exception:
                continue
            below = open_in_root(assembly.root, "/etc", os.O_RDONLY)
            seen.update(os.listdir(below))
            os.close(below)
            kernel_mounts.umount2(f"/proc/self/fd/{assembly.root}/etc", kernel_mounts.MNT_DETACH)
        return sorted(seen)

    with swapping(volume, outside):
        assert in_child(work) == []


def test_a_mask_is_the_hosts_null_device_and_nothing_else(root: Path, outside: Path) -> None:
    """CVE-2025-31133, -62161: /dev/null was swapped. Checked by leaving out the look at fstat(2)."""

    def look(assembly: Assembly) -> list[int]:
        masked = os.fstat(open_in_root(assembly.root, "/etc/passwd", os.O_PATH))
        return [stat.S_IFMT(masked.st_mode), masked.st_rdev]

    assert assembled(root, [Mask("/etc/passwd")], look) == [stat.S_IFCHR, os.makedev(1, 3)]

    def swapped() -> None:
        kernel_mounts.mount(str(outside / "secret"), "/dev/null", None, kernel_mounts.MS_BIND)
        assembled(root, [Mask("/etc/passwd")])

    with pytest.raises(ChildError, match="1:3"):
        in_child(swapped)


def test_the_cgroup_view_is_read_only_and_starts_at_the_containers_cgroup(root: Path) -> None:
    def look(_: Assembly) -> list[Any]:
        with open("/proc/self/cgroup") as file:
            own = next(line for line in file if line.startswith("0::")).strip()
        try:
            os.mkdir("/sys/fs/cgroup/new")
        except OSError as error:
            return [own, error.errno, "cgroup.procs" in os.listdir("/sys/fs/cgroup")]
        return ["writable"]

    operations = [
        Proc("/proc"),
        Sysfs("/sys"),
        from_oci("/sys/fs/cgroup", "cgroup", None, ["nosuid", "ro"]),
        PivotRoot(),
    ]
    assert assembled(root, operations, look) == ["0::/", 30, True]
