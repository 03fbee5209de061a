"""`update`: change the limits of a container."""

from __future__ import annotations

import sys

from cgroups.cgroup import Cgroup
from kernel.errors import BadInput, Conflict
from runtime import spec, spec_codec
from runtime.limits import update_cgroup
from runtime.oci.options import Option
from runtime.oci.state import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.oci.main import Invocation
    from runtime.oci.options import Parsed

OPTIONS = (
    Option("--resources -r", "FILE", "linux.resources as JSON; - reads standard input"),
    Option("--blkio-weight", "N", "share of disk time, 10 to 1000"),
    Option("--cpu-period", "US", "length of a period of CPU time in microseconds"),
    Option("--cpu-quota", "US", "CPU time in a period, over all processors; -1 is unlimited"),
    Option("--cpu-burst", "US", "CPU time that may be saved up"),
    Option("--cpu-share --cpu-shares", "N", "share of a full machine, 2 to 262144"),
    Option("--cpu-idle", "0|1", "1: run only when nothing else wants to"),
    Option("--cpu-rt-period", "US", "refused: cgroup v2 has no realtime limits"),
    Option("--cpu-rt-runtime", "US", "refused: cgroup v2 has no realtime limits"),
    Option("--cpuset-cpus", "LIST", "processors"),
    Option("--cpuset-mems", "LIST", "memory nodes"),
    Option("--memory", "BYTES", "memory limit; k, m and g may follow"),
    Option("--memory-reservation", "BYTES", "memory kept from reclaim"),
    Option("--memory-swap", "BYTES", "memory and swap together; -1 is unlimited"),
    Option("--pids-limit", "N", "largest number of tasks; -1 is unlimited"),
    Option("--l3-cache-schema", "SCHEMA", "refused: changed by intelRdt at creation only"),
    Option("--mem-bw-schema", "SCHEMA", "refused: changed by intelRdt at creation only"),
)
WORDS = "[OPTIONS] ID"
IN_ORDER = False

_REFUSED = ("--cpu-rt-period", "--cpu-rt-runtime", "--l3-cache-schema", "--mem-bw-schema")
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def run(invocation: Invocation) -> int:
    """Set what is given; the rest stays."""
    container_id = invocation.container_id()
    invocation.no_more_words(1)
    resources = _resources(invocation.parsed)
    record = current(invocation.directory(container_id))
    if not record.status.can_kill:
        raise Conflict(f"container {container_id!r} is {record.status}, not running")
    if not record.cgroup:
        raise Conflict(f"container {container_id!r} has no cgroup of its own")
    update_cgroup(Cgroup(record.cgroup), resources, record.scope)
    return 0


def _resources(parsed: Parsed) -> spec.Resources:
    for name in _REFUSED:
        if name in parsed.values:
            raise BadInput(f"option {name} is not supported")
    if path := parsed.text("--resources"):
        return spec_codec.loads(spec.Resources, _read(path), "resources")
    cpu = spec.CPU(
        period=_optional(parsed, "--cpu-period"),
        quota=_optional(parsed, "--cpu-quota"),
        burst=_optional(parsed, "--cpu-burst"),
        shares=_optional(parsed, "--cpu-share"),
        idle=_optional(parsed, "--cpu-idle"),
        cpus=parsed.text("--cpuset-cpus"),
        mems=parsed.text("--cpuset-mems"),
    )
    memory = spec.Memory(
        limit=_bytes(parsed, "--memory"),
        reservation=_bytes(parsed, "--memory-reservation"),
        swap=_bytes(parsed, "--memory-swap"),
    )
    resources = spec.Resources(
        cpu=cpu if cpu != spec.CPU() else None, memory=memory if memory != spec.Memory() else None
    )
    if "--pids-limit" in parsed.values:
        resources.pids = spec.Pids(parsed.number("--pids-limit"))
    if "--blkio-weight" in parsed.values:
        resources.block_io = spec.BlockIO(weight=parsed.number("--blkio-weight"))
    return resources


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise BadInput(f"no file {path!r}") from None


def _optional(parsed: Parsed, name: str) -> int | None:
    return parsed.number(name) if name in parsed.values else None


def _bytes(parsed: Parsed, name: str) -> int | None:
    text = parsed.text(name).lower().removesuffix("b")
    if not text:
        return None
    unit = _UNITS.get(text[-1], 1)
    number = text[:-1] if text[-1] in _UNITS else text
    try:
        return int(number, 10) * unit
    except ValueError:
        raise BadInput(f"option {name}: {parsed.text(name)!r} is no number of bytes") from None
