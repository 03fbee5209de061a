"""The holes of other runtimes that concern mounts, each tried on whole containers (rootfs/ tries the parts of many).

A docstring names the hole and how the test was seen to fail: what was taken out of the program, and put back.
"""

import os
from pathlib import Path

import pytest

from kernel.errors import RawpodError
from kernel.operation import Assembly, run
from kernel.process import CLONE_NEWNS
from rootfs.mounts import Bind, BindRoot, MakePropagation, PinSource
from runtime import spec
from tests.rootfs_lab import in_child, swapping, tree


@pytest.fixture
def outside(tmp_path):
    """A directory of the host that has to be the same after the test, as the host's mounts have to."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret").write_text("untouched\n")
    before, mounted = tree(directory), Path("/proc/self/mountinfo").read_text()
    yield directory
    assert tree(directory) == before
    assert Path("/proc/self/mountinfo").read_text() == mounted


def ran(box, config):
    status, printed = box.run(config)
    assert status.shell == 0, printed
    return printed


def adding(config, *mounts):
    config.mounts = [*config.mounts, *mounts]
    return config


def refused(box, config):
    with pytest.raises(RawpodError) as caught:
        box.run(config)
    return str(caught.value)


def test_row_4_and_8_targets_below_a_volume_that_another_process_swaps(box, tmp_path, outside):
    """CVE-2021-30465, CVE-2024-45310: mounts below a volume in which a directory becomes a link to the host and back.

    Seen to fail with RESOLVE_IN_ROOT left out of kernel.paths.open_in_root and paths taken relative to the root's
    descriptor: directories appear in `outside`.
    """
    volume = tmp_path / "volume"
    volume.mkdir()
    went_wrong = started = 0
    with swapping(volume, outside):
        for attempt in range(25):
            mounts = [spec.Mount(f"/v/x/new{attempt}-{number}/below", "tmpfs") for number in range(20)]
            config = adding(box.config("sh", "-c", "true"), spec.Mount("/v", "bind", str(volume), ["bind"]), *mounts)
            try:
                box.run(config)
                started += 1
            except RawpodError:
                went_wrong += 1  # the link was there: inside the root it leads nowhere
    assert went_wrong + started == 25
    assert went_wrong


@pytest.mark.parametrize("path", ["proc", "sys"])
@pytest.mark.parametrize("target", ["/etc", "{outside}", "etc"])
def test_row_5_and_6_a_link_in_place_of_proc_or_sys(box, outside, path, target):
    """CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642. Seen to fail with target_directory() in place of
    real_directory() in _OfTheKernel.target: the container runs, its /proc a directory with another name.
    """
    (box.root / path).rmdir()
    os.symlink(target.format(outside=outside), box.root / path)
    assert f"'/{path}' in the image is not a directory" in refused(box, box.config("sh"))


def test_row_5_a_fake_proc_is_covered_and_cannot_be_chosen(box, tmp_path, outside):
    """CVE-2025-54867 and kin: an image with a /proc of its own, a description that mounts another one there.

    Seen to fail without the look at the source in Bind.execute: the fake is used.
    """
    (box.root / "proc/self/attr").mkdir(parents=True)
    (box.root / "proc/self/attr/exec").touch()
    assert "proc" in ran(box, box.config("sh", "-c", "grep ' /proc ' /proc/mounts"))
    config = box.config("sh")
    config.mounts = [row for row in config.mounts if row.destination != "/proc"]
    assert "not a procfs" in refused(box, adding(config, spec.Mount("/proc", "bind", str(outside), ["bind"])))
    assert "cannot stand in" in refused(box, adding(box.config("sh"), spec.Mount("/proc", "tmpfs")))


@pytest.mark.parametrize("path", ["/proc/self/attr", "/proc/sys/kernel", "/proc/1", "/link/sys"])
def test_row_11_nothing_is_mounted_over_what_is_written_in_proc(box, outside, path):
    """CVE-2025-52881, CVE-2025-62596: a mount in /proc turns the runtime's own writes aside, also by way of a link.

    Seen to fail without check_not_in_proc() in Bind.execute and Filesystem.mount.
    """
    os.symlink("proc", box.root / "link")
    for mount in (spec.Mount(path, "bind", str(outside), ["bind"]), spec.Mount(path, "tmpfs")):
        assert "in /proc, where nothing else is mounted" in refused(box, adding(box.config("sh"), mount))


def test_row_11_a_sysctl_is_not_written_into_an_images_files(box, outside):
    """CVE-2025-52881: without a /proc of its own the image's is in the way.

    Seen to fail without the look at the filesystem in SetSysctl: the file holds "1".
    """
    fake = box.root / "proc/sys/net/ipv4/ip_forward"
    fake.parent.mkdir(parents=True)
    fake.write_text("0")
    config = box.config("sh")
    config.mounts = [row for row in config.mounts if row.destination != "/proc"]
    config.linux.sysctl = {"net.ipv4.ip_forward": "1"}
    assert "not a procfs" in refused(box, config)
    assert fake.read_text() == "0"


def test_row_9_masks_are_the_null_device_whatever_the_image_has(box, outside):
    """CVE-2025-31133, CVE-2025-62161: /dev/null of the image was a link to what then got mounted, writable.

    The mask is a clone of the host's own, whose descriptor is looked at. Seen to fail with the mask cloned from a file
    inside the root and without the look. (test_rootfs_targets swaps the host's.)
    """
    (box.root / "dev/null").unlink(missing_ok=True)
    os.symlink(outside / "secret", box.root / "dev/null")
    (box.root / "etc/hidden").write_text("hidden")
    config = box.config("sh", "-c", "stat -c '%F %t:%T' /proc/timer_list /etc/hidden; echo x > /etc/hidden")
    config.linux.masked_paths = ["/proc/timer_list", "/etc/hidden"]
    assert ran(box, config) == "character special file 1:3\n" * 2
    assert (box.root / "etc/hidden").read_text() == "hidden"


def test_a_mask_cannot_be_used_to_change_the_hosts_null_device(box):
    """What masks a file is the host's own /dev/null, and root in the container is root.

    Seen to fail without MOUNT_ATTR_RDONLY in clone_device(): it can be given another mode, for the whole machine.
    """
    config = box.config("sh", "-c", "chmod 666 /etc/hidden 2>&1; echo lost > /etc/hidden && echo written")
    config.process.capabilities = spec.Capabilities(
        bounding=["CAP_FOWNER"], effective=["CAP_FOWNER"], permitted=["CAP_FOWNER"]
    )
    (box.root / "etc/hidden").touch()
    config.linux.masked_paths = ["/etc/hidden"]
    printed = ran(box, config)
    assert "Read-only file system" in printed
    assert printed.endswith("written\n")


def test_row_10_the_console_is_the_terminal_that_was_made(box, outside):
    """CVE-2025-52565: the image has a link in place of /dev/console and of the terminal's own name.

    Seen to fail without the Dev of arrange(): the image's link is still there.
    """
    os.symlink(outside / "secret", box.root / "dev/console")
    (box.root / "dev/pts").mkdir()
    os.symlink(outside / "secret", box.root / "dev/pts/0")
    config = box.config("sh", "-c", "stat -c '%F' /dev/console; test /dev/console -ef /proc/self/fd/0 && echo same")
    config.process.terminal = True
    container = box.create(config)
    try:
        container.start()
        printed = b""
        while printed.count(b"\n") < 2:
            printed += os.read(container.console_fd, 100)
    finally:
        container.wait()
        container.delete()
    assert printed.split(b"\r\n")[0] == b"character special file"


@pytest.mark.parametrize("target", ["{outside}", "/etc", "nowhere"])
def test_row_12_an_image_that_ships_dev_as_a_link(box, outside, target):
    """CVE-2026-41579, CVE-2026-47766: devices and links were made, and old ones removed, where the link led.

    Seen to fail with target_directory() in Dev.target: devices are mounted on the image's /etc, and what refuses the
    link is no more than the devpts that comes next.
    """
    (box.root / "dev").rmdir()
    os.symlink(target.format(outside=outside), box.root / "dev")
    before = tree(box.root / "etc")
    for config in (box.config("sh"), box.config("sh")):
        assert "'/dev' in the image is not a directory" in refused(box, config)
        config.mounts = [row for row in config.mounts if not row.destination.startswith("/dev")]
        assert "'/dev' in the image is not a directory" in refused(box, config)
    assert tree(box.root / "etc") == before


def test_row_13_without_a_dev_in_the_description_there_is_a_fresh_one(box, outside):
    """CVE-2026-88264: the image's files became stdio and the console. Seen to fail without the Dev of arrange()."""
    for name in ("null", "tty", "stdin"):
        os.symlink(outside / "secret", box.root / "dev" / name)
    config = box.config(
        "sh", "-c", "echo written > /dev/null; stat -c %t:%T /dev/null; grep -c ' /dev tmpfs' /proc/mounts"
    )
    config.mounts = [row for row in config.mounts if not row.destination.startswith("/dev")]
    assert ran(box, config) == "1:3\n1\n"


@pytest.mark.parametrize("name", ["mtab", "hosts", "resolv.conf"])
@pytest.mark.parametrize("link", ["{outside}/secret", "../../../../../../..{outside}/secret", "../../outside/secret"])
def test_row_20_files_in_etc_that_are_links_upwards(box, tmp_path, outside, name, link):
    """CVE-2024-5154: /etc/mtab and the files that runtimes put there, through links that climb out of the root.

    Seen to fail with RESOLVE_IN_ROOT left out of open_in_root: the host's file is covered, or made.
    """
    own = tmp_path / "own"
    own.write_text("the pod's own\n")
    os.symlink(link.format(outside=outside), box.root / "etc" / name)
    config = adding(
        box.config("sh", "-c", f"cat /etc/{name}"), spec.Mount(f"/etc/{name}", "bind", str(own), ["bind", "ro"])
    )
    assert ran(box, config) == "the pod's own\n"


@pytest.mark.parametrize("link", ["{outside}", "../../..{outside}", "{outside}/new"])
def test_row_21_a_working_directory_behind_a_link_is_made_inside(box, outside, link):
    """podman GHSA-q6r4: WORKDIR through a link had directories of the host made and given away.

    Seen to fail with os.makedirs() of root and path joined in place of mkdir_in_root() in MakeWorkingDirectory.
    """
    os.symlink(link.format(outside=outside), box.root / "way")
    inside = box.root / str(outside)[1:]
    inside.mkdir(parents=True)
    config = box.config("sh", "-c", "pwd -P; touch here", cwd="/way/deep/er")
    try:
        printed = ran(box, config)
    except RawpodError:
        assert link.endswith("new")  # a link that dangles is not made into a directory
        return
    assert printed == f"{outside}/deep/er\n"
    assert (inside / "deep/er/here").exists()


def test_row_25_a_source_within_a_volume_that_is_swapped(box, tmp_path, outside):
    """CVE-2017-1002101, CVE-2021-25741: the part of a volume is looked up by descriptor, inside of it.

    Seen to fail with `within` joined to the source in rootfs.binds.clone: the secret is seen.
    """
    volume = tmp_path / "volume"
    volume.mkdir()

    def work():
        assembly = Assembly()
        BindRoot(str(box.root)).execute(assembly)
        seen = set()
        for number in range(300):
            try:
                Bind("x", f"/tmp/{number}", within=str(volume)).execute(assembly)
            except Exception:
                continue
            seen.update(os.listdir(f"/proc/self/fd/{assembly.root}/tmp/{number}"))
        return sorted(seen)

    with swapping(volume, outside):
        assert in_child(work) == []


def test_row_26_files_of_a_configmap_do_not_follow_what_a_container_left(tmp_path, outside):
    """CVE-2025-9566: written again, the files went through links that the container had put into the volume.

    Seen to fail with the files of `..data` written in place, through the link, in rootfs.volumes.write_tree.
    """
    from rootfs.volumes import VolumeFile, write_tree

    volume = tmp_path / "volume"
    files = [VolumeFile("key", b"1"), VolumeFile("dir/key", b"1")]
    write_tree(volume, files)
    before = {path: path.lstat().st_mtime_ns for path in outside.iterdir()}
    state = volume / os.readlink(volume / "..data")
    for link, target in ((volume / "key", outside / "secret"), (volume / "dir", outside), (volume / "..data", outside)):
        link.unlink()
        os.symlink(target, link)
    (state / "dir/key").unlink()
    os.symlink(outside / "secret", state / "dir/key")
    write_tree(volume, [VolumeFile("key", b"2"), VolumeFile("dir/key", b"2")])
    assert {path: path.lstat().st_mtime_ns for path in outside.iterdir()} == before
    assert (volume / "key").read_bytes() == (volume / "dir/key").read_bytes() == b"2"


def test_row_27_a_source_is_what_it_was_when_it_was_opened(box, tmp_path, outside):
    """CVE-2024-1753: the source of a mount became a link to the host's root between the look and the mount.

    It is opened once, and what is mounted, and whether it is a directory, comes from that descriptor. Seen to fail with
    the source looked up again, by name, in Bind.execute.
    """
    source = tmp_path / "source"
    source.mkdir()
    (source / "mine").touch()

    def work():
        assembly = Assembly()
        run((PinSource(str(source), "pinned"), MakePropagation(), BindRoot(str(box.root))), assembly)
        source.rename(tmp_path / "moved")
        source.symlink_to(outside)
        Bind(str(source), "/tmp/data", pinned="pinned").execute(assembly)
        return os.listdir(f"/proc/self/fd/{assembly.root}/tmp/data")

    assert in_child(work, CLONE_NEWNS) == ["mine"]
