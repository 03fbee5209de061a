"""What mounts, devices, id mappings and clocks must fulfil: the part of `spec_check` about a container's place."""

from __future__ import annotations

import os
from itertools import pairwise

from kernel.names import TMPFS_OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime import spec

NAMESPACES = ("mount", "pid", "network", "ipc", "uts", "cgroup", "user", "time")
CLOCKS = ("monotonic", "boottime")
MAX_IDS = 2**32 - 1  # 2^32 - 1 itself is (uid_t) -1, nobody at all
_MAX_RANGES = 340  # user_namespaces(7), "Defining user and group ID mappings"
_MAX_MAJOR, _MAX_MINOR = 2**12 - 1, 2**20 - 1  # as many bits as the kernel keeps (include/linux/kdev_t.h)


def mount_faults(config: spec.Config) -> Iterator[str]:
    """Each mount by itself. A relative destination is taken from "/" (config.md, "Mounts")."""
    for index, mount in enumerate(config.mounts):
        place = f"mounts[{index}]"
        if not mount.destination:
            yield f"{place}.destination: empty"
        elif os.path.normpath("/" + mount.destination).strip("/") == "" and not (
            index == 0 and mount.type == "overlay"
        ):
            yield f"{place}.destination: {mount.destination!r} is the root (only a first mount of type overlay may be)"
        for text in (mount.destination, mount.source, mount.type, *mount.options):
            if "\0" in text:
                yield f"{place}: contains a NUL byte"
        yield from _pair_faults(place, mount.uid_mappings, mount.gid_mappings)


def mount_warnings(config: spec.Config) -> list[str]:
    """What is done as asked, and perhaps not meant."""
    warnings = []
    for index, mount in enumerate(config.mounts):
        if not mount.destination.startswith("/"):
            warnings.append(f"mounts[{index}].destination: {mount.destination!r} is relative, taken from '/'")
        if mount.type == "bind" or not {"bind", "rbind"}.isdisjoint(mount.options):
            idle = [option for option in mount.options if option.partition("=")[0] in TMPFS_OPTIONS]
            warnings += [f"mounts[{index}].options: {option!r} has no effect on a bind mount" for option in idle]
    return warnings


def device_faults(linux: spec.Linux) -> Iterator[str]:
    """`linux.devices`: numbers are needed for all but FIFOs, and in range."""
    for index, device in enumerate(linux.devices):
        place = f"linux.devices[{index}]"
        if not device.path.startswith("/") or "\0" in device.path or os.path.normpath(device.path).strip("/") == "":
            yield f"{place}.path: {device.path!r} is not an absolute path"
        if device.type not in ("c", "u", "b", "p"):
            yield f"{place}.type: {device.type!r} is none of c, u, b and p"
        if not 0 <= device.major <= _MAX_MAJOR or not 0 <= device.minor <= _MAX_MINOR:
            yield f"{place}: no device has the number {device.major}:{device.minor}"
        if device.file_mode is not None and not 0 <= device.file_mode <= 0o177777:
            yield f"{place}.fileMode: {device.file_mode} is not a file's mode"
        for name, value in (("uid", device.uid), ("gid", device.gid)):
            if value is not None and not 0 <= value < MAX_IDS:
                yield f"{place}.{name}: {value} is out of range (0 to {MAX_IDS - 1})"


def user_faults(config: spec.Config, linux: spec.Linux) -> Iterator[str]:
    """A new user namespace needs mappings, of root, which assembles it, and of the process's ids."""
    users = [namespace for namespace in linux.namespaces if namespace.type == "user"]
    yield from _pair_faults("linux", linux.uid_mappings, linux.gid_mappings)
    mapped = bool(linux.uid_mappings or linux.gid_mappings)
    if mapped and not users:
        yield "linux.uidMappings: set without a 'user' namespace"
    if users and not users[0].path and not mapped:
        yield "linux.uidMappings: a new 'user' namespace needs mappings"
    if not users or not linux.uid_mappings or not linux.gid_mappings:
        return
    user = config.process.user if config.process else None
    asked = [("linux.uidMappings", linux.uid_mappings, 0), ("linux.gidMappings", linux.gid_mappings, 0)]
    if user is not None:
        asked.append(("process.user.uid", linux.uid_mappings, user.uid))
        asked += [("process.user.gid", linux.gid_mappings, user.gid)]
        groups = enumerate(user.additional_gids)
        asked += [(f"process.user.additionalGids[{index}]", linux.gid_mappings, gid) for index, gid in groups]
    for place, ranges, number in asked:
        if not any(row.container_id <= number < row.container_id + row.size for row in ranges):
            yield f"{place}: id {number} of the container is not mapped"


def time_faults(linux: spec.Linux) -> Iterator[str]:
    """Offsets belong to a new time namespace."""
    if linux.time_offsets and not any(kind.type == "time" and not kind.path for kind in linux.namespaces):
        yield "linux.timeOffsets: set without a new 'time' namespace"
    for clock, offset in linux.time_offsets.items():
        if clock not in CLOCKS:
            yield f"linux.timeOffsets: unknown clock {clock!r} ({', '.join(CLOCKS)})"
        if not 0 <= offset.nanosecs < 10**9 or abs(offset.secs) >= 2**63:
            yield f"linux.timeOffsets.{clock}: {offset.secs} s and {offset.nanosecs} ns (0 <= nanosecs < 10^9)"


def _pair_faults(place: str, uids: list[spec.IDMapping], gids: list[spec.IDMapping]) -> Iterator[str]:
    if bool(uids) != bool(gids):
        yield f"{place}: uidMappings and gidMappings go together"
    yield from _range_faults(f"{place}.uidMappings", uids)
    yield from _range_faults(f"{place}.gidMappings", gids)


def _range_faults(place: str, ranges: list[spec.IDMapping]) -> Iterator[str]:
    if len(ranges) > _MAX_RANGES:
        yield f"{place}: more than {_MAX_RANGES} ranges"
        return
    for index, row in enumerate(ranges):
        if row.size < 1 or min(row.container_id, row.host_id) < 0:
            yield f"{place}[{index}]: {row.container_id} {row.host_id} {row.size} is not a range of ids"
        elif max(row.container_id, row.host_id) + row.size > MAX_IDS:
            yield f"{place}[{index}]: ends beyond id {MAX_IDS - 1}"
    for name in ("container_id", "host_id"):
        taken = sorted((getattr(row, name), row.size) for row in ranges)
        if any(start + size > after for (start, size), (after, _) in pairwise(taken)):
            yield f"{place}: ranges overlap"
