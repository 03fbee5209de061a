"""What must hold between objects: names and the host's ports are there once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from runtime.pod.faults import Fault, Path, shown
from runtime.pod.objects import Deployment, KubernetesObject, Pod, ReplicaSet
from runtime.pod.validate_pod import HostPort, host_ports

Located = tuple[int, Fault]
"""A fault of the object with this index in the set."""


def set_faults(
    objects: Sequence[KubernetesObject],
    existing: Sequence[KubernetesObject] = (),
    *,
    where: Callable[[int], str] = "object {} of the set".format,
) -> list[Located]:
    """Faults between objects that are applied together, and between them and those that exist already.

    Existing objects that the set replaces are left out, and so are those that another object owns: their ports are
    their owner's. `where` names the place of an object of the set.
    """
    return [*_duplicates(objects, where), *_port_conflicts(objects, existing)]


def _duplicates(objects: Sequence[KubernetesObject], where: Callable[[int], str]) -> Iterator[Located]:
    first: dict[tuple[str, str, str], int] = {}
    for index, obj in enumerate(objects):
        identity = _identity(obj)
        if identity in first and obj.metadata.name:
            wrong = f"{_title(obj)} is there twice, first at {where(first[identity])}"
            yield index, Fault(("metadata", "name"), wrong, "names must differ")
        first.setdefault(identity, index)


def _port_conflicts(objects: Sequence[KubernetesObject], existing: Sequence[KubernetesObject]) -> Iterator[Located]:
    replaced = {_identity(obj) for obj in objects}
    others = [obj for obj in existing if _identity(obj) not in replaced and not obj.metadata.owner_references]
    owners: dict[tuple[int, str], list[tuple[HostPort, str]]] = {}
    for obj in others:
        for _, port in _ports_of(obj):
            owners.setdefault((port.port, port.protocol), []).append((port, _title(obj)))
    for index, obj in enumerate(objects):
        mine = list(_ports_of(obj))
        for path, port in mine:
            taken = owners.get((port.port, port.protocol), [])
            owner = next((title for other, title in taken if other.clashes(port)), None)
            if owner:
                yield index, Fault(path, f"host port {port} belongs to {owner}", "another port")
        for _, port in mine:
            owners.setdefault((port.port, port.protocol), []).append((port, _title(obj)))


def _identity(obj: KubernetesObject) -> tuple[str, str, str]:
    return obj.kind, obj.metadata.namespace or "default", obj.metadata.name


def _title(obj: KubernetesObject) -> str:
    return f"{obj.kind} {shown(obj.metadata.name)}"


def _ports_of(obj: KubernetesObject) -> Iterator[tuple[Path, HostPort]]:
    path: Path
    if isinstance(obj, Pod):
        spec, path = obj.spec, ("spec",)
    elif isinstance(obj, (Deployment, ReplicaSet)):
        spec, path = obj.spec.template.spec, ("spec", "template", "spec")
    else:
        return
    for port in host_ports(spec):
        yield (*path, *port.place), port
