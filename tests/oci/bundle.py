"""A bundle with a configuration to change, and the container that is made of it."""

from __future__ import annotations

import copy
import json
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.oci.runtime import Result, Runtime

_WAIT_SECONDS = 15
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")

CONFIG: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs"},
    "process": {
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        "env": ["PATH=/bin"],
        "args": ["true"],
        "noNewPrivileges": True,
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    ],
    "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES]},
}


class Bundle:
    """One test's directory with config.json and a root filesystem, and at most one container."""

    def __init__(self, runtime: Runtime, directory: Path, container_id: str, cgroups_path: str) -> None:
        self.runtime = runtime
        self.directory = directory
        self.id = container_id
        self.config = copy.deepcopy(CONFIG)
        if runtime.manages_cgroups:
            self.config["linux"]["cgroupsPath"] = cgroups_path
        self.out = directory / "stdout"
        self.pid_file = directory / "pid"

    @property
    def rootfs(self) -> Path:
        return self.directory / "rootfs"

    @property
    def process(self) -> dict[str, Any]:
        return self.config["process"]

    @property
    def linux(self) -> dict[str, Any]:
        return self.config["linux"]

    @property
    def mounts(self) -> list[dict[str, Any]]:
        return self.config["mounts"]

    def mount(
        self, destination: str, source: str | Path = "tmpfs", kind: str = "tmpfs", options: tuple[str, ...] = ()
    ) -> None:
        """Add a mount."""
        self.mounts.append({"destination": destination, "type": kind, "source": str(source), "options": list(options)})

    def bind(self, destination: str, source: str | Path, *options: str) -> None:
        """Add a recursive bind mount."""
        self.mount(destination, source, "bind", ("rbind", *options))

    def namespace(self, kind: str, path: str | Path | None = None) -> None:
        """Put the container into a namespace: a new one, or that of `path`."""
        self.without(kind)
        self.linux["namespaces"].append({"type": kind} | ({"path": str(path)} if path else {}))

    def without(self, kind: str) -> None:
        """Leave the container in the runtime's namespace of this kind."""
        self.linux["namespaces"] = [entry for entry in self.linux["namespaces"] if entry["type"] != kind]

    def args(self, *args: str) -> Bundle:
        self.process["args"] = list(args)
        return self

    def save(self) -> None:
        """Write config.json."""
        (self.directory / "config.json").write_text(json.dumps(self.config))

    # Operations

    def create(self, *options: str | Path | int, **more: Any) -> Result:
        self.save()
        command = ("create", "--bundle", self.directory, "--pid-file", self.pid_file, *options, self.id)
        return self.runtime(*command, output=self.out, **more)

    def start(self) -> Result:
        return self.runtime("start", self.id)

    def kill(self, *signals: str | int) -> Result:
        return self.runtime("kill", self.id, *signals)

    def delete(self, *options: str) -> Result:
        return self.runtime("delete", *options, self.id)

    def exec(self, *arguments: str | Path | int, **more: Any) -> Result:
        """exec, with the options first, then the id, then what follows "--" """
        if "--" not in arguments:
            return self.runtime("exec", self.id, *arguments, **more)
        cut = arguments.index("--")
        return self.runtime("exec", *arguments[:cut], self.id, *arguments[cut + 1 :], **more)

    def query(self) -> Result:
        return self.runtime("state", self.id)

    # What tests ask

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.query().json
        return state

    @property
    def status(self) -> str:
        return str(self.state["status"])

    @property
    def pid(self) -> int:
        """The container's process, which stays known after its end."""
        return int(self.pid_file.read_text())

    def run(self, *args: str, options: tuple[str | Path, ...] = (), **more: Any) -> Result:
        """Run a container of these arguments to its end; its output is the result's."""
        if args:
            self.args(*args)
        self.save()
        return self.runtime("run", "--bundle", self.directory, *options, self.id, **more)

    def shell(self, script: str, **more: Any) -> str:
        """What a script printed that ran in the container, and succeeded."""
        return self.run("sh", "-c", script, **more).ok().out

    def created(self, *args: str) -> Bundle:
        """A container that waits to be started."""
        if args:
            self.args(*args)
        self.create().ok()
        return self

    def running(self, *args: str) -> Bundle:
        """A started container, by default of a process that waits."""
        self.created(*(args or ("sleep", "1000")))
        self.start().ok()
        return self

    def finished(self, *args: str) -> Bundle:
        """A container whose process has ended."""
        self.running(*(args or ("true",))).wait()
        return self

    def refused(self) -> Result:
        """The error by which create refuses this configuration: nothing of the container is there afterwards."""
        result = self.create().failed()
        assert result.err.strip(), f"no message: {result}"
        self.query().failed()
        return result

    def refused_at_last(self) -> Result:
        """The error by which create, or else start, refuses this configuration."""
        result = self.create()
        if result.code == 0:
            result = self.start()
            self.delete("--force")
        assert result.err.strip(), f"no message: {result}"
        return result.failed()

    def wait(self) -> int:
        """Wait for the end of the container's process, which is this process's child as that of a subreaper.

        Its exit code, or 128 and the number of its signal.
        """
        return reap(self.pid)

    def output(self) -> str:
        """What the created container has printed."""
        return self.out.read_text()

    def clean(self) -> None:
        """Take away what a test left, whatever its state."""
        root = self.runtime.root
        if root.is_dir() and any(self.id in name for name in os.listdir(root)):
            self.runtime("delete", "--force", self.id)


def reap(pid: int) -> int:
    """Wait for a child: its exit code, or 128 and the number of its signal."""
    await_exit(pid)
    return code_of(os.waitpid(pid, 0)[1])


def code_of(status: int) -> int:
    """The exit code of a wait status, or 128 and the number of the signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def await_exit(pid: int) -> None:
    """Wait until a process has ended, whosever child it is."""
    pidfd = os.pidfd_open(pid)
    try:
        assert select.select([pidfd], [], [], _WAIT_SECONDS)[0], f"process {pid} still runs"
    finally:
        os.close(pidfd)


class Fifo:
    """A named pipe by which a container's process tells that it has come to a point."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        # Both ends open: no open(2) of a writer blocks, and no writer's end is the end of file.
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)

    def line(self) -> str:
        """The next line."""
        text = b""
        while not text.endswith(b"\n"):
            assert select.select([self._fd], [], [], _WAIT_SECONDS)[0], f"nothing came, after {text!r}"
            text += os.read(self._fd, 1)
        return text.decode().rstrip("\n")

    def empty(self) -> bool:
        """Whether nothing was written that was not read."""
        return not select.select([self._fd], [], [], 0)[0]

    def close(self) -> None:
        os.close(self._fd)


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether something becomes true within a bounded time that gives no event to wait for."""
    for attempt in range(60):
        if holds():
            return True
        select.select([], [], [], min(0.002 * 1.3**attempt, 0.25))
    return False


def signal_number(name: str) -> int:
    return int(signal.Signals[name])
