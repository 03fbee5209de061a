"""Limits: what may be set on a cgroup, which controllers that needs, and how it is written."""

from __future__ import annotations

import os

from cgroups.files import write
from kernel.errors import BadInput, ControllerMissing, NotSupported
from kernel.record import Record

TYPE_CHECKING = False  # `typing` is not loaded at run time; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from cgroups.cgroup import Cgroup
    from cgroups.hierarchy import Hierarchy

MAX = -1
"""In a limit: no limit, "max" to the kernel."""

_CORE_FILES = frozenset({"cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"})
_INT_MAX = 2**31 - 1


class IoMax(Record):
    """Limits of one block device by its number: bytes and operations a second (io.max). None leaves it as it is."""

    major: int
    minor: int
    rbps: int | None = None
    wbps: int | None = None
    riops: int | None = None
    wiops: int | None = None

    def line(self) -> str:
        """As io.max takes it: "8:16 rbps=2097152 wiops=120"."""
        values = {"rbps": self.rbps, "wbps": self.wbps, "riops": self.riops, "wiops": self.wiops}
        return " ".join(
            [f"{self.major}:{self.minor}", *(f"{k}={_value(v)}" for k, v in values.items() if v is not None)]
        )


class IoWeight(Record):
    """The share of one block device's time, 10 to 1000 as on cgroup v1."""

    major: int
    minor: int
    weight: int


class RdmaMax(Record):
    """Limits of one RDMA device by its name: handles and objects of the adapter (rdma.max). None leaves it as it is."""

    device: str
    hca_handles: int | None = None
    hca_objects: int | None = None

    def line(self) -> str:
        """As rdma.max takes it: "mlx5_0 hca_handle=2 hca_object=max"."""
        values = {"hca_handle": self.hca_handles, "hca_object": self.hca_objects}
        # The kernel counts in an int and calls its largest "max".
        shown = {key: _value(MAX if value >= _INT_MAX else value) for key, value in values.items() if value is not None}
        return " ".join([self.device, *(f"{key}={value}" for key, value in shown.items())])


