"""What exists: everything a pod can leave outside its processes, read from the kernel and the disk.

Each thing found is a `Resource` with the uid of the pod it belongs to, by its name alone. Reading takes a few
milliseconds and changes nothing; the one program run is `nft`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kernel.mountinfo import own_mounts

SYSTEM = "system"
"""The cgroup of monitors and the supervisor, beside those of the pods."""

_NUMBER = re.compile(r"\[\d+\]")


class Resource(NamedTuple):
    """One thing that exists. `owner` is the uid of its pod, "" for what belongs to no single pod."""

    kind: str
    name: str
    owner: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" of pod {self.owner}" if self.owner else "")


Inventory = Counter[Resource]
"""How many there are of each: two alike are one resource with the count 2."""


class Process(NamedTuple):
    """A process as /proc has it. `cgroup` is its v2 path; a zombie's is the last it was in."""

    pid: int
    parent: int
    name: str
    state: str
    cgroup: str
    mount_namespace: str

    def __str__(self) -> str:
        return f"{self.pid} ({self.name})"


def cgroups(subtree: Path) -> Iterator[Resource]:
    """Cgroups below `subtree`, named by their directory; the owner is the first name below it."""
    for directory, names, _ in os.walk(subtree):
        top = directory == str(subtree)
        if top and SYSTEM in names:
            names.remove(SYSTEM)
        for name in names:
            path = f"{directory}/{name}"
            owner = os.path.relpath(path, subtree).partition("/")[0]
            yield Resource("cgroup", path, owner)


def mounts(state: Path, root: Path) -> Iterator[Resource]:
    """Every mount of this mount namespace; those below the pods' directories have an owner."""
    homes = (state / "pods", root / "overlay")
    for row in own_mounts():
        point = Path(row.mount_point)
        owner = next((point.relative_to(home).parts[0] for home in homes if home in point.parents), "")
        kind = "pinned namespace" if row.filesystem == "nsfs" else "mount"
        yield Resource(kind, f"{row.mount_point} ({row.filesystem})", owner)


def links() -> dict[str, str]:
    """The links of this network namespace, each with the bridge it is a port of, or ""."""
    # By netlink: /sys/class/net shows the namespace in which /sys was mounted, not ours.
    from netns.links import get_links, read_link
    from netns.netlink import Netlink

    with Netlink() as netlink:
        found = [read_link(body) for body in netlink.request(get_links())[0]]
    names = {link.ifindex: link.name for link in found}
    return {link.name: names.get(link.master, "") for link in found}


def leases(state: Path) -> Iterator[Resource]:
    """Addresses that are given out; the file of each holds the pod's uid."""
    for path in _entries(state / "addresses"):
        if path.name[:1].isdigit():
            with contextlib.suppress(OSError):
                yield Resource("address lease", path.name, path.read_text().partition("\n")[0])


def network_records(state: Path) -> Iterator[Resource]:
    """What the network keeps beside the leases: a file a pod for its address, one for its ports on the host."""
    for kind in ("owners", "ports"):
        for path in _entries(state / "network" / kind):
            yield Resource("network record", str(path), path.name)


def firewall() -> Iterator[Resource]:
    """The nftables ruleset of this network namespace, an item each; counters and handles, which change, left out."""
    for kind, body in _ruleset():
        elements = body.pop("elem", ())
        rest = {key: value for key, value in body.items() if key not in ("family", "table", "name", "handle")}
        name = f"{_table(body)} {body.get('name', '')}".strip()
        yield Resource(f"nftables {kind}", f"{name} {_settled(rest)}" if kind == "rule" else name)
        for element in elements:
            yield Resource("nftables element", f"{name} {_settled(element)}")


class Chain(NamedTuple):
    """An nftables chain; hook and policy are "" for one that only other chains lead to."""

    table: str
    name: str
    hook: str
    policy: str


def chains() -> list[Chain]:
    """The chains of every nftables table of this network namespace, those of iptables-nft included."""
    return [
        Chain(_table(body), body["name"], body.get("hook", ""), body.get("policy", ""))
        for kind, body in _ruleset()
        if kind == "chain"
    ]


