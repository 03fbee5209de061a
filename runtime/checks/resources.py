"""What `linux.resources` must fulfil: well formed, and possible on cgroup v2 (config-linux.md, "Control groups").

Most of the section was written for cgroup v1. Where v2 has the same thing under another name it is converted (see
`runtime.limits`); where it has nothing like it, the specification asks for an error, and `unsupported` gives it. Values
that ask for what v2 does anyway, as an unlimited kernel memory, are taken.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` is not loaded at run time; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.spec_resources import CPU, BlockIO, DeviceRule, Memory, Resources

_INT64 = 2**63 - 1
_UINT32 = 2**32 - 1
_CORE_FILES = ("cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure")
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def unsupported(resources: Resources) -> list[str]:
    """The JSON paths below linux.resources of what cgroup v2 cannot do, in the order of the specification."""
    paths: list[str] = []
    if memory := resources.memory:
        paths += ["memory.kernel"] * (memory.kernel not in (None, -1))
        paths += ["memory.kernelTCP"] * (memory.kernel_tcp not in (None, -1))
        paths += ["memory.swappiness"] * (memory.swappiness is not None)
        paths += ["memory.disableOOMKiller"] * bool(memory.disable_oom_killer)
        paths += ["memory.useHierarchy"] * (memory.use_hierarchy is False)
    if cpu := resources.cpu:
        paths += ["cpu.realtimeRuntime"] * bool(cpu.realtime_runtime)
        paths += ["cpu.realtimePeriod"] * bool(cpu.realtime_period)
    if block_io := resources.block_io:
        paths += ["blockIO.leafWeight"] * bool(block_io.leaf_weight)
        for index, device in enumerate(block_io.weight_device):
            paths += [f"blockIO.weightDevice[{index}].leafWeight"] * bool(device.leaf_weight)
    if network := resources.network:
        paths += ["network.classID"] * bool(network.class_id)
        paths += ["network.priorities"] * bool(network.priorities)
    return [f"linux.resources.{path}" for path in paths]


def faults(resources: Resources, memory_held: int | None = None) -> Iterator[str]:
    """What is malformed in linux.resources, one `JSON path: what is wrong` each.

    `memory_held` is the memory limit of a container that is updated.
    """
    for index, rule in enumerate(resources.devices):
        yield from _device_faults(f"devices[{index}]", rule)
    if resources.memory:
        yield from _memory_faults(resources.memory, memory_held)
    if resources.cpu:
        yield from _cpu_faults(resources.cpu)
    if resources.pids:
        yield from _range("pids.limit", resources.pids.limit, -1, _INT64)
    if resources.block_io:
        yield from _block_io_faults(resources.block_io)
    for index, page in enumerate(resources.hugepage_limits):
        number, unit = page.page_size[:-2], page.page_size[-2:]
        if unit not in ("KB", "MB", "GB") or not number.isdecimal() or number.startswith("0"):
            yield f"{_AT}hugepageLimits[{index}].pageSize: {page.page_size!r} is not a size like 2MB"
        yield from _range(f"hugepageLimits[{index}].limit", page.limit, 0, _INT64)
    for name, adapter in resources.rdma.items():
        if not name or not _WORD.issuperset(name):
            yield f"{_AT}rdma: {name!r} is not the name of a device"
        if adapter.hca_handles is None and adapter.hca_objects is None:
            yield f"{_AT}rdma[{name!r}]: neither hcaHandles nor hcaObjects"
        yield from _range(f"rdma[{name!r}].hcaHandles", adapter.hca_handles, 0, _UINT32)
        yield from _range(f"rdma[{name!r}].hcaObjects", adapter.hca_objects, 0, _UINT32)
    for key in resources.unified:
        parts = key.split(".")
        if key not in _CORE_FILES and (len(parts) < 2 or parts[0] == "cgroup" or not all(map(_is_word, parts))):
            yield f"{_AT}unified: {key!r} is not the name of a controller's file"


_AT = "linux.resources."


def _device_faults(place: str, rule: DeviceRule) -> Iterator[str]:
    if rule.type not in ("", "a", "b", "c"):
        yield f"{_AT}{place}.type: {rule.type!r} is none of a, b and c"
    if not rule.access or not set("rwm").issuperset(rule.access):
        yield f"{_AT}{place}.access: {rule.access!r} is not made of r, w and m"
    for name, number in (("major", rule.major), ("minor", rule.minor)):
        yield from _range(f"{place}.{name}", number, -1, _UINT32)  # -1 is how callers write "all"


def _memory_faults(memory: Memory, held: int | None) -> Iterator[str]:
    for name in ("limit", "reservation", "swap", "kernel"):
        yield from _range(f"memory.{name}", getattr(memory, name), -1, _INT64)
    yield from _range("memory.kernelTCP", memory.kernel_tcp, -1, _INT64)
    yield from _range("memory.swappiness", memory.swappiness, 0, 100)
    limit, swap = memory.limit or held or 0, memory.swap or 0
    if swap > 0 and limit == 0:
        yield f"{_AT}memory.swap: {swap} without a memory.limit (it counts both together)"
    elif 0 < swap < limit:
        yield f"{_AT}memory.swap: {swap} is below memory.limit, {limit} (it counts both together)"


def _cpu_faults(cpu: CPU) -> Iterator[str]:
    yield from _range("cpu.shares", cpu.shares, 0, 2**64 - 1)
    yield from _range("cpu.burst", cpu.burst, 0, _INT64)
    yield from _range("cpu.idle", cpu.idle, 0, 1)
    if cpu.quota is not None and cpu.quota not in (-1, 0) and not 1000 <= cpu.quota <= _INT64:
        yield f"{_AT}cpu.quota: {cpu.quota} is not -1 for none, or 1000 µs or more"
    if cpu.period:
        yield from _range("cpu.period", cpu.period, 1000, 1_000_000)
    if cpu.burst and cpu.quota is not None and 0 < cpu.quota < cpu.burst:
        yield f"{_AT}cpu.burst: {cpu.burst} is more than cpu.quota, {cpu.quota}"
    for name, text in (("cpus", cpu.cpus), ("mems", cpu.mems)):
        if text and not all(_is_span(span) for span in text.strip().split(",")):
            yield f"{_AT}cpu.{name}: {text!r} is not a list like 0-3,7"


def _block_io_faults(block_io: BlockIO) -> Iterator[str]:
    weights = [("weight", block_io.weight), ("leafWeight", block_io.leaf_weight)]
    for index, device in enumerate(block_io.weight_device):
        place = f"weightDevice[{index}]"
        yield from _range(f"blockIO.{place}.major", device.major, 0, _UINT32)
        yield from _range(f"blockIO.{place}.minor", device.minor, 0, _UINT32)
        if device.weight is None and device.leaf_weight is None:
            yield f"{_AT}blockIO.{place}: neither weight nor leafWeight"
        weights += [(f"{place}.weight", device.weight), (f"{place}.leafWeight", device.leaf_weight)]
    for name, weight in weights:
        if weight:  # 0 leaves it as it is
            yield from _range(f"blockIO.{name}", weight, 10, 1000)
    for kind in ("Bps", "IOPS"):
        for way in ("read", "write"):
            for index, throttle in enumerate(getattr(block_io, f"throttle_{way}_{kind.lower()}_device")):
                place = f"blockIO.throttle{way.capitalize()}{kind}Device[{index}]"
                yield from _range(f"{place}.major", throttle.major, 0, _UINT32)
                yield from _range(f"{place}.minor", throttle.minor, 0, _UINT32)
                yield from _range(f"{place}.rate", throttle.rate, 0, 2**64 - 1)


def _range(place: str, value: int | None, low: int, high: int) -> Iterator[str]:
    if value is not None and not low <= value <= high:
        yield f"{_AT}{place}: {value} is not within {low} to {high}"


def _is_span(text: str) -> bool:
    """One item of a list of CPUs or nodes (cpuset(7), "List format"): 3, 0-7, or every second of them, 0-7:1/2."""
    span, _, step = text.partition(":")
    first, dash, last = span.partition("-")
    numbers = [first] + [last] * bool(dash) + step.split("/") * bool(step)
    if not all(number.isdecimal() and number.isascii() for number in numbers):
        return False
    return not dash or int(first) <= int(last)


def _is_word(text: str) -> bool:
    return bool(text) and _WORD.issuperset(text)
