"""OCI mount options and mounts."""

import pytest

from kernel.errors import BadInput, NotSupported
from kernel.mounts import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_PRIVATE,
    MS_REC,
    MS_SLAVE,
)
from rootfs import mounts, options
from rootfs.idmap import IdMaps
from rootfs.mounts import from_oci

# All names of config.md of runtime-spec 1.2, "Linux mount options", that are no flags of a bind or a remount.
ATTRIBUTES = (
    *("ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nosymfollow", "symfollow", "diratime"),
    *("atime", "noatime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_attribute_has_a_recursive_form(name: str) -> None:
    alone, recursive = options.parse([name]), options.parse(["r" + name])
    assert (alone.set, alone.clear) == (recursive.tree_set, recursive.tree_clear)
    assert alone.set or alone.clear
    assert not alone.data
    assert not recursive.data


@pytest.mark.parametrize("name", ["sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime"])
def test_superblock_flags_go_to_the_filesystem(name: str) -> None:
    assert options.parse([name]).superblock == (name,)


@pytest.mark.parametrize("name", ["defaults", "silent", "loud", "iversion", "noiversion"])
def test_names_that_say_what_is_so_anyway(name: str) -> None:
    assert options.parse([name]) == options.MountOptions()


def test_the_last_of_two_that_contradict_wins() -> None:
    assert options.parse(["ro", "rw"]).set == 0
    assert options.parse(["ro", "rw"]).clear == MOUNT_ATTR_RDONLY
    assert (options.parse(["rw", "ro"]).set, options.parse(["rw", "ro"]).clear) == (MOUNT_ATTR_RDONLY, 0)


def test_access_times_are_one_field() -> None:
    parsed = options.parse(["noatime", "strictatime"])
    assert (parsed.set, parsed.clear) == (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME)
    assert options.parse(["noatime", "relatime"]).set == 0
    assert options.parse(["noatime"]).set == MOUNT_ATTR_NOATIME


def test_propagation() -> None:
    assert options.parse(["rslave"]).propagation == MS_SLAVE | MS_REC
    assert options.parse(["private"]).propagation == MS_PRIVATE


def test_what_is_not_known_belongs_to_the_filesystem() -> None:
    assert options.parse(["size=64k", "nosuid", "mode=755"]).data == ("size=64k", "mode=755")


@pytest.mark.parametrize("name", ["idmap", "ridmap", "idmap=uids=0-1-1"])
def test_id_maps_are_kept_as_they_were_written(name: str) -> None:
    assert options.parse(["ro", name]).idmap == name


def test_ranges_of_id_maps() -> None:
    pod = IdMaps(((0, 65536, 1000),), ((0, 70000, 1000),))
    assert options.id_ranges("idmap", pod) is None
    two = options.id_ranges("idmap=uids=0-1-10#10-11-10;gids=0-100-10", None)
    assert two == IdMaps(((0, 1, 10), (10, 11, 10)), ((0, 100, 10),))
    assert options.id_ranges("ridmap=uids=@5-7-2", pod) == IdMaps(((5, 65543, 2),), ((5, 65543, 2),))
    for wrong in ("idmap=uids=1-2", "idmap=pids=0-1-1", "idmap=uids=a-1-1", "idmap=uids=@0-999-2", "idmap=uids=-1-1-1"):
        with pytest.raises(BadInput, match=wrong):
            options.id_ranges(wrong, pod)


def test_a_bind_is_private_unless_it_says_otherwise() -> None:
    bind = from_oci("/data", None, "/srv", ["rbind", "ro"])
    assert bind == mounts.Bind("/srv", "/data", True, set=MOUNT_ATTR_RDONLY, propagation=MS_PRIVATE | MS_REC)
    slave = from_oci("/data", "bind", "/srv", ["bind", "rslave"])
    assert isinstance(slave, mounts.Bind)
    assert slave.propagation == MS_SLAVE | MS_REC
    assert not slave.recursive


def test_proc_and_its_kind_have_operations_of_their_own() -> None:
    quiet = ["nosuid", "noexec", "nodev"]
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV
    assert from_oci("/proc", "proc", "proc", quiet) == mounts.Proc("/proc", attributes, source="proc")
    assert isinstance(from_oci("/sys", "sysfs", None), mounts.Sysfs)
    assert isinstance(from_oci("/dev/mqueue", "mqueue", None), mounts.Mqueue)
    pts = from_oci("/dev/pts", "devpts", "devpts", ["newinstance", "gid=5"])
    assert isinstance(pts, mounts.Devpts)
    assert pts.data == ("newinstance", "gid=5")
    assert isinstance(from_oci("/x", "ramfs", None), mounts.OtherFilesystem)


def test_a_tmpfs_on_dev_is_dev() -> None:
    made = from_oci("/dev/", "tmpfs", "tmpfs", ["nosuid"], devices=mounts.DEFAULT_DEVICES[:1])
    assert isinstance(made, mounts.Dev)
    assert made.devices == mounts.DEFAULT_DEVICES[:1]
    assert made.data == ("mode=755", "size=65536k")


def test_the_cgroup_view_is_as_writable_as_was_asked_for() -> None:
    assert from_oci("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "ro"]).attributes & MOUNT_ATTR_RDONLY
    assert not from_oci("/sys/fs/cgroup", "cgroup2", "cgroup", ["rw"]).attributes & MOUNT_ATTR_RDONLY
    with pytest.raises(NotSupported, match="'nsdelegate'"):
        from_oci("/sys/fs/cgroup", "cgroup2", "cgroup", ["ro", "nsdelegate"])


@pytest.mark.parametrize(
    ("written", "meant"), [("data", "/data"), ("/a/../b", "/b"), ("../a//b/", "/a/b"), ("//a/./b", "/a/b")]
)
def test_destinations_are_taken_from_the_root(written: str, meant: str) -> None:
    made = from_oci(written, "tmpfs", None)
    assert isinstance(made, mounts.Tmpfs)
    assert made.destination == meant


@pytest.mark.parametrize("destination", ["", "/..", "/a\0b", "/", "//", "/./", "a/.."])
def test_destinations_that_are_no_place_in_the_root(destination: str) -> None:
    with pytest.raises(BadInput):
        from_oci(destination, "tmpfs", None)


def test_options_without_meaning_are_refused_not_dropped() -> None:
    with pytest.raises(NotSupported, match="'huge=always'"):
        from_oci("/a", "bind", "/b", ["rbind", "size=1k", "huge=always"])
    with pytest.raises(NotSupported, match="'src-nofollow'"):
        from_oci("/a", "tmpfs", None, ["src-nofollow"])
    with pytest.raises(BadInput, match="exclude"):
        from_oci("/a", "bind", "/b", ["src-nofollow", "copy-symlink"])
    with pytest.raises(NotSupported, match="'sync'"):
        from_oci("/a", "bind", "/b", ["rbind", "sync"])
    with pytest.raises(NotSupported, match="'tmpcopyup'"):
        from_oci("/a", "ramfs", None, ["tmpcopyup"])
    with pytest.raises(NotSupported, match="'idmap'"):
        from_oci("/a", "tmpfs", None, ["idmap"])
    with pytest.raises(BadInput, match="cannot stand in"):
        from_oci("/proc", "tmpfs", None)
    with pytest.raises(BadInput, match="without a source"):
        from_oci("/a", "bind", None)
    with pytest.raises(BadInput, match="no type"):
        from_oci("/a", None, None)


def test_remount_tells_the_flags_of_a_mount_from_the_options_of_its_filesystem() -> None:
    made = from_oci("/a", None, None, ["remount", "ro", "size=1k", "sync"])
    assert made == mounts.Remount("/a", set=MOUNT_ATTR_RDONLY, data=("size=1k", "sync"))


def test_descriptions_are_in_the_kernels_words() -> None:
    assert from_oci("/data", None, "/srv", ["rbind", "ro"]).describe() == "bind /srv -> /data [rbind,ro]"
    assert from_oci("/t", "tmpfs", None, ["nosuid", "size=1m"]).describe() == "mount tmpfs -> /t [nosuid,size=1m]"
    assert from_oci("/b", None, "/a", ["bind", "rro"]).describe() == "bind /a -> /b [bind,rro]"
    assert options.names(MOUNT_ATTR_NOSYMFOLLOW | MOUNT_ATTR_STRICTATIME) == ["nosymfollow", "strictatime"]
