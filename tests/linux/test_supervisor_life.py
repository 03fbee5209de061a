"""The supervisor as a process: pods come, survive what happens to it and to their monitors, and go without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel.pidfd import pidfd_open
from runtime.cli.client import MERGE_PATCH, Client
from runtime.pod import directory
from runtime.settings import Settings
from runtime.supervisor.resources import BY_KIND

HOME = Path(__file__).parents[2]
DEPLOYMENTS, PODS = BY_KIND["Deployment"].path("default"), BY_KIND["Pod"].path("default")
PATIENCE = 100

Object = dict[str, Any]


class Supervisor:
    """A supervisor of its own for one test."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = Client(settings.socket)
        self.log = settings.root / "supervisor.log"
        self.start()

    def start(self, *options: str) -> None:
        """Runs the program until it says that it is ready."""
        script = (
            "import json, sys; sys.path.insert(0, sys.argv[1]);"
            "from runtime.settings import Settings; from runtime.supervisor.main import run;"
            "run(Settings.from_json(json.loads(sys.argv[2])), stop_pods='--stop-pods' in sys.argv)"
        )
        notify = Notified(self.settings.state / "notify")
        with notify, self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", script, str(HOME), json.dumps(self.settings.to_json()), *options],
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(notify.path)},
            )
            notify.wait("READY=1")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signals it and waits for its end."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def apply(self, *items: Object) -> None:
        self.client.request(
            "POST", "/apis/rawpod.dev/v1/apply", {"apiVersion": "v1", "kind": "List", "items": list(items)}
        )

    def pods(self) -> list[Object]:
        found: list[Object] = self.client.request("GET", PODS)["items"]
        return found

    def until(self, path: str, condition: Callable[[list[Object]], bool]) -> list[Object]:
        """Watches a collection until the condition holds of all that is in it."""
        listed = self.client.request("GET", path)
        items = {item["metadata"]["uid"]: item for item in listed["items"]}
        events = self.client.watch(path, resourceVersion=listed["metadata"]["resourceVersion"], timeoutSeconds=PATIENCE)
        with contextlib.closing(events):  # type: ignore[type-var]
            while not condition(list(items.values())):
                event = next(events, None)
                if event is None:
                    pytest.fail(f"never held: {json.dumps(list(items.values()))}\n{self.log.read_text()}")
                uid = event["object"]["metadata"]["uid"]
                items.pop(uid, None)
                if event["type"] != "DELETED":
                    items[uid] = event["object"]
        return list(items.values())

    def monitor(self, pod: Object) -> int:
        """The pid of a pod's monitor."""
        status = directory.read_status(self.settings.pod(pod["metadata"]["uid"]))
        assert status is not None
        return int(status["rawpod"]["monitor"]["pid"])

    def payloads(self) -> dict[str, int]:
        """The first processes of all containers."""
        return {
            f"{uid}/{name}": container["pid"]
            for uid, status in directory.statuses(self.settings).items()
            for name, container in status["rawpod"]["containers"].items()
        }


class Notified:
    """The receiving end of sd_notify(3)."""

    def __init__(self, path: Path) -> None:
        import socket

        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE)

    def wait(self, state: str) -> None:
        assert self._socket.recv(64).decode() == state

    def __enter__(self) -> Notified:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self.path.unlink()


@pytest.fixture
def supervisor(settings: Settings) -> Iterator[Supervisor]:
    made = Supervisor(settings)
    yield made
    try:
        if made.process.poll() is None:
            made.end()
        # A last one takes everything down: what earlier ones left is its to find.
        made.start("--stop-pods")
        assert made.end() == 0
    finally:
        made.process.kill()


def deployment(replicas: int = 2, name: str = "web", **container: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "host", "command": ["sleep", "1000"], **container}],
                },
            },
        },
    }


def ready(count: int) -> Callable[[list[Object]], bool]:
    def all_ready(pods: list[Object]) -> bool:
        conditions = [{c["type"]: c["status"] for c in pod["status"].get("conditions", ())} for pod in pods]
        return len(pods) == count and all(held.get("Ready") == "True" for held in conditions)

    return all_ready


