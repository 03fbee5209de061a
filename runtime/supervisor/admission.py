"""What may enter the store: an object of a known kind, without faults, with the defaults filled in."""

from collections.abc import Sequence

import msgspec

from runtime.pod import defaults, validate
from runtime.pod.objects import KINDS, KubernetesObject
from runtime.pod.validate_set import set_faults
from runtime.supervisor.registry import Invalid
from runtime.supervisor.resources import RESOURCES, Object, Resource, identify
from runtime.supervisor.store import Store

# What users may not write, whatever they send: the registry takes these from the object that is there.
_SET_BY_REGISTRY = ("managedFields", "selfLink")


def admit(tree: object, resource: Resource | None = None, namespace: str | None = None) -> Object:
    """The object in decoded JSON. Its kind and namespace must be those of the path, where one is given.

    Raises Invalid with every fault.
    """
    if isinstance(tree, dict) and isinstance(metadata := tree.get("metadata"), dict):
        kept = {key: value for key, value in metadata.items() if key not in _SET_BY_REGISTRY}
        if namespace is not None:
            kept.setdefault("namespace", namespace)
        tree = {**tree, "metadata": kept}
        if resource is not None:  # kubectl leaves them out where the path says them
            tree.setdefault("apiVersion", resource.api_version)
            tree.setdefault("kind", resource.kind)
    typed, faults = validate.decode(tree)
    if faults or typed is None:
        raise Invalid([(fault.field, fault.message) for fault in faults])
    item: Object = msgspec.to_builtins(defaults.apply(typed))
    if resource is not None and identify(item) is not resource:
        raise Invalid([("kind", f"{item['apiVersion']} {item['kind']} where {resource.kind} belongs")])
    if namespace is not None and item["metadata"]["namespace"] != namespace:
        given = item["metadata"]["namespace"]
        raise Invalid([("metadata.namespace", f'"{given}" is not the namespace of the request, "{namespace}"')])
    return item


def admit_together(store: Store, items: Sequence[Object]) -> None:
    """What must hold between admitted objects, and between them and the store's: names and host ports are there once.

    Raises Invalid; with several items each fault begins with its index.
    """
    typed = [_typed(item) for item in items]
    existing: list[KubernetesObject] = []
    if b"hostPort" in msgspec.json.encode(items):  # a default where hostNetwork is asked for
        workloads = [resource.kind for resource in RESOURCES if resource.categories]
        existing = [_typed(record.item) for kind in workloads for record in store.select(kind)]
    faults = set_faults(typed, existing, where="items[{}]".format)
    if faults:
        prefix = "items[{}]." if len(items) > 1 else ""
        raise Invalid([(prefix.format(index) + fault.field, fault.message) for index, fault in faults])


def _typed(item: Object) -> KubernetesObject:
    fields = {key: value for key, value in item.items() if key != "status"}
    return msgspec.convert(fields, KINDS[item["apiVersion"], item["kind"]])
