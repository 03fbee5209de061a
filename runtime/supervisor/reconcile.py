"""What should exist against what does: the difference as actions. Pure: no clock, no disk, no system call.

The answer depends on nothing but the objects and the time, so a crash between any two writes is cured by asking again.
Each pass looks one step ahead (a Deployment's ReplicaSet, then its pods, then their status); when a pass has no
actions, the objects are as they should be.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from runtime.supervisor import replicas, rollout, selectors
from runtime.supervisor.actions import Action, Adopt, Delete, Release, Remove, Scale, target
from runtime.supervisor.meta import controller_of, reference_to, terminating, uid_of
from runtime.supervisor.resources import Object

Objects = dict[str, list[Object]]
"""All objects, by kind."""


class Outcome(NamedTuple):
    """What to do now, and when to ask again even if nothing happens (seconds since the epoch, or None)."""

    actions: list[Action]
    wake: float | None


def reconcile(objects: Objects, now: float) -> Outcome:
    """One step towards what is desired."""
    actions = collect(objects)
    gone = {action.uid for action in actions if isinstance(action, Delete | Remove)}
    replica_sets = [one for one in objects.get("ReplicaSet", ()) if uid_of(one) not in gone]
    pods = [pod for pod in objects.get("Pod", ()) if uid_of(pod) not in gone]
    deployments = [one for one in objects.get("Deployment", ()) if uid_of(one) not in gone]
    wakes: list[float | None] = []

    sets_of = _claim(deployments, replica_sets, actions)
    pods_of = _claim(replica_sets, pods, actions)
    for deployment in deployments:
        owned = sets_of[uid_of(deployment)]
        own = {uid_of(one) for one in owned}
        namespace = deployment["metadata"]["namespace"]
        taken = {
            one["metadata"]["name"]
            for one in objects.get("ReplicaSet", ())
            if one["metadata"]["namespace"] == namespace and uid_of(one) not in own
        }
        actions += rollout.roll(deployment, owned, pods_of, taken)
        updates, wake = rollout.status(deployment, owned, pods_of, taken, now)
        actions += updates
        wakes.append(wake)
    scaled = {action.uid for action in actions if isinstance(action, Scale)}
    for replica_set in replica_sets:
        owned = pods_of[uid_of(replica_set)]
        if uid_of(replica_set) not in scaled:  # its number is about to change
            actions += replicas.keep(replica_set, owned)
        updates, wake = replicas.status(replica_set, owned, now)
        actions += updates
        wakes.append(wake)
    return Outcome(actions, min((wake for wake in wakes if wake is not None), default=None))


def _claim(owners: list[Object], items: list[Object], actions: list[Action]) -> dict[str, list[Object]]:
    """The items each owner controls, by the owner's uid.

    An item whose labels no longer match is released; one that matches and has no controller is adopted, and counts
    from now on, so that nothing is made in its place.
    """
    by_uid = {uid_of(owner): (owner, selectors.of_spec(owner["spec"].get("selector"))) for owner in owners}
    by_namespace = defaultdict(list)
    for owner, selects in by_uid.values():
        if not terminating(owner):
            by_namespace[owner["metadata"]["namespace"]].append((owner, selects))
    claimed: dict[str, list[Object]] = defaultdict(list)
    for item in items:
        controller = controller_of(item)
        if controller is None:
            if terminating(item):
                continue
            for owner, selects in by_namespace[item["metadata"]["namespace"]]:
                if selects(item):
                    actions.append(Adopt(*target(item), reference_to(owner)))
                    claimed[uid_of(owner)].append(item)
                    break
        elif controller in by_uid:
            owner, selects = by_uid[controller]
            if selects(item) or terminating(item):
                claimed[controller].append(item)
            else:
                actions.append(Release(*target(item), controller))
    return claimed


def collect(objects: Objects) -> list[Action]:
    """Deletes what has lost all of its owners, and what an owner deleted in the foreground waits for."""
    everything = [item for items in objects.values() for item in items]
    leaving = {uid_of(item) for item in everything if _foreground(item)}
    living = {uid_of(item) for item in everything} - leaving
    actions: list[Action] = []
    waited_for: set[str] = set()
    for item in everything:
        owners = _owners(item)
        waited_for.update(owners & leaving)
        if owners and not owners & living and not terminating(item):
            actions.append(Delete(*target(item), foreground=bool(owners & leaving)))
    actions += [
        Remove(*target(item)) for item in everything if uid_of(item) in leaving and uid_of(item) not in waited_for
    ]
    return actions


def _foreground(item: Object) -> bool:
    # A pod's deletion waits for its containers; any other object that is still there waits for what it owns.
    return terminating(item) and item["kind"] != "Pod"


def _owners(item: Object) -> set[str]:
    references: Iterable[Object] = item["metadata"].get("ownerReferences") or ()
    return {reference["uid"] for reference in references}
