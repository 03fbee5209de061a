"""`rawpod describe`: an object and what is known about it, to be read by a person."""

import time
from collections.abc import Iterator
from typing import Any

import click

from runtime.cli import targets
from runtime.cli.client import Client, Object
from runtime.cli.tables import age, pod_status
from runtime.settings import Settings

Lines = Iterator[tuple[int, str, object]]
"""Depth, name and value of each line."""

_SERVER_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="KIND [NAME]… | KIND/NAME…")
@targets.namespace_option()
@targets.selector_option()
@click.pass_obj
def describe(settings: Settings, what: tuple[str, ...], namespace: str, selector: str | None) -> None:
    """Show objects in detail."""
    client = Client(settings.socket)
    texts = []
    for target in targets.parse(what):
        if target.name is not None:
            items = [client.request("GET", target.resource.path(namespace, target.name))]
        else:
            items = client.request("GET", target.resource.path(namespace), labelSelector=selector)["items"]
        texts += [render(item, time.time()) for item in items]
    print("\n\n".join(texts))


def render(item: Object, now: float) -> str:
    """The description of an object."""
    lines = [*_metadata(item, now), *_BODIES[item["kind"]](item, now)]
    width = max(2 * depth + len(name) for depth, name, _ in lines) + 3
    names = ["  " * depth + (name and name + ":") for depth, name, _ in lines]
    return "\n".join(f"{name:{width}}{value}".rstrip() for name, (_, _, value) in zip(names, lines, strict=True))


def _metadata(item: Object, now: float) -> Lines:
    metadata = item["metadata"]
    yield 0, "Name", metadata["name"]
    yield 0, "Namespace", metadata["namespace"]
    yield 0, "Kind", f"{item['kind']} ({item['apiVersion']})"
    yield 0, "UID", metadata["uid"]
    yield 0, "Created", f"{metadata['creationTimestamp']} ({age(metadata['creationTimestamp'], now)} ago)"
    if deleted := metadata.get("deletionTimestamp"):
        yield 0, "Terminating", f"until {deleted} (grace period {metadata.get('deletionGracePeriodSeconds', 0)}s)"
    yield from _mapping("Labels", metadata.get("labels"))
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != _SERVER_ANNOTATION}
    yield from _mapping("Annotations", annotations)
    for owner in metadata.get("ownerReferences") or ():
        yield 0, "Controlled By" if owner.get("controller") else "Owned By", f"{owner['kind']}/{owner['name']}"


def _mapping(title: str, values: dict[str, Any] | None, depth: int = 0) -> Lines:
    if not values:
        yield depth, title, "<none>"
        return
    for index, (key, value) in enumerate(values.items()):
        if index == 0:
            yield depth, title, f"{key}={value}"
        else:
            yield depth, "", f"{key}={value}"


def _pod(pod: Object, now: float) -> Lines:
    status = pod.get("status") or {}
    yield 0, "Node", pod["spec"].get("nodeName", "<none>")
    yield 0, "Status", pod_status(pod)
    for key in ("reason", "message"):
        if status.get(key):
            yield 0, key.capitalize(), status[key]
    yield 0, "IP", status.get("podIP", "<none>")
    yield 0, "Restart Policy", pod["spec"].get("restartPolicy", "Always")
    for title, key in (("Init Containers", "initContainer"), ("Containers", "container")):
        states = {entry["name"]: entry for entry in status.get(f"{key}Statuses") or ()}
        if containers := pod["spec"].get(f"{key}s"):
            yield 0, title, ""
        for container in containers or ():
            yield from _container(container, 1)
            yield from _container_state(states.get(container["name"], {}), now)
    yield from _volumes(pod["spec"], 0)
    yield from _conditions(status)


def _container(container: Object, depth: int) -> Lines:
    yield depth, container["name"], ""
    yield depth + 1, "Image", container["image"]
    for key in ("command", "args"):
        if container.get(key):
            yield depth + 1, key.capitalize(), " ".join(container[key])
    ports = [f"{port['containerPort']}/{port.get('protocol', 'TCP')}" for port in container.get("ports") or ()]
    if ports:
        yield depth + 1, "Ports", ", ".join(ports)
    resources = container.get("resources") or {}
    for key in ("limits", "requests"):
        if resources.get(key):
            yield depth + 1, key.capitalize(), ", ".join(f"{name}={amount}" for name, amount in resources[key].items())
    variables = [
        f"{one['name']}={one.get('value', '')}" if "valueFrom" not in one else f"{one['name']} <{_source(one)}>"
        for one in container.get("env") or ()
    ]
    if variables:
        yield depth + 1, "Environment", ", ".join(variables)
    for mount in container.get("volumeMounts") or ():
        access = "ro" if mount.get("readOnly") else "rw"
        yield depth + 1, "Mount", f"{mount['mountPath']} from {mount['name']} ({access})"


