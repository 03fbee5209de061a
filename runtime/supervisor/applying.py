"""Declarative changes: several objects at once, all or none, each merged with what was applied before.

As with `kubectl apply`, the manifest is kept in an annotation of the object. What the last manifest said and the new
one does not is removed; what no manifest said (defaults, a replica count set by `scale`) stays.
"""

from typing import Any, NamedTuple

import msgspec

from kernel.errors import Conflict
from runtime.supervisor.admission import admit, admit_together
from runtime.supervisor.merging import three_way
from runtime.supervisor.registry import Invalid, Registry
from runtime.supervisor.resources import BY_KIND, Object
from runtime.supervisor.store import Record, Store, Transaction, key_of

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_SERVER_FIELDS = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
)


class Applied(NamedTuple):
    """What became of one document: created, configured or unchanged."""

    record: Record
    result: str


def check(store: Store, trees: list[Any]) -> list[Object]:
    """Every document of the list on its own and all together. Raises Invalid with all faults, each with its index."""
    causes: list[tuple[str, str]] = []
    admitted = []
    for index, tree in enumerate(trees):
        try:
            admitted.append(admit(tree))
        except Invalid as error:
            causes += [(f"items[{index}].{field}".rstrip("."), message) for field, message in error.causes]
    if causes:
        raise Invalid(causes)
    admit_together(store, admitted)
    return admitted


def apply_all(writes: Transaction, registry: Registry, trees: list[Object], admitted: list[Object]) -> list[Applied]:
    """Every checked document. Raises Invalid with the index of the one that may not be changed so."""
    done = []
    for index, (tree, item) in enumerate(zip(trees, admitted, strict=True)):
        try:
            done.append(apply(writes, registry, tree, item))
        except Invalid as error:
            raise Invalid([(f"items[{index}].{field}", message) for field, message in error.causes]) from None
    return done


def apply(writes: Transaction, registry: Registry, tree: Object, admitted: Object) -> Applied:
    """One checked document. Raises Invalid for what may not change, Conflict if the object is being deleted."""
    wanted = _as_written(tree, admitted)
    current = writes.find(*key_of(admitted))
    if current is None:
        return Applied(registry.create(writes, _annotated(admitted, wanted)), "created")
    live = current.item
    if "deletionTimestamp" in live["metadata"]:
        raise Conflict(
            f'{live["kind"]} "{live["metadata"]["name"]}" is being deleted', remedy="apply again when it is gone"
        )
    merged = three_way(live, _last_applied(live), wanted)
    item = admit({key: value for key, value in merged.items() if key != "status"}, BY_KIND[live["kind"]])
    record = registry.replace(writes, _annotated(item, wanted))
    return Applied(record, "unchanged" if record is current else "configured")


def _as_written(tree: Object, admitted: Object) -> Object:
    """The manifest without what only the server writes; stringData is in data, as it is in what is live."""
    metadata = {key: value for key, value in tree["metadata"].items() if key not in _SERVER_FIELDS}
    metadata["namespace"] = admitted["metadata"]["namespace"]
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    wanted: Object = _without_nulls({**tree, "metadata": metadata})
    wanted.pop("status", None)
    if wanted.pop("stringData", None):
        wanted["data"] = admitted.get("data", {})
    return wanted


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _annotated(item: Object, wanted: Object) -> Object:
    metadata = item["metadata"]
    text = msgspec.json.encode(wanted, order="deterministic").decode()
    annotations = {**(metadata.get("annotations") or {}), LAST_APPLIED: text}
    return {**item, "metadata": {**metadata, "annotations": annotations}}


def _last_applied(live: Object) -> Object:
    text = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    try:
        decoded = msgspec.json.decode(text) if text else {}
    except msgspec.DecodeError:
        decoded = {}
    return decoded if isinstance(decoded, dict) else {}
