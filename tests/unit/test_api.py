"""The door: Kubernetes' paths, verbs and errors over a unix socket, spoken to by our own client."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import BadInput, Conflict, HostError, NotFound, NotSupported, RawpodError
from runtime.cli.client import MERGE_PATCH, Client, Refused, Rejected
from runtime.pod.logs import LogDirectory, LogWriter
from runtime.settings import Settings
from runtime.supervisor import door as door_room
from runtime.supervisor.api import Api
from runtime.supervisor.controller import Controller
from runtime.supervisor.registry import Registry
from runtime.supervisor.store import Store

Object = dict[str, Any]

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
SETS = "/apis/apps/v1/namespaces/default/replicasets"
APPLY = "/apis/rawpod.dev/v1/apply"
JSON_PATCH = "application/json-patch+json"


class Door:
    """A door with its store and, on demand, its controller, in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = Client(settings.socket)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.store = Store(self.settings.database, history=64)
        self.registry = Registry("node")
        runner = await door_room.serve(
            Api(self.store, self.registry, self.settings), door_room.listen(self.settings.socket)
        )
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()
        await asyncio.sleep(0)  # connections are closed in the loop's next round
        self.store.close()

    def control(self) -> None:
        """Begins to reconcile."""
        asyncio.run_coroutine_threadsafe(self._control(), self.loop).result()

    async def _control(self) -> None:
        Controller(self.store, self.registry)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    home = tmp_path_factory.mktemp("d")
    made = Door(Settings(root=home / "root", state=home, socket=home / "s"))
    yield made
    made.close()


