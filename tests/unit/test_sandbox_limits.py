"""The pod's own limits, from those of its containers."""

from cgroups.controllers import Limits
from runtime.pod.meta import ObjectMeta, Quantity
from runtime.pod.objects import Container, Pod, PodSpec, ResourceRequirements
from runtime.pod.prepare import pod_limits


def pod(*limits: dict[str, str], **annotations: str) -> Pod:
    containers = [
        Container(name="c", resources=ResourceRequirements(limits={k: Quantity(v) for k, v in one.items()}))
        for one in limits
    ]
    marks = {f"rawpod.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return Pod(metadata=ObjectMeta(annotations=marks), spec=PodSpec(containers=containers))


def test_limits_add_up_where_all_containers_have_one() -> None:
    limits = pod_limits(pod({"memory": "64Mi", "cpu": "500m"}, {"memory": "1Mi", "cpu": "1"}, pids_limit="10"))
    assert limits == Limits(memory_max=65 * 2**20, swap_max=0, cpu_quota_us=150_000, cpu_period_us=100_000, pids_max=20)


def test_init_containers_count_as_far_as_they_run_at_the_same_time() -> None:
    made = pod(*({"memory": amount} for amount in ("3Mi", "1Mi", "7Mi", "4Mi", "2Mi")))
    init, made.spec.containers = made.spec.containers[:3], made.spec.containers[3:]
    init[1].restart_policy = "Always"
    made.spec.init_containers = init
    assert pod_limits(made).memory_max == (1 + 7) * 2**20
    init[2].resources = init[0].resources
    assert pod_limits(made).memory_max == (1 + 4 + 2) * 2**20


def test_one_container_without_a_limit_leaves_the_pod_without() -> None:
    assert pod_limits(pod({"memory": "64Mi"}, {"cpu": "1"})) == Limits()
