"""What containers use, as rows of a table and as JSON."""

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cgroups import stats
from cgroups.cgroup import Cgroup
from kernel.errors import NotFound
from runtime.pod.directory import pod_name

HEADING = ("NAME", "CPU TIME", "CPU %", "MEMORY", "LIMIT", "PIDS", "READ", "WRITTEN")


@dataclass(frozen=True, slots=True)
class Reading:
    """One container's figures; `time` is CLOCK_MONOTONIC in seconds."""

    name: str
    uid: str
    container: str
    time: float
    stats: stats.Stats

    @property
    def key(self) -> str:
        return f"{self.uid}/{self.container}"

    @property
    def cpu_us(self) -> int:
        return self.stats.cpu.usage_us if self.stats.cpu else 0

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "uid": self.uid, "container": self.container, "stats": self.stats.to_json()}

    def row(self, before: Mapping[str, tuple[float, int]]) -> tuple[str, ...]:
        """The cells below HEADING; the CPU share since the reading in `before`, "-" for the first one."""
        memory, pids, io = self.stats.memory, self.stats.pids, self.stats.io
        share = "-"
        if self.key in before:
            then, used = before[self.key]
            share = f"{(self.cpu_us - used) / 1e4 / max(self.time - then, 1e-9):.1f}"
        return (
            self.name,
            f"{self.cpu_us / 1e6:.2f}s" if self.stats.cpu else "-",
            share,
            size(memory.current) if memory else "-",
            (size(memory.max) if memory.max >= 0 else "none") if memory else "-",
            str(pids.current) if pids else "-",
            size(sum(device.rbytes for device in io.values())) if io is not None else "-",
            size(sum(device.wbytes for device in io.values())) if io is not None else "-",
        )


def read_all(statuses: Mapping[str, Mapping[str, Any]], chosen: Iterable[str]) -> list[Reading]:
    """A reading of every running container, of the pods in `chosen` only where there are any."""
    wanted = set(chosen)
    readings = []
    for uid, status in statuses.items():
        containers = status["rawpod"]["containers"]
        for container, facts in containers.items():
            if not facts["pid"] or (wanted and uid not in wanted):
                continue
            name = pod_name(dict(status)) + (f"/{container}" if len(containers) > 1 else "")
            with contextlib.suppress(NotFound):
                figures = stats.read(Cgroup(facts["cgroup"]))
                readings.append(Reading(name, uid, container, time.monotonic(), figures))
    return readings


def size(number: float) -> str:
    """Bytes for people: 1536 is 1.5KiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            return f"{number:.0f}{unit}" if unit == "B" else f"{number:.1f}{unit}"
        number /= 1024
    raise AssertionError
