"""The order of a container's mounts, devices and console, and what the creating process does of it."""

from pathlib import Path

import pytest

from kernel.errors import BadInput
from kernel.mounts import MOUNT_ATTR_RDONLY
from kernel.operation import Operation
from rootfs.arrange import Arranged, Entry, Surroundings, arrange
from rootfs.devices import DEFAULT_DEVICES, Console, Dev, Device, Devices
from rootfs.idmap import IdMaps
from rootfs.mounts import BindRoot

SURROUNDINGS = Surroundings("/bundle")
POD = IdMaps(((0, 65536, 65536),), ((0, 65536, 65536),))


def arranged(*entries: Entry, **around: object) -> Arranged:
    return arrange(entries, SURROUNDINGS.replace(**around))


def kinds(operations: tuple[Operation, ...]) -> list[str]:
    return [type(operation).__name__ for operation in operations]


def test_a_config_without_dev_gets_one_before_all_other_mounts() -> None:
    """CVE-2026-88264. Checked by leaving the Dev out of _with_devices()."""
    inside = arranged(Entry("/proc", "proc"), Entry("/dev/pts", "devpts")).inside
    assert kinds(inside) == ["Dev", "Proc", "Devpts"]
    assert inside[0].devices == DEFAULT_DEVICES


def test_a_bind_of_the_hosts_dev_stays_as_it_is_but_for_what_was_asked_for() -> None:
    bind = Entry("dev/", "bind", "/dev", ("rbind",))
    assert kinds(arranged(bind).inside) == ["Bind"]
    asked = (*DEFAULT_DEVICES, Device("/dev/fuse", "c", 10, 229))
    assert arranged(bind, devices=asked).inside[1] == Devices(asked[-1:], host_dev=True)


def test_devices_are_made_where_nothing_hides_them() -> None:
    devices = (Device("/dev//fuse", "c", 10, 229), Device("/dev/net/tun", "c", 10, 200), Device("/x/y", "p", 0, 0))
    inside = arranged(Entry("/dev", "tmpfs"), Entry("/dev/net", "tmpfs"), devices=devices).inside
    assert kinds(inside) == ["Dev", "Tmpfs", "Devices"]
    assert [device.path for device in inside[0].devices] == ["/dev/fuse"]
    assert [device.path for device in inside[2].devices] == ["/dev/net/tun", "/x/y"]


def test_a_read_only_dev_is_made_so_last() -> None:
    inside = arranged(Entry("/dev", "tmpfs", "", ("ro",)), console=Console()).inside
    assert kinds(inside) == ["Dev", "Console", "ReadOnlyMount"]
    assert isinstance(inside[0], Dev)
    assert not inside[0].attributes & MOUNT_ATTR_RDONLY


def test_relative_sources_begin_at_the_bundle() -> None:
    made = arranged(Entry("/a", "", "etc/hosts", ("bind",)), Entry("/b", "", "/srv", ("bind",))).inside
    assert [made[1].source, made[2].source] == ["/bundle/etc/hosts", "/srv"]


def test_shared_binds_and_id_maps_are_prepared_by_the_creating_process() -> None:
    own = IdMaps(((0, 7, 1),), ((0, 8, 1),))
    made = arranged(
        Entry("/a", "", "/srv", ("bind",)),
        Entry("/b", "", "/srv", ("rbind", "rshared")),
        Entry("/c", "", "/srv", ("bind",), own),
        Entry("/d", "", "/srv", ("rbind", "ridmap")),
        ids=POD,
    )
    assert [operation.pinned for operation in made.before] == ["mounts[1]", "mounts[2]", "mounts[3]"]
    assert [operation.ids for operation in made.before] == [None, own, POD]
    assert [operation.ids_recursive for operation in made.before] == [False, False, True]
    assert [operation.pinned for operation in made.inside[1:]] == ["", "mounts[1]", "mounts[2]", "mounts[3]"]


def test_id_maps_without_ids_and_on_other_mounts_are_refused() -> None:
    with pytest.raises(BadInput, match=r"mounts\[0\].*without mappings"):
        arranged(Entry("/a", "", "/srv", ("bind", "idmap")))
    with pytest.raises(BadInput, match=r"mounts\[0\].*bind mounts"):
        arranged(Entry("/a", "tmpfs", "", (), POD))


def test_in_a_user_namespace_the_root_and_all_binds_are_pinned_outside(tmp_path: Path) -> None:
    entries = [Entry("/a", "", "/srv", ("bind",)), Entry("/t", "tmpfs")]
    made = arrange(entries, SURROUNDINGS.replace(user=True, ids=POD), BindRoot("/bundle/rootfs"))
    assert [operation.pinned for operation in made.before] == ["root", "mounts[0]"]
    assert made.inside[0] == BindRoot("/bundle/rootfs", pinned="root")


def test_what_is_the_hosts_is_borrowed_in_a_user_namespace() -> None:
    entries = (Entry("/proc", "proc"), Entry("/sys", "sysfs"), Entry("/dev/mqueue", "mqueue"))
    own = arranged(*entries, user=True).inside[1:]
    assert [operation.host for operation in own] == ["", "", ""]
    borrowed = arranged(*entries, user=True, own=frozenset({"mount"})).inside[1:]
    assert [operation.host for operation in borrowed] == ["/proc", "/sys", "/dev/mqueue"]
    assert [operation.host for operation in arranged(*entries, own=frozenset({"mount"})).inside[1:]] == ["", "", ""]


def test_without_a_cgroup_namespace_the_hosts_mount_is_shown() -> None:
    entry = Entry("/sys/fs/cgroup", "cgroup", "", ("ro",))
    around = {"hierarchy": "/sys/fs/cgroup", "cgroup": "/sys/fs/cgroup/a"}
    assert arranged(entry, **around).inside[1].otherwise == "/sys/fs/cgroup/a"
    assert arranged(entry, own=frozenset(), **around).inside[1].host == "/sys/fs/cgroup"
