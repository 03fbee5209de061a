"""Pods for tests as root: a spawner, and pods whose status is waited for by event."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.pod import backoff, control, directory, logread, objects, sandbox, spawner
from runtime.pod.logs import LogDirectory
from runtime.settings import Settings

Json = dict[str, Any]


def container(name: str, *command: str, **fields: Any) -> Json:
    """A container of the host image that runs `command`."""
    return {"name": name, "image": "host", "command": list(command), **fields}


class RunningPod:
    """A pod and a connection to its monitor."""

    def __init__(self, settings: Settings, uid: str, name: str) -> None:
        self.settings, self.uid, self.name = settings, uid, name
        self.directory = settings.pod(uid)
        self.status: Json = {}
        self.connection = control.connect(self.directory)
        self.connection.settimeout(100)
        self.send({"do": "watch"})

    def send(self, message: Json) -> None:
        self.connection.send(json.dumps(message).encode())

    def wait(self, condition: Callable[[Json], bool]) -> Json:
        """Read statuses until one fulfils the condition."""
        while True:
            if self.status and condition(self.status):
                return self.status
            message = control.receive(self.connection)
            if message is None:
                log = self.directory / "monitor.log"
                pytest.fail(f"the monitor is gone at {self.status}: {log.read_text() if log.exists() else ''}")
            self.status = message.get("status", self.status)

    def running(self) -> Json:
        return self.wait(lambda status: all("running" in c["state"] for c in status["containerStatuses"]))

    def stop(self, grace: float = 0.0) -> Json:
        """Stop the pod, wait for its monitor's end, answer the last status."""
        self.send({"do": "stop", "grace": grace})
        return self.ended()

    def ended(self) -> Json:
        while (message := control.receive(self.connection)) is not None:
            self.status = message.get("status", self.status)
        # One that was over before it could be asked has left its last word.
        self.status = directory.read_status(self.directory) or self.status
        return self.status

    def state(self, index: int = 0) -> Json:
        found: Json = self.status["containerStatuses"][index]
        return found

    def process(self, name: str) -> Json:
        found: Json = self.status["rawpod"]["containers"][name]
        return found

    def log_path(self, name: str) -> Path:
        return LogDirectory.of(self.settings.logs, "default", self.name, self.uid, name).path

    def log(self, name: str) -> str:
        return b"".join(entry.output for entry in logread.read(self.log_path(name))).decode()

    def follow(self, name: str) -> Generator[logread.Entry, None, None]:
        yield from logread.follow(self.log_path(name))

    def cgroup(self, name: str) -> Path:
        return Path(self.process(name)["cgroup"])


class Pods:
    """Starts pods through a spawner, and destroys them all at the end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.spawner = spawner.start(settings)
        self.pods: list[RunningPod] = []

    def ask(self, message: Json) -> Json:
        self.spawner.connection.send(json.dumps(message).encode())
        answer: Json = json.loads(self.spawner.connection.recv(65536))
        return answer

    def start(
        self,
        *containers: Json,
        name: str = "web",
        values: Json | None = None,
        metadata: Json | None = None,
        **spec: Any,
    ) -> RunningPod:
        uid = f"{len(self.pods)}f1ce6a0-0000-4000-8000-{os.urandom(6).hex()}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": uid, **(metadata or {})},
            "spec": {"containers": list(containers), **spec},
        }
        directory.create(
            self.settings, uid, json.dumps(pod).encode(), None if values is None else json.dumps(values).encode()
        )
        answer = self.ask({"spawn": {"uid": uid}})
        assert "pid" in answer, answer
        running = RunningPod(self.settings, uid, name)
        self.pods.append(running)
        return running

    def end_spawner(self) -> None:
        with contextlib.suppress(ChildProcessError):
            self.spawner.connection.shutdown(socket.SHUT_RDWR)
            self.spawner.connection.close()
            os.waitpid(self.spawner.pid, 0)

    def close(self) -> None:
        for pod in self.pods:
            sandbox.destroy(self.settings, pod.uid)
            with contextlib.suppress(OSError):
                pod.ended()
            pod.connection.close()
        with contextlib.suppress(OSError):
            self.end_spawner()
        sandbox.tidy(self.settings)


@pytest.fixture(name="settings")
def settings_on_disk(settings: Settings, on_disk: Path) -> Settings:
    """The instance's layers on a disk, as they are but for tests: a tmpfs maps ids from Linux 6.3 on."""
    moved = settings.replace(root=on_disk / "root")
    moved.root.mkdir(mode=0o700)
    return moved


@pytest.fixture
def pods(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pods]:
    """A spawner of this test's own instance."""
    monkeypatch.setattr(backoff, "FIRST_RESTART_DELAY", 1.0)  # where kubelet has ten
    started = Pods(settings)
    yield started
    started.close()


__all__ = ["Pods", "RunningPod", "container", "objects", "pods", "settings_on_disk"]
