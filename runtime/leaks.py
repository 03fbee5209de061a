"""The leak oracle: what exists against what should, computed from the names of the pods that live.

Tests compare two snapshots. `rawpod doctor --leaks` compares what exists with what the living pods account for: a pod
lives while its monitor does, and everything else that bears a pod's name was left behind.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from cgroups.hierarchy import Hierarchy, find
from kernel.errors import HostError
from netns.firewall import table_of
from netns.veth import link_name
from runtime import inventory
from runtime.inventory import Inventory, Process, Resource
from runtime.pod.directory import monitor_alive, read_status
from runtime.settings import Settings

_FINAL = ("Succeeded", "Failed")

# Until the pod is removed, what it wrote can be copied out. Its users' ids are taken as long as files bear them.
_KEPT = frozenset({"pod directory", "overlay directory", "id block"})
_SETTLING_SECONDS = 0.25
_ADDRESS = re.compile(r'"(\d+\.\d+\.\d+\.\d+)"')


def snapshot(settings: Settings, *, watched: Iterable[int] = (), alone: bool = False) -> Inventory:
    """Everything in this mount and network namespace and of this instance, to be compared with a later snapshot.

    `watched` are long-lived processes: their open files are counted, and their descendants are among the processes.
    `alone` says that every process of this mount namespace is ours, as where one plays the host in a test.
    """
    running = inventory.processes()
    subtrees = _subtrees(settings)
    found = Inventory(inventory.mounts(settings.state, settings.root))
    for subtree in subtrees:
        found.update(inventory.cgroups(subtree))
    found.update(Resource("link", name) for name in inventory.links())
    found.update(inventory.leases(settings.state))
    found.update(inventory.network_records(settings.state))
    found.update(inventory.firewall())
    found.update(inventory.loop_devices())
    found.update(inventory.directories(settings.state, settings.root))
    found.update(inventory.id_blocks(settings.root))
    # By pid: a process may be ours for more than one reason.
    ours = {process.pid: _as_resource(process) for process in (_neighbours(running) if alone else ())}
    for pid in watched:
        found.update(inventory.descriptors(pid))
        ours |= {process.pid: _as_resource(process) for process in inventory.below(pid, running)}
    ours |= {process.pid: _as_resource(process, uid) for process, uid in _residents(running, subtrees)}
    found.update(ours.values())
    return found


def difference(before: Inventory, after: Inventory) -> list[str]:
    """One line for each thing that appeared or vanished between two snapshots."""
    lines = [f"left behind: {_counted(item, n)}" for item, n in (after - before).items()]
    lines += [f"gone: {_counted(item, n)}" for item, n in (before - after).items()]
    return sorted(lines)


@dataclass(frozen=True, slots=True)
class Expected:
    """What should exist. `living` pods may have everything, `ended` ones their directory and what they wrote.

    `keepers` are the pids that belong in the system cgroup: the supervisor, its spawner, the monitors of living pods.
    """

    living: frozenset[str]
    ended: frozenset[str]
    keepers: frozenset[int]

    def allows(self, item: Resource) -> bool:
        """Whether the resource's pod accounts for it."""
        return item.owner in self.living or (item.kind in _KEPT and item.owner in self.ended)


def expected(settings: Settings) -> Expected:
    """What the pods of this instance account for, from their status files and the supervisor's socket."""
    living: set[str] = set()
    ended: set[str] = set()
    keepers: set[int] = set()
    for directory in settings.pods.iterdir() if settings.pods.is_dir() else ():
        status = read_status(directory)
        if status is None:
            continue
        if monitor_alive(status):
            keepers.add(status["rawpod"]["monitor"]["pid"])
            living.add(directory.name)
        elif status.get("phase") in _FINAL:
            ended.add(directory.name)
    supervisor = _supervisor(settings)
    if supervisor:
        keepers.add(supervisor)
        keepers.update(process.pid for process in inventory.processes() if process.parent == supervisor)
    return Expected(frozenset(living), frozenset(ended), frozenset(keepers))


def leaks(settings: Settings) -> list[str]:
    """One line for each thing that no living pod accounts for, and for each that a living pod should have and has not.

    What is found is looked at once more a moment later, so that pods that come or go meanwhile are not reported.
    """
    lines = set(_leaks_now(settings))
    if lines:
        time.sleep(_SETTLING_SECONDS)
        lines &= set(_leaks_now(settings))
    return sorted(lines)


def _leaks_now(settings: Settings) -> Iterator[str]:
    wanted = expected(settings)
    for item in _ours(settings, wanted):
        if not wanted.allows(item):
            yield f"left behind: {item}"
    yield from _missing(settings, wanted)


