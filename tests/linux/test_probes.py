"""Probes of running pods: what they ask, what their answers lead to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtime.settings import Settings
from tests.linux.test_supervisor_life import DEPLOYMENTS, PODS, Supervisor, deployment, supervisor
from tests.pods import Json, Pods, RunningPod, container, pods

pytestmark = pytest.mark.userland

__all__ = ["pods", "supervisor"]

SLEEP = ("sleep", "1000000")
ALONE = {"annotations": {"rawpod.dev/network": "none"}}
TEST = {"exec": {"command": ["test", "-e", "/tmp/well"]}, "periodSeconds": 1, "failureThreshold": 1}

# A server of canned answers: whatever file is asked for, its text is the response.
SERVER = """
import os, socket, ssl, sys
server = socket.create_server(("", int(sys.argv[1])))
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    server = context.wrap_socket(server, server_side=True)
while True:
    try:
        client, _ = server.accept()
        head = client.recv(65536)
        print(head.decode(), end="", flush=True)
        target = head.split()[1].decode()
        if target == "/silent":
            kept = client
            continue
        client.sendall({
            "/ok": b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok",
            "/moved": b"HTTP/1.1 302 Found\\r\\nLocation: /ok\\r\\n\\r\\n",
            "/away": b"HTTP/1.1 302 Found\\r\\nLocation: http://10.255.255.1/\\r\\n\\r\\n",
            "/loop": b"HTTP/1.1 302 Found\\r\\nLocation: /loop\\r\\n\\r\\n",
            "/long": b"HTTP/1.1 200 OK\\r\\n\\r\\n" + bytes(20000),
            "/no-http": b"220 mail\\r\\n",
        }.get(target, b"HTTP/1.1 503 Busy\\r\\nContent-Length: 0\\r\\n\\r\\n"))
        client.close()
    except (OSError, IndexError):
        pass
