"""Every manifest of examples/pods, run: what its first line says is what one sees."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from runtime.pod import manifest, objects
from tests.linux.examples_volumes import VOLUMES
from tests.pods import Pods, RunningPod, pods, settings_on_disk

pytestmark = pytest.mark.userland

__all__ = ["pods", "settings_on_disk"]

EXAMPLES = Path(__file__).parents[2] / "examples/pods"


def start(pods: Pods, name: str) -> RunningPod:
    """The pod of an example, with the ConfigMaps and Secrets beside it."""
    values: dict[str, dict[str, object]] = {"ConfigMap": {}, "Secret": {}}
    found: list[objects.Pod] = []
    for document in manifest.load([EXAMPLES / f"{name}.yaml"]):
        if isinstance(document.object, objects.Pod):
            found.append(document.object)
        elif document.object.kind in values:
            values[document.object.kind][document.object.metadata.name] = msgspec.to_builtins(document.object)
    (pod,) = found
    spec = msgspec.to_builtins(pod.spec)
    metadata = msgspec.to_builtins(pod.metadata)
    metadata.pop("name")
    containers = spec.pop("containers")
    return pods.start(*containers, name=pod.metadata.name, values=values, metadata=metadata, **spec)


def printed(pods: Pods, name: str) -> str:
    """What the container of an example that ends by itself has printed."""
    pod = start(pods, name)
    assert pod.ended()["phase"] == "Succeeded", (pod.status, pod.log("main"))
    return pod.log("main")


def dns(pods: Pods) -> None:
    assert printed(pods, "dns").splitlines() == [
        "search ns1.svc.cluster.local my.dns.search.suffix",
        "nameserver 192.0.2.53",
        "options ndots:2 edns0",
    ]


def fqdn(pods: Pods) -> None:
    name, *hosts = printed(pods, "fqdn").splitlines()
    assert name == "busybox-1.busybox-subdomain.default.svc.cluster.local"
    assert hosts[-1].split()[1:] == [name, "busybox-1"]


def host_namespaces(pods: Pods) -> None:
    pid, ipc, others = printed(pods, "host-namespaces").splitlines()
    assert (pid, ipc) == (os.readlink("/proc/self/ns/pid"), os.readlink("/proc/self/ns/ipc"))
    assert others == "sees others"


def init_container(pods: Pods) -> None:
    assert printed(pods, "init-container") == "prepared by an init container\n"


def sidecar(pods: Pods) -> None:
    pod = start(pods, "sidecar")
    assert pod.ended()["phase"] == "Succeeded", (pod.status, pod.log("job"))
    assert pod.log("job") == "200\n"
    assert "terminated" in pod.status["initContainerStatuses"][0]["state"]


def node_selector(pods: Pods) -> None:
    assert printed(pods, "node-selector") == "chosen\n"


def fs_group(pods: Pods) -> None:
    assert printed(pods, "fs-group").splitlines() == [
        "3000 2000 4000",
        "drwxrwsrwx 2000 /data",
        "-rw-r--r-- 2000 /data/file",
        "-r--r----- 2000 /secret/password",
        "open",
    ]


def resource_fields(pods: Pods) -> None:
    pod = start(pods, "resource-fields")
    assert pod.ended()["phase"] == "Succeeded", (pod.status, pod.log("main"))
    assert pod.log("main") == "1 125 32 67108864\n"
    assert pod.status["qosClass"] == "Burstable"


def empty_dir_limit(pods: Pods) -> None:
    status = start(pods, "empty-dir-limit").ended()
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")


def probe_exec(pods: Pods) -> None:
    pod = start(pods, "probe-exec")
    pod.wait(lambda _: pod.state()["restartCount"] == 1 and "terminated" in pod.state()["lastState"])
    assert "failed liveness probe, will be restarted: cat:" in pod.state()["lastState"]["terminated"]["message"]


def probe_http(pods: Pods) -> None:
    pod = start(pods, "probe-http")
    pod.wait(lambda _: pod.state()["ready"])
    with closing(pod.follow("main")) as lines:
        assert any(b"GET /healthz" in line.text for line in lines)


def probe_startup(pods: Pods) -> None:
    pod = start(pods, "probe-startup")
    assert pod.running()["containerStatuses"][0]["started"] is False
    pod.wait(lambda _: pod.state()["started"] and pod.state()["ready"])
    assert pod.state()["restartCount"] == 0


def probe_tcp(pods: Pods) -> None:
    pod = start(pods, "probe-tcp")
    pod.wait(lambda _: pod.state(0)["ready"])
    assert pod.state(1)["ready"] is False
    assert {c["type"]: c.get("message") for c in pod.status["conditions"]}["Ready"].endswith("[sleeps]")


SEEN: dict[str, Callable[[Pods], None]] = {
    "dns": dns,
    "empty-dir-limit": empty_dir_limit,
    "fqdn": fqdn,
    "fs-group": fs_group,
    "host-namespaces": host_namespaces,
    "init-container": init_container,
    "node-selector": node_selector,
    "probe-exec": probe_exec,
    "probe-http": probe_http,
    "probe-startup": probe_startup,
    "probe-tcp": probe_tcp,
    "sidecar": sidecar,
    "resource-fields": resource_fields,
}


@pytest.mark.parametrize("name", SEEN)
def test_an_example_shows_what_it_says(pods: Pods, name: str) -> None:
    SEEN[name](pods)


@pytest.mark.parametrize("name", VOLUMES)
def test_an_example_about_volumes_prints_what_it_says(pods: Pods, name: str) -> None:
    assert [line for line in printed(pods, name).splitlines() if "Read-only" not in line] == VOLUMES[name]


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {*SEEN, *VOLUMES}
