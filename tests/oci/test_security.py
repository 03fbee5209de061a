"""What a container must not find or do, whatever its image or its caller's state: runtime-linux.md and old holes of runtimes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.oci.test_mounts import mount_options


def descriptors(printed):
    """The descriptors of `ls -l /proc/self/fd`, without the one that ls reads the directory by."""
    rows = [line.split(" -> ") for line in printed.splitlines() if " -> " in line]
    return {int(name.split()[-1]) for name, target in rows if not target.endswith("/fd")}


@pytest.fixture
def leak(tmp_path):
    """A descriptor of a host directory that the runtime's caller forgot to close."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_only_the_standard_descriptors_are_open(box, leak):
    """runtime-linux.md: "By default, only the `stdin`, `stdout` and `stderr` file descriptors are kept open"."""
    assert descriptors(box.run("ls", "-l", "/proc/self/fd", pass_fds=(leak,)).ok().out) == {0, 1, 2}


def test_only_the_standard_descriptors_are_open_after_create(box, leak):
    """runtime-linux.md: the same for a container that create has made and start has started."""
    box.args("ls", "-l", "/proc/self/fd").create(pass_fds=(leak,)).ok()
    box.start().ok()
    assert box.wait() == 0
    assert descriptors(box.output()) == {0, 1, 2}


def test_only_the_standard_descriptors_are_open_in_exec(box, leak):
    """runtime-linux.md: the same for exec."""
    result = box.running().exec("ls", "-l", "/proc/self/fd", pass_fds=(leak,))
    assert descriptors(result.ok().out) == {0, 1, 2}


@pytest.mark.parametrize("number", range(3, 12))
def test_a_working_directory_by_descriptor_is_not_the_hosts(box, number):
    """CVE-2024-21626: a working directory /proc/self/fd/N that a descriptor of the runtime makes a way out."""
    box.process["cwd"] = f"/proc/self/fd/{number}"
    result = box.run("sh", "-c", "pwd; cat ../../../../../../../../etc/passwd")
    assert "root:" not in result.out
    assert result.code != 0 or os.fspath(box.directory) not in result.out


def test_a_process_directory_by_descriptor_is_not_the_hosts_in_exec(box):
    """CVE-2024-21626, by exec --cwd."""
    box.running()
    for number in range(3, 12):
        result = box.exec("--cwd", f"/proc/self/fd/{number}", "--", "pwd")
        assert result.code != 0 or not result.out.startswith(os.fspath(box.directory))


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_a_symbolic_link_at_proc_or_sys_is_not_followed(box, name):
    """CVE-2019-19921, CVE-2023-27561: an image whose /proc is a link gets no fake one."""
    (box.rootfs / name).rmdir()
    (box.rootfs / "fake").mkdir()
    os.symlink("fake", box.rootfs / name)
    result = box.run("cat", "/proc/self/mountinfo")
    if result.code == 0:
        mount_options(result.out, f"/{name}")
    else:
        assert result.err.strip()


def test_a_mount_point_that_is_a_link_out_of_the_root_stays_inside(box, tmp_path):
    """CVE-2021-30465: a destination is resolved in the container's root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(outside, box.rootfs / "link")
    box.mount("/link/below")
    result = box.run("true")
    assert list(outside.iterdir()) == []
    if result.code == 0:
        assert (box.rootfs / os.fspath(outside).lstrip("/") / "below").is_dir()


@pytest.mark.parametrize("destination", ["/../../outside", "/tmp/../../../outside", "/link/../../outside"])
def test_a_mount_point_cannot_climb_out(box, destination):
    """CVE-2024-45310: nothing is made on the host."""
    os.symlink("..", box.rootfs / "link")
    before = set(os.listdir(box.directory))
    box.mount(destination)
    box.run("true")
    assert set(os.listdir(box.directory)) - before <= {"config.json"}
    assert not Path("/outside").exists()


def test_a_link_at_dev_does_not_reach_the_host(box, tmp_path):
    """CVE-2026-41579: an image whose /dev is a link."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "null").write_text("mine")
    (box.rootfs / "dev").rmdir()
    os.symlink(outside, box.rootfs / "dev")
    box.run("true")
    assert os.listdir(outside) == ["null"]
    assert (outside / "null").read_text() == "mine"


def test_a_fake_null_device_is_no_mask(box):
    """CVE-2025-31133: the image's own /dev/null, where no /dev is mounted."""
    box.config["mounts"] = [mount for mount in box.mounts if not mount["destination"].startswith("/dev")]
    (box.rootfs / "secret").write_text("secret")
    (box.rootfs / "dev/null").write_text("fake")
    box.linux["maskedPaths"] = ["/secret"]
    result = box.run("cat", "/secret")
    assert result.out == ""


