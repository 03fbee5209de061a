"""config-linux.md: masked paths, readonly paths, propagation of the root, mount label."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kernel import mounts as syscalls
from tests.oci.test_mounts import mount_options


def test_a_masked_file_cannot_be_read(box):
    """Masked Paths: "will mask over the provided paths inside the container so that they cannot be read"."""
    (box.rootfs / "secret").write_text("secret")
    box.linux["maskedPaths"] = ["/secret"]
    assert box.run("cat", "/secret").ok().out == ""


def test_a_masked_directory_is_empty_and_cannot_be_written(box):
    """Masked Paths: "will mask over the provided paths inside the container so that they cannot be read"."""
    (box.rootfs / "secrets/deep").mkdir(parents=True)
    (box.rootfs / "secrets/deep/file").write_text("secret")
    box.linux["maskedPaths"] = ["/secrets"]
    result = box.run("sh", "-c", "ls -a /secrets | wc -l; touch /secrets/new")
    assert result.out.strip() == "2"
    assert "Read-only" in result.err


def test_a_masked_path_that_is_missing_is_ignored(box):
    """runc and crun ignore it; every default configuration names files that not every kernel has."""
    box.linux["maskedPaths"] = ["/no/such/file", "/proc/no-such-file"]
    assert box.shell("ls /no 2>/dev/null || echo none") == "none\n"


@pytest.mark.parametrize(
    "path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/sched_debug"]
)
def test_files_of_proc_can_be_masked(box, path):
    """Masked Paths: the example is `/proc/kcore`."""
    box.linux["maskedPaths"] = [path]
    assert box.shell(f"test ! -e {path} || head -c 10 {path} | wc -c").strip() in ("", "0")


def test_the_mask_of_a_file_is_the_null_device_itself(box):
    """Masked Paths: what lies over a file must be the null device, not what an image put at /dev/null."""
    (box.rootfs / "secret").write_text("secret")
    box.linux["maskedPaths"] = ["/secret"]
    assert box.run("stat", "-c", "%t %T", "/secret").ok().out == "1 3\n"


NODES = {"fifo": stat.S_IFIFO, "character": stat.S_IFCHR, "block": stat.S_IFBLK}


@pytest.mark.parametrize("kind", NODES)
def test_a_masked_node_of_any_kind_cannot_be_read(box, kind):
    """Masked Paths: "will mask over the provided paths inside the container so that they cannot be read"."""
    os.mknod(box.rootfs / "node", NODES[kind] | 0o666, os.makedev(0, 0))
    box.linux["maskedPaths"] = ["/node"]
    assert box.run("stat", "-c", "%t %T", "/node").ok().out == "1 3\n"


def test_masked_paths_may_lie_in_each_other(box):
    """Masked Paths: "array of strings": a file below a directory that is masked as well."""
    (box.rootfs / "secrets").mkdir()
    (box.rootfs / "secrets/file").write_text("secret")
    box.linux["maskedPaths"] = ["/secrets", "/secrets/file"]
    assert box.shell("ls -a /secrets | wc -l").strip() == "2"


def test_a_relative_masked_path_is_an_error(box):
    """Masked Paths: "The values MUST be absolute paths in the container namespace"."""
    box.linux["maskedPaths"] = ["proc/kcore"]
    box.refused()


def test_a_readonly_path_cannot_be_written(box):
    """Readonly Paths: "will set the provided paths as readonly inside the container"."""
    (box.rootfs / "data").mkdir()
    (box.rootfs / "data/file").write_text("text")
    box.linux["readonlyPaths"] = ["/data"]
    result = box.run("sh", "-c", "cat /data/file; touch /data/new; echo more >> /data/file")
    assert result.out == "text"
    assert result.err.count("Read-only") == 2


def test_a_readonly_file_cannot_be_written(box):
    """Readonly Paths: "will set the provided paths as readonly inside the container"."""
    (box.rootfs / "file").write_text("text")
    box.linux["readonlyPaths"] = ["/file"]
    result = box.run("sh", "-c", "cat /file; echo more >> /file")
    assert (result.out, "Read-only" in result.err) == ("text", True)


@pytest.mark.parametrize("kind", NODES)
def test_a_readonly_node_of_any_kind_is_on_a_readonly_mount(box, kind):
    """Readonly Paths: "will set the provided paths as readonly inside the container"."""
    os.mknod(box.rootfs / "node", NODES[kind] | 0o666, os.makedev(0, 0))
    box.linux["readonlyPaths"] = ["/node"]
    assert "Read-only" in box.run("chmod", "600", "/node").failed().err


def test_a_readonly_path_that_is_missing_is_ignored(box):
    """runc and crun ignore it; every default configuration names files that not every kernel has."""
    box.linux["readonlyPaths"] = ["/no/such/file"]
    assert box.shell("echo ran") == "ran\n"


def test_a_path_of_proc_can_be_read_only(box):
    """Readonly Paths: the example is `/proc/sys`."""
    box.linux["readonlyPaths"] = ["/proc/sys"]
    result = box.run("sh", "-c", "echo x > /proc/sys/kernel/domainname; echo x > /proc/sys/kernel/hostname")
    assert result.err.count("Read-only") == 2


def test_a_relative_readonly_path_is_an_error(box):
    """Readonly Paths: "The values MUST be absolute paths in the container namespace"."""
    box.linux["readonlyPaths"] = ["proc/sys"]
    box.refused()


def test_a_path_keeps_its_restrictions_when_it_is_made_read_only(box):
    """Readonly Paths: a mount that was nosuid, nodev and noexec stays so."""
    box.mount("/data", options=("nosuid", "nodev", "noexec"))
    box.linux["readonlyPaths"] = ["/data"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= mount_options(box.shell("cat /proc/self/mountinfo"), "/data")


@pytest.mark.parametrize(
    ("propagation", "has", "lacks"),
    [
        ("private", "", "shared master unbindable"),
        ("shared", "shared", "unbindable"),
        ("slave", "", "shared unbindable"),
        ("unbindable", "unbindable", "shared master"),
    ],
    ids=["private", "shared", "slave", "unbindable"],
)
def test_each_propagation_of_the_root(box, propagation, has, lacks):
    """Rootfs Mount Propagation: "Its value is either `shared`, `slave`, `private` or `unbindable`"."""
    box.linux["rootfsPropagation"] = propagation
    found = mount_options(box.shell("cat /proc/self/mountinfo"), "/")
    assert set(has.split()) <= found
    assert not set(lacks.split()) & found


def test_a_propagation_that_does_not_exist_is_an_error(box):
    """config.md, Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    box.linux["rootfsPropagation"] = "sometimes"
    box.refused()


