"""What a container has mounted, from config.json to what its processes see (config.md, "Mounts")."""

import os
import signal
import socket
import stat
from contextlib import contextmanager

import pytest

from kernel.errors import RawpodError
from kernel.mounts import MS_BIND, MS_PRIVATE, MS_REC, MS_SHARED, mount, umount2
from kernel.process import CLONE_NEWNS, unshare
from runtime import spec
from tests.boxes import output
from tests.rootfs_lab import in_child


def with_mounts(config, *mounts, keep=True):
    config.mounts = [*(config.mounts if keep else ()), *mounts]
    return config


def ran(box, config):
    status, printed = box.run(config)
    assert status.shell == 0, printed
    return printed


def test_files_sockets_fifos_and_devices_are_bound(box, tmp_path):
    (tmp_path / "file").write_text("a file")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    binds = [spec.Mount(f"/new/{name}", "bind", str(tmp_path / name), ["bind"]) for name in ("file", "fifo", "socket")]
    binds.append(spec.Mount("/new/zero", "bind", "/dev/zero", ["bind"]))
    script = "cat /new/file; for t in p:fifo S:socket c:zero; do test -${t%%:*} /new/${t##*:} && echo $t; done"
    printed = ran(box, with_mounts(box.config("sh", "-c", script), *binds))
    assert printed == "a filep:fifo\nS:socket\nc:zero\n"


def test_relative_sources_and_destinations(box):
    (box.bundle / "data").mkdir()
    (box.bundle / "data/file").write_text("beside config.json")
    bind = spec.Mount("srv/data", "", "data", ["bind"])
    assert ran(box, with_mounts(box.config("sh", "-c", "cat /srv/data/file"), bind)) == "beside config.json"
    container = box.create(with_mounts(box.config("sh", "-c", "true"), bind))
    container.start()
    container.wait()
    container.delete()
    assert any("'srv/data' is relative" in warning for warning in container.warnings)


def test_a_container_without_any_mount_has_a_dev_of_its_own(box):
    """CVE-2026-88264: the image's /dev was used. Fails without the Dev that arrange() adds."""
    (box.root / "dev/null").write_text("the image's own")
    printed = ran(
        box, with_mounts(box.config("sh", "-c", "echo lost > /dev/null; stat -c %F:%t:%T /dev/null"), keep=False)
    )
    assert printed == "character special file:1:3\n"
    assert (box.root / "dev/null").read_text() == "the image's own"


def test_the_hosts_dev_as_a_bind(box):
    before = sorted(os.listdir("/dev"))
    config = box.config("sh", "-c", "ls /dev; stat -c %F /dev/full")
    config.mounts = [row for row in config.mounts if not row.destination.startswith("/dev")]
    printed = ran(box, with_mounts(config, spec.Mount("/dev", "bind", "/dev", ["rbind"])))
    assert printed.split("\n")[-2] == "character special file"
    assert sorted(os.listdir("/dev")) == before


def test_a_read_only_dev_still_has_its_devices(box):
    config = box.config("sh", "-c", "echo x > /dev/null && ! touch /dev/new")
    config.mounts[1] = config.mounts[1].replace(options=["nosuid", "ro"])
    assert "Read-only" in ran(box, config)


def test_devices_with_their_modes_whatever_the_umask(box):
    config = box.config("sh", "-c", "stat -c '%F %a %u %g %t:%T' /dev/fuse /srv/pipe /srv/x/null")
    config.linux.devices = [
        spec.Device("/dev/fuse", "c", 10, 229, 0o020640, 7, 8),
        spec.Device("/srv/pipe", "p", file_mode=0o622),
        spec.Device("/srv/x/null", "u", 1, 3),
    ]
    os.umask(0o077)
    try:
        printed = ran(box, config)
    finally:
        os.umask(0o022)
    assert printed.split("\n")[:3] == [
        "character special file 640 7 8 a:e5",
        "fifo 622 0 0 0:0",
        "character special file 666 0 0 1:3",
    ]


