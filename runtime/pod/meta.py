"""What all Kubernetes objects have in common: metadata, owners, label selectors, lists and the Status error.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/
"""

from __future__ import annotations

from typing import Any, NewType, TypeAlias

import msgspec

Quantity = NewType("Quantity", str)
"""An amount as Kubernetes writes it ("500m", "64Mi"); read by runtime.pod.quantities."""

Mode = NewType("Mode", int)
"""Permission bits, written in octal with a leading zero in YAML ("0640") and as a plain number in JSON (416)."""

IntOrString: TypeAlias = int | str
"""A number, or the name of one."""

Timestamp = NewType("Timestamp", str)
"""A moment in RFC 3339, UTC, whole seconds: "2026-01-31T12:00:00Z"."""


class KubernetesStruct(
    msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True, repr_omit_defaults=True
):
    """Camel-cased names; unknown fields are refused; what was not set is left out when written.

    Every field that a user writes has a default, so that a faulty document can be read as far as possible and all its
    faults be shown at once: what is required is asked for in runtime.pod.validate.
    """


def always(value: str) -> Any:
    """A default that is written all the same: msgspec omits plain defaults only."""
    return msgspec.field(default_factory=lambda: value)


class OwnerReference(KubernetesStruct):
    """The object that made this one; with `controller` it also manages it."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(KubernetesStruct):
    """Name and marks of an object. From uid on, fields are set by the store."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Timestamp | None = None
    deletion_timestamp: Timestamp | None = None
    deletion_grace_period_seconds: int | None = None
    owner_references: list[OwnerReference] = []


class LabelSelector(KubernetesStruct):
    """Objects that carry all of these labels."""

    match_labels: dict[str, str] = {}


class ListMeta(KubernetesStruct):
    """The version of the store that a list shows."""

    resource_version: str = ""


class ObjectList(KubernetesStruct):
    """A list as the API answers it; kind is that of the objects with "List" appended."""

    api_version: str = always("v1")
    kind: str = always("List")
    metadata: ListMeta = msgspec.field(default_factory=ListMeta)
    items: list[Any] = msgspec.field(default_factory=list)


class StatusCause(KubernetesStruct):
    """One reason of a failure, at a field of the object."""

    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(KubernetesStruct):
    """The object that a failure is about."""

    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: list[StatusCause] = []
    retry_after_seconds: int = 0


class Status(KubernetesStruct):
    """The API's answer where no object is: mostly a failure, with the HTTP status in `code`."""

    api_version: str = always("v1")
    kind: str = always("Status")
    metadata: ListMeta = msgspec.field(default_factory=ListMeta)
    status: str = "Failure"
    message: str = ""
    reason: str = ""
    details: StatusDetails | None = None
    code: int = 0