def _ours(settings: Settings, wanted: Expected) -> Iterator[Resource]:
    """What exists of this instance, by name."""
    leases = list(inventory.leases(settings.state))
    yield from leases
    yield from inventory.network_records(settings.state)
    yield from inventory.directories(settings.state, settings.root)
    yield from inventory.id_blocks(settings.root)
    yield from (item for item in inventory.mounts(settings.state, settings.root) if item.owner)
    yield from (item for item in inventory.loop_devices() if f" of {settings.root}/" in item.name)
    # The bridge and the table stay as long as some pod has an address.
    keeper = next((lease.owner for lease in leases if lease.owner in wanted.living), "")
    yield from _our_links(settings, {lease.owner for lease in leases}, keeper)
    yield from _our_firewall(settings, {lease.name: lease.owner for lease in leases}, keeper)
    subtrees = _subtrees(settings)
    for subtree in subtrees:
        yield from inventory.cgroups(subtree)
    running = inventory.processes()
    for process, uid in _residents(running, subtrees):
        if uid or process.pid not in wanted.keepers:
            yield _as_resource(process, uid)
    for process in running:
        if process.state == "Z" and process.parent in wanted.keepers:
            yield _as_resource(process)


def _our_links(settings: Settings, uids: set[str], keeper: str) -> Iterator[Resource]:
    owners = {link_name(uid): uid for uid in uids | set(_pods(settings))}
    for name, bridge in inventory.links().items():
        if name == settings.bridge:
            yield Resource("link", name, keeper)
        elif bridge == settings.bridge:
            yield Resource("link", name, owners.get(name, ""))


def _our_firewall(settings: Settings, leases: dict[str, str], keeper: str) -> Iterator[Resource]:
    table = f"inet {table_of(settings.bridge)}"
    pods = ip_network(settings.subnet, strict=False)
    for item in inventory.firewall():
        if item.kind == "nftables table" and item.name == table:
            yield item._replace(owner=keeper)
        elif item.kind == "nftables element" and item.name.startswith(f"{table} "):
            # A published port is an element with its pod's address in it.
            for address in _ADDRESS.findall(item.name):
                if ip_address(address) in pods and ip_address(address) != pods.network_address:
                    yield item._replace(owner=leases.get(address, ""))


def _missing(settings: Settings, wanted: Expected) -> Iterator[str]:
    names = inventory.links()
    subtrees = _subtrees(settings)
    for lease in inventory.leases(settings.state):
        if lease.owner in wanted.living and link_name(lease.owner) not in names:
            yield f"missing: link of pod {lease.owner}, whose address is {lease.name}"
    for uid in wanted.living:
        if not any((subtree / uid).is_dir() for subtree in subtrees):
            yield f"missing: cgroup of pod {uid}"


def _subtrees(settings: Settings) -> list[Path]:
    """Where this instance's cgroups are: where we would make them, and where a delegated supervisor has them."""
    try:
        hierarchy = find()
    except HostError:
        return []
    own = Path(hierarchy.subtree(settings.cgroup))
    other = _subtree_of_supervisor(settings, hierarchy) if settings.cgroup is None else None
    return [own] if other in (None, own) else [own, other]


def _subtree_of_supervisor(settings: Settings, hierarchy: Hierarchy) -> Path | None:
    pid = _supervisor(settings)
    process = next((process for process in inventory.processes() if process.pid == pid), None)
    if process is None or not process.cgroup.endswith(f"/{inventory.SYSTEM}"):
        return None
    return Path(hierarchy.at(process.cgroup)).parent


def _supervisor(settings: Settings) -> int:
    """The pid of the process that listens on the supervisor's socket, 0 for none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
        try:
            client.connect(str(settings.socket))
        except OSError:
            return 0
        return _peer(client)


def _peer(connection: socket.socket) -> int:
    """The pid of the process that called listen(2) on the other end (SO_PEERCRED, unix(7))."""
    pid: int = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid


def _pods(settings: Settings) -> list[str]:
    return os.listdir(settings.pods) if settings.pods.is_dir() else []


def _residents(running: list[Process], subtrees: list[Path]) -> Iterator[tuple[Process, str]]:
    """The processes in our cgroups, each with the uid of its pod, "" for those in the system cgroup."""
    if not subtrees:
        return
    hierarchy = find()
    prefixes = [f"{hierarchy.name(str(subtree))}/" for subtree in subtrees]
    for process in running:
        prefix = next((prefix for prefix in prefixes if process.cgroup.startswith(prefix)), None)
        if prefix is not None:
            uid = process.cgroup.removeprefix(prefix).partition("/")[0]
            yield process, "" if uid == inventory.SYSTEM else uid


def _neighbours(running: list[Process]) -> list[Process]:
    """The other processes of our mount namespace."""
    own = os.readlink("/proc/self/ns/mnt")
    return [process for process in running if process.mount_namespace == own and process.pid != os.getpid()]


def _as_resource(process: Process, uid: str = "") -> Resource:
    return Resource("zombie" if process.state == "Z" else "process", str(process), uid)


def _counted(item: Resource, count: int) -> str:
    return str(item) if count == 1 else f"{item}, {count} times"
