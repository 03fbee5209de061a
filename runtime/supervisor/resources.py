"""The kinds of object the door serves, and the words a reader may use for them.

This table is all that the client, the store and the door agree on; it imports nothing that costs start-up time.
"""

from typing import Any, NamedTuple

from kernel.errors import NotFound

Object = dict[str, Any]
"""A Kubernetes object as decoded JSON. What the store hands out is shared: copy before changing."""


class Resource(NamedTuple):
    """One kind of object and its place in the API's paths."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    group: str  # "" is the core group
    version: str
    subresources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """The object's apiVersion: "v1", "apps/v1"."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def prefix(self) -> str:
        """The path below which the kind lives: "/api/v1", "/apis/apps/v1"."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def qualified(self) -> str:
        """The name kubectl prints and a Status names: "pods", "deployments.apps"."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of the collection (all namespaces if `namespace` is None), the object or its subresource."""
        parts = [self.prefix]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/".join(parts)


RESOURCES = (
    Resource("ConfigMap", "configmaps", ("cm",), "", "v1"),
    Resource("Secret", "secrets", (), "", "v1"),
    Resource("Pod", "pods", ("po",), "", "v1", ("status", "log"), ("all",)),
    Resource("Deployment", "deployments", ("deploy",), "apps", "v1", ("status", "scale"), ("all",)),
    Resource("ReplicaSet", "replicasets", ("rs",), "apps", "v1", ("status", "scale"), ("all",)),
)
"""In the order in which a batch of them is best applied: what is referred to comes before what refers to it."""

BY_KIND = {resource.kind: resource for resource in RESOURCES}
BY_PLURAL = {(resource.group, resource.version, resource.plural): resource for resource in RESOURCES}
_BY_WORD = {
    word: resource
    for resource in RESOURCES
    for word in (resource.kind.lower(), resource.plural, resource.qualified, *resource.short_names)
}


def find(word: str) -> Resource:
    """The resource a user means by a kind's name, plural or short name in any case.

    Raises NotFound, which lists what there is.
    """
    resource = _BY_WORD.get(word.lower())
    if resource is None:
        known = ", ".join(f"{r.plural} ({', '.join(r.short_names)})" if r.short_names else r.plural for r in RESOURCES)
        raise NotFound(f'no kind of object "{word}"', remedy=f"known: {known}")
    return resource


def identify(item: Object) -> Resource | None:
    """The resource whose apiVersion and kind the object carries, or None."""
    resource = BY_KIND.get(item.get("kind", ""))
    return resource if resource is not None and resource.api_version == item.get("apiVersion") else None