class Limits(Record):
    """What a cgroup may use. None leaves the kernel's default; MAX lifts a limit.

    Memory, swap and huge pages in bytes, `hugetlb` by page size ("2MB"). Quota and period in microseconds (of CPU time
    over all cores, in each period), and burst, what may be saved up of it. cpu weight 1 to 10000 with 100 the default,
    `cpu_idle` 1 for SCHED_IDLE. `io_weight` 10 to 1000. pids a count of tasks. `unified` is the OCI runtime-spec's:
    file name to text. `memory_check` refuses an update that is below what is in use.
    """

    memory_max: int | None = None
    memory_high: int | None = None
    memory_low: int | None = None
    swap_max: int | None = None
    memory_check: bool = False
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpu_burst_us: int | None = None
    cpu_weight: int | None = None
    cpu_idle: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids_max: int | None = None
    io_weight: int | None = None
    io_device_weights: tuple[IoWeight, ...] = ()
    io_max: tuple[IoMax, ...] = ()
    hugetlb: Mapping[str, int] = {}
    rdma: tuple[RdmaMax, ...] = ()
    unified: Mapping[str, str] = {}

    def needs(self) -> frozenset[str]:
        """The controllers without which some of these limits would not hold."""
        return frozenset(controller for name, _ in self.files() if (controller := controller_of(name)))

    def missing(self, available: Collection[str]) -> frozenset[str]:
        """Those of the needed controllers that are not in `available`."""
        return self.needs() - frozenset(available)

    def check(self, available: Collection[str], hierarchy: Hierarchy) -> None:
        """Raise ControllerMissing for a needed controller that is not available, and BadInput for a bad value."""
        self.validate()
        for controller in sorted(self.missing(available)):
            limits = ", ".join(name for name, _ in self.files() if controller_of(name) == controller)
            raise ControllerMissing(
                controller,
                f'{limits} cannot be set: the controller "{controller}" is not on cgroup v2 here',
                remedy=hierarchy.remedy(controller),
            )

    def without(self, controllers: Collection[str]) -> Limits:
        """These limits less those of `controllers`: what can still be set where they are missing."""
        dropped = frozenset(controllers)
        changes: dict[str, object] = {
            name: getattr(Limits, name) for name, controller in _CONTROLLER_OF_FIELD.items() if controller in dropped
        }
        unified = {name: text for name, text in self.unified.items() if controller_of(name) not in dropped}
        return self.replace(unified=unified, **changes)

    def apply(self, cgroup: Cgroup) -> None:
        """Write every limit that is set, to a cgroup without processes. For one in use there is `update.update`.

        Raises ControllerMissing, BadInput or NotFound with the file named.
        """
        self.validate()
        for name, text in self.files():
            write_limit(cgroup, name, text)

    def files(self) -> Iterator[tuple[str, str]]:
        """The writes that `apply` makes, in order.

        cpuset comes before memory, so that pages are charged to the right nodes; high before max, so that the kernel
        reclaims before it kills; the quota before what of it may be saved up; `unified` last: it overrides, as the OCI
        runtime-spec has it.
        """
        idle, weight = _optional(self.cpu_idle), _optional(self.cpu_weight)
        simple = {
            "cpuset.cpus": self.cpuset_cpus,
            "cpuset.mems": self.cpuset_mems,
            "memory.low": _optional(self.memory_low),
            "memory.high": _optional(self.memory_high),
            "memory.max": _optional(self.memory_max),
            "memory.swap.max": _optional(self.swap_max),
            "cpu.idle": idle,
            # An idle group's weight is below all weights: the kernel refuses another, and forgets it when idle ends.
            "cpu.weight": None if self.cpu_idle == 1 else weight,
            "cpu.max": self._cpu_max(),
            "cpu.max.burst": _optional(self.cpu_burst_us),
            "pids.max": _optional(self.pids_max),
            "io.bfq.weight": _optional(self.io_weight),
        }
        yield from ((name, text) for name, text in simple.items() if text is not None)
        for device in self.io_device_weights:
            yield "io.bfq.weight", f"{device.major}:{device.minor} {device.weight}"
        yield from (("io.max", device.line()) for device in self.io_max)
        for size, limit in self.hugetlb.items():
            yield f"hugetlb.{size}.max", _value(limit)
            yield f"hugetlb.{size}.rsvd.max", _value(limit)
        yield from (("rdma.max", adapter.line()) for adapter in self.rdma)
        for name, text in self.unified.items():
            # io.max and its like take one device a write.
            yield from ((name, line) for line in text.splitlines() or [""])

    def validate(self) -> None:
        """Raise BadInput for what the kernel would refuse with a bare EINVAL, or take and then not mean."""
        for name in ("memory_max", "memory_high", "memory_low", "swap_max", "pids_max"):
            value = getattr(self, name)
            if value is not None and value < MAX:
                raise BadInput(f'{name} "{value}" is negative', remedy="give 0 or more, or -1 for no limit")
        _check_range("cpu weight", self.cpu_weight, 1, 10000, "; 100 is the default")
        _check_range("cpu period", self.cpu_period_us, 1000, 1_000_000, " µs")
        _check_range("cpu idle", self.cpu_idle, 0, 1, "")
        _check_range("io weight", self.io_weight, 10, 1000, "")
        for device in self.io_device_weights:
            _check_range(f"io weight of {device.major}:{device.minor}", device.weight, 10, 1000, "")
        if self.cpu_quota_us is not None and self.cpu_quota_us != MAX and self.cpu_quota_us < 1000:
            raise BadInput(
                f'cpu quota "{self.cpu_quota_us}" µs is too small', remedy="the kernel takes 1000 µs or more"
            )
        if (self.cpu_burst_us or 0) > (self.cpu_quota_us or 0) >= 0 and self.cpu_quota_us is not None:
            raise BadInput(
                f'cpu burst "{self.cpu_burst_us}" µs is more than the quota "{self.cpu_quota_us}"',
                remedy="it is saved up from the quota: give at most as much",
            )
        for name in self.unified:
            _check_unified(name)

    def _cpu_max(self) -> str | None:
        if self.cpu_quota_us is None and self.cpu_period_us is None:
            return None
        quota = _value(MAX if self.cpu_quota_us is None else self.cpu_quota_us)
        return quota if self.cpu_period_us is None else f"{quota} {self.cpu_period_us}"


