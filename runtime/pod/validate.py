"""Judge objects before they are stored: from an untyped tree to an object, with all faults at once.

The client judges with the lines of the file, the API with the same rules and no lines. The rules are Kubernetes' own,
narrowed to what rawpod carries out.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from runtime.pod import names
from runtime.pod.faults import Fault, Path, nearest, shown
from runtime.pod.known import UNSUPPORTED_KINDS
from runtime.pod.objects import (
    KINDS,
    ConfigMap,
    Deployment,
    KubernetesObject,
    ObjectMeta,
    Pod,
    PodSpec,
    ReplicaSet,
    Secret,
)
from runtime.pod.shape import Shaper
from runtime.pod.validate_pod import host_ports, pod_faults

MAX_REPLICAS = 10_000
MAX_DATA_BYTES = 1024 * 1024
MAX_ANNOTATIONS_BYTES = 256 * 1024
_SUFFIX_ROOM = 17  # "-" and a hash, "-" and five letters: what ReplicaSets and pods append to a Deployment's name


def decode(tree: Any) -> tuple[KubernetesObject | None, list[Fault]]:
    """The object in a tree of mappings and lists, and all its faults; None when not even its kind is known.

    An object with faults is as complete as could be read and must not be used for more than messages. A `status` is
    dropped: it is the supervisor's to write.
    """
    kind, faults = _kind(tree)
    if kind is None:
        return None, faults
    shaper = Shaper()
    obj: KubernetesObject = shaper.convert({key: value for key, value in tree.items() if key != "status"}, kind, ())
    shaper.faults = [_with_range(fault) for fault in shaper.faults]
    misshapen = {fault.path for fault in shaper.faults}
    # A value that could not be read was left empty: complaints about the emptiness would be noise.
    further = [
        fault for fault in validate(obj) if not any(fault.path[:n] in misshapen for n in range(len(fault.path) + 1))
    ]
    return obj, shaper.faults + further


def _with_range(fault: Fault) -> Fault:
    return fault.replace(right=f"0 to {MAX_REPLICAS}") if fault.path == ("spec", "replicas") else fault


def _kind(tree: Any) -> tuple[type[KubernetesObject] | None, list[Fault]]:
    known = ", ".join(f"{version} {kind}" for version, kind in KINDS)
    if not isinstance(tree, dict):
        return None, [Fault((), "not an object", "a mapping with apiVersion, kind and metadata")]
    version, kind = tree.get("apiVersion"), tree.get("kind")
    faults = []
    for name, value in (("apiVersion", version), ("kind", kind)):
        if not isinstance(value, str) or not value:
            faults.append(Fault((name,), "required" if value is None else "not a string", f"one of {known}"))
    if faults:
        return None, faults
    assert isinstance(version, str) and isinstance(kind, str)
    if (version, kind) in KINDS:
        return KINDS[version, kind], []
    versions = [ours for ours, name in KINDS if name == kind]
    if versions:
        return None, [Fault(("apiVersion",), f"unknown version {shown(version)} of {kind}", f"{versions[0]}")]
    if kind in UNSUPPORTED_KINDS:
        return None, [Fault(("kind",), f"{shown(kind)} is not supported by rawpod yet", f"supported: {known}")]
    hint = nearest(kind, (name for _, name in KINDS))
    right = f"{hint}; supported: {known}" if hint.startswith("did") else f"supported: {known}"
    return None, [Fault(("kind",), f"unknown kind {shown(kind)}", right)]


def validate(obj: KubernetesObject) -> list[Fault]:
    """All faults of an object, in the order of its fields."""
    faults = list(_metadata(obj.metadata, ("metadata",), obj))
    if isinstance(obj, Pod):
        faults += pod_faults(obj.spec, obj.metadata, ("spec",), ("metadata",), always=False)
    elif isinstance(obj, (Deployment, ReplicaSet)):
        faults += _workload(obj)
    elif isinstance(obj, ConfigMap):
        faults += _config_map(obj)
    else:
        faults += _secret(obj)
    return faults


def _metadata(meta: ObjectMeta, path: Path, obj: KubernetesObject) -> Iterator[Fault]:
    limit = 253 - _SUFFIX_ROOM if isinstance(obj, (Deployment, ReplicaSet)) else 253
    if not meta.name:
        yield Fault((*path, "name"), "required", names.subdomain("", limit) or "")
    elif rule := names.subdomain(meta.name, limit):
        yield Fault((*path, "name"), f"{shown(meta.name)} is not a name", rule)
    if meta.namespace and (rule := names.label(meta.namespace)):
        yield Fault((*path, "namespace"), f"{shown(meta.namespace)} is not a namespace's name", rule)
    if meta.uid and (rule := names.uid(meta.uid)):
        yield Fault((*path, "uid"), f"{shown(meta.uid)} is not a uid", rule)
    yield from _marks(meta, path)


def _marks(meta: ObjectMeta, path: Path) -> Iterator[Fault]:
    yield from _labels(meta.labels, (*path, "labels"))
    for key in meta.annotations:
        if rule := names.qualified(key):
            yield Fault((*path, "annotations", key), f"{shown(key)} is not an annotation's name", rule)
    if sum(len(key) + len(value) for key, value in meta.annotations.items()) > MAX_ANNOTATIONS_BYTES:
        yield Fault((*path, "annotations"), "too large", f"at most {MAX_ANNOTATIONS_BYTES} characters in all")


def _labels(labels: dict[str, str], path: Path) -> Iterator[Fault]:
    for key, value in labels.items():
        if rule := names.qualified(key):
            yield Fault((*path, key), f"{shown(key)} is not a label's name", rule)
        if rule := names.label_value(value):
            yield Fault((*path, key), f"{shown(value)} is not a label's value", rule)


def _workload(obj: Deployment | ReplicaSet) -> Iterator[Fault]:
    spec = obj.spec
    if spec.replicas is not None and not 0 <= spec.replicas <= MAX_REPLICAS:
        yield Fault(("spec", "replicas"), f"{spec.replicas} is out of range", f"0 to {MAX_REPLICAS}")
    if not 0 <= spec.min_ready_seconds <= 2**31 - 1:
        yield Fault(("spec", "minReadySeconds"), f"{spec.min_ready_seconds} is out of range", f"0 to {2**31 - 1}")
    if isinstance(obj, Deployment):
        yield from _deployment(obj)
    yield from _selector(obj)
    template = spec.template
    path: Path = ("spec", "template")
    yield from _marks(template.metadata, (*path, "metadata"))
    yield from pod_faults(template.spec, template.metadata, (*path, "spec"), (*path, "metadata"), always=True)
    yield from _replicated_ports(template.spec, spec.replicas, (*path, "spec"))


def _deployment(obj: Deployment) -> Iterator[Fault]:
    kind = obj.spec.strategy.type if obj.spec.strategy else ""
    if kind == "RollingUpdate":
        yield Fault(("spec", "strategy", "type"), "'RollingUpdate' is not supported by rawpod yet", "Recreate")
    elif kind not in ("", "Recreate"):
        yield Fault(("spec", "strategy", "type"), f"unknown strategy {shown(kind)}", "Recreate")
    history = obj.spec.revision_history_limit
    if history is not None and not 0 <= history <= 2**31 - 1:
        yield Fault(("spec", "revisionHistoryLimit"), f"{history} is out of range", f"0 to {2**31 - 1}")


def _selector(obj: Deployment | ReplicaSet) -> Iterator[Fault]:
    wanted, labels = obj.spec.selector.match_labels, obj.spec.template.metadata.labels
    path: Path = ("spec", "selector", "matchLabels")
    if not wanted:
        yield Fault(path, "required", "the labels of the template, as app: web")
    yield from _labels(wanted, path)
    for key, value in wanted.items():
        if labels.get(key) != value:
            has = f"has {shown(labels[key])}" if key in labels else "has no such label"
            where = "spec.template.metadata.labels"
            yield Fault(
                (*path, key), f"{shown(value)} does not select the template's pods: it {has}", f"the same as in {where}"
            )


def _replicated_ports(spec: PodSpec, replicas: int | None, path: Path) -> Iterator[Fault]:
    if replicas is None or replicas < 2:
        return
    for port in host_ports(spec):
        wrong = f"host port {port} of container {shown(port.container)} cannot belong to {replicas} replicas"
        yield Fault((*path, *port.place), wrong, "replicas: 1, or no hostPort")


def _config_map(obj: ConfigMap) -> Iterator[Fault]:
    for section, data in (("data", obj.data), ("binaryData", obj.binary_data)):
        for key in data:
            if rule := names.key(key):
                yield Fault((section, key), f"{shown(key)} is not a key", rule)
    for key in obj.data.keys() & obj.binary_data.keys():
        yield Fault(("binaryData", key), "also in data", "keys must differ")
    yield from _base64(obj.binary_data, "binaryData")
    if sum(map(len, (*obj.data.values(), *obj.binary_data.values()))) > MAX_DATA_BYTES:
        yield Fault(("data",), "too large", f"at most {MAX_DATA_BYTES} bytes in all")


def _secret(obj: Secret) -> Iterator[Fault]:
    for section, data in (("data", obj.data), ("stringData", obj.string_data)):
        for key in data:
            if rule := names.key(key):
                yield Fault((section, key), f"{shown(key)} is not a key", rule)
    yield from _base64(obj.data, "data")
    if sum(map(len, (*obj.data.values(), *obj.string_data.values()))) > MAX_DATA_BYTES:
        yield Fault(("data",), "too large", f"at most {MAX_DATA_BYTES} bytes in all")


def _base64(data: dict[str, str], section: str) -> Iterator[Fault]:
    for key, text in data.items():
        try:
            b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            right = "base64, or the plain text in stringData" if section == "data" else "base64"
            yield Fault((section, key), "not base64", right)  # never the value: it may be the secret itself