"""


def serve(*args: str, **fields: object) -> Json:
    return container("main", "/usr/bin/python3", "-c", SERVER, *args, **fields)


def readiness(action: str, **fields: object) -> Json:
    return {"readinessProbe": {action: fields, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 1}}


def told(pod: RunningPod, kind: str = "readiness", index: int = 0) -> Json:
    name = pod.status["containerStatuses"][index]["name"]
    found: Json = (pod.process(name).get("probes") or {}).get(kind) or {}
    return found


def well(pod: RunningPod) -> Path:
    return Path(f"/proc/{pod.process('main')['pid']}/root/tmp/well")


def conditions(pod: RunningPod) -> dict[str, Json]:
    return {condition["type"]: condition for condition in pod.status["conditions"]}


def test_a_container_is_ready_while_its_probe_says_so(pods: Pods) -> None:
    pod = pods.start(container("main", *SLEEP, readinessProbe=TEST), metadata=ALONE)
    pod.wait(lambda _: bool(told(pod)))
    assert (pod.state()["ready"], pod.state()["started"]) == (False, True)
    for kind in ("Ready", "ContainersReady"):
        assert conditions(pod)[kind]["status"] == "False"
        assert conditions(pod)[kind]["reason"] == "ContainersNotReady"
        assert conditions(pod)[kind]["message"] == "containers with unready status: [main]"
    well(pod).touch()
    pod.wait(lambda status: status["containerStatuses"][0]["ready"])
    assert conditions(pod)["Ready"]["status"] == "True"
    assert "reason" not in conditions(pod)["Ready"]
    well(pod).unlink()
    pod.wait(lambda status: not status["containerStatuses"][0]["ready"])
    assert pod.state()["restartCount"] == 0
    assert "running" in pod.state()["state"]


def test_a_startup_probe_holds_the_others_off_and_a_liveness_probe_restarts(pods: Pods) -> None:
    """What fails meanwhile would end the container at once."""
    startup = TEST | {"failureThreshold": 100}
    liveness = TEST | {"terminationGracePeriodSeconds": 1}
    script = "trap '' TERM; echo begun; while :; do sleep 1000000 & wait; done"
    main = container("main", "sh", "-c", script, startupProbe=startup, livenessProbe=liveness, readinessProbe=TEST)
    pod = pods.start(main, metadata=ALONE)
    pod.wait(lambda _: told(pod, "startup").get("result") == "failure")
    assert (pod.state()["started"], pod.state()["ready"]) == (False, False)
    assert set(pod.process("main")["probes"]) == {"startup"}
    file = well(pod)
    file.touch()
    pod.wait(lambda status: status["containerStatuses"][0]["ready"])
    assert pod.state()["started"] is True
    file.unlink()
    pod.wait(lambda status: status["containerStatuses"][0]["restartCount"] == 1)
    pod.wait(lambda status: "terminated" in status["containerStatuses"][0]["lastState"])
    end = pod.state()["lastState"]["terminated"]
    # SIGTERM was ignored, and the probe's own grace period is a second, not the pod's 30.
    assert (end["exitCode"], end["reason"]) == (137, "Error")
    assert end["message"] == "Container main failed liveness probe, will be restarted"
    pod.running()
    assert pod.state()["started"] is False


def test_the_containers_after_a_sidecar_wait_for_its_startup_probe(pods: Pods) -> None:
    helper = container("main", *SLEEP, startupProbe=TEST | {"failureThreshold": 100}, restartPolicy="Always")
    pod = pods.start(container("after", *SLEEP), initContainers=[helper], metadata=ALONE)

    def probed(_: Json) -> bool:
        return bool((pod.process("main").get("probes") or {}).get("startup"))

    pod.wait(probed)
    assert pod.status["initContainerStatuses"][0]["started"] is False
    assert pod.state()["state"]["waiting"]["reason"] == "PodInitializing"
    well(pod).touch()
    pod.running()
    assert pod.status["initContainerStatuses"][0]["started"] is True


@pytest.mark.parametrize(("policy", "restarts"), [("Never", 0), ("OnFailure", 1)])
def test_what_a_probe_ends_is_restarted_by_policy_even_if_it_ends_well(pods: Pods, policy: str, restarts: int) -> None:
    """kubelet restarts a container of OnFailure whose liveness probe failed, though SIGTERM made it exit with 0."""
    script = "trap 'exit 0' TERM; while :; do sleep 1000000 & wait; done"
    probe = {"exec": {"command": ["sh", "-c", "echo unwell; exit 3"]}, "failureThreshold": 1, "periodSeconds": 1}
    pod = pods.start(container("main", "sh", "-c", script, startupProbe=probe), metadata=ALONE, restartPolicy=policy)
    if restarts:
        pod.wait(lambda status: status["containerStatuses"][0]["restartCount"] > 0)
        pod.wait(lambda status: "terminated" in status["containerStatuses"][0]["lastState"])
        end = pod.state()["lastState"]["terminated"]
        assert end["message"] == "Container main failed startup probe, will be restarted: unwell"
    else:
        assert pod.ended()["phase"] == "Succeeded"
        end = pod.state()["state"]["terminated"]
        assert end["message"] == "Container main failed startup probe: unwell"
    assert (end["exitCode"], end["reason"]) == (0, "Completed")


def test_an_exec_probe_that_hangs_fails_and_one_that_cannot_be_run_counts_for_nothing(pods: Pods) -> None:
    hangs = {"exec": {"command": ["sleep", "1000000"]}, "periodSeconds": 1, "failureThreshold": 1}
    missing = {"exec": {"command": ["/nonesuch"]}, "periodSeconds": 1, "failureThreshold": 1}
    pod = pods.start(container("main", *SLEEP, readinessProbe=hangs, livenessProbe=missing), metadata=ALONE)
    pod.wait(lambda _: bool(told(pod)) and bool(told(pod, "liveness")))
    assert told(pod) == {"result": "failure", "message": "no answer within 1 s"}
    assert told(pod, "liveness")["result"] == "unknown"
    assert "nonesuch" in told(pod, "liveness")["message"]
    assert pod.state()["restartCount"] == 0
    processes = (pod.cgroup("main") / "cgroup.procs").read_text().split()
    assert str(pod.process("main")["pid"]) in processes


@pytest.mark.parametrize("network", ["pod", "none", "host"])
def test_connections_are_made_to_the_pod_wherever_it_is(pods: Pods, network: str) -> None:
    """A port nobody listens on is refused, in the pod's own network and not in the host's."""
    spec: Json = {"metadata": ALONE} if network == "none" else {"hostNetwork": True} if network == "host" else {}
    ports = [{"name": "web", "containerPort": 8080}]
    main = serve("8080", ports=ports, **readiness("tcpSocket", port="web"))
    other = container("other", *SLEEP, **readiness("tcpSocket", port=8081))
    pod = pods.start(main, other, **spec)
    pod.wait(lambda status: status["containerStatuses"][0]["ready"] and bool(told(pod, index=1)))
    assert told(pod) == {"result": "success"}
    where = pod.status.get("podIP", "127.0.0.1")
    assert told(pod, index=1) == {"result": "failure", "message": f"connect to {where}:8081: connection refused"}
    assert pod.state(1)["ready"] is False


def test_http_statuses_redirects_and_headers(pods: Pods) -> None:
    """One server, a container for each path that asks it."""
    paths = {
        "/ok": ("success", ""),
        "/moved": ("success", ""),
        "/away": ("success", "is not followed"),
        "/long": ("success", ""),
        "/busy": ("failure", "HTTP probe failed with statuscode: 503"),
        "/loop": ("failure", "stopped after 10 redirects"),
        "/no-http": ("failure", "malformed HTTP response"),
        "/silent": ("failure", "no answer within 1 s"),
    }
    headers = [{"name": "Host", "value": "web.example"}, {"name": "X-Probe", "value": "yes"}]
    askers = [
        container(path[1:], *SLEEP, **readiness("httpGet", port=8080, path=path, httpHeaders=headers)) for path in paths
    ]
    pod = pods.start(serve("8080", **readiness("tcpSocket", port=8080)), *askers, metadata=ALONE)
    expected = [(result, words) for result, words in paths.values()]

    def told_as_expected(_status: Json) -> bool:
        found = [told(pod, index=index) for index in range(1, len(askers) + 1)]
        return all(
            one.get("result") == result and words in one.get("message", "")
            for one, (result, words) in zip(found, expected, strict=True)
        )

    pod.wait(told_as_expected)
    sent = pod.log("main")
    assert "GET /ok HTTP/1.1\r\nHost: web.example\r\nUser-Agent: kube-probe/1.34\r\n" in sent
    assert "X-Probe: yes\r\n" in sent


def test_https_takes_any_certificate(pods: Pods, tmp_path: Path) -> None:
    pair = tmp_path / "pair.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=elsewhere", "-days", "1"]
    subprocess.run([*request, "-keyout", pair, "-out", tmp_path / "cert.pem"], check=True, capture_output=True)
    with pair.open("a") as file:
        file.write((tmp_path / "cert.pem").read_text())
    os.chmod(tmp_path, 0o755)
    mount = {"volumeMounts": [{"name": "pair", "mountPath": "/pair"}]}
    volume = {"volumes": [{"name": "pair", "hostPath": {"path": str(tmp_path)}}]}
    over = readiness("httpGet", port=8443, path="/moved", scheme="HTTPS")
    plain = container("plain", *SLEEP, **readiness("httpGet", port=8443, path="/ok"))
    pod = pods.start(serve("8443", "/pair/pair.pem", **mount, **over), plain, metadata=ALONE, **volume)
    pod.wait(lambda status: status["containerStatuses"][0]["ready"] and bool(told(pod, index=1)))
    assert told(pod, index=1)["result"] == "failure"


# A health service as one would write it with nothing but frames: the service asked for is well if its name is "well".
GRPC = """
import socket, struct
def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
def exactly(n):
    data = b""
    while len(data) < n:
        more = client.recv(n - len(data))
        if not more: raise OSError
        data += more
    return data
