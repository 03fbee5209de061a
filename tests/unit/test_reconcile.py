"""The reconciler as a whole: from any state, under any order of events, to what is desired and no further."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.supervisor.actions import Create, Delete
from runtime.supervisor.controller import carry_out, everything
from runtime.supervisor.meta import controller_of, finished, ready, template_hash, terminating, timestamp, uid_of
from runtime.supervisor.reconcile import reconcile
from runtime.supervisor.registry import Registry
from runtime.supervisor.store import Store

Object = dict[str, Any]


class World:
    """A store with a clock and a node that does one thing at a time, when told."""

    def __init__(self) -> None:
        import tempfile
        from pathlib import Path

        self.directory = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.directory.name) / "state.db")
        self.now = 1_700_000_000.0
        self.registry = Registry("node", lambda: self.now)

    def close(self) -> None:
        self.store.close()
        self.directory.cleanup()

    def create(self, item: Object) -> Object:
        with self.store.transaction(durable=False) as writes:
            return self.registry.create(writes, item).item

    def all(self, kind: str) -> list[Object]:
        return [record.item for record in self.store.select(kind)]

    def step(self) -> int:
        """One pass; how many actions it had."""
        actions = reconcile(everything(self.store), self.now).actions
        with self.store.transaction(durable=False) as writes:
            for action in actions:
                carry_out(writes, self.registry, action)
        return len(actions)

    def settle(self) -> None:
        for _ in range(64):
            if not self.step():
                return
        pytest.fail("the reconciler does not come to rest")

    def report(self, pod: Object, phase: str, ready: bool) -> None:
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": timestamp(self.now)}
        with self.store.transaction(durable=False) as writes:
            self.registry.set_status(writes, pod, {"phase": phase, "conditions": [condition]})

    def node_works(self) -> None:
        """The node starts what is new and removes what is terminating."""
        for pod in self.all("Pod"):
            if terminating(pod):
                with self.store.transaction(durable=False) as writes:
                    writes.delete("Pod", *(pod["metadata"][key] for key in ("namespace", "name")))
            elif pod["status"]["phase"] == "Pending":
                self.report(pod, "Running", True)

    def converge(self) -> None:
        for _ in range(20):
            self.settle()
            before = self.store.version
            self.node_works()
            self.settle()
            if self.store.version == before:
                return
        pytest.fail("node and reconciler do not come to rest")


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def deployment(replicas: int = 3, image: str = "one", name: str = "web", **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "Recreate"},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
            **spec,
        },
    }


def change(world: World, wanted: Object) -> None:
    with world.store.transaction() as writes:
        world.registry.replace(writes, wanted)


def test_a_deployment_becomes_a_replica_set_and_its_pods(world: World) -> None:
    world.create(deployment())
    world.converge()
    (replica_set,) = world.all("ReplicaSet")
    assert replica_set["metadata"]["name"] == f"web-{template_hash(deployment()['spec']['template'])}"
    pods = world.all("Pod")
    assert len(pods) == 3
    for pod in pods:
        assert controller_of(pod) == uid_of(replica_set)
        assert pod["metadata"]["name"].startswith(replica_set["metadata"]["name"] + "-")
        assert pod["metadata"]["labels"]["pod-template-hash"] in replica_set["metadata"]["name"]
        assert pod["spec"]["nodeName"] == "node"
    status = world.all("Deployment")[0]["status"]
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"], status["observedGeneration"]) == (
        3,
        3,
        3,
        1,
    )
    assert {c["type"]: c["status"] for c in status["conditions"]} == {"Available": "True", "Progressing": "True"}


def test_the_old_pods_are_gone_before_the_new_ones_come(world: World) -> None:
    world.create(deployment(image="one"))
    world.converge()
    old = {uid_of(pod) for pod in world.all("Pod")}
    change(world, deployment(image="two"))
    world.settle()
    assert {uid_of(pod) for pod in world.all("Pod")} == old
    assert all(terminating(pod) for pod in world.all("Pod"))
    assert len(world.all("ReplicaSet")) == 1
    world.converge()
    images = [pod["spec"]["containers"][0]["image"] for pod in world.all("Pod")]
    assert images == ["two"] * 3 and len(world.all("ReplicaSet")) == 2


def test_going_back_takes_up_the_earlier_replica_set(world: World) -> None:
    world.create(deployment(image="one"))
    world.converge()
    for image in ("two", "one"):
        change(world, deployment(image=image))
        world.converge()
    assert sorted(one["spec"]["replicas"] for one in world.all("ReplicaSet")) == [0, 3]
    assert {pod["spec"]["containers"][0]["image"] for pod in world.all("Pod")} == {"one"}


def test_old_replica_sets_are_kept_to_the_limit(world: World) -> None:
    world.create(deployment(image="0", revisionHistoryLimit=2))
    for image in "12345":
        world.now += 1
        world.converge()
        change(world, deployment(image=image, revisionHistoryLimit=2))
    world.converge()
    left = sorted(one["spec"]["template"]["spec"]["containers"][0]["image"] for one in world.all("ReplicaSet"))
    assert left == ["3", "4", "5"]


def test_scaling_down_deletes_what_is_lost_least(world: World) -> None:
    world.create(deployment(4))
    world.settle()
    pods = world.all("Pod")
    for index, pod in enumerate(pods):
        world.report(pod, "Running" if index else "Pending", ready=index > 1)
    change(world, deployment(2))
    world.settle()
    assert [terminating(pod) for pod in world.all("Pod")] == [True, True, False, False]


def test_of_equals_the_youngest_is_deleted(world: World) -> None:
    world.create(deployment(1))
    world.converge()
    (old,) = world.all("Pod")
    world.now += 5
    change(world, deployment(2))
    world.converge()
    change(world, deployment(1))
    world.converge()
    assert [uid_of(pod) for pod in world.all("Pod")] == [uid_of(old)]


def test_an_ended_pod_is_replaced_and_a_few_are_kept_to_look_at(world: World) -> None:
    world.create(deployment(1))
    for _ in range(9):
        world.now += 1
        world.converge()
        (running,) = [pod for pod in world.all("Pod") if not finished(pod)]
        world.report(running, "Failed", False)
    world.converge()
    assert sum(finished(pod) for pod in world.all("Pod")) == 5


def test_deleting_a_deployment_takes_all_that_it_owns(world: World) -> None:
    world.create(deployment())
    world.converge()
    with world.store.transaction() as writes:
        world.registry.delete(writes, world.all("Deployment")[0])
    world.converge()
    assert not any(world.all(kind) for kind in ("Deployment", "ReplicaSet", "Pod"))


def test_deleting_in_the_foreground_removes_the_owner_last(world: World) -> None:
    world.create(deployment())
    world.converge()
    with world.store.transaction() as writes:
        world.registry.delete(writes, world.all("Deployment")[0], foreground=True)
    world.settle()
    assert len(world.all("Deployment")) == 1 and len(world.all("Pod")) == 3
    world.converge()
    assert not any(world.all(kind) for kind in ("Deployment", "ReplicaSet", "Pod"))


def test_pods_left_by_their_owner_are_adopted_by_the_next(world: World) -> None:
    world.create(deployment())
    world.converge()
    pods = {uid_of(pod) for pod in world.all("Pod")}
    (replica_set,) = world.all("ReplicaSet")
    with world.store.transaction() as writes:  # deletion with propagationPolicy=Orphan, twice
        for kind, item in [("Deployment", world.all("Deployment")[0]), ("ReplicaSet", replica_set)]:
            writes.delete(kind, "default", item["metadata"]["name"])
        for pod in world.all("Pod"):
            orphan = {**pod, "metadata": {k: v for k, v in pod["metadata"].items() if k != "ownerReferences"}}
            writes.put(orphan)
    world.create(deployment())
    world.converge()
    assert {uid_of(pod) for pod in world.all("Pod")} == pods


def test_a_pod_whose_label_was_changed_is_released_and_replaced(world: World) -> None:
    world.create(deployment(1))
    world.converge()
    (pod,) = world.all("Pod")
    with world.store.transaction() as writes:
        writes.put({**pod, "metadata": {**pod["metadata"], "labels": {"app": "looked-at"}}})
    world.converge()
    released = world.store.get("Pod", "default", pod["metadata"]["name"]).item
    assert controller_of(released) is None and len(world.all("Pod")) == 2


def test_a_replica_set_of_anothers_with_the_same_name_is_left_alone_and_named(world: World) -> None:
    name = f"web-{template_hash(deployment()['spec']['template'])}"
    template = {"metadata": {"labels": {"other": "x"}}, "spec": {"containers": []}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"other": "x"}}, "template": template}
    other = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "namespace": "default"}}
    world.create({**other, "spec": spec})
    world.create(deployment())
    world.converge()
    conditions = {c["type"]: c for c in world.all("Deployment")[0]["status"]["conditions"]}
    assert conditions["Progressing"]["reason"] == "ReplicaSetNameTaken" and world.all("Pod") == []


def test_a_pod_is_available_when_it_has_been_ready_long_enough(world: World) -> None:
    world.create(deployment(1, minReadySeconds=10))
    world.converge()
    outcome = reconcile(everything(world.store), world.now)
    assert outcome.actions == [] and outcome.wake == world.now + 10
    assert world.all("Deployment")[0]["status"]["availableReplicas"] == 0
    world.now += 10
    world.converge()
    assert world.all("Deployment")[0]["status"]["availableReplicas"] == 1


def test_a_template_its_own_selector_misses_makes_no_pods(world: World) -> None:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "y"}}, "template": template}
    metadata = {"name": "odd", "namespace": "default"}
    world.create({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec})
    world.settle()
    assert world.all("Pod") == []


EVENT = st.one_of(
    st.tuples(st.just("scale"), st.integers(0, 5)),
    st.tuples(st.just("image"), st.sampled_from("abc")),
    st.tuples(st.sampled_from(["start", "unready", "fail", "remove", "delete", "vanish", "orphan"]), st.integers(0, 9)),
    st.tuples(st.just("pass"), st.just(0)),
    st.tuples(st.just("clock"), st.integers(1, 100)),
)


def play(world: World, event: str, value: Any, wanted: dict[str, Any]) -> None:
    if event in ("scale", "image"):
        wanted["replicas" if event == "scale" else "image"] = value
        change(world, deployment(**wanted))
    elif event == "pass":
        world.step()
    elif event == "clock":
        world.now += value
    elif pods := world.all("Pod"):
        pod = pods[value % len(pods)]
        with world.store.transaction() as writes:
            if event in ("remove", "vanish") and (event == "vanish" or terminating(pod)):
                writes.delete("Pod", "default", pod["metadata"]["name"])
            elif event == "delete":
                world.registry.delete(writes, pod, grace=1)
            elif event == "orphan":
                writes.put({**pod, "metadata": {k: v for k, v in pod["metadata"].items() if k != "ownerReferences"}})
        if event in ("start", "unready", "fail"):
            world.report(pod, "Failed" if event == "fail" else "Running", event == "start")


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENT, max_size=40))
def test_any_history_ends_in_what_is_desired(events: list[tuple[str, Any]]) -> None:
    world = World()
    try:
        wanted: dict[str, Any] = {"replicas": 2, "image": "a"}
        world.create(deployment(**wanted))
        for event, value in events:
            play(world, event, value, wanted)
            running = [pod for pod in world.all("Pod") if not finished(pod) and not terminating(pod)]
            # A pod that was orphaned while it ended is nobody's, and not waited for.
            ours = [pod for pod in world.all("Pod") if not finished(pod) and controller_of(pod)]
            images = {pod["spec"]["containers"][0]["image"] for pod in ours}
            assert len(running) <= 5 + sum(1 for name, _ in events if name == "orphan")
            assert len(images) <= 1, "old and new ran together"
        world.converge()
        running = [pod for pod in world.all("Pod") if not finished(pod)]
        assert len(running) == wanted["replicas"]
        assert {pod["spec"]["containers"][0]["image"] for pod in running} <= {wanted["image"]}
        # A pod that the node last called unready stays so: nobody here calls it ready again.
        assert world.all("Deployment")[0]["status"]["readyReplicas"] == sum(ready(pod) for pod in running)
        assert reconcile(everything(world.store), world.now).actions == []
    finally:
        world.close()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 20))
def test_a_crash_in_the_middle_of_a_pass_is_cured_by_the_next(first: int, second: int, crash_after: int) -> None:
    world = World()
    try:
        world.create(deployment(first))
        world.converge()
        change(world, deployment(second))
        for action in reconcile(everything(world.store), world.now).actions[:crash_after]:
            with world.store.transaction(durable=False) as writes:
                carry_out(writes, world.registry, action)
        world.converge()
        assert len(world.all("Pod")) == second
    finally:
        world.close()


@given(st.integers(0, 8), st.integers(0, 8))
def test_a_pass_makes_or_deletes_exactly_the_difference(have: int, want: int) -> None:
    world = World()
    try:
        world.create(deployment(have))
        world.converge()
        change(world, deployment(want))
        world.step()  # the ReplicaSet is scaled
        actions = reconcile(everything(world.store), world.now).actions
        assert sum(isinstance(action, Create) for action in actions) == max(0, want - have)
        assert sum(isinstance(action, Delete) for action in actions) == max(0, have - want)
    finally:
        world.close()
