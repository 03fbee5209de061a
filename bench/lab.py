"""What the benchmarks share: a host of their own, a supervisor in it, and how figures are shown."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgroups.hierarchy import find
from kernel import mounts, process

RAWPOD = Path(__file__).resolve().parent.parent / ".venv/bin/rawpod"


def own_host() -> None:
    """Move into mount and network namespaces of our own, so that nothing here touches the machine's."""
    process.unshare(process.CLONE_NEWNS | process.CLONE_NEWNET)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    hierarchy = find()
    if hierarchy.hybrid:
        # crun and runc look for the v2 hierarchy in this place alone.
        mounts.mount(hierarchy.mount, "/sys/fs/cgroup", None, mounts.MS_BIND)


@contextlib.contextmanager
def instance() -> Iterator[Path]:
    """Roots of our own in the environment, for every rawpod that is run inside."""
    home = Path(tempfile.mkdtemp(prefix="rp-bench-"))
    os.environ |= {
        "RAWPOD_ROOT": str(home / "root"),
        "RAWPOD_STATE": str(home / "state"),
        "RAWPOD_BRIDGE": "rawpod-bench",
        "RAWPOD_SUBNET": "10.231.0.0/16",
        "RAWPOD_CGROUP": f"/rawpod-bench-{os.getpid()}",
        "RAWPOD_MISSING_CONTROLLERS": "warn",
        "RAWPOD_INTERNAL": "1",
    }
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def supervisor(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor that is ready, and that ends its pods when it is ended."""
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.bind(str(home / "notify"))
    ready.settimeout(120)
    environment = {**os.environ, "NOTIFY_SOCKET": str(home / "notify")}
    with open(home / "supervisor.log", "w") as log:
        daemon = subprocess.Popen([RAWPOD, "supervisor", "--stop-pods"], env=environment, stdout=log, stderr=log)
        try:
            while b"READY=1" not in ready.recv(4096):
                pass
            yield daemon
        finally:
            daemon.terminate()
            daemon.wait()
            ready.close()


def rawpod(*arguments: str, text: str | None = None) -> str:
    """Run the program; what it printed."""
    done = subprocess.run([RAWPOD, *arguments], input=text, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"rawpod {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def deployment(name: str, replicas: int, command: list[str]) -> str:
    """A manifest of one container a pod."""
    labels = {"app": name}
    container = {"name": "main", "image": "host", "command": command}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    return json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }
    )


def statuses(home: Path) -> list[dict[str, Any]]:
    """The status of every pod, as its monitor wrote it last."""
    return [json.loads(path.read_text()) for path in (home / "state/pods").glob("*/status.json")]


def wait_running(home: Path, count: int) -> list[dict[str, Any]]:
    """Until that many pods run; their statuses."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        found = [status for status in statuses(home) if status["phase"] == "Running"]
        if len(found) == count:
            return found
        time.sleep(0.02)
    raise SystemExit(f"{len(found)} of {count} pods run after 300 s")


def seconds(command: list[str | Path], runs: int, expect: int = 0) -> list[float]:
    """Whole-process wall times, after one run that is not counted."""
    times = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        times.append(time.perf_counter() - began)
        if done.returncode != expect:
            raise SystemExit(f"{command}: status {done.returncode}: {done.stderr.decode()}")
    return times[1:]


def show(what: str, times: list[float]) -> None:
    """One line of figures, in milliseconds."""
    ordered = sorted(1000 * value for value in times)
    p99 = ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))]
    print(
        f"{what:44} p50 {statistics.median(ordered):8.1f} ms  p99 {p99:8.1f} ms  "
        f"min {ordered[0]:8.1f} ms  n {len(ordered)}",
        flush=True,
    )


def machine() -> str:
    """One line about where this is measured."""
    name = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return f"{name}, Linux {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
