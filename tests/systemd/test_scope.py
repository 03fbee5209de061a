"""Containers as transient scopes, where systemd is PID 1 and owns the cgroups."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SYSTEMD = Path("/run/systemd/system")
RUNTIME = Path(sys.executable).with_name("rawpod-oci")
NAME = "t1"


class Container:
    """A bundle, and the runtime pointed at it with --systemd-cgroup."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bundle = home / "bundle"
        busybox = shutil.which("busybox")
        assert busybox is not None
        for directory in ("bin", "proc", "dev", "sys"):
            (self.bundle / "rootfs" / directory).mkdir(parents=True)
        shutil.copy(busybox, self.bundle / "rootfs/bin/busybox")
        (self.bundle / "rootfs/bin/sh").symlink_to("busybox")

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [str(RUNTIME), "--root", str(self.home / "state"), "--systemd-cgroup", *words]
        # Not a pipe: the container's process keeps it open.
        with open(self.home / "out", "w+") as out:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=120)
            out.seek(0)
            text = out.read()
        assert not check or done.returncode == 0, text
        return subprocess.CompletedProcess(command, done.returncode, text)

    def describe(self, path: str = "machine.slice:rp:t1", *args: str, **linux: Any) -> None:
        annotations = linux.pop("annotations", {})
        config = {
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": list(args or ("busybox", "sleep", "1000"))},
            "annotations": annotations,
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "cgroupsPath": path,
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "cgroup", "ipc", "uts")],
                **linux,
            },
        }
        sets = {kind: ["CAP_MKNOD"] for kind in ("bounding", "effective", "permitted")}
        config["process"] |= {"env": ["PATH=/bin"], "capabilities": sets}  # type: ignore[operator]
        (self.bundle / "config.json").write_text(json.dumps(config))

    def create(self) -> int:
        self("create", "--bundle", str(self.bundle), "--pid-file", str(self.home / "pid"), NAME)
        return int((self.home / "pid").read_text())


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    if not SYSTEMD.is_dir() or os.geteuid() != 0:
        pytest.skip("needs systemd as PID 1, and root")
    made = Container(tmp_path)
    yield made
    made("delete", "--force", NAME)
    assert unit("rp-t1.scope", "LoadState") == "not-found"


def unit(name: str, *properties: str) -> str:
    """Properties of a unit, joined by spaces."""
    asked = [f"--property={name}" for name in properties]
    return " ".join(subprocess.check_output(["systemctl", "show", "--value", *asked, name], text=True).split())


def text(name: str, directory: str = "machine.slice/rp-t1.scope") -> str:
    return (Path("/sys/fs/cgroup") / directory / name).read_text().strip()


def test_a_container_is_a_delegated_scope_in_its_slice(container: Container) -> None:
    container.describe()
    pid = container.create()
    assert unit("rp-t1.scope", "ActiveState") == "active"
    assert unit("rp-t1.scope", "Slice") == "machine.slice"
    assert unit("rp-t1.scope", "Delegate") == "yes"
    assert text("cgroup.procs").split() == [str(pid)]
    assert Path(f"/proc/{pid}/cgroup").read_text() == "0::/machine.slice/rp-t1.scope\n"
    container("start", NAME)
    assert json.loads(container("state", NAME).stdout)["status"] == "running"
    container("kill", NAME, "KILL")


def test_its_own_cgroup_is_the_root_of_what_it_sees(container: Container) -> None:
    container.describe("machine.slice:rp:t1", "sh", "-c", "busybox cat /proc/self/cgroup")
    assert container("run", "--bundle", str(container.bundle), NAME).stdout == "0::/\n"


def test_without_a_path_it_is_in_the_system_slice_and_goes_with_its_end(container: Container) -> None:
    container.describe("", "busybox", "true")
    container("run", "--bundle", str(container.bundle), NAME)
    assert unit("rawpod-t1.scope", "LoadState") == "not-found"
    assert not Path("/sys/fs/cgroup/system.slice/rawpod-t1.scope").exists()


