"""Which kernel parameters a container may set: those of its own namespaces, and no other (`linux.sysctl`). Pure.

The rules are those that runc has. Everything else below /proc/sys is the host's (CVE-2022-0811).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_IPC_NAMES = "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced"
_IPC = frozenset(f"kernel.{name}" for name in _IPC_NAMES.split())
_PART = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def components(key: str) -> list[str]:
    """The path below /proc/sys, by sysctl(8)'s rule: the first separator, "." or "/", is the one that separates.

    The other one stands for a dot within a component: "net.ipv4.conf.eth0/1.rp_filter" and
    "net/ipv4/conf/eth0.1/rp_filter" are the same.
    """
    slash = min((key.find(mark) for mark in "./" if mark in key), default=-1)
    if slash >= 0 and key[slash] == "/":
        return key.split("/")
    return [part.replace("/", ".") for part in key.split(".")]


def sysctl_faults(sysctl: Mapping[str, str], namespaces: Iterable[str]) -> Iterator[str]:
    """What is wrong with `linux.sysctl`, given the types of namespaces that the container has to itself."""
    present = set(namespaces)
    for key, value in sysctl.items():
        place = f"linux.sysctl[{key!r}]"
        parts = components(key)
        if len(parts) < 2 or not all(_is_component(part) for part in parts):
            yield f"{place}: not the name of a kernel parameter"
        elif problem := _foreign(parts, present):
            yield f"{place}: {problem}"
        if "\0" in value or "\n" in value:
            yield f"{place}: the value has a NUL or newline in it"


def _is_component(part: str) -> bool:
    pieces = part.split(".")
    return all(piece and _PART.issuperset(piece) for piece in pieces)


def _foreign(parts: list[str], namespaces: set[str]) -> str:
    name = ".".join(parts)
    if name in _IPC or parts[:2] == ["fs", "mqueue"]:
        return "" if "ipc" in namespaces else "belongs to the host without an 'ipc' namespace"
    if parts[0] == "net":
        return "" if "network" in namespaces else "belongs to the host without a 'network' namespace"
    if name == "kernel.domainname":
        return "" if "uts" in namespaces else "belongs to the host without a 'uts' namespace"
    if name == "kernel.hostname":
        return "set by the field hostname"
    return "belongs to the host: it is not in a namespace of the container"
