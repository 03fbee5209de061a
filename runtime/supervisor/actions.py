"""What the reconciler can ask for. Data only; the controller carries it out in one transaction."""

from dataclasses import dataclass

from runtime.supervisor.resources import Object


@dataclass(frozen=True)
class Create:
    """Make the object; metadata.generateName asks for a name ending in letters of its new uid."""

    item: Object


@dataclass(frozen=True)
class OnObject:
    """An action on one object, which is still that object only if its uid is."""

    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Delete(OnObject):
    """Delete it: a pod gracefully, anything else at once or, in the foreground, after what it owns."""

    foreground: bool = False


@dataclass(frozen=True)
class Remove(OnObject):
    """Take the object away: its deletion in the foreground is complete."""


@dataclass(frozen=True)
class Scale(OnObject):
    """Set spec.replicas."""

    replicas: int


@dataclass(frozen=True)
class Adopt(OnObject):
    """Add the ownerReference that makes `reference` the controller."""

    reference: Object


@dataclass(frozen=True)
class Release(OnObject):
    """Take off the ownerReference to `owner_uid`."""

    owner_uid: str


@dataclass(frozen=True)
class UpdateStatus(OnObject):
    """Replace the status."""

    status: Object


Action = Create | Delete | Remove | Scale | Adopt | Release | UpdateStatus


def target(item: Object) -> tuple[str, str, str, str]:
    """The fields that OnObject takes."""
    metadata = item["metadata"]
    return item["kind"], metadata["namespace"], metadata["name"], metadata["uid"]