def test_a_device_that_is_something_else_already_is_an_error(box):
    config = box.config("sh")
    config.linux.devices = [spec.Device("/bin/busybox", "c", 1, 3)]
    with pytest.raises(RawpodError, match="'/bin/busybox': there is something else"):
        box.run(config)


@pytest.mark.parametrize(
    ("mount_", "said"),
    [
        (spec.Mount("/proc/sys/kernel", "tmpfs"), "in /proc"),
        (spec.Mount("/proc", "bind", "/etc", ["bind"]), "not a procfs"),
        (spec.Mount("/bin/busybox", "bind", "/etc", ["bind"]), "'/bin/busybox' in the root is a file"),
        (spec.Mount("/tmp", "bind", "/etc/passwd", ["bind"]), "'/tmp' in the root is a directory"),
        (spec.Mount("/srv", "bind", "/not/there", ["bind"]), "'/not/there' does not exist"),
        (spec.Mount("/srv", "tmpfs", "", ["sizee=1"]), "mount tmpfs -> /srv .*sizee"),
        (spec.Mount("/srv", "nosuchfs"), "mount nosuchfs -> /srv"),
    ],
)
def test_errors_name_the_mount(box, mount_, said):
    with pytest.raises(RawpodError, match=said):
        box.run(with_mounts(box.config("sh"), mount_))


def test_what_lxcfs_stands_in_for_may_be_bound_in_proc(box, tmp_path):
    (tmp_path / "uptime").write_text("1.00 1.00\n")
    bind = spec.Mount("/proc/uptime", "bind", str(tmp_path / "uptime"), ["bind"])
    assert ran(box, with_mounts(box.config("sh", "-c", "cat /proc/uptime"), bind)) == "1.00 1.00\n"


def test_in_another_proc_than_its_own_anything_is_mounted(box):
    """As monitoring agents do with the host's on /host/proc."""
    config = box.config("sh", "-c", "test -e /host/proc/1/root || echo covered")
    mounts = [spec.Mount("/host/proc", "bind", "/proc", ["rbind", "ro"]), spec.Mount("/host/proc/1", "tmpfs")]
    assert ran(box, with_mounts(config, *mounts)) == "covered\n"


def test_a_cgroup_mount_is_as_writable_as_asked_for(box):
    for option, expected in (("ro", "read-only\n"), ("rw", "writable\n")):
        config = box.config("sh", "-c", "mkdir /sys/fs/cgroup/x 2>/dev/null && echo writable || echo read-only")
        config.mounts[4] = config.mounts[4].replace(options=[option])
        assert ran(box, config) == expected
        leftover = f"{box.cgroup.path}/x"
        if os.path.isdir(leftover):
            os.rmdir(leftover)


def test_without_a_cgroup_namespace_the_hosts_hierarchy_is_shown(box):
    config = box.config("sh", "-c", "test -d /sys/fs/cgroup$(grep ^0:: /proc/self/cgroup | cut -d: -f3) && echo there")
    config.linux.namespaces = [row for row in config.linux.namespaces if row.type != "cgroup"]
    assert ran(box, config) == "there\n"


def test_a_tmpfs_is_remounted_with_other_options(box):
    config = box.config("sh", "-c", "grep ' /t ' /proc/mounts")
    mounts = [spec.Mount("/t", "tmpfs", "", ["size=64k"]), spec.Mount("/t", "", "", ["remount", "size=128k", "nosuid"])]
    printed = ran(box, with_mounts(config, *mounts))
    assert "size=128k" in printed
    assert "nosuid" in printed


def test_a_tmpfs_on_a_new_directory_has_the_mode_of_a_tmpfs(box):
    (box.root / "there").mkdir(mode=0o750)
    config = box.config("sh", "-c", "stat -c %a /there /new")
    printed = ran(box, with_mounts(config, spec.Mount("/there", "tmpfs"), spec.Mount("/new", "tmpfs")))
    assert printed == "750\n1777\n"


@pytest.fixture
def shared(tmp_path, host):
    """A shared mount of the host with a directory to mount on later."""
    source = tmp_path / "shared"
    source.mkdir()
    mount("tmpfs", source, "tmpfs")
    mount(None, source, None, MS_SHARED)
    (source / "later").mkdir()
    yield source
    umount2(source, 2)


