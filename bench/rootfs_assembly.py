"""What assembling a container's root costs: overlay, the usual mounts, binds, masks, pivot_root. Medians in µs.

As root: .venv/bin/python bench/rootfs_assembly.py [TIMES [DIRECTORY]]
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from kernel.operation import Assembly, Operation
from kernel.pidfd import wait_pidfd
from kernel.process import CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, clone3
from rootfs import host, overlay
from rootfs.mounts import MakePropagation, Mask, OverlayRoot, PivotRoot, ReadOnly, from_oci

_FLAGS = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWCGROUP
_QUIET = ["nosuid", "noexec", "nodev"]
_PTS = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
_MOUNTS = (
    ("/proc", "proc", "proc", _QUIET),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", _PTS),
    ("/dev/shm", "tmpfs", "shm", [*_QUIET, "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", _QUIET),
    ("/sys", "sysfs", "sysfs", [*_QUIET, "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", [*_QUIET, "ro"]),
)
_FILES = ("hosts", "hostname", "resolv.conf")
_MASKED = "acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats"
_READ_ONLY = "bus fs irq sys sysrq-trigger"


def plan(image: host.HostImage, upper: overlay.UpperDirectories) -> list[Operation]:
    """The operations of an ordinary container of the host image."""
    binds = [from_oci(bind.destination, "bind", bind.source, ["rbind", "rro", "rnodev"]) for bind in image.binds]
    files = [from_oci(f"/etc/{name}", "bind", str(image.root / "etc" / name), ["bind", "ro"]) for name in _FILES]
    return [
        MakePropagation(),
        OverlayRoot((str(image.root),), *upper),
        *(from_oci(*mount) for mount in _MOUNTS),
        *binds,
        *files,
        *(ReadOnly(f"/proc/{name}") for name in _READ_ONLY.split()),
        *(Mask(f"/proc/{name}") for name in _MASKED.split()),
        Mask("/sys/firmware"),
        PivotRoot(),
    ]


def once(operations: list[Operation]) -> list[float]:
    """Seconds that each operation took in a new process."""
    read, write = os.pipe()
    child = clone3(_FLAGS)
    if child.pid == 0:
        assembly, times = Assembly(), []
        for operation in operations:
            begun = time.perf_counter()
            operation.execute(assembly)
            times.append(time.perf_counter() - begun)
        os.write(write, json.dumps(times).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    wait_pidfd(child.pidfd)
    os.close(child.pidfd)
    times = json.loads(text)
    return [float(seconds) for seconds in times]


def main() -> None:
    """Measure and print."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as home:
        image = host.ensure(Path(home, "images"))
        gc.freeze()
        rows: list[list[float]] = []
        for number in range(times):
            name = f"c{number}"
            operations = plan(image, overlay.create_upper(Path(home, "overlay"), name))
            rows.append(once(operations))
            overlay.remove_upper(Path(home, "overlay"), name)
    for operation, column in zip(operations, zip(*rows, strict=True), strict=True):
        print(f"{statistics.median(column) * 1e6:7.0f}  {operation.describe()[:100]}")
    totals = sorted(map(sum, rows))
    p99 = totals[min(len(totals) - 1, int(len(totals) * 0.99))]
    print(f"{statistics.median(totals) * 1e6:7.0f}  all of it (best {totals[0] * 1e6:.0f}, p99 {p99 * 1e6:.0f})")


if __name__ == "__main__":
    main()
