"""The ConfigMaps and Secrets that a pod needs before it can run. Pure."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from runtime.supervisor.resources import Object

Lookup = Callable[[str, str], Object | None]
"""The object of a kind and name in the pod's namespace, or None."""


class Reference(NamedTuple):
    """An object that the pod refers to, the key it needs from it ("" for none in particular)."""

    kind: str
    name: str
    key: str
    optional: bool


def of_pod(pod: Object) -> Iterator[Reference]:
    """All references of a pod, in the order they are written."""
    for volume in pod["spec"].get("volumes") or ():
        for field, kind, name in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
            if source := volume.get(field):
                optional = bool(source.get("optional"))
                yield Reference(kind, source.get(name, ""), "", optional)
                for item in source.get("items") or ():
                    yield Reference(kind, source.get(name, ""), item["key"], optional)
        for part in (volume.get("projected") or {}).get("sources") or ():
            for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
                if source := part.get(field):
                    optional = bool(source.get("optional"))
                    yield Reference(kind, source.get("name", ""), "", optional)
                    for item in source.get("items") or ():
                        yield Reference(kind, source.get("name", ""), item["key"], optional)
    for secret in pod["spec"].get("imagePullSecrets") or ():
        # Kubelet tries without one that is missing: the image may be public.
        yield Reference("Secret", secret.get("name", ""), "", optional=True)
    for container in (*(pod["spec"].get("initContainers") or ()), *(pod["spec"].get("containers") or ())):
        for source in container.get("envFrom") or ():
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if found := source.get(field):
                    yield Reference(kind, found.get("name", ""), "", bool(found.get("optional")))
        for variable in container.get("env") or ():
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if found := (variable.get("valueFrom") or {}).get(field):
                    yield Reference(kind, found.get("name", ""), found.get("key", ""), bool(found.get("optional")))


def missing(pod: Object, lookup: Lookup) -> str | None:
    """What the pod waits for, in words, or None."""
    for reference in of_pod(pod):
        if reference.optional:
            continue
        found = lookup(reference.kind, reference.name)
        if found is None:
            return f'{reference.kind.lower()} "{reference.name}" not found'
        if reference.key and not any(reference.key in (found.get(field) or {}) for field in ("data", "binaryData")):
            return f'{reference.kind.lower()} "{reference.name}" has no key "{reference.key}"'
    return None


def values(pod: Object, lookup: Lookup) -> dict[str, dict[str, Object]]:
    """The objects that the pod refers to and that are there, by kind and name."""
    found: dict[str, dict[str, Object]] = {"ConfigMap": {}, "Secret": {}}
    for reference in of_pod(pod):
        item = lookup(reference.kind, reference.name)
        if item is not None:
            found[reference.kind][reference.name] = item
    return found
