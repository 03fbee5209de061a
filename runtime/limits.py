"""From the OCI resources to cgroup v2 limits (config-linux.md, "Control groups")."""

from __future__ import annotations

from cgroups.controllers import IoMax, Limits, swap_alone, weight_from_shares

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgroups.hierarchy import Hierarchy
    from runtime import spec
    from runtime.spec_resources import BlockIO, Resources


def settable_limits(config: spec.Config, hierarchy: Hierarchy, missing_controllers: str) -> tuple[Limits, list[str]]:
    """The limits that the host can set, and a line for each that it cannot.

    With `missing_controllers` "refuse" a limit that cannot be set raises ControllerMissing instead.
    """
    limits = limits_of(config.linux.resources if config.linux else None)
    missing = limits.missing(hierarchy.controllers)
    if not missing:
        return limits, []
    if missing_controllers == "refuse":
        limits.check(hierarchy.controllers, hierarchy)
    settable = limits.without(missing)
    kept = dict(settable.files())
    left_out = [f"{name}={value!r} not set" for name, value in limits.files() if name not in kept]
    return settable, [f"{line}: controller not on cgroup v2" for line in left_out]


def limits_of(resources: Resources | None) -> Limits:
    """The limits that `linux.resources` asks for. What has no v2 form was refused by `spec.check`."""
    if resources is None:
        return Limits()
    memory, cpu, pids = resources.memory, resources.cpu, resources.pids
    asked: dict[str, object] = {"unified": resources.unified, "io_max": _io_max(resources.block_io)}
    if memory is not None:
        asked |= {
            "memory_max": memory.limit,
            "memory_low": memory.reservation,
            "swap_max": swap_alone(memory.swap, memory.limit),
        }
    if cpu is not None:
        asked |= {
            "cpu_quota_us": cpu.quota,
            "cpu_period_us": cpu.period,
            "cpu_weight": weight_from_shares(cpu.shares) if cpu.shares else None,
            "cpuset_cpus": cpu.cpus or None,
            "cpuset_mems": cpu.mems or None,
        }
    if pids is not None:
        # 0 was "unlimited" to callers before -1 was (config-linux.md, "PIDs").
        asked["pids_max"] = pids.limit if pids.limit > 0 else -1
    return Limits(**asked)  # type: ignore[arg-type]


def _io_max(block_io: BlockIO | None) -> tuple[IoMax, ...]:
    if block_io is None:
        return ()
    rates: dict[tuple[int, int], dict[str, int]] = {}
    for key, devices in (
        ("rbps", block_io.throttle_read_bps_device),
        ("wbps", block_io.throttle_write_bps_device),
        ("riops", block_io.throttle_read_iops_device),
        ("wiops", block_io.throttle_write_iops_device),
    ):
        for device in devices:
            rates.setdefault((device.major, device.minor), {})[key] = device.rate
    return tuple(IoMax(major, minor, **limits) for (major, minor), limits in rates.items())
