"""A container's environment: values from manifest, ConfigMaps, Secrets and the pod itself, with `$(NAME)` expanded.

Kubernetes' rules: one pass over each value, in which `$(NAME)` stands for a variable defined before, `$$` for a single
`$`, and a reference to nothing stays as it is. Every result is bounded, as each variable can double the one before it.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping

from kernel.errors import BadInput, NotFound
from kernel.record import Record
from runtime.pod import downward
from runtime.pod.faults import shown
from runtime.pod.objects import (
    ConfigMap,
    Container,
    EnvFromSource,
    EnvVar,
    KeySelector,
    Pod,
    ResourceFieldSelector,
    Secret,
)

MAX_VALUE_BYTES = 131_071  # MAX_ARG_STRLEN of execve(2), less the terminating NUL
_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]\Z")
FIELD_PATHS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels['KEY']",
    "metadata.annotations['KEY']",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.podIP",
    "status.podIPs",
    "status.hostIP",
    "status.hostIPs",
)


class MissingReference(NotFound):
    """A ConfigMap or Secret that the pod needs is not there (yet): the pod waits for it."""


class Sources(Record):
    """What values may refer to, all of the pod's own namespace, by name."""

    config_maps: Mapping[str, ConfigMap] = {}
    secrets: Mapping[str, Secret] = {}
    address: str = ""
    host_address: str = ""
    machine: downward.Machine = downward.Machine(0, 0)


def resolve(pod: Pod, container: Container, sources: Sources) -> dict[str, str]:
    """All variables of a container in the order they are defined; raises MissingReference and BadInput."""
    result: dict[str, str] = {}
    for source in container.env_from:
        result |= _all_of(source, sources)
    for variable in container.env:
        value = _value(pod, container, variable, sources, result)
        if value is not None:
            if "\0" in value:
                raise BadInput(f"variable {shown(variable.name)} contains a NUL byte")
            result[variable.name] = value
    return result


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` in a single pass; raises BadInput when the result is longer than execve(2) takes."""

    def replaced(reference: re.Match[str]) -> str:
        name = reference[1]
        return "$" if name is None else variables.get(name, reference[0])

    if "$" not in text:
        return text
    size = len(text)
    for reference in _REFERENCE.finditer(text):  # before anything is built
        size += len(variables.get(reference[1] or "", ""))
    if size > MAX_VALUE_BYTES * 2:
        raise BadInput(f"a value expands to more than {MAX_VALUE_BYTES} bytes", remedy="use fewer $(NAME) references")
    result = _REFERENCE.sub(replaced, text)
    if len(result.encode("utf-8", "surrogateescape")) > MAX_VALUE_BYTES:
        raise BadInput(f"a value expands to more than {MAX_VALUE_BYTES} bytes", remedy="use fewer $(NAME) references")
    return result


def missing_variables(text: str, variables: Mapping[str, str]) -> list[str]:
    """The names in `$(NAME)` references that stand for no variable."""
    return [found[1] for found in _REFERENCE.finditer(text) if found[1] is not None and found[1] not in variables]


def field_value(pod: Pod, path: str, sources: Sources) -> str:
    """The value of a fieldRef; raises BadInput for a path that is not offered."""
    meta = pod.metadata
    simple = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": "default",  # Kubernetes' own name for that of a pod which asks for none
        "status.podIP": sources.address,
        "status.podIPs": sources.address,
        "status.hostIP": sources.host_address,
        "status.hostIPs": sources.host_address,
    }
    if path in simple:
        return simple[path]
    if found := _SUBSCRIPT.match(path):
        return (meta.labels if found[1] == "labels" else meta.annotations).get(found[2], "")
    raise BadInput(f"unknown field {shown(path)}", remedy=f"one of {', '.join(FIELD_PATHS)}")


def is_field_path(path: str) -> bool:
    """Whether a fieldRef may name this path."""
    return (path in FIELD_PATHS and "KEY" not in path) or _SUBSCRIPT.match(path) is not None


def _all_of(source: EnvFromSource, sources: Sources) -> dict[str, str]:
    values: Mapping[str, str]
    if selector := source.config_map_ref:
        config_map = sources.config_maps.get(selector.name)
        values = config_map.data if config_map else {}
        missing = config_map is None and not selector.optional
        kind = "ConfigMap"
    elif selector := source.secret_ref:
        secret = sources.secrets.get(selector.name)
        values = {key: _decoded(data) for key, data in secret.data.items()} if secret else {}
        missing = secret is None and not selector.optional
        kind = "Secret"
    else:
        return {}
    if missing:
        raise MissingReference(f"{kind} {shown(selector.name)} not found")
    return {source.prefix + key: value for key, value in values.items() if "=" not in key and "\0" not in value}


def _value(
    pod: Pod, container: Container, variable: EnvVar, sources: Sources, earlier: Mapping[str, str]
) -> str | None:
    origin = variable.value_from
    if origin is None:
        return expand(variable.value, earlier)
    if origin.field_ref:
        return field_value(pod, origin.field_ref.field_path, sources)
    if origin.resource_field_ref:
        asked = origin.resource_field_ref
        named = ResourceFieldSelector(asked.container_name or container.name, asked.resource, asked.divisor)
        return downward.resource(pod, named, sources.machine)
    if selector := origin.config_map_key_ref:
        config_map = sources.config_maps.get(selector.name)
        return _key("ConfigMap", selector, config_map.data if config_map else None)
    if selector := origin.secret_key_ref:
        secret = sources.secrets.get(selector.name)
        data = _key("Secret", selector, secret.data if secret else None)
        return _decoded(data) if data is not None else None
    return ""


def _key(kind: str, selector: KeySelector, data: Mapping[str, str] | None) -> str | None:
    if data is not None and selector.key in data:
        return data[selector.key]
    if selector.optional:
        return None
    if data is None:
        raise MissingReference(f"{kind} {shown(selector.name)} not found")
    raise MissingReference(f"{kind} {shown(selector.name)} has no key {shown(selector.key)}")


def _decoded(data: str) -> str:
    return b64decode(data).decode("utf-8", "surrogateescape")