def gone(pods: list[Object]) -> bool:
    return not pods


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process has ended."""
    pidfd = pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        assert select.select([pidfd], [], [], PATIENCE)[0]
    finally:
        os.close(pidfd)


def identities(pods: list[Object]) -> dict[str, str]:
    return {pod["metadata"]["uid"]: pod["status"]["podIP"] for pod in pods}


def test_a_deployment_is_kept_scaled_and_removed(supervisor: Supervisor) -> None:
    supervisor.apply(deployment(2))
    supervisor.until(PODS, ready(2))
    for replicas in (4, 1):
        path = f"{DEPLOYMENTS}/web/scale"
        supervisor.client.request("PATCH", path, {"spec": {"replicas": replicas}}, MERGE_PATCH)
        supervisor.until(PODS, ready(replicas))
    supervisor.client.request("DELETE", f"{DEPLOYMENTS}/web")
    supervisor.until(PODS, gone)
    assert os.listdir(supervisor.settings.pods) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_pods_outlive_the_supervisor_and_the_next_one_adopts_them(supervisor: Supervisor, number: int) -> None:
    supervisor.apply(deployment(3))
    before = identities(supervisor.until(PODS, ready(3)))
    processes = supervisor.payloads()
    supervisor.end(number)
    supervisor.start()
    assert identities(supervisor.until(PODS, ready(3))) == before
    assert supervisor.payloads() == processes
    victim = next(iter(processes.values()))
    kill(victim)
    supervisor.until(
        PODS, lambda pods: sum(s["restartCount"] for p in pods for s in p["status"]["containerStatuses"]) == 1
    )
    supervisor.until(PODS, ready(3))


def test_a_pod_that_ended_while_nobody_watched_is_seen_and_replaced(supervisor: Supervisor) -> None:
    supervisor.apply(deployment(1))
    (pod,) = supervisor.until(PODS, ready(1))
    supervisor.end()
    kill(supervisor.monitor(pod))
    supervisor.start()
    (same,) = supervisor.until(PODS, ready(1))
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]


def test_a_pod_deleted_while_the_supervisor_dies_is_removed_by_the_next(supervisor: Supervisor) -> None:
    supervisor.apply(deployment(2))
    supervisor.until(PODS, ready(2))
    supervisor.client.request("DELETE", f"{DEPLOYMENTS}/web")
    supervisor.end(signal.SIGKILL)
    supervisor.start()
    supervisor.until(PODS, gone)
    assert os.listdir(supervisor.settings.pods) == []


def test_pods_of_a_lost_store_are_ended(supervisor: Supervisor) -> None:
    supervisor.apply(deployment(2))
    supervisor.until(PODS, ready(2))
    supervisor.end(signal.SIGKILL)
    for path in supervisor.settings.root.glob("state.db*"):
        path.unlink()
    supervisor.start("--stop-pods")
    assert supervisor.pods() == []
    assert supervisor.end() == 0
    assert os.listdir(supervisor.settings.pods) == []


def test_a_pod_whose_monitor_is_killed_is_back_within_seconds(supervisor: Supervisor) -> None:
    supervisor.apply(deployment(1))
    (pod,) = supervisor.until(PODS, ready(1))
    payload = pidfd_open(next(iter(supervisor.payloads().values())))
    began = time.monotonic()
    kill(supervisor.monitor(pod))
    supervisor.until(PODS, lambda pods: not ready(1)(pods))
    supervisor.until(PODS, ready(1))
    assert time.monotonic() - began < 10
    try:
        assert select.select([payload], [], [], 0)[0], "the old payload still runs"
    finally:
        os.close(payload)


def test_a_killed_spawner_is_replaced(supervisor: Supervisor) -> None:
    supervisor.apply(deployment(1))
    supervisor.until(PODS, ready(1))
    (spawner,) = children(supervisor.process.pid)
    kill(spawner)
    supervisor.client.request("PATCH", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 3}}, MERGE_PATCH)
    supervisor.until(PODS, ready(3))
    supervisor.client.request("DELETE", f"{DEPLOYMENTS}/web")
    supervisor.until(PODS, gone)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_pod_waits_for_its_config_map_and_starts_when_it_comes(supervisor: Supervisor) -> None:
    source = {"configMapKeyRef": {"name": "late", "key": "word"}}
    supervisor.apply(deployment(1, env=[{"name": "WORD", "valueFrom": source}]))

    def waiting(pods: list[Object]) -> bool:
        return len(pods) == 1 and 'configmap "late" not found' in pods[0]["status"].get("message", "")

    supervisor.until(PODS, waiting)
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"other": "x"}}
    supervisor.apply(config_map)
    supervisor.until(PODS, lambda pods: 'no key "word"' in pods[0]["status"].get("message", ""))
    supervisor.apply({**config_map, "data": {"word": "x"}})
    supervisor.until(PODS, ready(1))


def test_a_payload_that_ignores_sigterm_is_killed_after_the_grace_period_or_a_shorter_one(
    supervisor: Supervisor,
) -> None:
    stubborn = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1000; done"]
    supervisor.apply(deployment(1, command=stubborn))
    (pod,) = supervisor.until(PODS, ready(1))
    name = pod["metadata"]["name"]
    with supervisor.client.open("GET", f"{PODS}/{name}/log", follow="true") as log:
        assert next(log.lines()) == b"deaf"
    supervisor.client.request("DELETE", f"{DEPLOYMENTS}/web", {"propagationPolicy": "Orphan"})
    supervisor.client.request("DELETE", f"{BY_KIND['ReplicaSet'].path('default')}", {"propagationPolicy": "Orphan"})
    supervisor.client.request("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 600})
    supervisor.until(PODS, lambda pods: "deletionTimestamp" in pods[0]["metadata"])
    supervisor.client.request("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 1})
    began = time.monotonic()
    supervisor.until(PODS, gone)
    assert time.monotonic() - began < 20


def test_a_pod_that_completes_is_succeeded_and_stays(supervisor: Supervisor) -> None:
    spec = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "host", "command": ["echo", "done"]}]}
    supervisor.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "once"}, "spec": spec})
    supervisor.until(PODS, lambda pods: pods[0]["status"]["phase"] == "Succeeded")
    supervisor.end(signal.SIGKILL)
    supervisor.start()
    (pod,) = supervisor.pods()
    assert pod["status"]["phase"] == "Succeeded"
    assert supervisor.client.open("GET", f"{PODS}/once/log").body() == b"done\n"
    supervisor.client.request("DELETE", f"{PODS}/once")
    supervisor.until(PODS, gone)


def test_stop_pods_ends_them_and_the_next_supervisor_starts_them_again(supervisor: Supervisor) -> None:
    supervisor.apply(deployment(2))
    before = {pod["metadata"]["uid"] for pod in supervisor.until(PODS, ready(2))}
    supervisor.end()
    supervisor.start("--stop-pods")
    supervisor.until(PODS, ready(2))
    assert supervisor.end() == 0
    assert os.listdir(supervisor.settings.pods) == []
    supervisor.start()
    assert {pod["metadata"]["uid"] for pod in supervisor.until(PODS, ready(2))} == before


def test_a_second_supervisor_on_the_same_state_is_refused(supervisor: Supervisor) -> None:
    command = [sys.executable, "-m", "runtime.cli.main", "--state", str(supervisor.settings.state)]
    second = subprocess.run(
        [*command, "--root", str(supervisor.settings.root), "supervisor"],
        cwd=HOME,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert second.returncode == 125 and "another supervisor runs" in second.stderr
    assert second.stderr.count("\n") == 1


def test_the_door_is_the_owners_alone(supervisor: Supervisor) -> None:
    assert supervisor.settings.socket.stat().st_mode & 0o777 == 0o600
