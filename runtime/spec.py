"""The container description: OCI runtime-spec 1.2 as types.

Every part of `config.json` for Linux has its type here, also the parts that rawpod does not execute: `runtime.checks`
names those when they are present, so that nothing a user asked for is dropped in silence. Unknown properties are
ignored, as the specification's section on extensibility demands. Other platforms' sections are plain mappings.

rawpod adds one thing of its own: a first mount with destination `/` and type `overlay` (options `lowerdir=`,
`upperdir=`, `workdir=`) is the root filesystem, and takes the place of `root.path`.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/spec.md
"""

from __future__ import annotations

from runtime import spec_codec
from runtime.spec_codec import OCI_VERSION, SpecStruct
from runtime.spec_resources import (
    CPU,
    BlockIO,
    DeviceRule,
    HugepageLimit,
    InterfacePriority,
    Memory,
    NetworkResources,
    Pids,
    Rdma,
    Resources,
    ThrottleDevice,
    WeightDevice,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "CPU",
    "OCI_VERSION",
    "BlockIO",
    "Capabilities",
    "Config",
    "ConsoleSize",
    "Device",
    "DeviceRule",
    "ExecCPUAffinity",
    "Hook",
    "Hooks",
    "HugepageLimit",
    "IDMapping",
    "IOPriority",
    "IntelRdt",
    "InterfacePriority",
    "Linux",
    "Memory",
    "MemoryPolicy",
    "Mount",
    "Namespace",
    "NetDevice",
    "NetworkResources",
    "Personality",
    "Pids",
    "Process",
    "Rdma",
    "Resources",
    "Rlimit",
    "Root",
    "Scheduler",
    "Seccomp",
    "SeccompArg",
    "SeccompSyscall",
    "SpecStruct",
    "ThrottleDevice",
    "TimeOffset",
    "User",
    "WeightDevice",
    "dump",
    "load",
]


class User(SpecStruct):
    """Who the process runs as; all ids are as seen inside the container."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: list[int] = []
    username: str = ""


class Capabilities(SpecStruct):
    """The five capability sets (capabilities(7)), names with the CAP_ prefix."""

    bounding: list[str] = []
    effective: list[str] = []
    inheritable: list[str] = []
    permitted: list[str] = []
    ambient: list[str] = []


class Rlimit(SpecStruct):
    """One limit of setrlimit(2), `type` as RLIMIT_NOFILE."""

    type: str
    soft: int
    hard: int


class ConsoleSize(SpecStruct):
    """The terminal's size in characters."""

    height: int
    width: int


class Scheduler(SpecStruct):
    """sched_setattr(2); runtime, deadline and period in nanoseconds."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: list[str] = []
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IOPriority(SpecStruct):
    """ioprio_set(2)."""

    _names = {"class_": "class"}

    class_: str
    priority: int


class ExecCPUAffinity(SpecStruct):
    """CPU lists for a process that joins a running container."""

    initial: str = ""
    final: str = ""


class Process(SpecStruct):
    """The process that is executed in the container (config.md, section Process)."""

    _names = {"io_priority": "ioPriority", "exec_cpu_affinity": "execCPUAffinity"}

    cwd: str
    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User = User()
    args: list[str] = []
    command_line: str = ""
    env: list[str] = []
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] = []
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    io_priority: IOPriority | None = None
    exec_cpu_affinity: ExecCPUAffinity | None = None


class Root(SpecStruct):
    """The root filesystem: a directory of the host, absolute or relative to the bundle."""

    path: str
    readonly: bool = False


class IDMapping(SpecStruct):
    """A range of user or group ids of a user namespace (user_namespaces(7))."""

    _names = {"container_id": "containerID", "host_id": "hostID"}

    container_id: int
    host_id: int
    size: int


class Mount(SpecStruct):
    """A mount below the root; an empty type together with the option `bind` or `rbind` is a bind mount."""

    destination: str
    type: str = ""
    source: str = ""
    options: list[str] = []
    uid_mappings: list[IDMapping] = []
    gid_mappings: list[IDMapping] = []


class Hook(SpecStruct):
    """A program to run at a point of the container's life; timeout in seconds.

    Without `env` it has the environment of who runs it: the runtime's, and for startContainer the process's.
    """

    path: str
    args: list[str] = []
    env: list[str] | None = None
    timeout: int | None = None


class Hooks(SpecStruct):
    """All points at which programs can be run (config.md, section POSIX-platform Hooks)."""

    prestart: list[Hook] = []
    create_runtime: list[Hook] = []
    create_container: list[Hook] = []
    start_container: list[Hook] = []
    poststart: list[Hook] = []
    poststop: list[Hook] = []


class Namespace(SpecStruct):
    """A namespace: new without a path, joined with one (namespaces(7))."""

    type: str
    path: str = ""


class Device(SpecStruct):
    """A device node; the file mode is a number, not an octal string."""

    path: str
    type: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class SeccompArg(SpecStruct):
    """A condition on a system call's argument."""

    index: int
    value: int
    op: str
    value_two: int = 0


