"""The main job, narrated: a Deployment of a two-container pod, kept at its replica count.

Runs the program itself with roots, a bridge and a cgroup of its own, and takes everything away at the end, also after
Ctrl-C. The pods' network is internal: nothing here can reach beyond this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RAWPOD = HERE.parent / ".venv/bin/rawpod"
PORT = 8080
PATIENCE = float(os.environ.get("RAWPOD_DEMO_PATIENCE", "120"))  # seconds for any one step; an emulated machine is slow


class Failed(Exception):
    """A step did not come to its end."""


def say(text: str = "") -> None:
    print(text, flush=True)


def step(text: str) -> None:
    say(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}")


def rawpod(*arguments: str, show: bool = True) -> str:
    """Run the program; its output is shown as it is, and returned."""
    if show:
        say(f"$ rawpod {' '.join(arguments)}")
    done = subprocess.run([RAWPOD, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise Failed(f"rawpod {' '.join(arguments)} exited with {done.returncode}: {done.stderr.strip()}")
    if show:
        sys.stdout.write(done.stdout + done.stderr)
    return done.stdout


def pods() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(rawpod("get", "pods", "-o", "json", show=False))["items"]
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def wait_for(count: int) -> float:
    """Follow the Deployment until `count` pods, and no others, are ready. The seconds that took."""
    began = time.monotonic()
    watch = subprocess.Popen(
        [RAWPOD, "get", "deployment", "web", "-w", "-o", "json"], stdout=subprocess.PIPE, text=True
    )
    assert watch.stdout is not None
    timer = signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        shown = None
        for deployment in _documents(watch.stdout):
            status = deployment.get("status", {})
            ready, there = status.get("readyReplicas", 0), status.get("replicas", 0)
            if (ready, there) != shown:
                shown = (ready, there)
                bar = "#" * ready + "." * max(0, count - ready)
                say(f"  [{bar}] {ready} of {count} ready after {time.monotonic() - began:.2f} s")
            settled = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
            if settled and ready == there == count:
                return time.monotonic() - began
        raise Failed("the watch ended")
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        watch.kill()
        watch.wait()
        watch.stdout.close()


def _documents(lines: Any) -> Iterator[dict[str, Any]]:
    """JSON documents from a stream in which each may have several lines."""
    decoder, text = json.JSONDecoder(), ""
    for line in lines:
        text += line
        try:
            document, end = decoder.raw_decode(text.lstrip())
        except ValueError:
            continue
        text = text.lstrip()[end:]
        yield document.get("object", document)


@contextlib.contextmanager
def supervisor(home: Path) -> Iterator[int]:
    """The daemon, from the moment it says it is ready until it has ended and its pods with it."""
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.bind(str(home / "notify"))
    ready.settimeout(PATIENCE)
    log = open(home / "supervisor.log", "w")  # noqa: SIM115 - closed below, after the process
    say("$ rawpod supervisor --stop-pods &")
    daemon = subprocess.Popen(
        [RAWPOD, "supervisor", "--stop-pods"],
        env={**os.environ, "NOTIFY_SOCKET": str(home / "notify")},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        while b"READY=1" not in ready.recv(4096):
            pass
        yield daemon.pid
    except TimeoutError:
        raise Failed("the supervisor did not get ready") from None
    finally:
        daemon.terminate()
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        log.close()
        ready.close()


def fetch_pages() -> None:
    for pod in pods():
        name, address = pod["metadata"]["name"], pod["status"]["podIP"]
        page = _fetch(address)
        say(f"  http://{address}:{PORT}/ -> {page}")
        if name not in page:
            raise Failed(f"the page of {name} is not its own")


def _fetch(address: str) -> str:
    # A container that runs may take a moment to listen; how long is told by the connection that succeeds.
    began = time.monotonic()
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}:{PORT}/", timeout=5) as answer:
                return str(answer.read().decode().strip())
        except OSError:
            if time.monotonic() - began > PATIENCE:
                raise Failed(f"nothing answers at {address}") from None
            time.sleep(0.02)


def kill_one() -> None:
    pod = pods()[0]["metadata"]["name"]
    before = container_of(pod)
    say(f"  the server of {pod} is process {before['pid']}; kill -9 {before['pid']}")
    killed = time.monotonic()
    os.kill(before["pid"], signal.SIGKILL)
    while (after := container_of(pod))["pid"] in (0, before["pid"]):
        if time.monotonic() - killed > PATIENCE:
            raise Failed("the killed payload was not replaced")
        time.sleep(0.01)
    say(f"  replaced by process {after['pid']}, {1000 * (after['started'] - killed):.1f} ms after the kill")


def container_of(pod: str) -> dict[str, Any]:
    """What the monitor records of the pod's server: pid, and on the monotonic clock when it was started."""
    (found,) = json.loads(rawpod("inspect", pod, show=False))
    record: dict[str, Any] = found["status"]["rawpod"]["containers"]["server"]
    return record