def _source(variable: Object) -> str:
    kind, source = next(iter(variable["valueFrom"].items()))
    return source.get("fieldPath") or f"key {source.get('key')} of {kind.removesuffix('KeyRef')} {source.get('name')}"


def _container_state(entry: Object, now: float) -> Lines:
    for key, title in (("state", "State"), ("lastState", "Last State")):
        for name, detail in (entry.get(key) or {}).items():
            yield 2, title, _state(name, detail, now)
    yield 2, "Ready", bool(entry.get("ready"))
    yield 2, "Restart Count", entry.get("restartCount", 0)
    if entry.get("containerID"):
        yield 2, "Container ID", entry["containerID"]
    if entry.get("imageID"):
        yield 2, "Image ID", entry["imageID"]


def _state(name: str, detail: Object, now: float) -> str:
    words = [name.capitalize()]
    if detail.get("reason"):
        words.append(f"({detail['reason']})")
    if "exitCode" in detail:
        words.append(f"exit code {detail['exitCode']}")
    for key, word in (("startedAt", "started"), ("finishedAt", "finished")):
        if detail.get(key):
            words.append(f"{word} {age(detail[key], now)} ago")
    return " ".join(words) + (f": {detail['message']}" if detail.get("message") else "")


def _volumes(spec: Object, depth: int) -> Lines:
    for volume in spec.get("volumes") or ():
        kind, source = next(((key, value) for key, value in volume.items() if key != "name"), ("emptyDir", {}))
        told = ", ".join(f"{key}={value}" for key, value in (source or {}).items() if not isinstance(value, list))
        yield depth, "Volume", f"{volume['name']}: {kind} {told}".rstrip()


def _conditions(status: Object) -> Lines:
    if status.get("conditions"):
        yield 0, "Conditions", ""
    for condition in status.get("conditions") or ():
        words = [condition["status"], condition.get("reason") or "", condition.get("message") or ""]
        yield 1, condition["type"], "  ".join(filter(None, words))


def _workload(item: Object, _now: float) -> Lines:
    spec, status = item["spec"], item.get("status") or {}
    yield from _mapping("Selector", (spec.get("selector") or {}).get("matchLabels"))
    if "strategy" in spec:
        yield 0, "Strategy", spec["strategy"].get("type", "Recreate")
    counts = [("updated", "updatedReplicas"), ("ready", "readyReplicas"), ("available", "availableReplicas")]
    told = [f"{status.get(key, 0)} {word}" for word, key in counts if key in status]
    yield 0, "Replicas", ", ".join([f"{spec.get('replicas', 1)} desired", f"{status.get('replicas', 0)} there", *told])
    yield 0, "Pod Template", ""
    yield from _mapping("Labels", (spec["template"].get("metadata") or {}).get("labels"), 1)
    for container in spec["template"]["spec"]["containers"]:
        yield from _container(container, 1)
    yield from _volumes(spec["template"]["spec"], 1)
    yield from _conditions(status)


def _config_map(item: Object, _now: float) -> Lines:
    yield 0, "Data", ""
    for key, value in (item.get("data") or {}).items():
        yield 1, key, value if "\n" not in value else "\n" + value
    for key, value in (item.get("binaryData") or {}).items():
        yield 1, key, f"<{len(value) * 3 // 4} bytes>"


def _secret(item: Object, _now: float) -> Lines:
    yield 0, "Type", item.get("type", "")
    yield 0, "Data", ""
    for key, value in (item.get("data") or {}).items():
        yield 1, key, f"<{len(value) * 3 // 4 - value[-2:].count('=')} bytes>"


_BODIES = {
    "Pod": _pod,
    "Deployment": _workload,
    "ReplicaSet": _workload,
    "ConfigMap": _config_map,
    "Secret": _secret,
}
