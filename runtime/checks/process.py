"""What `process`, `hooks` and the smaller parts of `linux` must fulfil (config.md, config-linux.md). Pure.

Each function yields faults, `JSON path: what is wrong`. What does not concern Linux is not looked at:
`process.commandLine` and `process.user.username` are for Windows, `process.consoleSize` needs a terminal.
"""

from __future__ import annotations

from kernel.names import (
    IOPRIO_CLASSES,
    MAX_ID,
    MEMORY_POLICIES,
    MEMORY_POLICY_FLAGS,
    PERSONALITIES,
    POLICIES,
    RLIMITS,
    SCHED_FLAGS,
    parse_list,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runtime import spec

HOOK_KINDS = {
    "prestart": "prestart",
    "create_runtime": "createRuntime",
    "create_container": "createContainer",
    "start_container": "startContainer",
    "poststart": "poststart",
    "poststop": "poststop",
}
_REAL_TIME = ("SCHED_FIFO", "SCHED_RR")
_WITH_NODES = ("MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE", "MPOL_PREFERRED_MANY")
_WITHOUT_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL")
_MAX_NODES = 4096
_IFNAMSIZ = 16


def process_faults(process: spec.Process) -> Iterator[str]:
    """What is malformed in `process`."""
    if not process.cwd.startswith("/") or "\0" in process.cwd:
        yield f"process.cwd: {process.cwd!r} is not an absolute path"
    if not process.args:
        yield "process.args: empty (the program and its arguments)"
    elif not process.args[0]:
        yield "process.args[0]: empty (the program's name)"
    for index, text in enumerate(process.args):
        if "\0" in text:
            yield f"process.args[{index}]: contains a NUL byte"
    yield from environment_faults("process.env", process.env)
    yield from _user_faults(process.user)
    yield from _rlimit_faults(process.rlimits)
    if process.oom_score_adj is not None and not -1000 <= process.oom_score_adj <= 1000:
        yield f"process.oomScoreAdj: {process.oom_score_adj} is out of range (-1000 to 1000)"
    size = process.console_size
    if process.terminal and size is not None and not (0 <= size.height <= 0xFFFF and 0 <= size.width <= 0xFFFF):
        yield f"process.consoleSize: {size.width}x{size.height} is out of range (0 to 65535)"
    if process.scheduler is not None:
        yield from _scheduler_faults(process.scheduler)
    if process.io_priority is not None:
        yield from _choice("process.ioPriority.class", process.io_priority.class_, IOPRIO_CLASSES)
        if not 0 <= process.io_priority.priority <= 7:
            yield f"process.ioPriority.priority: {process.io_priority.priority} is out of range (0 to 7)"
    if process.exec_cpu_affinity is not None:
        for name in ("initial", "final"):
            yield from _list_faults(f"process.execCPUAffinity.{name}", getattr(process.exec_cpu_affinity, name))


def environment_faults(place: str, env: Iterable[str]) -> Iterator[str]:
    """Entries that are not NAME=VALUE. They are not shown: they may hold secrets."""
    for index, text in enumerate(env):
        if "\0" in text:
            yield f"{place}[{index}]: contains a NUL byte"
        elif text.find("=") < 1:
            yield f"{place}[{index}]: not NAME=VALUE"


def _user_faults(user: spec.User) -> Iterator[str]:
    ids = {"uid": user.uid, "gid": user.gid}
    ids |= {f"additionalGids[{index}]": gid for index, gid in enumerate(user.additional_gids)}
    for name, value in ids.items():
        if not 0 <= value <= MAX_ID:
            yield f"process.user.{name}: {value} is out of range (0 to {MAX_ID})"
    if user.umask is not None and not 0 <= user.umask <= 0o777:
        yield f"process.user.umask: {user.umask} is out of range (0 to 511)"


def _rlimit_faults(rlimits: Iterable[spec.Rlimit]) -> Iterator[str]:
    seen: set[str] = set()
    for index, limit in enumerate(rlimits):
        place = f"process.rlimits[{index}]"
        yield from _choice(f"{place}.type", limit.type, RLIMITS)
        if limit.type in seen:
            yield f"{place}.type: {limit.type!r} is listed twice"
        seen.add(limit.type)
        if not 0 <= limit.soft <= limit.hard < 2**64:
            yield f"{place}: soft {limit.soft} and hard {limit.hard} (0 <= soft <= hard < 2^64)"


def _scheduler_faults(scheduler: spec.Scheduler) -> Iterator[str]:
    place, policy = "process.scheduler", scheduler.policy
    yield from _choice(f"{place}.policy", policy, POLICIES)
    for index, flag in enumerate(scheduler.flags):
        yield from _choice(f"{place}.flags[{index}]", flag, SCHED_FLAGS)
    if not -20 <= scheduler.nice <= 19:
        yield f"{place}.nice: {scheduler.nice} is out of range (-20 to 19)"
    if policy in _REAL_TIME and not 1 <= scheduler.priority <= 99:
        yield f"{place}.priority: {scheduler.priority} is out of range (1 to 99 for {policy})"
    if policy not in _REAL_TIME and scheduler.priority:
        yield f"{place}.priority: only for {' and '.join(_REAL_TIME)}"
    times = {name: getattr(scheduler, name) for name in ("runtime", "deadline", "period")}
    for name, value in times.items():
        if not 0 <= value < 2**63:
            yield f"{place}.{name}: {value} is out of range (nanoseconds, 0 to 2^63 - 1)"
    if policy != "SCHED_DEADLINE" and any(times.values()):
        yield f"{place}: runtime, deadline and period are only for SCHED_DEADLINE"


def hook_faults(hooks: spec.Hooks) -> Iterator[str]:
    """What is malformed in `hooks`."""
    for field, kind in HOOK_KINDS.items():
        for index, hook in enumerate(getattr(hooks, field)):
            place = f"hooks.{kind}[{index}]"
            if not hook.path.startswith("/") or "\0" in hook.path:
                yield f"{place}.path: {hook.path!r} is not an absolute path"
            if hook.args and not hook.args[0]:
                yield f"{place}.args[0]: empty (the program's name)"
            if any("\0" in text for text in hook.args):
                yield f"{place}.args: contains a NUL byte"
            yield from environment_faults(f"{place}.env", hook.env or [])
            if hook.timeout is not None and not 0 < hook.timeout < 2**63:
                yield f"{place}.timeout: {hook.timeout} is not greater than zero, or out of range (seconds)"


def linux_faults(linux: spec.Linux) -> Iterator[str]:
    """What is malformed in `linux.personality`, `linux.memoryPolicy`, `linux.netDevices` and `linux.intelRdt`."""
    if linux.personality is not None:
        yield from _choice("linux.personality.domain", linux.personality.domain, PERSONALITIES)
        for index, flag in enumerate(linux.personality.flags):
            yield f"linux.personality.flags[{index}]: {flag!r} (the specification knows no flags)"
    if linux.memory_policy is not None:
        yield from _memory_policy_faults(linux.memory_policy)
    networked = any(namespace.type == "network" for namespace in linux.namespaces)
    yield from _net_device_faults(linux.net_devices, networked)
    if linux.intel_rdt is not None:
        yield from _intel_rdt_faults(linux.intel_rdt)


def _memory_policy_faults(policy: spec.MemoryPolicy) -> Iterator[str]:
    place = "linux.memoryPolicy"
    yield from _choice(f"{place}.mode", policy.mode, MEMORY_POLICIES)
    for index, flag in enumerate(policy.flags):
        yield from _choice(f"{place}.flags[{index}]", flag, MEMORY_POLICY_FLAGS)
    if {"MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"} <= set(policy.flags):
        yield f"{place}.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other"
    if policy.mode in _WITH_NODES and not policy.nodes:
        yield f"{place}.nodes: missing ({policy.mode} needs memory nodes)"
    if policy.mode in _WITHOUT_NODES and policy.nodes:
        yield f"{place}.nodes: {policy.nodes!r} ({policy.mode} takes none)"
    yield from _list_faults(f"{place}.nodes", policy.nodes, _MAX_NODES)


def _net_device_faults(devices: Mapping[str, spec.NetDevice], networked: bool) -> Iterator[str]:
    if devices and not networked:
        yield "linux.netDevices: set without a 'network' namespace"
    names: set[str] = set()
    for host_name, device in devices.items():
        place = f"linux.netDevices[{host_name!r}]"
        name = device.name or host_name
        if not _is_link_name(host_name):
            yield f"{place}: not the name of a network device"
        if not _is_link_name(name.replace("%d", "0", 1)) or "%" in name.replace("%d", "", 1):
            yield f"{place}.name: {name!r} is not the name of a network device"
        if name in names and "%d" not in name:
            yield f"{place}.name: {name!r} is given twice"
        names.add(name)


def _is_link_name(name: str) -> bool:
    # dev_valid_name() of net/core/dev.c
    if name in ("", ".", "..") or len(name.encode()) >= _IFNAMSIZ:
        return False
    return not any(character in "/:\0" or character.isspace() for character in name)


def _intel_rdt_faults(rdt: spec.IntelRdt) -> Iterator[str]:
    if rdt.clos_id in (".", "..") or ("/" in rdt.clos_id and rdt.clos_id != "/") or "\0" in rdt.clos_id:
        yield f"linux.intelRdt.closID: {rdt.clos_id!r} is not the name of a directory"
    for name, line, prefix in (
        ("l3CacheSchema", rdt.l3_cache_schema, "L3"),
        ("memBwSchema", rdt.mem_bw_schema, "MB:"),
    ):
        if line and (not line.startswith(prefix) or "\0" in line or (prefix == "MB:" and "\n" in line)):
            yield f"linux.intelRdt.{name}: {line!r} is not a line that begins with '{prefix}'"
    for index, line in enumerate(rdt.schemata):
        if "\n" in line or "\0" in line or ":" not in line:
            yield f"linux.intelRdt.schemata[{index}]: {line!r} is not one line of a schemata file"


def _choice(place: str, value: str, known: Iterable[str]) -> Iterator[str]:
    if value not in known:
        yield f"{place}: unknown {value!r} ({', '.join(known)})"


def _list_faults(place: str, text: str, limit: int = 8192) -> Iterator[str]:
    if text:
        try:
            parse_list(text, limit)
        except ValueError as error:
            yield f"{place}: {error}"
