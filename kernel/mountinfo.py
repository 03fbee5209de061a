"""Reading /proc/PID/mountinfo (proc_pid_mountinfo(5))."""

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


def own_mounts() -> list[MountRow]:
    """Those of this process's mount namespace that it can reach; names that are not UTF-8 as os.fsdecode() has them."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse_mountinfo(file.read())