@pytest.fixture
def shared_tree(box):
    """A shared mount of the host."""
    tree = box.directory / "tree"
    (tree / "below").mkdir(parents=True)
    syscalls.mount("tmpfs", tree, "tmpfs", 0)
    (tree / "below").mkdir()
    syscalls.mount("", tree, None, syscalls.MS_SHARED)
    yield tree
    syscalls.umount2(tree, syscalls.MNT_DETACH)


@pytest.mark.parametrize(("option", "expected"), [("rslave", True), ("rprivate", False), ("rshared", True)])
def test_mounts_of_the_host_come_as_the_propagation_says(box, shared_tree, fifo, option, expected):
    """Rootfs Mount Propagation: `slave`: "receives propagation events from the host"; `private`: does not."""
    box.linux["rootfsPropagation"] = "slave" if option != "rprivate" else "private"
    box.bind("/data", shared_tree, option)
    box.running("sh", "-c", "echo up > /fifo; exec sleep 1000")
    assert fifo.line() == "up"
    syscalls.mount("later", shared_tree / "below", "tmpfs", 0)
    seen = " later " in Path(f"/proc/{box.pid}/mountinfo").read_text()
    syscalls.umount2(shared_tree / "below", syscalls.MNT_DETACH)
    assert seen is expected


def test_a_mount_label_is_no_silent_success(box):
    """Mount Label: "will set the Selinux context for the mounts"; without SELinux there is none to set."""
    box.linux["mountLabel"] = "system_u:object_r:svirt_sandbox_file_t:s0:c715,c811"
    result = box.run("cat", "/proc/self/mountinfo")
    assert result.code != 0 or ("svirt" in result.out) == os.path.isdir("/sys/fs/selinux")
