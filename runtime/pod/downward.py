"""The downward API: what a pod and its containers say of themselves, as text. Pure.

https://kubernetes.io/docs/concepts/workloads/pods/downward-api/
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kernel.errors import BadInput
from kernel.record import Record
from runtime.pod import quantities
from runtime.pod.faults import shown
from runtime.pod.objects import Pod, ResourceFieldSelector

VOLUME_FIELDS = ("metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations")
"""What a file may hold beside single labels and annotations; more goes into the environment alone, as in Kubernetes."""

RESOURCES = ("limits.cpu", "limits.memory", "requests.cpu", "requests.memory")
DIVISORS = {
    "cpu": ("1", "1m"),
    "memory": ("1", *(f"1{unit}" for unit in ("k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))),
}
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]\Z")
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_ESCAPES |= {"\\": "\\\\", '"': '\\"'}


class Machine(Record):
    """What stands for a limit that a container does not have: all of the machine."""

    millicores: int
    memory: int


def is_volume_field(path: str) -> bool:
    """Whether a file of a downwardAPI volume may hold this field."""
    return path in VOLUME_FIELDS or _SUBSCRIPT.match(path) is not None


def field(pod: Pod, path: str) -> str:
    """The field of the pod; "" for a label or annotation that it does not have. Raises BadInput for another field."""
    meta = pod.metadata
    if path in ("metadata.labels", "metadata.annotations"):
        return _lines(meta.labels if path == "metadata.labels" else meta.annotations)
    if found := _SUBSCRIPT.match(path):
        return (meta.labels if found[1] == "labels" else meta.annotations).get(found[2], "")
    if path not in VOLUME_FIELDS:
        raise BadInput(f"unknown field {shown(path)}", remedy=f"one of {', '.join(VOLUME_FIELDS)}")
    value: str = getattr(meta, path.removeprefix("metadata."))
    return value


def resource(pod: Pod, selector: ResourceFieldSelector, machine: Machine) -> str:
    """What the container asks for, divided and rounded up; a request that is left out is the limit, or else 0."""
    container = next((one for one in pod.spec.all_containers if one.name == selector.container_name), None)
    if container is None:
        raise BadInput(f"no container {shown(selector.container_name)}")
    section, _, name = selector.resource.partition(".")
    limits = container.resources.limits if container.resources else {}
    requests = container.resources.requests if container.resources else {}
    text = limits.get(name) if section == "limits" else requests.get(name, limits.get(name))
    divisor = selector.divisor if selector.divisor not in (None, "", "0") else "1"
    read = quantities.cpu_millicores if name == "cpu" else quantities.memory_bytes
    if text is not None:
        amount = read(text)
    elif section == "limits":
        amount = machine.millicores if name == "cpu" else machine.memory
    else:
        amount = 0
    return str(-(-amount // read(divisor)))


def _lines(values: Mapping[str, str]) -> str:
    """KEY="VALUE" a line, by key."""
    return "\n".join(f"{key}={_quoted(values[key])}" for key in sorted(values))


def _quoted(text: str) -> str:
    """As Go's strconv.Quote writes it, which is how programs that read such files take it apart."""
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escaped(c)) for c in text) + '"'


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