def test_a_masked_path_that_is_a_link_masks_nothing_of_the_host(box, tmp_path):
    """CVE-2023-28642: links are resolved in the container's root."""
    (tmp_path / "host-secret").write_text("host")
    os.symlink(tmp_path / "host-secret", box.rootfs / "link")
    box.linux["maskedPaths"] = ["/link"]
    box.run("true")
    assert (tmp_path / "host-secret").read_text() == "host"


def test_root_has_no_inheritable_and_no_ambient_capability(box):
    """CVE-2022-29162: CapInh and CapAmb are 0 unless they are asked for."""
    box.process["capabilities"] = {name: ["CAP_KILL"] for name in ("bounding", "permitted", "effective")}
    printed = box.run("grep", "-E", "^Cap(Inh|Amb)", "/proc/self/status").ok().out
    assert [int(line.split()[1], 16) for line in printed.splitlines()] == [0, 0]


def test_groups_of_the_caller_are_not_kept(box):
    """CVE-2022-2995: the groups are those of the configuration alone."""
    box.process["user"] = {"uid": 1, "gid": 1}
    printed = box.run("grep", "^Groups:", "/proc/self/status", extra_groups=[0, 44, 4444]).ok().out
    assert set(printed.split()[1:]) <= {"1"}


# Signals 32 and 33 are glibc's own: its posix_spawn(3) leaves them ignored, and no program can change that.
OF_GLIBC = 1 << 31 | 1 << 32


def blocked_or_ignored(printed):
    """The signals in the lines SigBlk and SigIgn of /proc/PID/status."""
    return [int(line.split()[1], 16) & ~OF_GLIBC for line in printed.splitlines()]


def test_signals_are_as_a_program_expects_them(box):
    """No signal is blocked or ignored because the runtime had it so; a pipe that breaks must end a program."""
    assert blocked_or_ignored(box.run("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status").ok().out) == [0, 0]


def test_signals_are_as_a_program_expects_them_in_exec(box):
    """The same for exec."""
    printed = box.running().exec("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status").ok().out
    assert blocked_or_ignored(printed) == [0, 0]


def test_the_program_has_no_terminal_of_the_caller(box):
    """CVE-2016-10124: a session of its own, without a controlling terminal."""
    fields = box.run("cat", "/proc/self/stat").ok().out.rpartition(")")[2].split()
    session, tty = int(fields[3]), int(fields[4])
    assert (session, tty) == (1, 0)


def test_the_umask_of_the_caller_is_kept(box):
    """config.md, User: `umask`: "If unspecified, the umask should not be changed from the calling process' umask"."""
    assert int(box.shell("umask", umask=0o027), 8) == 0o027


def test_records_are_for_their_owner_alone(box):
    """CVE-2024-25621: what the runtime keeps of a container is not for others."""
    box.created()
    directory = next(path for path in box.runtime.root.rglob("*") if path.name.startswith(box.id))
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (box.runtime.root, directory)]
    assert any(mode & 0o011 == 0 for mode in modes)


@pytest.mark.needs_cgroups
def test_a_readonly_cgroup_mount_cannot_be_written(box):
    """CVE-2023-25809: the container's own cgroup is out of its hands."""
    box.mount("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", "nosuid", "noexec", "nodev"))
    assert "Read-only" in box.run("mkdir", "/sys/fs/cgroup/mine").failed().err


def test_devices_that_were_not_asked_for_are_not_there(box):
    """config-linux.md, Devices: no device node but the configured and the default ones."""
    known = set("null zero full random urandom tty console ptmx pts shm mqueue fd stdin stdout stderr core".split())
    assert set(box.run("ls", "/dev").ok().out.split()) <= known


def test_the_root_of_the_host_cannot_be_reached_by_proc(box):
    """config-linux.md, Namespaces: `pid`: processes of the host, and with them their roots, are not there."""
    assert box.shell("ls -i /proc/1/root/bin/busybox | cut -d' ' -f1; ls -di / | wc -l").split()[1] == "1"
    assert os.fspath(box.directory) not in box.shell("readlink /proc/1/root; readlink /proc/self/cwd")


def test_host_paths_do_not_show_in_the_environment(box):
    """A container learns nothing of its caller."""
    printed = box.run("env", env={"NOTIFY_SOCKET_OF_HOST": "/run/x", "XDG_RUNTIME_DIR": "/run/user/0"}).ok().out
    assert "XDG_RUNTIME_DIR" not in printed
