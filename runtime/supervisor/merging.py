"""The three-way merge of `apply`: Kubernetes' strategic merge, with lists whose items have a name. Pure.

Which lists are merged by which field is said in the API's types by patchMergeKey; what is not in the table below is
replaced as a whole, as Kubernetes does with lists it calls atomic.
"""

from __future__ import annotations

from typing import Any

from runtime.supervisor.resources import Object

_MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "port"),  # a container's, a service's
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey",),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "ownerReferences": ("uid",),
}

# Items and mappings of which one of several forms is set: what the manifest does not say is not kept (retainKeys).
_ONE_OF_FORMS = frozenset({"volumes", "resourceClaims", "strategy"})


def three_way(live: Object, last: Object, wanted: Object) -> Object:
    """`live` with what `wanted` says, and without what `last` said and `wanted` says no more.

    Fields that neither mentions (defaults, another's replica count) stay, as do items of merged lists.
    """
    result = dict(live)
    for key in last:
        if key not in wanted:
            result.pop(key, None)
    for key, value in wanted.items():
        result[key] = _merge(key, result.get(key), last.get(key), value)
    return result


def _merge(field: str, live: Any, last: Any, wanted: Any) -> Any:
    if isinstance(wanted, dict) and isinstance(live, dict):
        merged = three_way(live, last if isinstance(last, dict) else {}, wanted)
        return {key: merged[key] for key in wanted} if field in _ONE_OF_FORMS else merged
    if isinstance(wanted, list) and isinstance(live, list):
        before = last if isinstance(last, list) else []
        for key in _MERGE_KEYS.get(field, ()):
            # Two ports of one number, TCP and UDP, are no two items to Kubernetes' merge; here such a list is replaced.
            if all(_distinct(items, key) for items in (live, before, wanted)):
                return _merge_list(field, key, live, before, wanted)
    return wanted


def _distinct(items: list[Any], key: str) -> bool:
    if not all(isinstance(item, dict) and isinstance(item.get(key), str | int) for item in items):
        return False
    return len({item[key] for item in items}) == len(items)


def _merge_list(field: str, key: str, live: list[Object], last: list[Object], wanted: list[Object]) -> list[Object]:
    """In the manifest's order; items of others come before the first that they stood before."""
    place = {item[key]: index for index, item in enumerate(live)}
    by_key = {item[key]: item for item in last}
    said = {item[key] for item in (*last, *wanted)}
    others = [item for item in live if item[key] not in said]
    result = []
    for item in wanted:
        index = place.get(item[key])
        while others and index is not None and place[others[0][key]] < index:
            result.append(others.pop(0))
        before = by_key.get(item[key])
        result.append(item if index is None else _merge(field, live[index], before, item))
    return [*result, *others]
