"""The scale subresource: an autoscaling/v1 Scale read from and written to a Deployment or ReplicaSet. Pure."""

from runtime.pod.validate import MAX_REPLICAS
from runtime.supervisor.meta import replicas_of
from runtime.supervisor.registry import Invalid
from runtime.supervisor.resources import Object


def to_scale(item: Object) -> Object:
    """The Scale of an object."""
    metadata = item["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    selector = (item["spec"].get("selector") or {}).get("matchLabels") or {}
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {key: metadata[key] for key in kept},
        "spec": {"replicas": replicas_of(item)},
        "status": {
            "replicas": (item.get("status") or {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(selector.items())),
        },
    }


def from_scale(tree: object) -> int:
    """The replicas a Scale asks for. Raises Invalid."""
    spec = tree.get("spec") if isinstance(tree, dict) else None
    replicas = spec.get("replicas", 0) if isinstance(spec, dict) else None
    if type(replicas) is not int or not 0 <= replicas <= MAX_REPLICAS:
        raise Invalid([("spec.replicas", f"{replicas!r} is out of range (0 to {MAX_REPLICAS})")])
    return replicas
