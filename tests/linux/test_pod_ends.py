"""How containers end or fail to begin, against a table of what kubelet reports."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pods import Json, Pods, container, pods

__all__ = ["pods"]

pytestmark = pytest.mark.userland

FOREVER = ("sh", "-c", "exec sleep 1000000")


@pytest.mark.parametrize(
    ("script", "code", "signal", "reason", "phase"),
    [
        ("exit 0", 0, None, "Completed", "Succeeded"),
        ("exit 1", 1, None, "Error", "Failed"),
        ("exit 255", 255, None, "Error", "Failed"),
        ("exit 143", 143, None, "Error", "Failed"),
    ],
)
def test_exit_codes(pods: Pods, script: str, code: int, signal: int | None, reason: str, phase: str) -> None:
    pod = pods.start(container("main", "sh", "-c", script), restartPolicy="Never")
    assert pod.ended()["phase"] == phase
    ended = pod.state()["state"]["terminated"]
    assert (ended["exitCode"], ended.get("signal"), ended["reason"]) == (code, signal, reason)
    assert pod.state()["lastState"] == {}


def test_a_signals_number_is_told_and_added_to_128(pods: Pods) -> None:
    pod = pods.start(container("main", *FOREVER), restartPolicy="Never")
    pod.running()
    pod.send({"do": "signal", "container": "main", "signal": 9})
    assert pod.ended()["phase"] == "Failed"
    ended = pod.state()["state"]["terminated"]
    assert (ended["exitCode"], ended["signal"], ended["reason"]) == (137, 9, "Error")


MISSING: Json = {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k"}}}
NOT_ROOT: Json = {"securityContext": {"runAsNonRoot": True}}


@pytest.mark.parametrize(
    ("fields", "reason", "told"),
    [
        ({"image": "absent", "imagePullPolicy": "Never"}, "ErrImageNeverPull", "absent"),
        ({"image": "A b"}, "InvalidImageName", "A b"),
        ({"env": [MISSING]}, "CreateContainerConfigError", "ConfigMap 'absent' not found"),
        (NOT_ROOT, "CreateContainerConfigError", "runAsNonRoot"),
    ],
)
def test_what_cannot_be_made_waits_and_says_why(pods: Pods, fields: Json, reason: str, told: str) -> None:
    pod = pods.start({**container("main", *FOREVER), **fields})
    status = pod.wait(lambda now: now["containerStatuses"][0]["state"]["waiting"]["reason"] == reason)
    assert told in pod.state()["state"]["waiting"]["message"]
    assert status["phase"] == "Pending"
    assert pod.state()["restartCount"] == 0
    assert (pod.state()["ready"], pod.state()["started"]) == (False, False)


def test_a_missing_command_is_told_before_its_back_off_is(pods: Pods) -> None:
    pod = pods.start(container("main", "nonesuch"))
    seen: list[str] = []

    def reasons(status: Json) -> bool:
        now: Json = status["containerStatuses"][0]["state"].get("waiting", {})
        seen.append(now.get("reason", ""))
        return seen[-1] == "CrashLoopBackOff"

    pod.wait(reasons)
    assert "RunContainerError" in seen
    assert pod.state()["lastState"]["terminated"]["reason"] == "StartError"


@pytest.mark.parametrize(
    ("script", "fields", "expected"),
    [
        ("echo why > /dev/termination-log; exit 1", {}, "why\n"),
        ("echo well > /dev/termination-log", {}, "well\n"),
        ("echo log", {}, ""),
        ("echo log; exit 1", {"terminationMessagePolicy": "FallbackToLogsOnError"}, "log\n"),
        ("echo elsewhere > /run/why", {"terminationMessagePath": "/run/why"}, "elsewhere\n"),
        # The path belongs to the container, the file does not.
        ("umount /dev/termination-log; ln -sf /etc/passwd /dev/termination-log; exit 0", {}, ""),
    ],
)
def test_last_words(pods: Pods, script: str, fields: dict[str, Any], expected: str) -> None:
    pod = pods.start(container("main", "sh", "-c", script, **fields), restartPolicy="Never")
    pod.ended()
    assert pod.state()["state"]["terminated"].get("message", "") == expected, (pod.status, pod.log("main"))


def test_last_words_of_a_user_that_is_not_root_in_a_pod_with_users_of_its_own(pods: Pods) -> None:
    main = container("main", "sh", "-c", "echo mine > /dev/termination-log", securityContext={"runAsUser": 1000})
    pod = pods.start(main, restartPolicy="Never", hostUsers=False)
    pod.ended()
    assert pod.state()["state"]["terminated"]["message"] == "mine\n", pod.log("main")


def test_a_pod_beyond_its_deadline_has_failed(pods: Pods) -> None:
    """Also if its containers end well when they are asked to."""
    heeds = "trap 'exit 0' TERM; while :; do sleep 0.01; done"
    pod = pods.start(container("main", "sh", "-c", heeds), activeDeadlineSeconds=1, terminationGracePeriodSeconds=60)
    status = pod.ended()
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")
    assert pod.state()["state"]["terminated"]["reason"] == "Completed"
