"""podman with systemd as its cgroup manager, as Debian sets it up, on rawpod-oci and on crun."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.callers import IMAGE, RAWPOD_OCI, Podman

CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(params=[str(RAWPOD_OCI), "crun"], ids=["rawpod-oci", "crun"])
def podman(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Podman]:
    if not Path("/run/systemd/system").is_dir() or os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip("needs systemd as PID 1, podman, and root")
    busybox = shutil.which("busybox")
    assert busybox is not None
    made = Podman(request.param, tmp_path, Path(busybox))
    made.words += ["--cgroup-manager", "systemd"]
    yield made
    made("rm", "--all", "--force", "--time", "0")
    assert scopes() == []


def scopes() -> list[str]:
    """The scopes of podman's containers that systemd knows."""
    listed = subprocess.check_output(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", "libpod-*"], text=True
    )
    return [line.split()[0] for line in listed.splitlines() if "conmon" not in line]


def test_a_container_is_a_scope_with_its_limits_until_it_is_removed(podman: Podman) -> None:
    limits = ("--memory", "64m", "--memory-swap", "64m", "--pids-limit", "30", "--cpus", "0.5", "--cpuset-cpus", "0")
    identity = podman.detached("a", *limits, IMAGE, "sleep", "1000")
    assert scopes() == [f"libpod-{identity}.scope"]
    scope = CGROUPS / f"machine.slice/libpod-{identity}.scope"
    # podman has crun's containers in a cgroup of their own below the scope.
    (place,) = (path.parent for path in scope.rglob("cgroup.procs") if path.read_text())
    values = {name: (scope / name).read_text().strip() for name in ("memory.max", "cpuset.cpus")}
    assert values == {"memory.max": str(64 << 20), "cpuset.cpus": "0"}
    if podman.runtime != "crun":  # crun 1.21 gives a scope as much swap as both together
        assert (scope / "memory.swap.max").read_text() == "0\n"
    assert (scope / "cpu.max").read_text() == "50000 100000\n"
    assert (scope / "pids.max").read_text() == "30\n"
    assert podman("exec", "a", "cat", "/proc/self/cgroup").stdout.startswith("0::/")
    podman("update", "--memory", "96m", "--memory-swap", "96m", "a")
    assert (scope / "memory.max").read_text() == f"{96 << 20}\n"
    podman("pause", "a")
    assert "frozen 1" in (place / "cgroup.events").read_text()
    podman("unpause", "a")
    podman("rm", "--force", "--time", "0", "a")
    assert scopes() == []
    assert not scope.exists()


def test_it_runs_to_its_end_and_leaves_no_scope(podman: Podman) -> None:
    assert podman.box("echo out; exit 7", check=7) == "out"
    assert scopes() == []


def test_a_pods_containers_are_below_its_slice(podman: Podman) -> None:
    podman("pod", "create", "--name", "p", "--infra=false")
    podman("run", "-d", "--pod", "p", "--name", "b", IMAGE, "sleep", "1000")
    pid = podman("inspect", "--format", "{{.State.Pid}}", "b").stdout.strip()
    path = Path(f"/proc/{pid}/cgroup").read_text().strip()
    assert path.startswith("0::/machine.slice/machine-libpod_pod_")
    podman("pod", "rm", "--force", "--time", "0", "p")
