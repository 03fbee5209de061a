"""What happens to an object on its way into the store: uid, times, generation, and the rules of change.

The door and the controller write through these functions, inside a transaction of the store.
"""

import os
import time
import uuid
from collections.abc import Callable

from kernel.errors import BadInput, Conflict
from runtime.pod.qos import qos_class
from runtime.supervisor import immutable
from runtime.supervisor.meta import short_hash, terminating, timestamp, uid_of
from runtime.supervisor.resources import Object
from runtime.supervisor.store import Record, Transaction

DEFAULT_GRACE = 30
_GENERATED_SUFFIX = 5


class Invalid(BadInput):
    """An object breaks a rule; `causes` are pairs of the field's path and what is wrong there."""

    def __init__(self, causes: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in causes))
        self.causes = causes


class Registry:
    """The rules, for the node of this name."""

    def __init__(self, node_name: str, clock: Callable[[], float] = time.time) -> None:
        self.node_name = node_name
        self.clock = clock

    def create(self, writes: Transaction, item: Object) -> Record:
        """Adds an object. Raises Conflict if there is one of the name."""
        uid = str(uuid.UUID(bytes=os.urandom(16), version=4))
        metadata = {
            **item["metadata"],
            "uid": uid,
            "creationTimestamp": timestamp(self.clock()),
            "generation": 1,
        }
        for field in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(field, None)
        if prefix := metadata.pop("generateName", None):
            metadata.setdefault("name", prefix + short_hash(uid.encode(), _GENERATED_SUFFIX))
        new = {**item, "metadata": metadata}
        new.pop("status", None)
        if new["kind"] == "Pod":
            # There is one node, so a pod is bound as it is made.
            new["spec"] = {**new["spec"], "nodeName": self.node_name}
            new["status"] = {"phase": "Pending", "qosClass": qos_class(new["spec"])}
        return writes.create(new)

    def replace(self, writes: Transaction, item: Object, *, if_version: int | None = None) -> Record:
        """Replaces all of an object but its status and what the registry itself set.

        Raises NotFound, Conflict (another version or another uid), Invalid for what may not change.
        """
        kind, metadata = item["kind"], item["metadata"]
        current = writes.get(kind, metadata["namespace"], metadata["name"])
        old = current.item
        given = metadata.get("uid")
        if given and given != uid_of(old):
            raise Conflict(f'{kind} "{metadata["name"]}" is another object now: its uid is {uid_of(old)}, not {given}')
        _check_unchangeable(old, item)
        kept = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
        merged = {key: value for key, value in metadata.items() if key not in kept}
        merged |= {key: old["metadata"][key] for key in kept if key in old["metadata"]}
        if item.get("spec") != old.get("spec"):
            merged["generation"] = old["metadata"]["generation"] + 1
        new = {**item, "metadata": merged}
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
        return writes.put(new, if_version=if_version)

    def set_status(self, writes: Transaction, item: Object, status: Object, *, if_version: int | None = None) -> Record:
        """Replaces the status alone."""
        current = writes.get(item["kind"], item["metadata"]["namespace"], item["metadata"]["name"])
        return writes.put({**current.item, "status": status}, if_version=if_version)

    def scale(self, writes: Transaction, item: Object, replicas: int, *, if_version: int | None = None) -> Record:
        """Sets spec.replicas."""
        return self.replace(writes, {**item, "spec": {**item["spec"], "replicas": replicas}}, if_version=if_version)

    def delete(
        self,
        writes: Transaction,
        item: Object,
        *,
        grace: int | None = None,
        foreground: bool = False,
        if_version: int | None = None,
    ) -> Record:
        """Deletes an object, and returns its last or its terminating state.

        A pod is marked, and removed by the node when its containers are gone: at the latest `grace` seconds from now
        (its own terminationGracePeriodSeconds if None). With `foreground` an owner is marked, and removed when all that
        it owns is gone. Anything else is removed at once.
        """
        kind, metadata = item["kind"], item["metadata"]
        if kind == "Pod":
            return self._terminate(writes, item, _grace(item, grace), if_version)
        if foreground:
            return self._terminate(writes, item, 0, if_version)
        return writes.delete(kind, metadata["namespace"], metadata["name"], if_version=if_version)

    def _terminate(self, writes: Transaction, item: Object, grace: int, if_version: int | None) -> Record:
        metadata = item["metadata"]
        current = writes.get(item["kind"], metadata["namespace"], metadata["name"])
        before = current.item["metadata"].get("deletionGracePeriodSeconds")
        if terminating(current.item) and before is not None and before <= grace:
            return current  # a deletion may be made sooner, never later
        marked = {
            **current.item["metadata"],
            "deletionTimestamp": timestamp(self.clock() + grace),
            "deletionGracePeriodSeconds": grace,
        }
        return writes.put({**current.item, "metadata": marked}, if_version=if_version)


def _grace(pod: Object, asked: int | None) -> int:
    if asked is not None:
        return max(0, asked)
    own: int | None = pod["spec"].get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE if own is None else own


def _check_unchangeable(old: Object, new: Object) -> None:
    if old["kind"] == "Pod":
        new["spec"] = {"nodeName": old["spec"].get("nodeName"), **new["spec"]}
    if causes := immutable.faults(old, new):
        raise Invalid(causes)


def disown(item: Object, owner_uid: str) -> Object:
    """The object without its ownerReference to that owner."""
    metadata = dict(item["metadata"])
    left = [one for one in metadata.get("ownerReferences") or () if one["uid"] != owner_uid]
    metadata.pop("ownerReferences", None)
    if left:
        metadata["ownerReferences"] = left
    return {**item, "metadata": metadata}
