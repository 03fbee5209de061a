"""Containers for tests: a root that holds busybox and nothing else, and what a process in it printed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgroups.cgroup import Cgroup
from cgroups.hierarchy import Hierarchy
from kernel.pidfd import ExitStatus
from runtime import spec
from runtime.container import Container
from runtime.create import create

NAMESPACES = ("mount", "pid", "network", "ipc", "uts", "cgroup")
MOUNTS = (
    spec.Mount("/proc", "proc", "proc"),
    spec.Mount("/dev", "tmpfs", "tmpfs"),
    spec.Mount("/dev/pts", "devpts", "devpts", ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    spec.Mount("/sys", "sysfs", "sysfs", ["ro", "nosuid", "nodev", "noexec"]),
    spec.Mount("/sys/fs/cgroup", "cgroup", "cgroup", ["ro"]),
)


@dataclass
class Box:
    """A directory with a root filesystem, and a cgroup to run containers in."""

    bundle: Path
    probe: Path
    cgroup: Cgroup
    hierarchy: Hierarchy

    @property
    def root(self) -> Path:
        return self.bundle / "rootfs"

    def prepare(self) -> Box:
        for directory in ("bin", "proc", "dev", "sys", "etc", "tmp"):
            (self.root / directory).mkdir(parents=True)
        (self.root / "tmp").chmod(0o1777)
        (self.root / "bin/busybox").write_bytes(self.probe.read_bytes())
        (self.root / "bin/busybox").chmod(0o755)
        os.symlink("busybox", self.root / "bin/sh")
        return self

    def config(self, *args: str, **process: Any) -> spec.Config:
        """A container that runs `args`; keyword arguments are fields of the process."""
        process = {"cwd": "/", "env": ["PATH=/bin"], **process}
        return spec.Config(
            oci_version="1.2.0",
            root=spec.Root("rootfs"),
            process=spec.Process(args=list(args), **process),
            mounts=list(MOUNTS),
            hostname="box",
            linux=spec.Linux(namespaces=[spec.Namespace(kind) for kind in NAMESPACES]),
        )

    def create(
        self, config: spec.Config, stdio: tuple[int, int, int] = (0, 1, 2), container_id: str = "box", **more: Any
    ) -> Container:
        return create(
            container_id,
            config,
            self.bundle,
            cgroup=self.cgroup.child("box"),
            hierarchy=self.hierarchy,
            stdio=stdio,
            state_dir=self.bundle,
            missing_controllers="warn",
            **more,
        )

    def run(self, config: spec.Config) -> tuple[ExitStatus, str]:
        """Run to the end: the exit status, and what was printed (at most a pipe's 64 KiB)."""
        with output() as (write, read), open(os.devnull) as null:
            container = self.create(config, (null.fileno(), write, write))
            try:
                container.start()
            finally:
                status = container.wait()
                container.delete()
            return status, read()

    def shell(self, script: str, **process: Any) -> str:
        """What a shell script printed that succeeded."""
        status, printed = self.run(self.config("sh", "-c", script, **process))
        assert status == ExitStatus(0, 0), printed
        return printed


@contextmanager
def output() -> Iterator[tuple[int, Any]]:
    """A pipe's writing end, and a function that closes it and reads all there is."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    ends = {reading, writing}

    def read() -> str:
        os.close(writing)
        ends.discard(writing)
        with os.fdopen(os.dup(reading), "rb") as file:
            return file.read().decode()

    try:
        yield writing, read
    finally:
        for end in ends:
            os.close(end)
