"""Manifests: files, directories and standard input to objects, all or none.

All faults of all files are raised together, each with file, line and field. Nothing is read twice, nothing is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

from kernel.errors import BadInput
from runtime.pod import defaults
from runtime.pod.faults import Fault, Faults, Path, shown
from runtime.pod.objects import KubernetesObject
from runtime.pod.validate import decode
from runtime.pod.validate_set import set_faults
from runtime.pod.yaml_source import MAX_BYTES, Node, read

MAX_TOTAL_BYTES = 8 * MAX_BYTES
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Document:
    """An object and where it was written."""

    object: KubernetesObject
    file: str
    node: Node
    prefix: Path = ()

    @property
    def place(self) -> str:
        """`file:line` of its name."""
        return f"{self.file}:{self.node.line_of(('metadata', 'name'))}"

    def located(self, fault: Fault) -> Fault:
        """A fault of the object, as the API reports it too, with its line in the file."""
        return Fault((*self.prefix, *fault.path), fault.wrong, fault.right, self.file, self.node.line_of(fault.path))


def load(paths: Sequence[str | FilePath]) -> list[Document]:
    """All objects of the files and directories ("-" is standard input), with defaults filled in; raises Faults."""
    documents: list[Document] = []
    faults: list[Fault] = []
    for file, data in _contents(paths):
        found, wrong = _parse(data, file)
        documents += found
        faults += wrong
    return _checked(documents, faults)


def loads(text: str | bytes, file: str = "-") -> list[Document]:
    """The same for text that is at hand; `file` is what messages call it."""
    documents, faults = _parse(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"), file)
    return _checked(documents, faults)


def _checked(documents: list[Document], faults: list[Fault]) -> list[Document]:
    objects = [document.object for document in documents]
    faults += [
        documents[index].located(fault) for index, fault in set_faults(objects, where=lambda n: documents[n].place)
    ]
    if faults:
        order = {file: number for number, file in reversed(list(enumerate(fault.file for fault in faults)))}
        raise Faults(sorted(faults, key=lambda fault: (order[fault.file], fault.line)))
    for document in documents:
        defaults.apply(document.object)
    return documents


def _parse(data: bytes, file: str) -> tuple[list[Document], list[Fault]]:
    nodes, faults = read(data, file)
    documents: list[Document] = []
    for prefix, node in _objects(nodes):
        obj, wrong = decode(node.value)
        faults += [Fault((*prefix, *f.path), f.wrong, f.right, file, node.line_of(f.path)) for f in wrong]
        if obj is not None:
            _forget_server_side(obj)
            documents.append(Document(obj, file, node, prefix))
    return documents, faults


def _objects(nodes: list[Node]) -> Iterator[tuple[Path, Node]]:
    """The documents of a file, those of a v1 List one by one."""
    for node in nodes:
        items = node.children.get("items")
        if items and isinstance(items.value, list) and _is_list(node.value):
            for index, item in items.children.items():
                yield ("items", index), item
        else:
            yield (), node


def _is_list(value: object) -> bool:
    return isinstance(value, dict) and value.get("kind") == "List" and value.get("apiVersion") == "v1"


def _forget_server_side(obj: KubernetesObject) -> None:
    """What `rawpod get -o yaml` shows can be applied again: fields that the store sets are not asked for."""
    meta = obj.metadata
    meta.uid, meta.resource_version, meta.generation = "", "", 0
    meta.creation_timestamp = meta.deletion_timestamp = meta.deletion_grace_period_seconds = None


def _contents(paths: Sequence[str | FilePath]) -> Iterator[tuple[str, bytes]]:
    remaining = MAX_TOTAL_BYTES
    for path in paths:
        for file in _files(path):
            data = _read(file)
            remaining -= len(data)
            if remaining < 0:
                raise BadInput(f"{file}: more than {MAX_TOTAL_BYTES} bytes of manifests", remedy="apply them in parts")
            yield file, data


def _files(path: str | FilePath) -> list[str]:
    if str(path) == "-" or not FilePath(path).is_dir():
        return [str(path)]
    files = sorted(str(file) for file in FilePath(path).iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise BadInput(f"{path}: no manifests in this directory", remedy=f"files that end in {', '.join(SUFFIXES)}")
    return files


def _read(file: str) -> bytes:
    """At most one byte more than the limit, by which the reader tells that there is too much."""
    if file == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        with open(file, "rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BadInput(f"{file}: {reason}", remedy="a file, a directory or '-'") from error
    except ValueError as error:  # a NUL byte in the name
        raise BadInput(f"{shown(file)}: not a file's name") from error
