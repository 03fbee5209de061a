"""What this host has and lacks, for `rawpod doctor`: each check is one line with, where something is wrong, the remedy.

A feature is tried out where that leaves nothing behind (`runtime.trials`), and read where it would.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from cgroups.hierarchy import V2_CONTROLLERS, Hierarchy, find
from kernel.credentials import bounding_set, capget, names
from kernel.errors import RawpodError
from kernel.mounts import TMPFS_MAGIC, statfs_type
from kernel.names import CAPABILITIES
from runtime import trials
from runtime.inventory import chains
from runtime.settings import Settings

MINIMUM_KERNEL = (6, 1)
MINIMUM_PYTHON = (3, 11)
ARCHITECTURES = ("x86_64", "aarch64")
NEEDED_CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SETPCAP", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE")
_ENOUGH_FOR_LAYERS = 256 * 2**20
_ENOUGH_FOR_STATE = 16 * 2**20


class Level(StrEnum):
    """ok; warn: rawpod works, with less; fail: it does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `remedy` is empty where nothing is wrong."""

    name: str
    level: Level
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> list[Check]:
    """All checks in order. Takes some 200 ms; without root, what needs root is not tried."""
    checks = [*_machine(), _root(), *_capabilities()]
    hierarchy, findings = _cgroups()
    checks += findings
    if os.geteuid() == 0:
        if hierarchy is not None:
            checks.append(_clone(hierarchy))
            checks.append(_devices(hierarchy))
        checks.append(_seccomp())
        checks += _trials(settings)
        checks += _network(settings)
    checks += [_forwarding(settings), *_limits_of_namespaces(), *_directories(settings)]
    return checks


def failed(checks: Iterable[Check]) -> bool:
    """Whether any check failed."""
    return any(check.level is Level.FAIL for check in checks)


def _machine() -> Iterator[Check]:
    yield kernel_version(platform.release())
    machine = platform.machine()
    known = machine in ARCHITECTURES
    yield _when(known, "architecture", machine, f"rawpod runs on {' and '.join(ARCHITECTURES)}")
    version = platform.python_version()
    yield _when(sys.version_info >= MINIMUM_PYTHON, "python", version, "install Python 3.11 or later")


def kernel_version(release: str) -> Check:
    """Whether a kernel of that release ("6.1.0-18-amd64") is new enough."""
    match = re.match(r"(\d+)\.(\d+)", release)
    new_enough = match is not None and (int(match[1]), int(match[2])) >= MINIMUM_KERNEL
    return _when(new_enough, "kernel", release, "rawpod needs Linux 6.1 or later, as in Debian 12")


def _root() -> Check:
    return _when(os.geteuid() == 0, "root", f"uid {os.geteuid()}", "run rawpod as root, with sudo")


def _capabilities() -> Iterator[Check]:
    held = names(capget().effective)
    lacking = [name for name in NEEDED_CAPABILITIES if name not in held]
    yield _when(
        not lacking, "capabilities", _lacks(lacking) or "all that rawpod needs", "run rawpod as root, with sudo"
    )
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    bounding = names(bounding_set())
    dropped = [name for name, number in CAPABILITIES.items() if number <= last and name not in bounding]
    remedy = "containers cannot be given them either; whoever starts rawpod would have to leave them in"
    yield _when(not dropped, "bounding set", _lacks(dropped) or "complete", remedy, otherwise=Level.WARN)


def _cgroups() -> tuple[Hierarchy | None, list[Check]]:
    try:
        hierarchy = find()
    except RawpodError as error:
        return None, [Check("cgroup2", Level.FAIL, error.message, error.remedy or "")]
    where = f"mounted at {hierarchy.mount}, ours from {hierarchy.name(hierarchy.root)}"
    findings = [Check("cgroup2", Level.OK, where)]
    findings += [controller(name, hierarchy) for name in V2_CONTROLLERS]
    has_pressure = Path("/proc/pressure/memory").exists()
    remedy = "boot with psi=1 to see pressure in `rawpod stats`"
    findings.append(_when(has_pressure, "pressure", "tracked" if has_pressure else "not tracked", remedy, Level.WARN))
    return hierarchy, findings


def controller(name: str, hierarchy: Hierarchy) -> Check:
    """Whether the limits of one controller can be set."""
    label = f"controller {name}"
    if name in hierarchy.controllers:
        return Check(label, Level.OK, "on cgroup v2")
    remedy = f"{hierarchy.remedy(name)}; or go without by --missing-controllers=warn"
    return Check(label, Level.WARN, "not on cgroup v2", remedy)


def _clone(hierarchy: Hierarchy) -> Check:
    return _tried(
        "clone3", lambda: trials.clone_into_cgroup(hierarchy), "rawpod needs Linux 6.1 or later, and no seccomp filter"
    )


def _seccomp() -> Check:
    return _tried("seccomp", trials.seccomp_filter, "rawpod needs CONFIG_SECCOMP_FILTER")


def _devices(hierarchy: Hierarchy) -> Check:
    return _tried(
        "device program",
        lambda: trials.restrict_devices(hierarchy),
        "rawpod needs CONFIG_CGROUP_BPF, CAP_BPF and CAP_NET_ADMIN outside of user namespaces, and no lockdown",
    )


def _trials(settings: Settings) -> Iterator[Check]:
    yield _tried(
        "overlay",
        lambda: trials.overlay(settings.root),
        f'load the module with `modprobe overlay`, and keep "{settings.root}" on ext4, xfs or btrfs',
    )
    mapped = _tried(
        "user namespaces",
        lambda: trials.id_mapped_mount(settings.root),
        f'hostUsers: false needs "{settings.root}" on ext4, xfs or btrfs, or on a tmpfs with Linux 6.3',
    )
    yield mapped if mapped.level is Level.OK else replace(mapped, level=Level.WARN)
    yield _tried("bridge", lambda: trials.in_own_network(trials.bridge), "load the module with `modprobe bridge`")
    yield _tried("veth", lambda: trials.in_own_network(trials.veth), "load the module with `modprobe veth`")
    yield _tried(
        "nftables", lambda: trials.in_own_network(trials.firewall), "load the module with `modprobe nf_tables`"
    )


def _network(settings: Settings) -> Iterator[Check]:
    from netns.attach import Network

    network = Network(settings.bridge, settings.subnet, settings.state, settings.internal)
    name = f"subnet {settings.subnet}"
    yield _tried(name, network.check_conflicts, "choose another one with --subnet and --bridge", "free")
    for chain in chains():
        if chain.hook == "forward" and chain.policy == "drop" and not chain.table.startswith("inet rawpod"):
            detail = f'chain "{chain.name}" of table "{chain.table}" drops what is forwarded'
            remedy = f'let it accept what comes from and goes to "{settings.bridge}"'
            yield Check("other firewall", Level.WARN, detail, remedy)


def _forwarding(settings: Settings) -> Check:
    switch = Path("/proc/sys/net/ipv4/ip_forward")
    if settings.internal:
        return Check("ip_forward", Level.OK, "not needed for an internal network")
    if switch.read_text().strip() == "1":
        return Check("ip_forward", Level.OK, "on")
    if os.access(switch, os.W_OK):
        return Check("ip_forward", Level.OK, "off; switched on with the first pod")
    return Check("ip_forward", Level.WARN, "off", "pods reach nothing beyond this host: `sysctl net.ipv4.ip_forward=1`")


def _limits_of_namespaces() -> Iterator[Check]:
    none = [
        kind
        for kind in ("cgroup", "ipc", "mnt", "net", "pid", "uts")
        if (limit := Path(f"/proc/sys/user/max_{kind}_namespaces")).exists() and limit.read_text().strip() == "0"
    ]
    remedy = "raise it: " + ", ".join(f"`sysctl user.max_{kind}_namespaces=10000`" for kind in none)
    yield _when(not none, "namespaces", f"none allowed of {', '.join(none)}" if none else "allowed", remedy)


def _directories(settings: Settings) -> Iterator[Check]:
    for name, directory, enough in (
        ("root", settings.root, _ENOUGH_FOR_LAYERS),
        ("state", settings.state, _ENOUGH_FOR_STATE),
        ("logs", settings.logs, _ENOUGH_FOR_STATE),
    ):
        there = next(path for path in (directory, *directory.parents) if path.exists())
        yield directory_check(f"directory {name}", directory, there, enough)
    there = next(path for path in (settings.state, *settings.state.parents) if path.is_dir())
    in_memory = _file_system(there) == TMPFS_MAGIC
    remedy = "mount a tmpfs on it: what is there tells of processes, and must not outlive them over a reboot"
    yield _when(in_memory, "state in memory", str(there) if in_memory else f"{there} is no tmpfs", remedy, Level.WARN)


def directory_check(name: str, directory: Path, there: Path, enough: int) -> Check:
    """Whether `directory` can be made and filled; `there` is the nearest of it and those above that exists.

    `enough` bytes have to be free there.
    """
    if not there.is_dir():
        return Check(name, Level.FAIL, f"{there} is no directory", "choose another place")
    if not os.access(there, os.W_OK | os.X_OK):
        return Check(name, Level.FAIL, f"{there} is not writable", "run rawpod as root, or choose another place")
    space = os.statvfs(there)
    free = space.f_bavail * space.f_frsize
    detail = f"{directory}, {free // 2**20} MiB free"
    return _when(free >= enough, name, detail, "make room", Level.WARN)


def _file_system(directory: Path) -> int:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return statfs_type(descriptor)
    finally:
        os.close(descriptor)


def _tried(name: str, trial: Callable[[], object], remedy: str, success: str = "works") -> Check:
    """A check that does what rawpod will do; the error's own remedy goes before the general one."""
    try:
        trial()
    except RawpodError as error:
        return Check(name, Level.FAIL, error.message, error.remedy or remedy)
    except OSError as error:
        return Check(name, Level.FAIL, str(error), remedy)
    return Check(name, Level.OK, success)


def _when(good: bool, name: str, detail: str, remedy: str, otherwise: Level = Level.FAIL) -> Check:
    return Check(name, Level.OK, detail) if good else Check(name, otherwise, detail, remedy)


def _lacks(names: list[str]) -> str:
    return f"lacks {', '.join(names)}" if names else ""