def config_map(name: str = "a", **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str = "p") -> Object:
    spec = {"containers": [{"name": "c", "image": "host"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def deployment(**spec: Any) -> Object:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod()["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec},
    }


def apply(door: Door, *items: Object, **query: str) -> list[str]:
    body = {"apiVersion": "v1", "kind": "List", "items": list(items)}
    return [one["result"] for one in door.client.request("POST", APPLY, body, **query)["results"]]


def status_of(error: RawpodError) -> Object:
    assert isinstance(error, Refused)
    return error.status


# --- discovery ----------------------------------------------------------------------------------------------------


def test_discovery_names_every_resource_with_its_verbs(door: Door) -> None:
    assert door.client.open("GET", "/healthz").body() == b"ok"
    assert door.client.request("GET", "/api")["versions"] == ["v1"]
    assert door.client.request("GET", "/apis")["groups"][0]["preferredVersion"]["groupVersion"] == "apps/v1"
    core = {entry["name"]: entry for entry in door.client.request("GET", "/api/v1")["resources"]}
    assert core["pods"]["shortNames"] == ["po"] and "watch" in core["pods"]["verbs"]
    assert "pods/log" in core and "secrets" in core
    apps = {entry["name"] for entry in door.client.request("GET", "/apis/apps/v1")["resources"]}
    assert {"deployments", "deployments/scale", "deployments/status", "replicasets"} <= apps
    assert door.client.request("GET", "/version")["major"] == "1"


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/v2"), ("GET", "/api/v1/nodes"), ("POST", "/nowhere")])
def test_what_is_not_there_is_not_found(door: Door, method: str, path: str) -> None:
    with pytest.raises(NotFound):
        door.client.request(method, path, {})


def test_a_verb_that_is_not_there_is_not_allowed(door: Door) -> None:
    with pytest.raises(NotSupported, match="DELETE"):
        door.client.request("POST", f"{MAPS}/a", {})


# --- objects ------------------------------------------------------------------------------------------------------


def test_create_get_list_update_delete(door: Door) -> None:
    made = door.client.request("POST", MAPS, config_map(key="one"))
    assert made["metadata"]["uid"] and made["metadata"]["creationTimestamp"].endswith("Z")
    assert door.client.request("GET", f"{MAPS}/a") == made
    changed = door.client.request("PUT", f"{MAPS}/a", {**made, "data": {"key": "two"}})
    assert changed["data"] == {"key": "two"} and changed["metadata"]["uid"] == made["metadata"]["uid"]
    listed = door.client.request("GET", "/api/v1/configmaps")
    assert listed["kind"] == "ConfigMapList" and listed["items"] == [changed]
    assert listed["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]
    gone = door.client.request("DELETE", f"{MAPS}/a")
    assert gone["status"] == "Success" and gone["details"]["uid"] == made["metadata"]["uid"]
    with pytest.raises(NotFound):
        door.client.request("GET", f"{MAPS}/a")


def test_a_name_taken_and_a_version_passed_are_conflicts(door: Door) -> None:
    first = door.client.request("POST", MAPS, config_map())
    with pytest.raises(Conflict, match="already exists"):
        door.client.request("POST", MAPS, config_map())
    door.client.request("PUT", f"{MAPS}/a", {**first, "data": {"x": "1"}})
    with pytest.raises(Conflict, match="has changed"):
        door.client.request("PUT", f"{MAPS}/a", {**first, "data": {"x": "2"}})
    with pytest.raises(Conflict, match="another object"):
        other = {**config_map(), "metadata": {"name": "a", "uid": "11111111-0000-4000-8000-000000000000"}}
        door.client.request("PUT", f"{MAPS}/a", other)


def test_all_faults_of_an_object_come_as_causes(door: Door) -> None:
    wrong = deployment(replicas=-1, colour="red")
    with pytest.raises(Rejected) as caught:
        door.client.request("POST", DEPLOYMENTS, wrong)
    assert {field for field, _ in caught.value.causes} == {"spec.replicas", "spec.colour"}
    assert door.client.request("GET", DEPLOYMENTS)["items"] == []


@pytest.mark.parametrize(
    "tree",
    [
        {**config_map(), "metadata": {"name": "a", "namespace": "other"}},
        {**config_map(), "kind": "Secret"},
        {**config_map(), "metadata": {"name": "../x"}},
        {**config_map(), "metadata": None},
        [],
        "text",
        None,
    ],
)
def test_an_object_that_does_not_fit_the_path_or_is_none_is_refused(door: Door, tree: Any) -> None:
    with pytest.raises(BadInput):
        door.client.request("POST", MAPS, tree)


def test_a_body_that_is_not_json_is_refused(door: Door) -> None:
    with pytest.raises(NotSupported, match="application/json"):
        door.client.request("POST", MAPS, config_map(), "application/yaml")
    deep = "[" * 100_000
    assert raw(door, "POST", MAPS, deep.encode())["reason"] == "BadRequest"
    assert raw(door, "POST", MAPS, b"\xff{")["reason"] == "BadRequest"


def raw(door: Door, method: str, path: str, body: bytes, content_type: str = "application/json") -> Object:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(door.settings.socket))
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {content_type}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        with connection.makefile("rb") as file:
            answer: Object = json.loads(file.read().partition(b"\r\n\r\n")[2])
    return answer


def test_what_the_registry_sets_cannot_be_set(door: Door) -> None:
    metadata = {"name": "p", "uid": "11111111-0000-4000-8000-000000000000", "deletionTimestamp": "2020-01-01T00:00:00Z"}
    made = door.client.request("POST", PODS, {**pod(), "metadata": metadata, "status": {"phase": "Running"}})
    assert made["metadata"]["uid"] != metadata["uid"] and "deletionTimestamp" not in made["metadata"]
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"} and made["spec"]["nodeName"] == "node"
    assert made["spec"]["restartPolicy"] == "Always"


def test_a_pods_spec_and_a_selector_may_not_change(door: Door) -> None:
    made = door.client.request("POST", PODS, pod())
    labelled = {**made, "metadata": {**made["metadata"], "labels": {"a": "b"}}}
    assert door.client.request("PUT", f"{PODS}/p", labelled)["metadata"]["labels"] == {"a": "b"}
    with pytest.raises(Rejected, match="may not change"):
        door.client.request("PUT", f"{PODS}/p", {**pod(), "spec": {**pod()["spec"], "hostname": "h"}})
    door.client.request("POST", DEPLOYMENTS, deployment())
    changed = deployment()
    changed["spec"]["selector"] = {"matchLabels": {"app": "x"}}
    changed["spec"]["template"]["metadata"]["labels"] = {"app": "x"}
    with pytest.raises(Rejected, match=r"spec\.selector"):
        door.client.request("PUT", f"{DEPLOYMENTS}/web", changed)


def test_an_immutable_config_map_keeps_its_data(door: Door) -> None:
    door.client.request("POST", MAPS, {**config_map(key="v"), "immutable": True})
    with pytest.raises(Rejected, match="immutable"):
        door.client.request("PUT", f"{MAPS}/a", config_map(key="w"))


def test_generation_counts_changes_of_the_spec_alone(door: Door) -> None:
    door.client.request("POST", DEPLOYMENTS, deployment())
    labelled = door.client.request("PATCH", f"{DEPLOYMENTS}/web", {"metadata": {"labels": {"a": "b"}}}, MERGE_PATCH)
    assert labelled["metadata"]["generation"] == 1
    scaled = door.client.request("PATCH", f"{DEPLOYMENTS}/web", {"spec": {"replicas": 5}}, MERGE_PATCH)
    assert scaled["metadata"]["generation"] == 2


def test_a_host_port_belongs_to_one_pod(door: Door) -> None:
    first, second = pod("one"), pod("two")
    for item in (first, second):
        item["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 8080}]
    door.client.request("POST", PODS, first)
    with pytest.raises(Rejected, match="8080"):
        door.client.request("POST", PODS, second)


# --- patches ------------------------------------------------------------------------------------------------------


def test_merge_patch_and_json_patch(door: Door) -> None:
    door.client.request("POST", MAPS, config_map(a="1", b="2"))
    assert door.client.request("PATCH", f"{MAPS}/a", {"data": {"a": None, "c": "3"}}, MERGE_PATCH)["data"] == {
        "b": "2",
        "c": "3",
    }
    operations = [{"op": "test", "path": "/data/b", "value": "2"}, {"op": "remove", "path": "/data/b"}]
    assert door.client.request("PATCH", f"{MAPS}/a", operations, JSON_PATCH)["data"] == {"c": "3"}
    with pytest.raises(BadInput, match="operation 0"):
        door.client.request("PATCH", f"{MAPS}/a", operations, JSON_PATCH)


@pytest.mark.parametrize("kind", ["application/strategic-merge-patch+json", "application/apply-patch+yaml"])
def test_other_patches_are_refused_by_name(door: Door, kind: str) -> None:
    door.client.request("POST", MAPS, config_map())
    with pytest.raises(NotSupported, match="merge-patch"):
        door.client.request("PATCH", f"{MAPS}/a", {}, kind)


def test_a_patch_may_not_break_the_object_or_rename_it(door: Door) -> None:
    door.client.request("POST", MAPS, config_map())
    for patch in ({"data": {"k": 1}}, {"metadata": {"name": "b"}}, {"kind": "Secret"}, {"metadata": None}):
        with pytest.raises(BadInput):
            door.client.request("PATCH", f"{MAPS}/a", patch, MERGE_PATCH)


# --- subresources -------------------------------------------------------------------------------------------------


def test_scale_reads_and_writes_the_replicas(door: Door) -> None:
    door.client.request("POST", DEPLOYMENTS, deployment(replicas=2))
    scale = door.client.request("GET", f"{DEPLOYMENTS}/web/scale")
    assert scale["kind"] == "Scale" and scale["spec"] == {"replicas": 2} and scale["status"]["selector"] == "app=web"
    door.client.request("PUT", f"{DEPLOYMENTS}/web/scale", {**scale, "spec": {"replicas": 4}})
    assert door.client.request("GET", f"{DEPLOYMENTS}/web")["spec"]["replicas"] == 4
    for wrong in (-1, 10**9, 1.5, "3", None):
        with pytest.raises(Rejected, match="replicas"):
            door.client.request("PUT", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": wrong}})


def test_status_is_written_apart_from_the_rest(door: Door) -> None:
    made = door.client.request("POST", PODS, pod())
    changed = {**made, "status": {"phase": "Running"}, "metadata": {**made["metadata"], "labels": {"x": "y"}}}
    after = door.client.request("PUT", f"{PODS}/p/status", changed)
    assert after["status"] == {"phase": "Running"} and "labels" not in after["metadata"]
    kept = door.client.request("PUT", f"{PODS}/p", {**after, "status": {"phase": "Failed"}})
    assert kept["status"] == {"phase": "Running"}


def test_the_log_of_a_container(door: Door) -> None:
    made = door.client.request("POST", PODS, pod())
    writer = LogWriter(LogDirectory.of(door.settings.logs, "default", "p", made["metadata"]["uid"], "c"), 0)
    writer.write("stdout", b"one\ntwo\n")
    read = door.client.open
    assert read("GET", f"{PODS}/p/log").body() == b"one\ntwo\n"
    assert read("GET", f"{PODS}/p/log", container="c", tailLines=1).body() == b"two\n"
    assert read("GET", f"{PODS}/p/log", timestamps="true").body().split()[1] == b"one"
    with read("GET", f"{PODS}/p/log", follow="true", tailLines=1) as followed:
        lines = followed.lines()
        assert next(lines) == b"two"
        writer.write("stdout", b"three\n")
        assert next(lines) == b"three"
        writer.close()
        door.client.request(
            "PUT", f"{PODS}/p/status", {**made, "status": {"phase": "Succeeded"}} | without_version(made)
        )
        assert list(lines) == []
    with pytest.raises(NotFound, match="no container"):
        read("GET", f"{PODS}/p/log", container="d")
    with pytest.raises(BadInput, match="previous"):
        read("GET", f"{PODS}/p/log", previous="true")
    assert read("GET", f"{PODS}/p/log", limitBytes=5).body() == b"one\nt"
    assert read("GET", f"{PODS}/p/log", sinceSeconds=3600).body() == b"one\ntwo\nthree\n"
    assert read("GET", f"{PODS}/p/log", sinceTime="2100-01-01T00:00:00Z").body() == b""
    with pytest.raises(BadInput, match="at once"):
        read("GET", f"{PODS}/p/log", sinceTime="2100-01-01T00:00:00Z", sinceSeconds=1)


def without_version(item: Object) -> Object:
    return {"metadata": {key: value for key, value in item["metadata"].items() if key != "resourceVersion"}}


def test_a_followed_log_waits_for_a_pod_that_has_not_begun(door: Door) -> None:
    made = door.client.request("POST", PODS, pod())
    with door.client.open("GET", f"{PODS}/p/log", follow="true") as followed:
        directory = LogDirectory.of(door.settings.logs, "default", "p", made["metadata"]["uid"], "c")
        writer = LogWriter(directory, 0)
        writer.write("stdout", b"hello\n")
        door.client.request("PUT", f"{PODS}/p/status", {**made, "status": {"phase": "Running"}})
        assert next(followed.lines()) == b"hello"
        writer.close()


# --- deletion -----------------------------------------------------------------------------------------------------


def test_a_deleted_pod_terminates_within_its_grace_which_only_shrinks(door: Door) -> None:
    door.client.request("POST", PODS, pod())
    for asked, given in ((None, 30), (10, 10), (60, 10), (0, 0)):
        answer = door.client.request("DELETE", f"{PODS}/p", {} if asked is None else {"gracePeriodSeconds": asked})
        assert answer["metadata"]["deletionGracePeriodSeconds"] == given


def test_deletion_takes_what_is_owned_or_leaves_it_as_asked(door: Door) -> None:
    door.control()
    for policy in ("Background", "Orphan"):
        apply(door, deployment(replicas=0))
        wait(door, SETS, lambda items: len(items) == 1)
        door.client.request("DELETE", f"{DEPLOYMENTS}/web", propagationPolicy=policy)
        if policy == "Background":
            wait(door, SETS, lambda items: not items)
    (orphan,) = door.client.request("GET", SETS)["items"]
    assert "ownerReferences" not in orphan["metadata"]


def wait(door: Door, path: str, condition: Any) -> list[Object]:
    """Until the condition holds of what is listed: after every change, of anything of the kind."""
    events = door.client.watch(path, timeoutSeconds=10)
    while not condition(items := door.client.request("GET", path)["items"]):
        assert next(events, None) is not None, items
    return items  # type: ignore[no-any-return]


def test_preconditions_and_options_of_deletion_are_checked(door: Door) -> None:
    made = door.client.request("POST", MAPS, config_map())
    with pytest.raises(Conflict):
        door.client.request("DELETE", f"{MAPS}/a", {"preconditions": {"uid": "other"}})
    with pytest.raises(Conflict):
        door.client.request("DELETE", f"{MAPS}/a", {"preconditions": {"resourceVersion": "1"}})
    for wrong in ({"propagationPolicy": "Never"}, {"gracePeriodSeconds": -1}, {"colour": "red"}):
        with pytest.raises(BadInput):
            door.client.request("DELETE", f"{MAPS}/a", wrong)
    door.client.request("DELETE", f"{MAPS}/a", {"preconditions": {"uid": made["metadata"]["uid"]}})


def test_delete_collection_deletes_what_is_selected(door: Door) -> None:
    for name in ("a", "b"):
        door.client.request("POST", MAPS, {**config_map(name), "metadata": {"name": name, "labels": {"l": name}}})
    door.client.request("DELETE", MAPS, labelSelector="l=a")
    assert [item["metadata"]["name"] for item in door.client.request("GET", MAPS)["items"]] == ["b"]


# --- queries ------------------------------------------------------------------------------------------------------


def test_lists_are_selected_by_labels_and_fields(door: Door) -> None:
    for name in ("a", "b"):
        door.client.request("POST", MAPS, {**config_map(name), "metadata": {"name": name, "labels": {"l": name}}})

    def names(**query: Any) -> list[str]:
        return [item["metadata"]["name"] for item in door.client.request("GET", MAPS, **query)["items"]]

    assert names(labelSelector="l in (a,c)") == ["a"]
    assert names(fieldSelector="metadata.name!=a") == ["b"]
    assert names(limit=1, resourceVersion="0") == ["a", "b"]


@pytest.mark.parametrize(
    "query",
    [
        {"continue": "x"},
        {"colour": "red"},
        {"labelSelector": "a b"},
        {"fieldSelector": "spec.x=1"},
        {"watch": "maybe"},
        {"limit": "-1"},
        {"resourceVersionMatch": "Exact"},
        {"watch": "true", "sendInitialEvents": "true"},
    ],
)
def test_what_a_query_asks_for_and_is_not_done_is_refused(door: Door, query: dict[str, str]) -> None:
    with pytest.raises(RawpodError) as caught:
        door.client.request("GET", MAPS, **query)
    assert isinstance(caught.value, BadInput)


def test_a_dry_run_checks_and_keeps_nothing(door: Door) -> None:
    assert door.client.request("POST", MAPS, config_map(), dryRun="All")["metadata"]["uid"]
    assert door.client.request("GET", MAPS)["items"] == []
    door.client.request("POST", MAPS, config_map())
    door.client.request("DELETE", f"{MAPS}/a", dryRun="All")
    assert len(door.client.request("GET", MAPS)["items"]) == 1
    with pytest.raises(BadInput):
        door.client.request("POST", MAPS, config_map("b"), dryRun="Some")


# --- watch --------------------------------------------------------------------------------------------------------


def test_a_watch_tells_what_is_there_then_what_changes(door: Door) -> None:
    door.client.request("POST", MAPS, config_map())
    events = door.client.watch(MAPS)
    assert next(events)["type"] == "ADDED"
    door.client.request("PATCH", f"{MAPS}/a", {"data": {"k": "v"}}, MERGE_PATCH)
    door.client.request("DELETE", f"{MAPS}/a")
    assert [next(events)["type"] for _ in range(2)] == ["MODIFIED", "DELETED"]


def test_a_watch_from_a_version_misses_nothing(door: Door) -> None:
    version = door.client.request("GET", MAPS)["metadata"]["resourceVersion"]
    door.client.request("POST", MAPS, config_map())
    events = door.client.watch(MAPS, resourceVersion=version, timeoutSeconds=1)
    assert [event["object"]["metadata"]["name"] for event in events] == ["a"]


def test_a_selecting_watch_sees_objects_come_and_go(door: Door) -> None:
    door.client.request("POST", MAPS, config_map())
    version = door.client.request("GET", MAPS)["metadata"]["resourceVersion"]
    events = door.client.watch(MAPS, labelSelector="l=1", resourceVersion=version)
    for value in ("1", "1", "2"):
        patch = {"metadata": {"labels": {"l": value}}, "data": {"v": str(next(COUNTER))}}
        door.client.request("PATCH", f"{MAPS}/a", patch, MERGE_PATCH)
    assert [next(events)["type"] for _ in range(3)] == ["ADDED", "MODIFIED", "DELETED"]


COUNTER = iter(range(1000))


def test_a_watch_from_a_forgotten_version_is_gone(door: Door) -> None:
    version = door.client.request("GET", MAPS)["metadata"]["resourceVersion"]
    for number in range(70):
        door.client.request("POST", MAPS, config_map(f"m{number}"))
    with pytest.raises(Refused) as caught:
        next(door.client.watch(MAPS, resourceVersion=version))
    assert status_of(caught.value)["code"] == 410


# --- apply --------------------------------------------------------------------------------------------------------


def test_apply_creates_configures_and_leaves_alone(door: Door) -> None:
    assert apply(door, config_map(a="1"), deployment(replicas=2)) == ["created", "created"]
    assert apply(door, config_map(a="1"), deployment(replicas=2)) == ["unchanged", "unchanged"]
    assert apply(door, config_map(a="2"), deployment(replicas=2)) == ["configured", "unchanged"]


def test_apply_removes_what_a_manifest_no_longer_says_and_keeps_what_it_never_said(door: Door) -> None:
    apply(door, config_map(a="1", b="2"), deployment())
    door.client.request("PATCH", f"{MAPS}/a", {"data": {"other": "x"}}, MERGE_PATCH)
    door.client.request("PATCH", f"{DEPLOYMENTS}/web", {"spec": {"replicas": 7}}, MERGE_PATCH)
    apply(door, config_map(a="1"), deployment(minReadySeconds=1))
    assert door.client.request("GET", f"{MAPS}/a")["data"] == {"a": "1", "other": "x"}
    spec = door.client.request("GET", f"{DEPLOYMENTS}/web")["spec"]
    assert (spec["replicas"], spec["minReadySeconds"]) == (7, 1)
    apply(door, deployment())
    assert "minReadySeconds" not in door.client.request("GET", f"{DEPLOYMENTS}/web")["spec"]


def test_apply_is_all_or_none(door: Door) -> None:
    with pytest.raises(Rejected) as caught:
        apply(door, config_map("good"), config_map("Bad Name"), deployment(replicas=-3))
    assert [field.partition(".")[0] for field, _ in caught.value.causes] == ["items[1]", "items[2]"]
    apply(door, config_map("frozen"))
    door.client.request("PATCH", f"{MAPS}/frozen", {"immutable": True}, MERGE_PATCH)
    with pytest.raises(Rejected, match="immutable"):
        apply(door, config_map("good"), config_map("frozen", new="x"))
    with pytest.raises(Rejected, match="twice"):
        apply(door, config_map("good"), config_map("good", other="x"))
    assert [item["metadata"]["name"] for item in door.client.request("GET", MAPS)["items"]] == ["frozen"]


def test_applying_a_secret_twice_changes_nothing(door: Door) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "v"}}
    assert [apply(door, secret), apply(door, secret)] == [["created"], ["unchanged"]]
    assert door.client.request("GET", "/api/v1/namespaces/default/secrets/s")["data"] == {"k": "dg=="}


def test_apply_as_a_dry_run(door: Door) -> None:
    assert apply(door, config_map(), dryRun="All") == ["created"]
    assert door.client.request("GET", MAPS)["items"] == []


@pytest.mark.parametrize("body", [{}, {"kind": "List"}, {"kind": "List", "items": [1, None, {}]}, []])
def test_apply_of_no_list_is_refused(door: Door, body: Any) -> None:
    with pytest.raises(BadInput):
        door.client.request("POST", APPLY, body)


def test_an_object_being_deleted_is_not_applied(door: Door) -> None:
    apply(door, pod())
    door.client.request("DELETE", f"{PODS}/p")
    with pytest.raises(Conflict, match="being deleted"):
        apply(door, {**pod(), "metadata": {"name": "p", "labels": {"a": "b"}}})


# --- many at once, and trouble ------------------------------------------------------------------------------------


def test_fifty_clients_get_what_they_would_one_by_one(door: Door) -> None:
    door.client.request("POST", MAPS, config_map(n="0"))

    def count(_number: int) -> None:
        while True:
            current = door.client.request("GET", f"{MAPS}/a")
            changed = {**current, "data": {"n": str(int(current["data"]["n"]) + 1)}}
            try:
                door.client.request("PUT", f"{MAPS}/a", changed)
            except Conflict:
                continue
            return

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(count, range(50)))
    assert door.client.request("GET", f"{MAPS}/a")["data"] == {"n": "50"}


def test_a_broken_store_refuses_writes_and_serves_reads(door: Door) -> None:
    from runtime.supervisor.store import StoreBroken

    door.client.request("POST", MAPS, config_map())
    door.store.broken = StoreBroken("the store is damaged", remedy="recover it")
    with pytest.raises(Refused, match="recover it") as caught:
        door.client.request("POST", MAPS, config_map("b"))
    assert status_of(caught.value)["code"] == 503
    assert len(door.client.request("GET", MAPS)["items"]) == 1
    with pytest.raises(RawpodError):
        door.client.request("GET", "/readyz")


def test_the_socket_is_the_owners_and_is_not_taken_from_a_living_door(door: Door, tmp_path: Path) -> None:
    assert door.settings.socket.stat().st_mode & 0o777 == 0o600
    with pytest.raises(HostError, match="listens"):
        door_room.listen(door.settings.socket)
    door.client.request("GET", "/version")  # by now the connection that was tried has been seen
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    door_room.listen(stale).close()


def test_others_than_root_and_the_owner_are_turned_away(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_room, "peer_uid", lambda _connection: 65534)
    with pytest.raises(Refused) as caught:
        door.client.request("GET", MAPS)
    assert status_of(caught.value)["code"] == 403
