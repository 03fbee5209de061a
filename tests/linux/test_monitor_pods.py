"""Pods by their monitors: what runs, what is recorded, what is restarted. The oracle sees what stays behind."""

from __future__ import annotations

import json
import os
import signal
import time
from base64 import b64encode
from contextlib import closing
from pathlib import Path

import pytest

from kernel.errors import SystemCallError
from kernel.pidfd import pidfd_open
from runtime.pod import directory, logread, sandbox
from runtime.settings import Settings
from tests.pods import Json, Pods, container, pods

__all__ = ["pods"]

FOREVER = ("sh", "-c", "echo up; exec sleep 1000000")


def test_a_pod_runs_and_its_status_tells(pods: Pods) -> None:
    pod = pods.start(container("main", *FOREVER))
    status = pod.running()
    assert status["phase"] == "Running"
    assert {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"
    assert status["podIP"].startswith("10.")
    assert pod.state()["ready"] is True
    assert pod.state()["imageID"].startswith("sha256:")
    assert int((pod.cgroup("main") / "cgroup.procs").read_text()) == pod.process("main")["pid"]
    assert json.loads((pod.directory / "status.json").read_text()) == status


def test_the_monitor_is_outside_of_the_pods_cgroup(pods: Pods) -> None:
    """CVE-2019-14891: the pod's memory limit must not reach the monitor. Fails when launch forks without the cgroup."""
    pod = pods.start(container("main", *FOREVER))
    monitor = pod.running()["rawpod"]["monitor"]["pid"]
    cgroup = Path(f"/proc/{monitor}/cgroup").read_text().splitlines()[-1].partition("::")[2]
    assert cgroup == f"{pods.settings.cgroup}/system"


def test_containers_share_network_ipc_and_name_but_no_processes(pods: Pods) -> None:
    pod = pods.start(container("one", *FOREVER), container("two", *FOREVER), hostname="shared")
    pod.running()
    one, two = (Path(f"/proc/{pod.process(name)['pid']}/ns") for name in ("one", "two"))
    for kind, same in (("net", True), ("ipc", True), ("uts", True), ("pid", False), ("mnt", False), ("cgroup", False)):
        assert ((one / kind).readlink() == (two / kind).readlink()) is same, kind
        assert (one / kind).readlink() != Path(f"/proc/self/ns/{kind}").readlink(), kind


def test_a_container_reaches_its_neighbour_over_loopback(pods: Pods) -> None:
    serve = (
        "import socket; s = socket.create_server(('127.0.0.1', 80)); c, _ = s.accept(); c.sendall(b'hello'); c.close()"
    )
    fetch = (
        "import socket, time\n"
        "while True:\n"
        "    try: c = socket.create_connection(('127.0.0.1', 80)); break\n"
        "    except ConnectionRefusedError: time.sleep(0.01)\n"
        "print(c.recv(100).decode())"
    )
    pod = pods.start(
        container("server", "/usr/bin/python3", "-c", serve),
        container("client", "/usr/bin/python3", "-c", fetch),
        restartPolicy="Never",
    )
    assert pod.ended()["phase"] == "Succeeded"
    assert pod.log("client") == "hello\n"


def test_a_killed_payload_is_replaced_at_once_and_later_with_back_off(pods: Pods) -> None:
    pod = pods.start(container("main", *FOREVER), restartPolicy="Always")
    pod.running()
    os.kill(pod.process("main")["pid"], signal.SIGKILL)
    states: list[Json] = []

    def replaced(status: Json) -> bool:
        states.append(status["containerStatuses"][0]["state"])
        return bool(status["containerStatuses"][0]["restartCount"] == 1) and "running" in states[-1]

    pod.wait(replaced)
    assert not [state for state in states if state.get("waiting", {}).get("reason") == "CrashLoopBackOff"]
    last = pod.state()["lastState"]["terminated"]
    assert (last["exitCode"], last["signal"], last["reason"]) == (137, 9, "Error")
    os.kill(pod.process("main")["pid"], signal.SIGKILL)
    pod.wait(lambda status: "waiting" in status["containerStatuses"][0]["state"])
    waiting = pod.state()["state"]["waiting"]
    assert (waiting["reason"], "back-off 1s" in waiting["message"]) == ("CrashLoopBackOff", True), waiting
    pod.running()
    figures = pod.process("main")
    assert figures["started"] - figures["died"] >= 1
    assert pod.state()["restartCount"] == 2
    with closing(pod.follow("main")) as entries:
        assert next(entries).output == b"up\n"


@pytest.mark.parametrize(
    ("policy", "command", "phase", "code"),
    [("Never", "exit 3", "Failed", 3), ("OnFailure", "exit 0", "Succeeded", 0), ("Never", "true", "Succeeded", 0)],
)
def test_a_pod_that_is_over_gives_everything_back(
    pods: Pods, settings: Settings, policy: str, command: str, phase: str, code: int
) -> None:
    pod = pods.start(container("main", "sh", "-c", command), restartPolicy=policy)
    status = pod.ended()
    assert status["phase"] == phase
    ended = pod.state()["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (code, "Completed" if code == 0 else "Error")
    assert directory.read_status(pod.directory) == status
    layers = sandbox.Places(settings, pod.uid).overlay / "main"
    assert len(list(layers.iterdir())) == 1  # what it wrote stays until it is removed
    assert str(pod.directory) not in Path("/proc/self/mountinfo").read_text()


def test_a_command_that_is_not_there_is_a_start_error(pods: Pods) -> None:
    pod = pods.start(container("main", "nonesuch"), restartPolicy="Never")
    pod.ended()
    ended = pod.state()["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (127, "StartError")
    assert "nonesuch" in ended["message"]


def test_a_missing_image_is_waited_for(pods: Pods) -> None:
    pod = pods.start({"name": "main", "image": "absent", "command": ["true"], "imagePullPolicy": "Never"})
    pod.wait(lambda status: status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull")
    assert "absent" in pod.state()["state"]["waiting"]["message"]
    assert pod.stop()["phase"] == "Failed"


def test_sigterm_that_is_ignored_is_followed_by_sigkill(pods: Pods) -> None:
    pod = pods.start(container("main", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done"))
    pod.running()
    begin = time.monotonic()
    pod.stop(grace=0.5)
    # Well below the 30 s it would have without being told.
    assert 0.5 <= time.monotonic() - begin < 15
    assert pod.state()["state"]["terminated"]["signal"] == signal.SIGKILL


def test_sigterm_that_is_heeded_ends_the_pod_before_its_grace_period(pods: Pods) -> None:
    script = "import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
    pod = pods.start(container("main", "/usr/bin/python3", "-c", script))
    pod.running()
    with closing(pod.follow("main")) as lines:
        assert next(lines).text == b"up"
    assert pod.stop(grace=60)["phase"] == "Succeeded"


def test_a_frozen_payload_is_ended(pods: Pods) -> None:
    """Fault 14: SIGTERM never reaches a frozen process, cgroup.kill does."""
    pod = pods.start(container("main", *FOREVER))
    pod.running()
    (pod.cgroup("main") / "cgroup.freeze").write_text("1")
    assert pod.stop(grace=0.1)["phase"] == "Failed"


def test_a_killed_monitor_takes_its_payload_along_and_destroy_the_rest(pods: Pods, settings: Settings) -> None:
    """Fault 3. Fails when attempts are made without parent_death_signal."""
    pod = pods.start(container("main", *FOREVER))
    status = pod.running()
    payload = pidfd_open(pod.process("main")["pid"])
    os.kill(status["rawpod"]["monitor"]["pid"], signal.SIGKILL)
    pod.ended()
    with pytest.raises((ProcessLookupError, SystemCallError)):
        while True:
            signal.pidfd_send_signal(payload, 0)
    os.close(payload)
    assert pods.ask({"destroy": {"uid": pod.uid}}) == {"uid": pod.uid, "destroyed": True}
    assert not pod.directory.exists()
    sandbox.destroy(settings, pod.uid)


def test_pods_outlive_the_spawner(pods: Pods) -> None:
    pod = pods.start(container("main", *FOREVER))
    payload = pod.running()["rawpod"]["containers"]["main"]["pid"]
    pods.end_spawner()
    pod.send({"do": "signal", "container": "main", "signal": 9})
    pod.wait(lambda status: status["rawpod"]["containers"]["main"]["pid"] not in (0, payload))


def test_a_restart_begins_with_a_fresh_root_and_keeps_volumes(pods: Pods) -> None:
    script = "echo saw $(ls /seen /data/seen 2>/dev/null); touch /seen /data/seen; echo; exec sleep 1000000"
    volume = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    pod = pods.start(container("main", "sh", "-c", script, **volume), volumes=[{"name": "data", "emptyDir": {}}])
    pod.running()
    with closing(pod.follow("main")) as lines:
        assert [next(lines).text, next(lines).text] == [b"saw", b""]
        os.kill(pod.process("main")["pid"], signal.SIGKILL)
        assert next(lines).text == b"saw /data/seen"


def test_config_maps_and_secrets_arrive_as_variables_and_files(pods: Pods) -> None:
    main = container(
        "main",
        "sh",
        "-c",
        "echo $COLOUR $PASSWORD; cat /config/colour /secret/password; stat -Lc %a /secret/password",
        env=[
            {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}},
        ],
        volumeMounts=[{"name": "config", "mountPath": "/config"}, {"name": "secret", "mountPath": "/secret"}],
    )
    pod = pods.start(
        main,
        restartPolicy="Never",
        volumes=[
            {"name": "config", "configMap": {"name": "settings"}},
            {"name": "secret", "secret": {"secretName": "login", "defaultMode": 0o400}},
        ],
        values={
            "ConfigMap": {"settings": {"metadata": {"name": "settings"}, "data": {"colour": "blue\n"}}},
            "Secret": {"login": {"metadata": {"name": "login"}, "data": {"password": b64encode(b"open\n").decode()}}},
        },
    )
    assert pod.ended()["phase"] == "Succeeded", pod.status
    assert pod.log("main").split()[:5] == ["blue", "open", "blue", "open", "400"]


def test_host_network_and_no_network(pods: Pods) -> None:
    host = pods.start(container("main", *FOREVER), name="host", hostNetwork=True)
    marks = {"annotations": {"rawpod.dev/network": "none"}}
    alone = pods.start(container("main", *FOREVER), name="alone", metadata=marks)
    assert "podIP" not in host.running()
    assert "podIP" not in alone.running()
    own = Path("/proc/self/ns/net").readlink()
    assert Path(f"/proc/{host.process('main')['pid']}/ns/net").readlink() == own
    assert Path(f"/proc/{alone.process('main')['pid']}/ns/net").readlink() != own


def test_a_flood_of_output_is_logged_without_a_gap(pods: Pods) -> None:
    """Fault 18: across rotations, no line within what is kept is missing."""
    script = "import sys\nfor n in range(600000): sys.stdout.write(f'{n:08}' + 'x' * 91 + chr(10))"
    pod = pods.start(container("main", "/usr/bin/python3", "-c", script), restartPolicy="Never")
    assert pod.ended()["phase"] == "Succeeded"
    numbers = [int(line[:8]) for line in pod.log("main").splitlines()]
    assert numbers == list(range(numbers[0], 600_000))
    assert len(logread.files(pod.log_path("main"))) == 5


def test_a_pod_that_cannot_be_read_is_reported_in_the_monitors_log(pods: Pods, settings: Settings) -> None:
    uid = "bad0"
    directory.create(settings, uid, b"{}")
    pods.ask({"spawn": {"uid": uid}})
    log = settings.pod(uid) / "monitor.log"
    from runtime.pod import control

    with control.connect(settings.pod(uid)) as connection:
        assert control.receive(connection) is None
    assert "uid" in log.read_text()
    sandbox.destroy(settings, uid)


@pytest.mark.parametrize("uid", ["../etc", "a/b", "", "-a", "A", "a" * 64])
def test_a_uid_that_could_lead_elsewhere_is_refused(pods: Pods, uid: str) -> None:
    """CVE-2014-9358. Fails when directory.check_uid lets everything pass."""
    assert "malformed" in pods.ask({"destroy": {"uid": uid}})["error"]
