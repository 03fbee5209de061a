"""The resources part of the OCI runtime-spec: what a container's cgroup is limited to (config-linux.md)."""

from __future__ import annotations

from runtime.spec_codec import SpecStruct


class DeviceRule(SpecStruct):
    """An entry of the device controller's list."""

    allow: bool
    type: str = ""
    major: int | None = None
    minor: int | None = None
    access: str = ""


class Memory(SpecStruct):
    """Memory limits in bytes; -1 is unlimited. `swap` is memory and swap together, as on cgroup v1."""

    _names = {"kernel_tcp": "kernelTCP", "disable_oom_killer": "disableOOMKiller"}

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class CPU(SpecStruct):
    """CPU limits: quota and period in microseconds, shares on the scale of cgroup v1 (2 to 262144)."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class Pids(SpecStruct):
    """The largest number of tasks; 0 or -1 is unlimited."""

    limit: int


class WeightDevice(SpecStruct):
    """A device's share of the disk's time."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(SpecStruct):
    """A device's limit, in bytes or operations a second."""

    major: int
    minor: int
    rate: int


class BlockIO(SpecStruct):
    """Disk limits (config-linux.md, section Block IO)."""

    _names = {
        "throttle_read_iops_device": "throttleReadIOPSDevice",
        "throttle_write_iops_device": "throttleWriteIOPSDevice",
    }

    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: list[WeightDevice] = []
    throttle_read_bps_device: list[ThrottleDevice] = []
    throttle_write_bps_device: list[ThrottleDevice] = []
    throttle_read_iops_device: list[ThrottleDevice] = []
    throttle_write_iops_device: list[ThrottleDevice] = []


class HugepageLimit(SpecStruct):
    """A limit in bytes for one size of huge pages."""

    page_size: str
    limit: int


class InterfacePriority(SpecStruct):
    """An interface's priority (cgroup v1's net_prio)."""

    name: str
    priority: int


class NetworkResources(SpecStruct):
    """cgroup v1's net_cls and net_prio."""

    _names = {"class_id": "classID"}

    class_id: int | None = None
    priorities: list[InterfacePriority] = []


class Rdma(SpecStruct):
    """Limits of one RDMA device."""

    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(SpecStruct):
    """What the container's cgroup is limited to; `unified` is written to cgroup v2 files as it stands."""

    _names = {"block_io": "blockIO"}

    devices: list[DeviceRule] = []
    memory: Memory | None = None
    cpu: CPU | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = None
    hugepage_limits: list[HugepageLimit] = []
    network: NetworkResources | None = None
    rdma: dict[str, Rdma] = {}
    unified: dict[str, str] = {}
