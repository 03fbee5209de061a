"""containerd's shim for runc with runc and with our runtime: every case has the same outcome with both."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgroups.hierarchy import find
from tests.callers import RAWPOD_OCI, SECONDS, SIZE, Done, cgroups, make_image, processes, run, settled, terminal

RUNTIMES = {"peer": "/usr/sbin/runc", "rawpod": str(RAWPOD_OCI)}
IMAGE = "localhost/box:latest"

CONFIG = """
version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{home}/containerd.sock"
"""

pytestmark = pytest.mark.timeout(400)


class Containerd:
    """A containerd of our own with one image, and `ctr` as its client."""

    def __init__(self, home: Path, probe: Path) -> None:
        self.home = home
        self.words = ["ctr", "--address", str(home / "containerd.sock"), "--connect-timeout", f"{SECONDS}s"]
        config = home / "config.toml"
        config.write_text(CONFIG.format(home=home))
        with (home / "log").open("wb") as log:
            self.process = subprocess.Popen(["containerd", "--config", config], stdout=log, stderr=log)
        make_image(home / "box.tar", probe)
        (home / "box.oci").write_bytes(archive((home / "box.tar").read_bytes()))
        self("image", "import", str(home / "box.oci"))

    def __call__(self, *words: str, check: int | None = 0) -> Done:
        """`ctr WORDS…`."""
        return run([*self.words, *words], check=check)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(SECONDS)


class Client:
    """The same with one of the runtimes. `name` is the container that a test uses."""

    name = "rp-ctr"

    def __init__(self, containerd: Containerd, runtime: str) -> None:
        self.containerd = containerd
        self.runtime = runtime

    def words(self, *options: str) -> list[str]:
        """The words of `ctr run` before the command."""
        return ["run", "--runc-binary", self.runtime, *options, IMAGE, self.name]

    def once(self, script: str, *options: str, check: int = 0) -> Done:
        """Run a shell script to its end."""
        return self.containerd(*self.words("--rm", *options), "sh", "-c", script, check=check)

    def task(self, verb: str, *words: str, check: int | None = 0) -> Done:
        """`ctr task VERB …`."""
        return self.containerd("task", verb, *words, check=check)

    def status(self) -> str:
        """What `ctr task ls` says of the container."""
        rows = [line.split() for line in self.task("ls").stdout.splitlines()[1:]]
        return next((row[2] for row in rows if row[0] == self.name), "")

    def cgroup(self) -> Path:
        return Path(find().mount, "default", self.name)

    def clear(self) -> None:
        if self.status():
            self.task("rm", "--force", self.name, check=None)
        self.containerd("container", "rm", self.name, check=None)


def archive(layer: bytes) -> bytes:
    """An OCI image layout as a tar, with one layer."""
    blobs: dict[str, bytes] = {}

    def add(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    layers = [add(layer, "layer.v1.tar")]
    manifest = {"schemaVersion": 2, "config": add(json.dumps(config).encode(), "config.v1+json"), "layers": layers}
    described = add(json.dumps(manifest).encode(), "manifest.v1+json")
    described["annotations"] = {"io.containerd.image.name": IMAGE}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in blobs.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def containerd(host: None, probe: Path) -> Iterator[Containerd]:
    for program in ("containerd", "ctr"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    home = Path(tempfile.mkdtemp(prefix="ctr-", dir="/var/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        made = Containerd(home, probe)
        stack.callback(made.stop)
        yield made


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.peer if name == "peer" else ()) for name in RUNTIMES])
def ctr(request: pytest.FixtureRequest, containerd: Containerd) -> Iterator[Client]:
    """A client with one of the runtimes; after the test nothing is left of its container."""
    runtime = RUNTIMES[request.param]
    if not shutil.which(runtime):
        pytest.skip(f"needs {runtime}")
    client = Client(containerd, runtime)
    yield client
    client.clear()
    assert settled(lambda: [*cgroups(client.name), *processes(f"-id {client.name}")]) == []


@pytest.fixture
def running(ctr: Client) -> Client:
    """The same with its container running in the background, limited."""
    options = ("-d", "--memory-limit", str(64 << 20), "--cpus", "0.5", "--cgroup", f"/default/{ctr.name}")
    ctr.containerd(*ctr.words(*options), "sleep", "100000")
    return ctr


def test_output_and_exit_status_are_the_payloads(ctr: Client) -> None:
    done = ctr.once("echo out; echo err >&2; exit 42", check=42)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_what_cannot_be_executed_is_an_error_with_its_name(ctr: Client) -> None:
    done = ctr.containerd(*ctr.words("--rm"), "/nonesuch", check=1)
    assert "OCI runtime create failed" in done.stderr
    assert "/nonesuch" in done.stderr
    assert "no such file or directory" in done.stderr.lower()


def test_a_terminal(ctr: Client) -> None:
    words = [*ctr.containerd.words, *ctr.words("--rm", "-t"), "sh", "-c", f"{SIZE}; exit 9"]
    with terminal(words, rows=31, columns=99) as screen:
        status, printed = screen.end()
    assert (status, printed.split()) == (9, ["/dev/pts/0", "31", "99"])


def test_exec_joins_and_returns_the_status(running: Client) -> None:
    done = running.task("exec", "--exec-id", "e1", "--cwd", "/tmp", running.name, "sh", "-c", "pwd; exit 7", check=7)
    assert done.stdout == "/tmp\n"
    failed = running.task("exec", "--exec-id", "e2", running.name, "/nonesuch", check=1)
    assert "/nonesuch" in failed.stderr
    words = [
        *running.containerd.words,
        "task",
        "exec",
        "-t",
        "--exec-id",
        "e3",
        running.name,
        "sh",
        "-c",
        "tty; read x",
    ]
    with terminal(words) as screen:
        screen.until("/dev/pts/")
        screen.type("\n")
        assert screen.end()[0] == 0


def test_pause_and_resume(running: Client) -> None:
    running.task("pause", running.name)
    assert running.status() == "PAUSED"
    assert "frozen 1" in (running.cgroup() / "cgroup.events").read_text()
    running.task("resume", running.name)
    assert running.status() == "RUNNING"
    assert "frozen 0" in (running.cgroup() / "cgroup.events").read_text()


def test_limits_metrics_and_processes(running: Client) -> None:
    values = [(running.cgroup() / name).read_text().strip() for name in ("memory.max", "cpu.max")]
    assert values == [str(64 << 20), "50000 100000"]
    metrics = dict(line.split()[:2] for line in running.task("metrics", running.name).stdout.splitlines() if line)
    assert (metrics["pids.current"], metrics["memory.usage_limit"]) == ("1", str(64 << 20))
    (pid,) = (line.split()[0] for line in running.task("ps", running.name).stdout.splitlines()[1:])
    assert (running.cgroup() / "cgroup.procs").read_text().split() == [pid]


def test_kill_and_rm(running: Client) -> None:
    running.task("kill", "--signal", "SIGKILL", running.name)
    assert settled(lambda: [] if running.status() == "STOPPED" else [running.status()]) == []
    done = running.task("rm", running.name, check=None)
    assert "137" in done.stderr
    assert running.status() == ""
    assert not os.path.exists(running.cgroup())
