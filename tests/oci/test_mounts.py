"""config.md, Mounts: order, destinations, sources, and every option of the table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kernel import mounts as syscalls

# One row for each option that runtimes MUST implement on a filesystem: the options, what the mount's line in mountinfo
# has then, and what it has not.
FILESYSTEM = [
    ("async", ["sync", "async"], "", "sync"),
    ("atime", ["noatime", "atime"], "", "noatime"),
    ("defaults", ["defaults"], "rw", "ro nosuid nodev noexec"),
    ("dev", ["nodev", "dev"], "", "nodev"),
    ("diratime", ["nodiratime", "diratime"], "", "nodiratime"),
    ("dirsync", ["dirsync"], "dirsync", ""),
    ("exec", ["noexec", "exec"], "", "noexec"),
    ("iversion", ["iversion"], "", ""),
    ("lazytime", ["lazytime"], "lazytime", ""),
    ("loud", ["silent", "loud"], "", ""),
    ("noatime", ["noatime"], "noatime", "relatime"),
    ("nodev", ["nodev"], "nodev", ""),
    ("nodiratime", ["nodiratime"], "nodiratime", ""),
    ("noexec", ["noexec"], "noexec", ""),
    ("noiversion", ["iversion", "noiversion"], "", ""),
    ("nolazytime", ["lazytime", "nolazytime"], "", "lazytime"),
    ("norelatime", ["relatime", "norelatime"], "", "noatime"),
    ("nostrictatime", ["strictatime", "nostrictatime"], "relatime", ""),
    ("nosuid", ["nosuid"], "nosuid", ""),
    ("relatime", ["relatime"], "relatime", "noatime"),
    ("ro", ["ro"], "ro", "rw"),
    ("rw", ["ro", "rw"], "rw", "ro"),
    ("silent", ["silent"], "", ""),
    ("strictatime", ["strictatime"], "", "relatime noatime"),
    ("suid", ["nosuid", "suid"], "", "nosuid"),
    ("sync", ["sync"], "sync", ""),
]
PROPAGATION = [
    ("private", "", "shared master unbindable"),
    ("rprivate", "", "shared master unbindable"),
    ("shared", "shared", "unbindable"),
    ("rshared", "shared", "unbindable"),
    ("slave", "", "shared unbindable"),
    ("rslave", "", "shared unbindable"),
    ("unbindable", "unbindable", "shared master"),
    ("runbindable", "unbindable", "shared master"),
]
# The recursive options, which runtimes SHOULD implement: what they are added to, and what both mounts then have.
RECURSIVE = [
    ("rro", "ro", "rw"),
    ("rrw", "rw", "ro"),
    ("rnosuid", "nosuid", ""),
    ("rsuid", "", "nosuid"),
    ("rnodev", "nodev", ""),
    ("rdev", "", "nodev"),
    ("rnoexec", "noexec", ""),
    ("rexec", "", "noexec"),
    ("rnodiratime", "nodiratime", ""),
    ("rdiratime", "", "nodiratime"),
    ("rrelatime", "relatime", "noatime"),
    ("rnorelatime", "", ""),
    ("rnoatime", "noatime", "relatime"),
    ("ratime", "", "noatime"),
    ("rstrictatime", "", "relatime noatime"),
    ("rnostrictatime", "", ""),
    ("rnosymfollow", "nosymfollow", ""),
    ("rsymfollow", "", "nosymfollow"),
]


def mount_options(mountinfo: str, destination: str) -> set[str]:
    """All words of the last mount at a destination: of the mount, its propagation (without numbers), its filesystem.

    But for ro and rw, which are the mount's: a filesystem may be writable by another of its mounts.
    """
    lines = [line for line in mountinfo.splitlines() if line.split()[4] == destination]
    assert lines, f"no mount at {destination}:\n{mountinfo}"
    front, back = lines[-1].split(" - ")
    tags = [tag.split(":")[0] for tag in front.split()[6:]]
    return {*front.split()[5].split(","), *tags, *back.split()[2].split(",")[1:]}


def _check(found: set[str], has: str, lacks: str) -> None:
    assert set(has.split()) <= found
    assert not set(lacks.split()) & found


@pytest.mark.parametrize(("option", "options", "has", "lacks"), FILESYSTEM, ids=[row[0] for row in FILESYSTEM])
def test_each_option_of_a_filesystem_is_implemented(box, option, options, has, lacks):
    """Linux mount options: "Runtimes MUST/SHOULD/MAY implement the following option strings for Linux"."""
    box.mount("/data", options=tuple(options))
    _check(mount_options(box.shell("cat /proc/self/mountinfo"), "/data"), has, lacks)


@pytest.mark.parametrize(("option", "has", "lacks"), PROPAGATION, ids=[row[0] for row in PROPAGATION])
def test_each_propagation_is_implemented(box, option, has, lacks):
    """Linux mount options: private, shared, slave and unbindable with their recursive forms "MUST" be implemented."""
    source = box.directory / "source"
    source.mkdir()
    box.bind("/data", source, option)
    _check(mount_options(box.shell("cat /proc/self/mountinfo"), "/data"), has, lacks)


@pytest.mark.parametrize(("option", "has", "lacks"), RECURSIVE, ids=[row[0] for row in RECURSIVE])
def test_each_recursive_option_reaches_the_mounts_below(box, tree, option, has, lacks):
    """Linux mount options: the recursive options "SHOULD" be implemented."""
    box.bind("/data", tree, option)
    mountinfo = box.shell("cat /proc/self/mountinfo")
    for destination in ("/data", "/data/inner"):
        _check(mount_options(mountinfo, destination), has, lacks)


@pytest.fixture
def tree(box):
    """A directory of the host with another filesystem mounted below it."""
    source = box.directory / "source"
    (source / "inner").mkdir(parents=True)
    syscalls.mount("tmpfs", source / "inner", "tmpfs", 0)
    (source / "inner/file").write_text("inner")
    yield source
    syscalls.umount2(source / "inner", syscalls.MNT_DETACH)


def test_rbind_takes_the_mounts_below_along(box, tree):
    """Linux mount options: `rbind` "MUST": recursive bind mount."""
    box.bind("/data", tree)
    assert box.shell("cat /data/inner/file") == "inner"


def test_bind_takes_one_mount_alone(box, tree):
    """Linux mount options: `bind` "MUST": bind mount."""
    box.mount("/data", tree, "none", ("bind",))
    assert box.shell("ls -a /data/inner | wc -l").strip() == "2"


def test_ro_makes_a_bind_mount_read_only_and_not_its_source(box):
    """Linux mount options: `ro` "MUST"."""
    source = box.directory / "source"
    source.mkdir()
    box.bind("/data", source, "ro")
    assert "Read-only" in box.run("touch", "/data/new").failed().err
    (source / "new").write_text("")


def test_ro_of_a_bind_mount_is_not_for_the_mounts_below(box, tree):
    """Linux mount options: `rro` is the recursive form of `ro`."""
    box.bind("/data", tree, "ro")
    box.shell("touch /data/inner/new")


def test_remount_changes_a_mount_that_is_there(box):
    """Linux mount options: `remount` "MUST"."""
    box.mount("/data", options=("size=64k",))
    box.mount("/data", options=("remount", "nosuid", "ro"))
    _check(mount_options(box.shell("cat /proc/self/mountinfo"), "/data"), "ro nosuid", "rw")


def test_mounts_are_made_in_the_listed_order(box):
    """Mounts: "The runtime MUST mount entries in the listed order"."""
    box.mount("/data", options=("size=4k",))
    box.mount("/data/inner", options=("size=8k",))
    box.mount("/data/inner/most", options=("size=12k",))
    found = box.shell("cat /proc/self/mountinfo")
    assert [line.split()[4] for line in found.splitlines() if "/data" in line] == [
        "/data",
        "/data/inner",
        "/data/inner/most",
    ]


def test_a_later_mount_covers_an_earlier_one(box):
    """Mounts: "The runtime MUST mount entries in the listed order"."""
    for name in ("first", "second"):
        (box.directory / name).mkdir()
        (box.directory / name / "name").write_text(name)
        box.bind("/data", box.directory / name)
    assert box.run("cat", "/data/name").ok().out == "second"


def test_a_relative_destination_is_relative_to_the_root(box):
    """Mounts: a relative destination "MUST be interpreted as relative to \"/\" "."""
    box.process["cwd"] = "/tmp"
    box.mount("data/deep")
    assert mount_options(box.shell("cat /proc/self/mountinfo"), "/data/deep")


def test_a_relative_source_of_a_bind_mount_is_relative_to_the_bundle(box):
    """Mounts: "Path values for bind mounts are either absolute or relative to the bundle"."""
    (box.directory / "source").mkdir()
    (box.directory / "source/file").write_text("text")
    box.bind("/data", "source")
    assert box.run("cat", "/data/file", cwd=Path("/")).ok().out == "text"


@pytest.mark.parametrize("kind", ["none", "bind", "", "tmpfs"])
@pytest.mark.parametrize("option", ["bind", "rbind"])
def test_the_options_make_a_bind_mount_whatever_the_type(box, kind, option):
    """Mounts: "A mount is a bind mount if it has either `bind` or `rbind` in the options"; the type "is a dummy"."""
    (box.directory / "source").mkdir()
    (box.directory / "source/file").write_text("text")
    box.mount("/data", box.directory / "source", kind, (option,))
    assert box.run("cat", "/data/file").ok().out == "text"


def test_a_file_can_be_bound(box):
    """Mounts: `source` can "be a file or directory name for bind mounts"."""
    (box.directory / "file").write_text("text")
    box.bind("/etc/deep/file", box.directory / "file")
    assert box.run("cat", "/etc/deep/file").ok().out == "text"


def test_the_destination_is_made_if_it_is_missing(box):
    """runc and crun make a missing mount point, which callers rely on."""
    box.mount("/a/new/place")
    assert box.run("stat", "-f", "-c", "%T", "/a/new/place").ok().out == "tmpfs\n"


@pytest.mark.parametrize("options", [("size=40k",), ("mode=0711", "uid=3", "nosuid", "gid=4")])
def test_options_the_runtime_does_not_know_go_to_the_filesystem(box, options):
    """Linux mount options: "Runtimes SHOULD treat unknown options as filesystem-specific ones"."""
    box.mount("/data", options=options)
    found = mount_options(box.shell("cat /proc/self/mountinfo"), "/data")
    assert {option.replace("mode=0", "mode=") for option in options} <= found


def test_an_option_nobody_knows_is_an_error(box):
    """Valid values: "Runtimes MUST generate an error when invalid or unsupported values are encountered"."""
    box.mount("/data", options=("no-such-option",))
    box.refused()


def test_a_filesystem_nobody_knows_is_an_error(box):
    """Mounts: "filesystem types supported by the kernel as listed in /proc/filesystems"."""
    box.mount("/data", "none", "no-such-filesystem")
    box.refused()


def test_a_bind_mount_of_nothing_is_an_error(box):
    """Create: "If the runtime cannot apply a property ..., it MUST generate an error"."""
    box.bind("/data", "/no/such/source")
    assert "/no/such/source" in box.refused().err


@pytest.mark.parametrize(
    ("path", "kind"), [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")]
)
def test_the_default_filesystems_are_there(box, path, kind):
    """config-linux.md, Default Filesystems: "SHOULD be made available in each container's filesystem"."""
    rows = [line.split() for line in box.shell("cat /proc/self/mountinfo").splitlines()]
    assert [row[row.index("-") + 1] for row in rows if row[4] == path] == [kind]


def test_mounts_of_the_host_are_not_seen(box):
    """config-linux.md, Namespaces: `mount`: "the container will have an isolated mount table"."""
    places = {line.split()[4] for line in box.shell("cat /proc/self/mountinfo").splitlines()}
    expected = {"/", *(mount["destination"] for mount in box.mounts)}
    assert places <= expected | {place for place in places if place.startswith(("/dev/", "/proc/", "/sys/"))}


def test_mounts_of_the_container_do_not_reach_the_host(box, fifo):
    """config-linux.md, Namespaces: "Changes to the global resource ... are invisible to other processes"."""
    box.process["capabilities"] = {name: ["CAP_SYS_ADMIN"] for name in ("bounding", "effective", "permitted")}
    box.running("sh", "-c", "mount -t tmpfs mine /tmp && echo mounted > /fifo; exec sleep 1000")
    assert fifo.line() == "mounted"
    assert "mine" not in Path("/proc/self/mountinfo").read_text()


MAPPING = [{"containerID": 0, "hostID": 100000, "size": 1000}]


def test_an_idmapped_mount_maps_owners_by_its_own_mappings(box):
    """Linux mount options, `idmap`: "If `uidMappings` or `gidMappings` are specified ... the runtime MUST use those values"."""
    source = box.directory / "source"
    source.mkdir()
    (source / "file").write_text("")
    os.chown(source / "file", 7, 8)
    box.mount("/data", source, "bind", ("rbind", "idmap"))
    box.mounts[-1] |= {"uidMappings": MAPPING, "gidMappings": MAPPING}
    assert box.shell("stat -c '%u %g' /data/file") == "100007 100008\n"
    assert (source / "file").stat().st_uid == 7


def test_idmap_without_mappings_and_user_namespace_is_an_error(box):
    """Linux mount options, `idmap`: no mappings and no user namespace: "an error MUST be returned"."""
    source = box.directory / "source"
    source.mkdir()
    box.mount("/data", source, "bind", ("rbind", "idmap"))
    box.refused()


@pytest.mark.parametrize("given", ["uidMappings", "gidMappings"])
def test_mappings_of_users_and_groups_go_together(box, given):
    """POSIX-platform Mounts: `uidMappings`: "If specified, it MUST be specified along with `gidMappings`", and the reverse."""
    box.mount("/data", box.directory, "bind", ("rbind", "idmap"))
    box.mounts[-1][given] = MAPPING
    box.refused()


def test_ridmap_maps_the_mounts_below_as_well(box, tree):
    """Linux mount options, `ridmap`: "the mapping is applied recursively"."""
    if os.uname().release.startswith(("6.1.", "6.2.")):
        tree = box.directory  # a tmpfs cannot be mapped before Linux 6.3
        (tree / "inner").mkdir()
        (tree / "inner/file").write_text("")
    box.mount("/data", tree, "bind", ("rbind", "ridmap"))
    box.mounts[-1] |= {"uidMappings": MAPPING, "gidMappings": MAPPING}
    assert box.shell("stat -c '%u %g' /data/inner/file") == "100000 100000\n"


def test_tmpcopyup_copies_what_was_there(box):
    """Linux mount options, `tmpcopyup`: "copy up the contents to a tmpfs"."""
    (box.rootfs / "full/deep").mkdir(parents=True)
    (box.rootfs / "full/deep/file").write_text("kept")
    (box.rootfs / "full/deep/file").chmod(0o640)
    box.mount("/full", options=("tmpcopyup",))
    assert box.shell("cat /full/deep/file; stat -c ' %a' /full/deep/file; echo lost > /full/deep/file") == "kept 640\n"
    assert (box.rootfs / "full/deep/file").read_text() == "kept"


def test_mqueue_can_be_mounted(box):
    """Mounts: filesystem types supported by the kernel; mqueue is one that callers ask for."""
    box.mount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev"))
    assert "nosuid" in mount_options(box.shell("cat /proc/self/mountinfo"), "/dev/mqueue")


@pytest.mark.needs_cgroups
@pytest.mark.parametrize("access", ["ro", "rw"])
def test_the_cgroup_filesystem_can_be_mounted(box, access):
    """Mounts: type `cgroup`, as the configuration example has it, shows the container its cgroup."""
    box.mount("/sys/fs/cgroup", "cgroup", "cgroup", ("nosuid", "noexec", "nodev", "relatime", access))
    found = box.shell("cat /proc/self/mountinfo; cat /sys/fs/cgroup/cgroup.procs")
    assert access in mount_options(found.rpartition("\n1\n")[0], "/sys/fs/cgroup")