def test_a_shared_bind_carries_the_containers_mounts_to_the_host(box, shared):
    config = box.config("sh", "-c", "mount -t tmpfs x /s/later && touch /s/later/from-inside")
    config.process.capabilities = spec.Capabilities(
        **{key: ["CAP_SYS_ADMIN"] for key in ("bounding", "effective", "permitted")}
    )
    for option, arrives in (("rshared", True), ("rslave", False), ("rprivate", False)):
        config.mounts = [*config.mounts[:5], spec.Mount("/s", "bind", str(shared), ["rbind", option])]
        ran(box, config)
        assert os.path.exists(shared / "later/from-inside") is arrives
        if arrives:
            umount2(shared / "later", 2)


@pytest.mark.parametrize(("word", "arrives"), [("rslave", True), ("rprivate", False), ("", False)])
def test_later_mounts_arrive_in_a_root_that_is_a_slave(box, shared, word, arrives):
    for name in os.listdir(box.root):
        if name == "bin":
            (shared / "bin").mkdir()
            (shared / "bin/busybox").write_bytes((box.root / "bin/busybox").read_bytes())
            (shared / "bin/busybox").chmod(0o755)
            os.symlink("busybox", shared / "bin/sh")
    config = box.config("sh", "-c", "read go; test -e /later/from-outside && echo there || echo nothing")
    config.root = spec.Root(str(shared))
    config.linux.rootfs_propagation = word
    reading, writing = os.pipe()
    with output() as (write, read):
        container = box.create(config, stdio=(reading, write, write))
        try:
            mount("tmpfs", shared / "later", "tmpfs")
            (shared / "later/from-outside").touch()
            container.start()
            os.write(writing, b"go\n")
            container.wait()
        finally:
            container.delete()
            umount2(shared / "later", 2)
            os.close(reading)
            os.close(writing)
        assert read() == ("there\n" if arrives else "nothing\n")


def test_a_label_needs_selinux(box):
    config = box.config("sh")
    config.linux.mount_label = "system_u:object_r:container_file_t:s0"
    if os.path.exists("/sys/fs/selinux/enforce"):
        pytest.skip("this host has SELinux")
    with pytest.raises(RawpodError, match=r"linux\.mountLabel.*no SELinux"):
        box.run(config)


def test_stat_of_a_mount_target_is_left_in_the_upper_layer(box):
    ran(box, with_mounts(box.config("sh", "-c", "true"), spec.Mount("/a/b/c", "tmpfs")))
    assert stat.S_ISDIR((box.root / "a/b/c").stat().st_mode)


def ids(inside, outside, size):
    return [spec.IDMapping(inside, outside, size)]


@pytest.mark.parametrize(
    ("options", "mapped"),
    [
        (["bind"], {"uid_mappings": ids(1000, 7000, 2), "gid_mappings": ids(1000, 7000, 2)}),
        (["bind", "idmap=uids=1000-7000-2;gids=1000-7000-2"], {}),
        (["rbind", "ridmap=uids=1000-7000-2"], {}),
    ],
)
def test_id_mapped_binds_show_and_make_files_under_other_ids(box, on_disk, options, mapped):
    source = on_disk / "source"
    source.mkdir()
    (source / "file").touch()
    for path in (source, source / "file"):
        os.chown(path, 1000, 1001)
    config = box.config("sh", "-c", "stat -c '%u %g' /m/file && touch /m/new", user=spec.User(7000, 7001))
    printed = ran(box, with_mounts(config, spec.Mount("/m", "bind", str(source), options, **mapped)))
    assert printed == "7000 7001\n"
    made = (source / "new").stat()
    assert (made.st_uid, made.st_gid) == (1000, 1001)


