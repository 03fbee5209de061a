"""The texts of a pod's /etc/hosts and /etc/resolv.conf."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

_STUB = Path("etc/resolv.conf")
_BEHIND_STUB = Path("run/systemd/resolve/resolv.conf")


def hosts_file(hostname: str, address: str, aliases: Iterable[tuple[str, Sequence[str]]] = ()) -> str:
    """/etc/hosts (hosts(5)): loopback, the pod itself, and hostAliases as pairs of an address and its names."""
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        f"{address}\t{hostname}",
        *(f"{ip}\t{' '.join(names)}" for ip, names in aliases),
    ]
    return "".join(f"{line}\n" for line in lines)


def resolv_conf(text: str) -> str:
    """The host's resolv.conf(5) for a pod: resolvers on the host's loopback are dropped, a pod cannot reach them."""
    kept = [line for line in text.splitlines() if not _loopback_nameserver(line)]
    return "".join(f"{line}\n" for line in kept)


def host_resolv_conf(root: Path = Path("/")) -> str:
    """The resolv.conf for pods of this host.

    Where the host asks nobody but a resolver of its own, systemd-resolved's list of the servers behind it is taken.
    """
    text = _read(root / _STUB)
    if not any(line.split()[:1] == ["nameserver"] for line in resolv_conf(text).splitlines()):
        text = _read(root / _BEHIND_STUB) or text
    return resolv_conf(text)


def _loopback_nameserver(line: str) -> bool:
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return False
    address = words[1].partition("%")[0]
    return address.startswith("127.") or address in ("::1", "0.0.0.0", "::")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