server = socket.create_server(("", 50051))
while True:
    client, _ = server.accept()
    try:
        assert exactly(24).startswith(b"PRI * HTTP/2.0")
        client.sendall(frame(4, 0, 0, b""))
        while True:
            head = exactly(9)
            payload = exactly(int.from_bytes(head[:3], "big"))
            if head[3] == 0: break
        status = 1 if payload.endswith(b"well") else 2
        answer = b"\\0\\0\\0\\0\\2\\x08" + bytes([status])
        client.sendall(frame(1, 4, 1, b"\\x88") + frame(0, 0, 1, answer) + frame(1, 5, 1, b"\\0\\x0bgrpc-status\\x010"))
    except OSError:
        pass
    client.close()
"""


def test_grpc_asks_for_the_health_of_a_service(pods: Pods) -> None:
    main = container("main", "/usr/bin/python3", "-c", GRPC, **readiness("grpc", port=50051, service="well"))
    unwell = container("unwell", *SLEEP, **readiness("grpc", port=50051))
    pod = pods.start(main, unwell, metadata=ALONE)
    pod.wait(
        lambda status: status["containerStatuses"][0]["ready"] and "responded" in told(pod, index=1).get("message", "")
    )
    assert told(pod, index=1) == {"result": "failure", "message": 'service unhealthy (responded with "NOT_SERVING")'}


def test_a_deployment_counts_the_pods_that_their_probes_call_ready(supervisor: Supervisor) -> None:
    item = deployment(2)
    item["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = TEST
    supervisor.apply(item)
    made = supervisor.until(
        PODS,
        lambda found: len(found) == 2 and all((pod.get("status") or {}).get("phase") == "Running" for pod in found),
    )
    (before,) = supervisor.client.request("GET", DEPLOYMENTS)["items"]
    assert before["status"].get("readyReplicas", 0) == 0
    uid = made[0]["metadata"]["uid"]
    (pid,) = [pid for name, pid in supervisor.payloads().items() if name.startswith(uid)]
    Path(f"/proc/{pid}/root/tmp/well").touch()
    supervisor.until(DEPLOYMENTS, lambda found: found[0]["status"].get("readyReplicas") == 1)
    (after,) = supervisor.client.request("GET", DEPLOYMENTS)["items"]
    assert (after["status"]["replicas"], after["status"]["availableReplicas"]) == (2, 1)


def test_a_probes_program_ends_with_its_container(pods: Pods, settings: Settings) -> None:
    hangs = {"exec": {"command": ["sleep", "1000000"]}, "timeoutSeconds": 1000}
    pod = pods.start(container("main", *SLEEP, livenessProbe=hangs), metadata=ALONE)
    pod.running()
    while len((pod.cgroup("main") / "cgroup.procs").read_text().split()) < 2:
        pass
    assert pod.stop()["phase"] == "Failed"
    assert not (Path(pod.process("main")["cgroup"])).exists()
    assert settings.pod(pod.uid).exists()
