"""Deletion as clients ask for it: preconditions, grace, and what becomes of what the object owns."""

from typing import Any

from kernel.errors import BadInput, Conflict
from runtime.supervisor.meta import uid_of
from runtime.supervisor.query import Query
from runtime.supervisor.registry import Registry, disown
from runtime.supervisor.resources import RESOURCES, Object, Resource
from runtime.supervisor.responses import success
from runtime.supervisor.store import Record, Store, Transaction

POLICIES = ("Background", "Foreground", "Orphan")
_OPTIONS = {
    "apiVersion",
    "kind",
    "gracePeriodSeconds",
    "propagationPolicy",
    "preconditions",
    "dryRun",
    "orphanDependents",
}


class Options:
    """DeleteOptions from the body, else from the query."""

    def __init__(self, query: Query, body: dict[str, Any]) -> None:
        unknown = sorted(set(body) - _OPTIONS)
        if unknown:
            raise BadInput(f'DeleteOptions has no field "{unknown[0]}"', remedy=f"known: {', '.join(sorted(_OPTIONS))}")
        if body.get("orphanDependents") is not None:
            raise BadInput("orphanDependents is gone from Kubernetes", remedy="propagationPolicy: Orphan")
        if body.get("dryRun"):
            raise BadInput("dryRun in the body", remedy="give it as a query parameter: ?dryRun=All")
        self.grace = body.get("gracePeriodSeconds", query.number("gracePeriodSeconds"))
        if self.grace is not None and (type(self.grace) is not int or self.grace < 0):
            raise BadInput(f"gracePeriodSeconds {self.grace!r}", remedy="a whole number, 0 or more")
        self.policy = body.get("propagationPolicy") or query.text("propagationPolicy") or "Background"
        if self.policy not in POLICIES:
            raise BadInput(f'propagationPolicy "{self.policy}"', remedy=", ".join(POLICIES))
        preconditions = body.get("preconditions") or {}
        self.uid, version = preconditions.get("uid"), preconditions.get("resourceVersion")
        self.version = int(version) if isinstance(version, str) and version.isdecimal() else None


def delete_one(
    writes: Transaction,
    store: Store,
    registry: Registry,
    resource: Resource,
    record: Record,
    query: Query,
    body: Object,
) -> Object:
    """Deletes an object; answers its terminating state, or a Status when it is gone."""
    options = Options(query, body)
    _delete(writes, store, registry, record, options)
    left = writes.find(resource.kind, record.item["metadata"]["namespace"], record.item["metadata"]["name"])
    return left.item if left is not None else success(resource, record.item["metadata"]["name"], uid_of(record.item))


def delete_collection(
    writes: Transaction,
    store: Store,
    registry: Registry,
    resource: Resource,
    records: list[Record],
    query: Query,
    body: Object,
) -> None:
    """Deletes all of the records, or none."""
    options = Options(query, body)
    for record in records:
        _delete(writes, store, registry, record, options)


def _delete(writes: Transaction, store: Store, registry: Registry, record: Record, options: Options) -> None:
    uid = uid_of(record.item)
    if options.uid not in (None, uid):
        raise Conflict(f'the object is another one now: its uid is "{uid}", not "{options.uid}"')
    if options.policy == "Orphan":
        _orphan(writes, store, uid)
    registry.delete(
        writes,
        record.item,
        grace=options.grace,
        foreground=options.policy == "Foreground",
        if_version=options.version,
    )


def _orphan(writes: Transaction, store: Store, owner_uid: str) -> None:
    for resource in RESOURCES:
        for record in store.select(resource.kind):
            references = record.item["metadata"].get("ownerReferences") or ()
            if any(reference["uid"] == owner_uid for reference in references):
                writes.put(disown(record.item, owner_uid))
