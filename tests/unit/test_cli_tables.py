"""Tables as kubectl prints them."""

from typing import Any

import pytest

from runtime.cli.describe import render
from runtime.cli.printing import to_yaml
from runtime.cli.tables import TABLES, age, line, pod_status, widths
from runtime.supervisor.meta import timestamp

NOW = 1_700_000_000.0

Object = dict[str, Any]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (10799, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600 + 60, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (50 * 3600, "2d2h"),
        (9 * 86400, "9d"),
        (800 * 86400, "2y70d"),
    ],
)
def test_age(seconds: int, shown: str) -> None:
    assert age(timestamp(NOW - seconds), NOW) == shown


def pod(*states: Object, phase: str = "Running", **metadata: Any) -> Object:
    statuses = [
        {"name": f"c{n}", "image": "i", "ready": "running" in state, "restartCount": n, "state": state}
        for n, state in enumerate(states)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "namespace": "default",
            "uid": "u",
            "creationTimestamp": timestamp(NOW - 60),
            **metadata,
        },
        "spec": {"containers": [{"name": f"c{n}", "image": "i"} for n in range(len(states))], "nodeName": "node"},
        "status": {"phase": phase, "containerStatuses": statuses},
    }


RUNNING = {"running": {"startedAt": timestamp(NOW)}}


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        (pod(RUNNING), "Running"),
        (pod({"waiting": {"reason": "CrashLoopBackOff"}}, RUNNING), "CrashLoopBackOff"),
        (pod({"terminated": {"exitCode": 0, "reason": "Completed"}}, phase="Succeeded"), "Completed"),
        (pod({"terminated": {"exitCode": 0, "reason": "Completed"}}, RUNNING), "Running"),
        (pod({"terminated": {"exitCode": 137, "signal": 9}}), "Signal:9"),
        (pod({"terminated": {"exitCode": 3}}), "ExitCode:3"),
        (pod(RUNNING, deletionTimestamp=timestamp(NOW)), "Terminating"),
        (pod(phase="Pending"), "Pending"),
    ],
)
def test_the_status_of_a_pod_is_the_most_telling_reason(item: Object, shown: str) -> None:
    assert pod_status(item) == shown


WAITING = {"waiting": {"reason": "PodInitializing"}}
DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        ([WAITING, WAITING], "Init:0/2"),
        ([DONE, RUNNING], "Init:1/2"),
        ([{"terminated": {"exitCode": 1, "reason": "Error"}}, WAITING], "Init:Error"),
        ([{"terminated": {"exitCode": 1}}, WAITING], "Init:ExitCode:1"),
        ([{"waiting": {"reason": "CrashLoopBackOff"}}, WAITING], "Init:CrashLoopBackOff"),
        ([DONE, DONE], "PodInitializing"),
    ],
)
def test_a_pod_that_initializes_shows_how_far_it_is(states: list[Object], shown: str) -> None:
    item = pod(WAITING, phase="Pending")
    item["spec"]["initContainers"] = [{"name": f"i{n}"} for n in range(len(states))]
    item["status"]["initContainerStatuses"] = [
        {"name": f"i{n}", "restartCount": 0, "state": state} for n, state in enumerate(states)
    ]
    assert pod_status(item) == shown


def test_sidecars_count_among_the_ready_containers() -> None:
    item = pod(RUNNING)
    item["spec"]["initContainers"] = [{"name": "i0"}, {"name": "i1", "restartPolicy": "Always"}]
    item["status"]["initContainerStatuses"] = [
        {"name": "i0", "ready": True, "restartCount": 3, "state": DONE},
        {"name": "i1", "ready": True, "started": True, "restartCount": 2, "state": RUNNING},
    ]
    assert TABLES["Pod"].row(item, wide=False, namespaces=False, now=NOW)[1:4] == ["2/2", "Running", "2"]


def test_a_pods_row() -> None:
    item = pod(RUNNING, RUNNING)
    item["status"]["podIP"] = "10.88.0.5"
    table = TABLES["Pod"]
    row = table.row(item, wide=True, namespaces=True, now=NOW)
    assert row == ["default", "p", "2/2", "Running", "1", "60s", "10.88.0.5", "node"]
    heading = table.headings(wide=True, namespaces=True)
    columns = widths([heading, row])
    assert line(heading, columns).startswith("NAMESPACE   NAME   READY   STATUS")
    assert len(line(row, columns).split()) == len(heading)


def test_restarts_say_when_the_last_one_was() -> None:
    item = pod(RUNNING, RUNNING)
    item["status"]["containerStatuses"][1]["lastState"] = {"terminated": {"finishedAt": timestamp(NOW - 30)}}
    assert TABLES["Pod"].row(item, wide=False, namespaces=False, now=NOW)[3] == "1 (30s ago)"


def test_yaml_keeps_texts_of_several_lines_and_quotes_what_would_be_misread() -> None:
    shown = to_yaml({"a": "one\ntwo\n", "b": "no", "c": "010", "d": 1, "e": "2026-01-31"})
    assert shown == "a: |\n  one\n  two\nb: 'no'\nc: '010'\nd: 1\ne: '2026-01-31'\n"


def test_describe_shows_no_secret() -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "s",
            "namespace": "default",
            "uid": "u",
            "creationTimestamp": timestamp(NOW),
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "c2VjcmV0"},
        },
        "type": "Opaque",
        "data": {"k": "c2VjcmV0"},
    }
    shown = render(secret, NOW)
    assert "c2VjcmV0" not in shown and "<6 bytes>" in shown


def test_describe_of_a_pod_has_containers_and_labels() -> None:
    shown = render(pod(RUNNING, labels={"a": "1", "b": "2"}), NOW)
    assert "c0:" in shown and "a=1" in shown and "b=2" in shown and "Running started 0s ago" in shown