class SeccompSyscall(SpecStruct):
    """What happens on a group of system calls."""

    names: list[str]
    action: str
    errno_ret: int | None = None
    args: list[SeccompArg] = []


class Seccomp(SpecStruct):
    """A seccomp filter (seccomp(2))."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] = []
    flags: list[str] = []
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: list[SeccompSyscall] = []


class IntelRdt(SpecStruct):
    """Intel's resource director."""

    _names = {
        "clos_id": "closID",
        "l3_cache_schema": "l3CacheSchema",
        "enable_cmt": "enableCMT",
        "enable_mbm": "enableMBM",
    }

    clos_id: str = ""
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    schemata: list[str] = []
    enable_monitoring: bool = False
    enable_cmt: bool = False
    enable_mbm: bool = False


class Personality(SpecStruct):
    """personality(2)."""

    domain: str
    flags: list[str] = []


class NetDevice(SpecStruct):
    """A network device of the host that moves into the container; its name there, "" for the same (version 1.3)."""

    name: str = ""


class MemoryPolicy(SpecStruct):
    """set_mempolicy(2); nodes as a list such as "0-3,7" (version 1.3)."""

    mode: str
    nodes: str = ""
    flags: list[str] = []


class TimeOffset(SpecStruct):
    """The offset of a clock in a time namespace (time_namespaces(7))."""

    secs: int = 0
    nanosecs: int = 0


class Linux(SpecStruct):
    """The Linux part of the configuration (config-linux.md)."""

    namespaces: list[Namespace] = []
    uid_mappings: list[IDMapping] = []
    gid_mappings: list[IDMapping] = []
    time_offsets: dict[str, TimeOffset] = {}
    devices: list[Device] = []
    cgroups_path: str = ""
    resources: Resources | None = None
    rootfs_propagation: str = ""
    seccomp: Seccomp | None = None
    sysctl: dict[str, str] = {}
    masked_paths: list[str] = []
    readonly_paths: list[str] = []
    mount_label: str = ""
    intel_rdt: IntelRdt | None = None
    personality: Personality | None = None
    net_devices: dict[str, NetDevice] = {}
    memory_policy: MemoryPolicy | None = None


class Config(SpecStruct):
    """`config.json`."""

    oci_version: str
    root: Root | None = None
    mounts: list[Mount] = []
    process: Process | None = None
    hostname: str = ""
    domainname: str = ""
    hooks: Hooks | None = None
    annotations: dict[str, str] = {}
    linux: Linux | None = None
    solaris: dict[str, Any] | None = None
    windows: dict[str, Any] | None = None
    vm: dict[str, Any] | None = None
    zos: dict[str, Any] | None = None


def load(data: bytes) -> Config:
    """Decode `config.json`; raises BadInput when it is no JSON or a property has the wrong type."""
    return spec_codec.loads(Config, data, "config.json")


def dump(config: Config) -> bytes:
    """Encode as `config.json`, properties at their default left out."""
    return spec_codec.dumps(config)