def tell_limits() -> None:
    pod = pods()[0]["metadata"]["name"]
    (found,) = json.loads(rawpod("inspect", pod, show=False))
    missing = sorted({warning.split("=")[0] for warning in found["status"]["rawpod"]["warnings"]})
    if missing:
        say(f"  limits this host cannot set (their controllers are not on cgroup v2): {', '.join(missing)}")
    else:
        say("  every limit of the manifest is set")


def sidecar_heard() -> None:
    pod = pods()[0]["metadata"]["name"]
    say(f"$ rawpod logs --tail 1 {pod}/sidecar")
    began = time.monotonic()
    while "got:" not in (line := rawpod("logs", "--tail", "1", f"{pod}/sidecar", show=False)):
        if time.monotonic() - began > PATIENCE:
            raise Failed("the sidecar did not hear from the server over 127.0.0.1")
        time.sleep(0.1)
    sys.stdout.write(line)


def main_job() -> None:
    step("apply a Deployment: 3 replicas, each an http server and a sidecar, from the machine's own /usr")
    rawpod("apply", "-f", os.path.relpath(HERE / "web.yaml"))
    wait_for(3)
    tell_limits()
    rawpod("get", "pods", "-o", "wide")
    step("fetch a page from each pod's address")
    fetch_pages()
    step("the sidecar reaches its server over the loopback interface they share")
    sidecar_heard()
    step("kill -9 one payload")
    kill_one()
    wait_for(3)
    rawpod("get", "pods")
    for count in (5, 1):
        step(f"scale to {count}")
        rawpod("scale", "deployment/web", "--replicas", str(count))
        wait_for(count)
        rawpod("get", "pods")
    step("delete the Deployment")
    rawpod("delete", "deployment", "web")


def main() -> int:
    if os.geteuid() != 0:
        print("the demo needs root: sudo make demo", file=sys.stderr)
        return 2

    def out_of_time(*_: object) -> None:
        raise Failed(f"no progress for {PATIENCE:.0f} s")

    signal.signal(signal.SIGALRM, out_of_time)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="rawpod-demo-"))
    os.environ |= {
        "RAWPOD_ROOT": str(home / "root"),
        "RAWPOD_STATE": str(home / "state"),
        "RAWPOD_BRIDGE": "rawpod-demo",
        "RAWPOD_SUBNET": os.environ.get("RAWPOD_DEMO_SUBNET", "10.213.0.0/16"),
        "RAWPOD_CGROUP": f"/rawpod-demo-{os.getpid()}",
        "RAWPOD_MISSING_CONTROLLERS": "warn",
        "RAWPOD_INTERNAL": "1",
    }
    failed = False
    try:
        step("start a supervisor on roots of its own")
        with supervisor(home):
            main_job()
    except (Failed, subprocess.TimeoutExpired) as error:
        failed = True
        say(f"\ndemo failed: {error}")
        with contextlib.suppress(OSError):
            say((home / "supervisor.log").read_text())
    except KeyboardInterrupt:
        failed = True
        say("\ninterrupted: taking everything away")
    step("nothing is left behind")
    check = subprocess.run([RAWPOD, "doctor", "--leaks"], capture_output=True, text=True)
    say("$ rawpod doctor --leaks")
    sys.stdout.write(check.stdout + check.stderr)
    shutil.rmtree(home, ignore_errors=True)
    return 1 if failed or check.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