def test_id_maps_reach_below_a_bind_only_if_they_are_recursive(box, on_disk):
    source = on_disk / "source"
    for directory in (source / "below", on_disk / "other"):
        directory.mkdir(parents=True)
    script = "stat -c %u /m /m/below"
    mount(on_disk / "other", source / "below", None, MS_BIND)
    try:
        for option, printed in (("idmap", "7\n0\n"), ("ridmap", "7\n7\n")):
            bind = spec.Mount("/m", "bind", str(source), ["rbind", f"{option}=uids=0-7-1"])
            assert ran(box, with_mounts(box.config("sh", "-c", script), bind)) == printed
    finally:
        umount2(source / "below", 2)


def test_a_filesystem_that_cannot_map_ids_is_named(box):
    config = box.config("sh")
    bind = spec.Mount("/m", "bind", "/proc/sys", ["bind", "idmap=uids=0-7-1"])
    with pytest.raises(RawpodError, match="'/proc/sys' cannot be mapped"):
        box.run(with_mounts(config, bind))


def test_a_tmpfs_maps_ids_where_the_kernel_can(box, tmp_path):
    bind = spec.Mount("/m", "bind", str(tmp_path / "memory"), ["bind", "idmap=uids=0-7-1"])
    (tmp_path / "memory").mkdir()
    mount("tmpfs", tmp_path / "memory", "tmpfs")
    try:
        config = with_mounts(box.config("sh", "-c", "stat -c %u /m"), bind)
        if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 3):
            assert ran(box, config) == "7\n"
        else:
            with pytest.raises(RawpodError, match=r"a tmpfs \(before Linux 6\.3\)"):
                box.run(config)
    finally:
        umount2(tmp_path / "memory", 2)


@pytest.mark.parametrize("name", ["short", "l" * 250, "with,comma"])
def test_an_overlay_anywhere_in_the_root_whatever_its_names_are(box, on_disk, name):
    lower, upper, work = (on_disk / name / kind for kind in ("lower", "upper", "work"))
    for directory in (lower, upper, work):
        directory.mkdir(parents=True)
    (lower / "below").touch()
    if "," in name:
        lower, upper, work = (str(path).replace(",", "\\,") for path in (lower, upper, work))
    options = [f"lowerdir={lower}", f"upperdir={upper}", f"workdir={work}", "nosuid", "noatime", "rslave"]
    config = box.config("sh", "-c", "ls /o; touch /o/new; grep ' /o ' /proc/mounts")
    printed = ran(box, with_mounts(config, spec.Mount("/o", "overlay", "overlay", options)))
    assert printed.startswith("below\n")
    assert "nosuid,noatime" in printed
    assert (on_disk / name / "upper/new").exists()


@contextmanager
def mount_namespace():
    """Another mount namespace, held by a process, as the path of its file."""
    ready, started = os.pipe()
    holder = os.fork()
    if holder == 0:
        try:
            unshare(CLONE_NEWNS)
            mount(None, "/", None, MS_PRIVATE | MS_REC)
            os.write(started, b"!")
            signal.pause()
        finally:
            os._exit(0)
    os.close(started)
    os.read(ready, 1)
    os.close(ready)
    try:
        yield f"/proc/{holder}/ns/mnt"
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)


def in_mount_namespace(config, path):
    rest = [row for row in config.linux.namespaces if row.type != "mount"]
    config.linux.namespaces = [*rest, spec.Namespace("mount", path)]
    return config


def test_a_mount_namespace_is_joined_and_its_root_becomes_the_containers(box, tmp_path):
    """As with runc and crun. What is mounted is found where the runtime is."""
    later = tmp_path / "later"
    later.mkdir()
    with mount_namespace() as path:
        mount("tmpfs", later, "tmpfs")
        try:
            (later / "file").write_text("not in that namespace\n")
            config = box.config("sh", "-c", "readlink /proc/self/ns/mnt; ls -d /*; cat /file")
            bind = spec.Mount("/file", "bind", str(later / "file"), ["bind"])
            printed = ran(box, in_mount_namespace(with_mounts(config, bind), path)).split("\n")
        finally:
            umount2(later, 2)
        assert printed[0] == os.readlink(path) != os.readlink("/proc/self/ns/mnt")
        assert "/bin" in printed
        assert "/root" not in printed
        assert printed[-2] == "not in that namespace"


