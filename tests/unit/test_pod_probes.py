"""What is made of probes' results, and how probes are declared."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.pod import defaults, validate
from runtime.pod.objects import Pod
from runtime.pod.probes import (
    FAILURE,
    LIVENESS,
    READINESS,
    STARTUP,
    SUCCESS,
    UNKNOWN,
    Exec,
    Grpc,
    HttpGet,
    Judge,
    Rule,
    TcpSocket,
    rules_of,
    target_of,
)

ACTION = TcpSocket("", 80)
RESULTS = st.lists(st.sampled_from([SUCCESS, FAILURE, UNKNOWN]), max_size=30)
NAMES = {"+": SUCCESS, "-": FAILURE, "?": UNKNOWN}


def judge(*kinds: str, success: int = 1, failure: int = 3) -> Judge:
    rules = [
        Rule(kind, ACTION, success_threshold=success if kind == READINESS else 1, failure_threshold=failure)
        for kind in kinds
    ]
    return Judge.of(tuple(rules))


def test_without_probes_a_container_is_started_and_ready() -> None:
    assert (judge().started, judge().ready) == (True, True)


@pytest.mark.parametrize(
    ("success", "failure", "results", "ready"),
    [
        (1, 3, "", "0"),
        (1, 3, "+", "01"),
        (1, 3, "+--+--", "0111111"),
        (1, 3, "+---+", "011101"),
        (2, 1, "+++-+-++", "001100001"),
        (1, 2, "+-?-+", "011101"),
        (3, 1, "++?+", "00001"),
    ],
)
def test_readiness_goes_by_thresholds_of_results_in_a_row(success: int, failure: int, results: str, ready: str) -> None:
    found = judge(READINESS, success=success, failure=failure)
    told = [found.ready]
    for result in results:
        found.add(READINESS, NAMES[result])
        told.append(found.ready)
    assert "".join(str(int(one)) for one in told) == ready


@pytest.mark.parametrize(
    ("results", "failed"), [("---", True), ("--+--", False), ("--?-", True), ("--??", False), ("+---", True)]
)
def test_liveness_fails_after_so_many_failures_in_a_row_and_asks_no_more(results: str, failed: bool) -> None:
    found = judge(LIVENESS)
    changes = [found.add(LIVENESS, NAMES[result]) for result in results]
    assert found.failed == (LIVENESS if failed else "")
    assert changes.count(True) == int(failed)
    assert found.asks(LIVENESS) is not failed
    assert found.ready


def test_a_startup_probe_holds_the_others_off() -> None:
    found = judge(STARTUP, LIVENESS, READINESS, failure=2)
    assert [found.asks(kind) for kind in (STARTUP, LIVENESS, READINESS)] == [True, False, False]
    assert not found.add(LIVENESS, FAILURE)
    assert not found.add(READINESS, SUCCESS)
    assert (found.add(STARTUP, FAILURE), found.started) == (False, False)
    assert (found.add(STARTUP, SUCCESS), found.started, found.ready) == (True, True, False)
    assert [found.asks(kind) for kind in (STARTUP, LIVENESS, READINESS)] == [False, True, True]
    found.add(READINESS, SUCCESS)
    assert found.ready


def test_a_startup_probe_that_fails_ends_the_container_and_nothing_is_asked_any_more() -> None:
    found = judge(STARTUP, LIVENESS, READINESS, failure=2)
    assert [found.add(STARTUP, FAILURE), found.add(STARTUP, FAILURE)] == [False, True]
    assert (found.failed, found.started, found.ready) == (STARTUP, False, False)
    assert not any(found.asks(kind) for kind in (STARTUP, LIVENESS, READINESS))


@given(RESULTS, st.integers(1, 4), st.integers(1, 4))
def test_readiness_is_what_the_last_run_that_reached_its_threshold_says(
    results: list[str], success: int, failure: int
) -> None:
    found = judge(READINESS, success=success, failure=failure)
    for result in results:
        found.add(READINESS, result)
    known = [result for result in results if result != UNKNOWN]
    expected, run = False, 0
    for index, result in enumerate(known):
        run = run + 1 if index and known[index - 1] == result else 1
        if run >= (success if result == SUCCESS else failure):
            expected = result == SUCCESS
    assert found.ready is expected


def pod(ports: list[dict[str, Any]] | None = None, **probes: Any) -> dict[str, Any]:
    main = {"name": "main", "image": "host", "command": ["true"], "ports": ports or [], **probes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [main]}}


def faults(tree: dict[str, Any]) -> list[str]:
    return [str(fault).removeprefix("spec.containers[0].") for fault in validate.decode(tree)[1]]


def rules(tree: dict[str, Any]) -> tuple[Rule, ...]:
    obj, wrong = validate.decode(tree)
    assert isinstance(obj, Pod)
    assert not wrong
    defaults.apply(obj)
    return rules_of(obj.spec.containers[0])


def test_defaults_are_kubernetes_own_and_ports_go_by_name() -> None:
    tree = pod(
        ports=[{"name": "web", "containerPort": 8080}],
        startupProbe={"exec": {"command": ["cat", "/tmp/up"]}, "failureThreshold": 30, "periodSeconds": 1},
        livenessProbe={"httpGet": {"port": "web"}, "terminationGracePeriodSeconds": 5},
        readinessProbe={"tcpSocket": {"port": "web", "host": "localhost"}, "successThreshold": 2},
    )
    assert rules(tree) == (
        Rule(STARTUP, Exec(("cat", "/tmp/up")), 0, 1, 1, 1, 30),
        Rule(LIVENESS, HttpGet("", 8080, "/", tls=False), 0, 1, 10, 1, 3, 5),
        Rule(READINESS, TcpSocket("127.0.0.1", 8080), 0, 1, 10, 2, 3),
    )


def test_all_that_an_action_says_is_taken_over() -> None:
    headers = [{"name": "X-One", "value": "1"}]
    get = {"port": 443, "scheme": "HTTPS", "path": "well?now=yes#not", "host": "10.0.0.1", "httpHeaders": headers}
    tree = pod(livenessProbe={"httpGet": get}, readinessProbe={"grpc": {"port": 50, "service": "db"}})
    first, second = rules(tree)
    assert first.action == HttpGet("10.0.0.1", 443, "/well?now=yes", tls=True, headers=(("X-One", "1"),))
    assert second.action == Grpc(50, "db")


def test_a_path_is_made_fit_for_a_request() -> None:
    assert target_of("/a b\r\nX: y") == "/a%20b%0D%0AX:%20y"
    assert target_of("/ä%20?q=ß") == "/%C3%A4%20?q=%C3%9F"


@pytest.mark.parametrize(
    ("probe", "fault"),
    [
        ({}, "livenessProbe: needs exactly one action"),
        ({"exec": {"command": ["true"]}, "tcpSocket": {"port": 1}}, "livenessProbe: needs exactly one action"),
        ({"exec": {}}, "livenessProbe.exec.command: required"),
        ({"exec": {"command": [""]}}, "livenessProbe.exec.command[0]: empty"),
        ({"tcpSocket": {}}, "livenessProbe.tcpSocket.port: required"),
        ({"tcpSocket": {"port": 65536}}, "livenessProbe.tcpSocket.port: 65536 is not a port"),
        ({"tcpSocket": {"port": "8080"}}, "livenessProbe.tcpSocket.port: '8080' is not a port's name"),
        ({"tcpSocket": {"port": "webb"}}, "livenessProbe.tcpSocket.port: no port 'webb' in ports (did you mean 'web')"),
        ({"tcpSocket": {"port": True}}, "livenessProbe.tcpSocket.port: 'true' is true or false where"),
        ({"tcpSocket": {"port": 1, "host": "web.local"}}, "livenessProbe.tcpSocket.host: 'web.local' is no address"),
        ({"httpGet": {"port": 1, "scheme": "http"}}, "livenessProbe.httpGet.scheme: unknown scheme 'http'"),
        (
            {"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": ""}]}},
            "livenessProbe.httpGet.httpHeaders[0].name: 'a b' is not",
        ),
        (
            {"httpGet": {"port": 1, "httpHeaders": [{"name": "a", "value": "b\r\nc: d"}]}},
            "livenessProbe.httpGet.httpHeaders[0].value: contains control characters",
        ),
        ({"grpc": {}}, "livenessProbe.grpc.port: required"),
        ({"tcpSocket": {"port": 1}, "successThreshold": 2}, "livenessProbe.successThreshold: 2 successes"),
        ({"tcpSocket": {"port": 1}, "periodSeconds": -1}, "livenessProbe.periodSeconds: -1 is out of range"),
        (
            {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 0},
            "livenessProbe.terminationGracePeriodSeconds: 0 is out of range",
        ),
    ],
)
def test_what_kubernetes_refuses_is_refused_with_its_place(probe: dict[str, Any], fault: str) -> None:
    (found,) = faults(pod(ports=[{"name": "web", "containerPort": 80}], livenessProbe=probe))
    assert found.startswith(fault)


def test_an_init_container_has_no_probes_and_a_sidecar_has() -> None:
    init = {"name": "first", "image": "host", "command": ["true"], "livenessProbe": {"tcpSocket": {"port": 1}}}
    tree = pod()
    tree["spec"]["initContainers"] = [init]
    (found,) = (str(fault) for fault in validate.decode(tree)[1])
    assert found.startswith("spec.initContainers[0].livenessProbe: an init container has no probes")
    init["restartPolicy"] = "Always"
    assert not faults(tree)


def test_a_readiness_probe_has_a_success_threshold_and_no_grace_period() -> None:
    probe = {"tcpSocket": {"port": 1}, "successThreshold": 2, "terminationGracePeriodSeconds": 5}
    (found,) = faults(pod(readinessProbe=probe))
    assert found.startswith("readinessProbe.terminationGracePeriodSeconds: a readinessProbe ends nothing")
