"""From the OCI resources to cgroup v2 limits (config-linux.md, "Control groups")."""

from __future__ import annotations

from cgroups.controllers import MAX, IoMax, IoWeight, Limits, RdmaMax, swap_alone, weight_from_shares
from cgroups.device_rules import OCI, Rule
from kernel.errors import BadInput, NotSupported

TYPE_CHECKING = False  # `typing` is not loaded at run time; type checkers take the name for true
if TYPE_CHECKING:
    from cgroups.cgroup import Cgroup
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


def unlimited(config: spec.Config) -> tuple[Limits, list[str]]:
    """No limits, for a container that stays in its caller's cgroup, and a line for all that is then left out."""
    resources = config.linux.resources if config.linux else None
    names = list(dict(limits_of(resources).files()))
    if resources and any(not rule.allow for rule in resources.devices):
        names.append("the rules of linux.resources.devices")
    return Limits(), [f"{', '.join(names)} not set: the container has no cgroup of its own"] if names else []


def limits_of(resources: Resources | None, memory_held: int | None = None) -> Limits:
    """The limits that `linux.resources` asks for. What has no v2 form was refused by `spec.check`.

    0 stands for "not set" wherever callers written for cgroup v1 send it so, as runc has it. `memory_held` is the
    memory limit from which a limit of memory and swap together counts, if the resources have none.
    """
    if resources is None:
        return Limits()
    memory, cpu, pids = resources.memory, resources.cpu, resources.pids
    asked: dict[str, object] = {"unified": resources.unified, **_block_io(resources.block_io)}
    if memory is not None:
        asked |= {
            "memory_max": memory.limit or None,
            "memory_low": memory.reservation or None,
            "swap_max": swap_alone(memory.swap, memory.limit or (memory_held if memory.swap else None)),
            "memory_check": bool(memory.check_before_update),
        }
    if cpu is not None:
        asked |= {
            "cpu_quota_us": cpu.quota or None,
            "cpu_period_us": cpu.period or None,
            "cpu_burst_us": cpu.burst,
            "cpu_weight": weight_from_shares(cpu.shares) if cpu.shares else None,
            "cpu_idle": cpu.idle,
            "cpuset_cpus": cpu.cpus or None,
            "cpuset_mems": cpu.mems or None,
        }
    if pids is not None:
        asked["pids_max"] = pids.limit or None
    asked["hugetlb"] = {page.page_size: page.limit for page in resources.hugepage_limits}
    asked["rdma"] = tuple(RdmaMax(name, a.hca_handles, a.hca_objects) for name, a in resources.rdma.items())
    return Limits(**asked)  # type: ignore[arg-type]


def device_rules(resources: Resources) -> tuple[Rule, ...]:
    """The rules of `linux.resources.devices`, for the device program."""
    return tuple(
        Rule(entry.allow, entry.type or "a", _device_number(entry.major), _device_number(entry.minor), entry.access)
        for entry in resources.devices
    )


def add_default_devices(config: spec.Config) -> None:
    """Append the rules on which callers of runc and crun count. They come last, so a description cannot deny them.

    Also where a description has no rule at all: then these devices are all that the container may use.
    """
    from runtime import spec

    config.linux = config.linux or spec.Linux()
    config.linux.resources = config.linux.resources or spec.Resources()
    config.linux.resources.devices += [
        spec.DeviceRule(rule.allow, rule.kind, rule.major, rule.minor, rule.access) for rule in OCI
    ]


def _device_number(number: int | None) -> int | None:
    return None if number == -1 else number


def update_cgroup(cgroup: Cgroup, resources: Resources, scope: str = "") -> None:
    """Change the limits of a container that runs to `resources`; what they leave out stays as it is.

    Device rules take the place of all there were, with those of `add_default_devices` behind them. A limit of memory
    and swap together without one of memory counts from the memory limit that holds. Raises BadInput or NotSupported
    for what `spec.check` would refuse, Conflict where checkBeforeUpdate forbids it. `scope` is the unit that has the
    cgroup, if systemd made it.
    """
    from cgroups.update import current_limit, update
    from runtime.checks import resources as resources_check

    held = current_limit(cgroup, "memory.max")
    if malformed := list(resources_check.faults(resources, held)):
        raise BadInput("; ".join(malformed), remedy="see the OCI runtime specification, config-linux.md")
    if missing := resources_check.unsupported(resources):
        raise NotSupported(", ".join(missing), remedy="cgroup v2 has nothing like it")
    limits = limits_of(resources, held)
    update(cgroup, limits)
    if scope:
        from cgroups.systemd import set_scope

        # It writes them as well, rounded and in its own order; what is exact comes after.
        set_scope(scope, limits)
        update(cgroup, limits)
    if resources.devices:
        from cgroups.devices import restrict

        restrict(cgroup, (*device_rules(resources), *OCI))


def _block_io(block_io: BlockIO | None) -> dict[str, object]:
    if block_io is None:
        return {}
    rates: dict[tuple[int, int], dict[str, int]] = {}
    for key, devices in (
        ("rbps", block_io.throttle_read_bps_device),
        ("wbps", block_io.throttle_write_bps_device),
        ("riops", block_io.throttle_read_iops_device),
        ("wiops", block_io.throttle_write_iops_device),
    ):
        for device in devices:
            # 0 took a rule away on v1; the kernel refuses it in io.max.
            rates.setdefault((device.major, device.minor), {})[key] = device.rate or MAX
    return {
        "io_weight": block_io.weight or None,
        "io_device_weights": tuple(
            IoWeight(device.major, device.minor, device.weight) for device in block_io.weight_device if device.weight
        ),
        "io_max": tuple(IoMax(major, minor, **limits) for (major, minor), limits in rates.items()),
    }
