"""New limits for a cgroup in use, in an order that kills nothing that the new limits allow."""

from __future__ import annotations

from cgroups.controllers import MAX, write_limit
from cgroups.files import read_raw, write
from kernel.errors import Conflict, RawpodError

TYPE_CHECKING = False  # `typing` is not loaded at run time; type checkers take the name for true
if TYPE_CHECKING:
    from cgroups.cgroup import Cgroup
    from cgroups.controllers import Limits

_KEYED = ("io.", "rdma.")
"""Files with a line a device, which one write does not put back."""


def update(cgroup: Cgroup, limits: Limits) -> None:
    """Set the limits that are given on a cgroup in use; those that are None stay. All or, but for devices, none.

    Memory: what is raised comes first, then what is lowered, memory before swap, so that the kernel can reclaim into
    the swap there is before it kills. A period without a quota keeps the quota, and the other way round.

    Raises Conflict with `memory_check` when more is in use than the new limit, else what `Limits.apply` raises.
    """
    limits.validate()
    if limits.memory_check:
        _check_usage(cgroup, limits)
    undo: list[tuple[str, str]] = []
    try:
        for name, text in _ordered(cgroup, limits):
            before = None if name.startswith(_KEYED) else _text(cgroup, name)
            write_limit(cgroup, name, text)
            if before is not None:
                undo.append((name, before))
    except RawpodError:
        for name, before in reversed(undo):
            write(cgroup.file(name), before)
        raise


def current_limit(cgroup: Cgroup, name: str) -> int | None:
    """What a file with one number says, MAX for "max"; None where it is not there."""
    text = _text(cgroup, name)
    return None if text is None else MAX if text == "max" else int(text)


def _ordered(cgroup: Cgroup, limits: Limits) -> list[tuple[str, str]]:
    files = list(limits.files())
    memory = [(name, text) for name, text in files if name.startswith("memory.") and name not in limits.unified]
    raised = [(name, text) for name, text in memory if _number(text) > _number(_text(cgroup, name) or "max")]
    # Upwards from the outermost: a higher memory.high has no effect below a memory.max that is to rise as well.
    first = raised[::-1] + [item for item in memory if item not in raised]
    rest = [item for item in files if item not in memory]
    if limits.cpu_quota_us is None and limits.cpu_period_us is not None:
        quota = (_text(cgroup, "cpu.max") or "max").split()[0]
        rest = [(name, f"{quota} {limits.cpu_period_us}" if name == "cpu.max" else text) for name, text in rest]
    if _burst_first(cgroup, limits):
        rest.sort(key=lambda item: item[0] != "cpu.max.burst")
    return first + rest


def _burst_first(cgroup: Cgroup, limits: Limits) -> bool:
    """The kernel refuses a burst above the quota at every moment, so the two are written in the order that fits."""
    quota = (_text(cgroup, "cpu.max") or "max").split()[0]
    return limits.cpu_burst_us is not None and limits.cpu_burst_us <= _number(quota)


def _check_usage(cgroup: Cgroup, limits: Limits) -> None:
    used = current_limit(cgroup, "memory.current") or 0
    swapped = current_limit(cgroup, "memory.swap.current") or 0
    allowed = limits.memory_max
    if allowed is not None and allowed != MAX and allowed <= used:
        raise _too_low(cgroup, "memory.max", allowed, used)
    if limits.swap_max is not None and limits.swap_max != MAX and limits.swap_max < swapped:
        raise _too_low(cgroup, "memory.swap.max", limits.swap_max, swapped)


def _too_low(cgroup: Cgroup, name: str, limit: int, used: int) -> Conflict:
    return Conflict(
        f'{name} "{limit}" is not above the {used} bytes in use by "{cgroup}"',
        remedy="give more, or leave checkBeforeUpdate off: then the kernel reclaims, and kills where it cannot",
    )


def _text(cgroup: Cgroup, name: str) -> str | None:
    try:
        return read_raw(cgroup.file(name)).strip()
    except OSError:
        return None


def _number(text: str) -> float:
    return float("inf") if text == "max" else float(text)