def test_the_runtimes_own_mount_namespace_is_not_given_another_root(box):
    """Tried on a namespace that is given up with the test's process: without the look this one has no root any more."""

    def work():
        refused = ""
        try:
            box.run(in_mount_namespace(box.config("sh"), "/proc/self/ns/mnt"))
        except RawpodError as error:
            refused = str(error)
        return [refused, os.path.exists("/etc/passwd")]

    refused, there = in_child(work, CLONE_NEWNS)
    assert "the runtime's own" in refused
    assert there


@pytest.fixture
def linked(box, tmp_path):
    """Links as sources: to a file that the container has under the same name, and to nothing."""
    (tmp_path / "file").write_text("the host's")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("/etc/only-inside")
    (box.root / "etc/only-inside").write_text("the container's")
    (box.root / "srv").mkdir()
    (box.root / "srv/to-etc").symlink_to("/etc/only-inside")
    return tmp_path


@pytest.mark.parametrize("own_users", [False, True])
def test_a_link_as_the_source_is_made_anew_or_mounted_itself(box, linked, own_users):
    """crun's copy-symlink, src-nofollow and dest-nofollow."""
    binds = [
        spec.Mount("/srv/followed", "bind", str(linked / "link"), ["bind"]),
        spec.Mount("/srv/deep/copied", "bind", str(linked / "dangling"), ["bind", "copy-symlink"]),
        spec.Mount("/srv/no-link", "bind", str(linked / "file"), ["bind", "copy-symlink"]),
        spec.Mount("/srv/mounted", "bind", str(linked / "dangling"), ["bind", "src-nofollow", "ro"]),
        spec.Mount("/srv/to-etc", "bind", str(linked / "file"), ["bind", "dest-nofollow"]),
    ]
    script = (
        "cd /srv; cat followed deep/copied no-link mounted to-etc /etc/only-inside; readlink deep/copied;"
        "readlink mounted; grep -c ' /srv/deep/copied ' /proc/mounts"
    )
    config = with_mounts(box.config("sh", "-c", script), *binds)
    if own_users:
        for path in (linked, *linked.parents[:2], box.bundle, box.root):
            path.chmod(0o755)
        config.linux.namespaces = [*config.linux.namespaces, spec.Namespace("user")]
        config.linux.uid_mappings = config.linux.gid_mappings = [spec.IDMapping(0, 0, 65536)]
    _, printed = box.run(config)
    assert printed.split("\n") == [
        "the host'sthe container'sthe host'sthe container'sthe host'sthe container's/etc/only-inside",
        "/etc/only-inside",
        "0",
        "",
    ]
    assert os.readlink(box.root / "srv/deep/copied") == "/etc/only-inside"
    # It is there now, and says the same.
    assert box.run(config)[1] == printed


def test_a_link_is_not_made_where_something_else_is(box, linked):
    bind = spec.Mount("/etc/only-inside", "bind", str(linked / "dangling"), ["bind", "copy-symlink"])
    with pytest.raises(RawpodError, match="exists and is no link to '/etc/only-inside'"):
        box.run(with_mounts(box.config("sh"), bind))
    (box.root / "etc/out").symlink_to("../../../" + str(linked))
    bind = spec.Mount("/etc/out/made", "bind", str(linked / "dangling"), ["bind", "copy-symlink"])
    with pytest.raises(RawpodError, match="no such file"):
        box.run(with_mounts(box.config("sh"), bind))
    assert not os.path.lexists(linked / "made")


def test_a_tmpfs_options_on_a_bind_are_warned_about(box, linked):
    bind = spec.Mount("/srv/file", "bind", str(linked / "file"), ["bind", "mode=0700", "size=4k"])
    container = box.create(with_mounts(box.config("sh", "-c", "true"), bind))
    container.start()
    container.wait()
    container.delete()
    warned = [warning for warning in container.warnings if "no effect" in warning]
    assert ["'mode=0700'" in warned[0], "'size=4k'" in warned[1], len(warned)] == [True, True, 2]
    assert stat.S_IMODE((linked / "file").stat().st_mode) == 0o644