_CONTROLLER_OF_FIELD = {
    "memory_max": "memory",
    "memory_high": "memory",
    "memory_low": "memory",
    "swap_max": "memory",
    "memory_check": "memory",
    "cpu_quota_us": "cpu",
    "cpu_period_us": "cpu",
    "cpu_burst_us": "cpu",
    "cpu_weight": "cpu",
    "cpu_idle": "cpu",
    "cpuset_cpus": "cpuset",
    "cpuset_mems": "cpuset",
    "pids_max": "pids",
    "io_weight": "io",
    "io_device_weights": "io",
    "io_max": "io",
    "hugetlb": "hugetlb",
    "rdma": "rdma",
}


def write_limit(cgroup: Cgroup, name: str, text: str) -> None:
    """Write one line of `Limits.files`, in the form that this kernel has for it.

    io.bfq.weight is there with the BFQ scheduler only; io.weight, of the cost model, means the same on another scale.
    Without swap (or swap accounting) there is no memory.swap.max, and neither no limit nor no swap has to be written.
    Reservations of huge pages are limited from Linux 5.7 on (hugetlb.SIZE.rsvd.max).
    """
    if name == "io.bfq.weight" and not os.path.exists(cgroup.file(name)):
        device, _, weight = text.rpartition(" ")
        name, text = "io.weight", f"{device or 'default'} {io_weight_from_bfq(int(weight))}"
        if not os.path.exists(cgroup.file(name)) and os.path.exists(cgroup.file("io.max")):
            raise NotSupported(
                f'no io weight can be set on "{cgroup}"', remedy="load the bfq module, or CONFIG_BLK_CGROUP_IOCOST"
            )
    optional = name.endswith(".rsvd.max") or (name == "memory.swap.max" and text in ("0", "max"))
    if optional and not os.path.exists(cgroup.file(name)):
        # The controller itself is another matter: its absence is an error of the file beside.
        name_beside = "memory.max" if name.startswith("memory.") else name.replace(".rsvd", "")
        if os.path.exists(cgroup.file(name_beside)):
            return
    write(cgroup.file(name), text)


def controller_of(file_name: str) -> str:
    """The controller a limit's file belongs to: "memory" of "memory.swap.max"; "" for the core's own, "cgroup.*"."""
    controller = file_name.partition(".")[0]
    return "" if controller == "cgroup" else controller


def weight_from_shares(shares: int) -> int:
    """cpu.weight for cpu.shares of the OCI runtime-spec (2 to 262144, 1024 the default); 0 means the default, 100.

    The curve of runc 1.3 and crun 1.23, which maps the smallest, the default and the largest value onto each other.
    """
    if shares == 0:
        return 100
    import math

    log = math.log2(min(max(shares, 2), 262144))
    return max(1, min(10000, math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))))


def io_weight_from_bfq(weight: int) -> int:
    """io.weight (1 to 10000) for a weight of BFQ or cgroup v1 (10 to 1000), linearly as runc and crun have it."""
    return 1 + (max(weight, 10) - 10) * 9999 // 990


def swap_alone(memory_and_swap: int | None, memory: int | None) -> int | None:
    """memory.swap.max for the OCI runtime-spec's memory.swap, which counts memory and swap together as v1 did.

    0 and None leave swap as it is, but for memory without a limit, which v1 could not have beside a limit of both.
    """
    if not memory_and_swap:
        return MAX if memory == MAX else None
    if memory_and_swap == MAX or memory == MAX:
        return memory_and_swap
    if not memory:
        raise BadInput(f'swap limit "{memory_and_swap}" without a memory limit', remedy="set both, or neither")
    if memory_and_swap < memory:
        raise BadInput(
            f'swap limit "{memory_and_swap}" is below the memory limit "{memory}"', remedy="it counts both together"
        )
    return memory_and_swap - memory


def _check_range(what: str, value: int | None, low: int, high: int, more: str) -> None:
    if value is not None and not low <= value <= high:
        raise BadInput(f'{what} "{value}" is out of range', remedy=f"give {low} to {high}{more}")


def _check_unified(name: str) -> None:
    if "/" in name or "." not in name.strip("."):
        raise BadInput(f'unified "{name}" is not a cgroup file', remedy='give names like "memory.high"')
    if not controller_of(name) and name not in _CORE_FILES:
        raise BadInput(f'unified "{name}" is rawpod\'s own to write', remedy="set files of controllers only")


def _value(number: int) -> str:
    return "max" if number == MAX else str(number)


def _optional(number: int | None) -> str | None:
    return None if number is None else _value(number)