def test_limits_are_the_units_and_exact_in_the_files(container: Container) -> None:
    resources = {
        "memory": {"limit": 64 << 20, "swap": 64 << 20, "reservation": 8 << 20},
        "cpu": {"quota": 33_333, "period": 50_000, "shares": 2048, "cpus": "0", "burst": 1000},
        "pids": {"limit": 50},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        "unified": {"memory.high": str(48 << 20)},
    }
    container.describe(resources=resources)
    container.create()
    asked = ("MemoryMax", "MemoryHigh", "MemoryLow", "MemorySwapMax", "TasksMax", "AllowedCPUs")
    assert unit("rp-t1.scope", *asked).split() == ["0", *map(str, (8 << 20, 48 << 20, 64 << 20, 0, 50))] or {
        unit("rp-t1.scope", name) for name in asked
    } == {"0", str(8 << 20), str(48 << 20), str(64 << 20), "50"}
    expected = {
        "memory.max": str(64 << 20),
        "memory.high": str(48 << 20),
        "memory.low": str(8 << 20),
        "memory.swap.max": "0",
        "cpu.max": "33333 50000",
        "cpu.max.burst": "1000",
        "pids.max": "50",
        "cpuset.cpus": "0",
        "hugetlb.2MB.max": "0",
    }
    assert {name: text(name) for name in expected} == expected
    # A reload makes systemd write what it knows once more, a quota in whole percents with some versions.
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert text("cpu.max") in ("33333 50000", "33500 50000")
    del expected["cpu.max"]
    assert {name: text(name) for name in expected} == expected


def test_an_update_is_told_to_systemd_and_exact(container: Container) -> None:
    container.describe(resources={"cpu": {"quota": 20_000, "period": 100_000}, "memory": {"limit": 64 << 20}})
    container.create()
    container("start", NAME)
    container("update", "--cpu-quota", "33333", "--memory", "96m", "--pids-limit", "20", NAME)
    assert (text("cpu.max"), text("memory.max"), text("pids.max")) == ("33333 100000", str(96 << 20), "20")
    assert unit("rp-t1.scope", "MemoryMax") == str(96 << 20)
    container("kill", NAME, "KILL")


def test_devices_are_restricted_also_after_a_reload(container: Container) -> None:
    # Fails (zero is read) without RestrictDevices among what the parent is asked for.
    nodes = "busybox mknod /dev/zero c 1 5; busybox mknod /dev/mem c 1 1"
    script = f"{nodes}; (: < /dev/zero) && echo zero; (: < /dev/mem) || echo refused"
    container.describe(
        "machine.slice:rp:t1", "sh", "-c", script, resources={"devices": [{"allow": False, "access": "rwm"}]}
    )
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    printed = container("run", "--bundle", str(container.bundle), NAME).stdout.split("\n")
    assert "zero" in printed
    assert "refused" in printed


def test_annotations_are_properties_of_the_unit(container: Container) -> None:
    container.describe(annotations={"org.systemd.property.TimeoutStopSec": "uint64 7"})
    container.create()
    assert unit("rp-t1.scope", "TimeoutStopUSec") == "7s"


def test_a_property_that_systemd_refuses_is_its_error_and_leaves_nothing(container: Container) -> None:
    container.describe(annotations={"org.systemd.property.NoSuchThing": "true"})
    done = container("create", "--bundle", str(container.bundle), NAME, check=False)
    assert done.returncode != 0
    assert "NoSuchThing" in done.stdout
    assert not Path("/sys/fs/cgroup/machine.slice/rp-t1.scope").exists()


def test_a_unit_that_is_there_already_is_a_conflict_and_lives_on(container: Container) -> None:
    other = subprocess.Popen(["systemd-run", "--scope", "--slice=machine.slice", "--unit=rp-t1.scope", "sleep", "1000"])
    try:
        while unit("rp-t1.scope", "ActiveState") != "active":
            assert other.poll() is None
        container.describe()
        done = container("create", "--bundle", str(container.bundle), NAME, check=False)
        assert 'systemd unit "rp-t1.scope" exists' in done.stdout
        assert unit("rp-t1.scope", "ActiveState") == "active"
    finally:
        other.kill()
        other.wait()
        subprocess.run(["systemctl", "stop", "rp-t1.scope"], stderr=subprocess.DEVNULL, check=False)
