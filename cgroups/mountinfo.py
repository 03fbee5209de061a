"""Reading /proc/PID/mountinfo and /proc/PID/cgroup (proc_pid_mountinfo(5), cgroups(7))."""

from __future__ import annotations

from kernel.record import Record


class MountRow(Record):
    """One line of mountinfo, with the octal escapes of the paths undone."""

    device: tuple[int, int]
    root: str
    mount_point: str
    filesystem: str
    super_options: frozenset[str]


def parse_mountinfo(text: str) -> list[MountRow]:
    """The rows in the kernel's order: of two mounts on one path the later one covers the earlier."""
    rows = []
    for line in text.splitlines():
        fields = line.split(" ")
        # The optional fields before the separator vary in number, so what follows is found from the separator on.
        separator = fields.index("-", 6)
        major, _, minor = fields[2].partition(":")
        rows.append(
            MountRow(
                device=(int(major), int(minor)),
                root=unescape(fields[3]),
                mount_point=unescape(fields[4]),
                filesystem=fields[separator + 1],
                super_options=frozenset(fields[separator + 3].split(",")),
            )
        )
    return rows


def unescape(field: str) -> str:
    """Undo mountinfo's escapes: space, tab, newline and backslash are written as three octal digits."""
    if "\\" not in field:
        return field
    head, *escaped = field.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in escaped)


class Membership(Record):
    """What /proc/PID/cgroup says: the cgroup on v2 and the hierarchy of each controller that is on v1."""

    unified: str | None
    v1: dict[str, str]


def parse_membership(text: str) -> Membership:
    """Parse /proc/PID/cgroup. Named v1 hierarchies ("name=systemd") hold no controller and are left out."""
    unified: str | None = None
    v1: dict[str, str] = {}
    for line in text.splitlines():
        identifier, controllers, path = line.split(":", 2)
        if identifier == "0" and not controllers:
            # A process whose cgroup was removed shows " (deleted)"; it has no directory to return to.
            unified = path.removesuffix(" (deleted)")
            continue
        v1.update({name: path for name in controllers.split(",") if name and not name.startswith("name=")})
    return Membership(unified, v1)
