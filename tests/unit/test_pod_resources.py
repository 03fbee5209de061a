"""What requests and limits are good for beside the kernel: classes of service, and variables that tell of them."""

from __future__ import annotations

import re

import msgspec
import pytest

from runtime.pod import defaults, downward, environment, manifest, objects, volumes
from runtime.pod.faults import Faults
from runtime.pod.qos import qos_class

BOTH = "{cpu: 500m, memory: 64Mi}"
SAME = "{cpu: '0.5', memory: '67108864'}"
MACHINE = downward.Machine(millicores=2500, memory=3 << 30)


def pod(*resources: str, env: str = "[]") -> objects.Pod:
    containers = ", ".join(
        f"{{name: c{number}, image: host, env: {env}, resources: {one}}}" for number, one in enumerate(resources)
    )
    found = manifest.loads(
        f"{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{containers: [{containers}]}}}}"
    )
    assert isinstance(found[0].object, objects.Pod)
    return found[0].object


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (["{}"], "BestEffort"),
        (["{}", "{}"], "BestEffort"),
        ([f"{{limits: {BOTH}}}"], "Guaranteed"),
        ([f"{{limits: {BOTH}, requests: {BOTH}}}"], "Guaranteed"),
        ([f"{{limits: {BOTH}, requests: {SAME}}}"], "Guaranteed"),
        ([f"{{limits: {BOTH}, requests: {{cpu: 500m}}}}"], "Guaranteed"),
        ([f"{{limits: {BOTH}}}", f"{{limits: {SAME}}}"], "Guaranteed"),
        ([f"{{limits: {BOTH}}}", "{}"], "Burstable"),
        ([f"{{limits: {BOTH}, requests: {{cpu: 100m}}}}"], "Burstable"),
        (["{limits: {memory: 64Mi}}"], "Burstable"),
        (["{limits: {cpu: 1}}"], "Burstable"),
        ([f"{{requests: {BOTH}}}"], "Burstable"),
        (["{}", "{requests: {cpu: 1m}}"], "Burstable"),
        (["{limits: {cpu: 1}}", "{limits: {memory: 1Mi}}"], "Burstable"),
    ],
)
def test_the_class_of_a_pod_is_kubelets(resources: list[str], expected: str) -> None:
    assert qos_class(msgspec.to_builtins(pod(*resources).spec)) == expected


def test_containers_that_come_first_count_too() -> None:
    limits = {"limits": {"cpu": "1", "memory": "1Mi"}}
    assert qos_class({"containers": [{"resources": limits}], "initContainers": [{"resources": limits}]}) == "Guaranteed"
    assert qos_class({"containers": [{"resources": limits}], "initContainers": [{}]}) == "Burstable"


def test_a_request_that_is_left_out_is_the_limit_in_pods_and_not_in_templates() -> None:
    resources = pod("{limits: {cpu: 1, memory: 64Mi}, requests: {cpu: 500m}}").spec.containers[0].resources
    assert resources is not None
    assert resources.requests == {"cpu": "500m", "memory": "64Mi"}
    spec = pod("{}").spec
    spec.containers[0].resources = objects.ResourceRequirements(limits={"cpu": objects.Quantity("1")})
    replicas = objects.ReplicaSet(spec=objects.ReplicaSetSpec(template=objects.PodTemplateSpec(spec=spec)))
    defaults.apply(replicas)
    assert spec.containers[0].resources.requests == {}


@pytest.mark.parametrize(
    ("resources", "selector", "expected"),
    [
        (f"{{limits: {BOTH}}}", {"resource": "limits.cpu"}, "1"),
        (f"{{limits: {BOTH}}}", {"resource": "limits.cpu", "divisor": "1m"}, "500"),
        (f"{{limits: {BOTH}}}", {"resource": "limits.cpu", "divisor": "0"}, "1"),
        (f"{{limits: {BOTH}}}", {"resource": "limits.memory"}, "67108864"),
        (f"{{limits: {BOTH}}}", {"resource": "limits.memory", "divisor": "1Mi"}, "64"),
        (f"{{limits: {BOTH}}}", {"resource": "limits.memory", "divisor": "1M"}, "68"),
        (f"{{limits: {BOTH}}}", {"resource": "requests.memory", "divisor": "1Gi"}, "1"),
        ("{requests: {cpu: 1500m}}", {"resource": "requests.cpu"}, "2"),
        ("{}", {"resource": "requests.cpu"}, "0"),
        ("{}", {"resource": "limits.cpu"}, "3"),
        ("{}", {"resource": "limits.memory", "divisor": "1Gi"}, "3"),
        ("{}", {"resource": "limits.cpu", "container_name": "c1", "divisor": "1m"}, "250"),
    ],
)
def test_a_variable_tells_an_amount_rounded_up(resources: str, selector: dict[str, str], expected: str) -> None:
    made = pod(resources, "{limits: {cpu: 250m}}")
    reference = objects.EnvVarSource(resource_field_ref=objects.ResourceFieldSelector(**selector))  # type: ignore[arg-type]
    made.spec.containers[0].env = [objects.EnvVar("A", value_from=reference)]
    sources = environment.Sources(machine=MACHINE)
    assert environment.resolve(made, made.spec.containers[0], sources) == {"A": expected}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("{}", r"resource: unknown resource '' \(one of limits\.cpu, limits\.memory"),
        ("{resource: limit.cpu}", r"unknown resource 'limit\.cpu' \(one of limits\.cpu,"),
        ("{resource: limits.ephemeral-storage}", r"resource: not supported by rawpod yet \(one of"),
        ("{resource: limits.cpu, divisor: 1Mi}", r"divisor: '1Mi' is no unit \(one of 1, 1m\)"),
        ("{resource: limits.memory, divisor: 1m}", r"divisor: '1m' is no unit"),
        ("{resource: limits.cpu, containerName: c}", r"no container 'c' \(one of c0\)"),
    ],
)
def test_a_faulty_reference_is_refused(selector: str, expected: str) -> None:
    with pytest.raises(Faults) as caught:
        pod("{}", env=f"[{{name: A, valueFrom: {{resourceFieldRef: {selector}}}}}]")
    (fault,) = caught.value.faults
    assert fault.field.startswith("spec.containers[0].env[0].valueFrom.resourceFieldRef.")
    assert re.search(expected, str(fault)), fault


def test_the_machine_has_processors_and_memory() -> None:
    machine = volumes.machine()
    assert machine.millicores >= 1000 and machine.memory > 1 << 20