def _ruleset() -> Iterator[tuple[str, dict[str, Any]]]:
    """Nothing where there is no `nft`, or no nf_tables: rawpod cannot have made rules there."""
    import subprocess

    program = nft_program()
    if program is None:
        return
    answer = subprocess.run([program, "-j", "list", "ruleset"], capture_output=True, check=False, timeout=30)
    if answer.returncode != 0:
        return
    for item in json.loads(answer.stdout)["nftables"]:
        yield from ((kind, body) for kind, body in item.items() if kind != "metainfo")


def nft_program() -> str | None:
    """Where nft(8) is. The system directories are looked into as well: a user's PATH may lack them."""
    return shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def _table(body: dict[str, Any]) -> str:
    return " ".join(str(body[key]) for key in ("family", "table") if key in body)


def descriptors(pid: int) -> Iterator[Resource]:
    """The open files of a process, by what they are; sockets and pipes without their numbers, which always differ."""
    for path in _entries(Path(f"/proc/{pid}/fd")):
        with contextlib.suppress(OSError):
            target = str(path.readlink())
            if target != f"/proc/{pid}/fd":  # the one that lists them
                yield Resource("file descriptor", f"{_NUMBER.sub('', target)} in process {pid}")


def processes() -> list[Process]:
    """All processes that are not kernel threads."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                process = _process(entry)
                if process is not None:
                    found.append(process)
    return found


def loop_devices() -> Iterator[Resource]:
    """Loop devices that have a backing file."""
    for path in _entries(Path("/sys/block")):
        if path.name.startswith("loop"):
            with contextlib.suppress(OSError):
                backing = (path / "loop/backing_file").read_text().strip()
                yield Resource("loop device", f"/dev/{path.name} of {backing}")


def directories(state: Path, root: Path) -> Iterator[Resource]:
    """Pod directories and overlay directories, by the uid that names them."""
    for path in _entries(state / "pods"):
        yield Resource("pod directory", str(path), path.name)
    for path in _entries(root / "overlay"):
        # One whose removal was begun has a prefix: see rootfs.overlay.
        yield Resource("overlay directory", str(path), path.name.removeprefix(".removed-"))


def id_blocks(root: Path) -> Iterator[Resource]:
    """Blocks of user ids that are given out, by the uid of their pod."""
    for path in _entries(root / "ids/owners"):
        yield Resource("id block", str(path), path.name)


def below(pid: int, among: Iterable[Process]) -> list[Process]:
    """The descendants of a process, children before their children."""
    children: dict[int, list[Process]] = {}
    for process in among:
        children.setdefault(process.parent, []).append(process)
    found = list(children.get(pid, ()))
    for process in found:
        found.extend(children.get(process.pid, ()))
    return found


def _process(entry: str) -> Process | None:
    with open(f"/proc/{entry}/stat", "rb") as stat:
        line = stat.read()
    # The name is in parentheses and may hold any byte: count fields from the last one.
    head, _, tail = line.rpartition(b")")
    fields = tail.split()
    if int(fields[6]) & 0x00200000:  # PF_KTHREAD
        return None
    with open(f"/proc/{entry}/cgroup", "rb") as cgroup:
        unified = next((row[3:] for row in cgroup.read().splitlines() if row.startswith(b"0::")), b"")
    try:
        namespace = os.readlink(f"/proc/{entry}/ns/mnt")
    except OSError:  # a zombie has left its namespaces
        namespace = ""
    name = head.partition(b"(")[2].decode(errors="replace")
    return Process(int(entry), int(fields[1]), name, fields[0].decode(), os.fsdecode(unified), namespace)


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError, ProcessLookupError):
        return []


def _settled(value: Any) -> str:
    return json.dumps(_without_counters(value), sort_keys=True)


def _without_counters(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: None if key == "counter" else _without_counters(item) for key, item in value.items() if key != "handle"
        }
    if isinstance(value, list):
        return [_without_counters(item) for item in value]
    return value
