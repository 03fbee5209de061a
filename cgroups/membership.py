"""Reading /proc/PID/cgroup (cgroups(7))."""

from __future__ import annotations

from kernel.record import Record


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
