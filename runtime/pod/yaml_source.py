"""YAML and JSON text to plain values, with the line of every value.

The reading is narrow on purpose: what other readers of YAML would take for something else (`no`, `010`, a date)
becomes an Ambiguous, tags are refused, keys are strings and unique. The parser's events are turned into values by a
loop, not by recursion, and depth and size are counted while reading, aliases at their full size, so that no input can
exhaust stack or memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from runtime.pod.faults import Fault, Path, shown
from runtime.pod.shape import Ambiguous, DecimalNumber

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
_DOCUMENT_SIZE = 5  # a document takes about as long to begin and end as five values to read
MAX_SIZE = 200_000
"""The largest number of values in a file, where 64 characters of text count as one more and aliases are expanded."""

_PLAIN: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_PLAIN |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,29})\Z")
_PREFIXED = re.compile(r"0o[0-7]{1,20}\Z|0x[0-9a-fA-F]{1,16}\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z|[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_AMBIGUOUS = re.compile(
    r"(?i:y|n|yes|no|on|off)\Z"
    r"|[-+]?0[0-9_]+\Z|[-+]?0b[01_]+\Z|[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?\Z|[-+]?0x[0-9a-fA-F_]+\Z"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?\Z"
)
_FORBIDDEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_JSON_ESCAPE = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|.)")


_NOTHING: dict[str | int, Any] = {}  # shared by all scalars, never written to


@dataclass(slots=True)
class Node:
    """A value and its place; `lines` and `children` of a container go by key or index."""

    value: Any
    line: int
    children: dict[str | int, Node] = field(default_factory=lambda: _NOTHING)
    key_lines: dict[str | int, int] = field(default_factory=lambda: _NOTHING)
    size: int = 1
    depth: int = 1

    def line_of(self, path: Path) -> int:
        """The line of the value at the path, or of the innermost part of the path that is there."""
        node, line = self, self.line
        for part in path:
            if part not in node.children:
                return node.key_lines.get(part, line)
            line, node = node.key_lines[part], node.children[part]
        return line


class _Located(Exception):
    """Reading cannot go on from here."""

    def __init__(self, line: int, wrong: str, right: str = "") -> None:
        super().__init__(wrong)
        self.line, self.wrong, self.right = line, wrong, right


def read(data: bytes, file: str) -> tuple[list[Node], list[Fault]]:
    """All documents of a file that are not empty, and what was wrong; never raises for what the file contains."""
    builder = _Builder(file)
    try:
        text = _decode(data)
        builder.read(_from_json(text) if file.endswith(".json") else text)
        if not builder.documents and not builder.faults:
            raise _Located(1, "no document in the file", "an object with apiVersion, kind and metadata")
    except _Located as error:
        builder.faults.append(Fault((), error.wrong, error.right, file, error.line))
    return builder.documents, builder.faults


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise _Located(1, f"larger than the limit of {MAX_BYTES} bytes", "split it into several files")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or data[:2].count(0) == 1:
        raise _Located(1, "UTF-16 text", "save the file as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Located(line, f"byte 0x{data[error.start]:02x} is not UTF-8", "save the file as UTF-8") from None
    if found := _FORBIDDEN.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise _Located(line, f"control character 0x{ord(found[0]):02x}", "a text file is needed")
    return text


def _from_json(text: str) -> str:
    """JSON as YAML: the parser wants no tabs between tokens, and no pairs of surrogates for one character."""

    def joined(escape: re.Match[str]) -> str:
        if escape[1] is None:
            return escape[0]
        return chr(0x10000 + ((int(escape[1], 16) & 0x3FF) << 10 | int(escape[2], 16) & 0x3FF))

    return _JSON_ESCAPE.sub(joined, text.replace("\t", " "))


def _events(text: str) -> Iterator[Any]:
    loader = yaml.CSafeLoader(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        wrong = error.problem or "not YAML"
        if "nesting depth" in wrong:
            # Some builds of libyaml scan ahead of the events and have a limit of their own.
            raise _Located(mark.line + 1 if mark else 1, _TOO_DEEP) from None
        if error.context and error.context_mark and mark and error.context_mark.line != mark.line:
            wrong = f"{wrong} {error.context} that begins on line {error.context_mark.line + 1}"
        elif error.context:
            wrong = f"{wrong} {error.context}"
        raise _Located(mark.line + 1 if mark else 1, f"syntax error: {wrong}", _tab_hint(text, mark)) from None
    except yaml.YAMLError as error:
        raise _Located(1, f"syntax error: {shown(error, 120)}") from None
    finally:
        loader.dispose()


def _tab_hint(text: str, mark: Any) -> str:
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    return "indent with spaces, not with tabs" if "\t" in line[: len(line) - len(line.lstrip())] else ""


class _Builder:
    """Turns events into nodes. `stack` holds the open containers and their anchors, `keys` the key waiting in each."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.documents: list[Node] = []
        self.faults: list[Fault] = []
        self.total = 0
        self.stack: list[tuple[Node, str | None]] = []
        self.keys: list[str | None] = []
        self.anchors: dict[str, Node | None] = {}

    def read(self, text: str) -> None:
        for event in _events(text):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.DocumentStartEvent):
                self.anchors = {}
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event.anchor, line)
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(event, line)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                self._open(event, line)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self._close()

    def _alias(self, anchor: str | None, line: int) -> None:
        if anchor is None or anchor not in self.anchors:
            raise _Located(line, f"undefined alias {shown(f'*{anchor}')}")
        node = self.anchors[anchor]
        if node is None:
            raise _Located(line, f"alias {shown(f'*{anchor}')} stands inside of what it names")
        if len(self.stack) + node.depth > MAX_DEPTH:
            raise _Located(line, _TOO_DEEP)
        self._add(node, line, None)

    def _scalar(self, event: Any, line: int) -> None:
        self._check_tag(event.tag, line)
        plain = event.style is None or event.style == ""
        value = _resolve(event.value) if plain and event.implicit[0] else event.value
        node = Node(value, line, size=1 + len(event.value) // 64)
        self._add(node, line, event.anchor)

    def _open(self, event: Any, line: int) -> None:
        self._check_tag(event.tag, line)
        if len(self.stack) >= MAX_DEPTH:
            raise _Located(line, _TOO_DEEP)
        if event.anchor:
            self.anchors[event.anchor] = None
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        self.stack.append((Node({} if is_mapping else [], line, {}, {}), event.anchor))
        self.keys.append(None)

    def _close(self) -> None:
        node, anchor = self.stack.pop()
        self.keys.pop()
        self._add(node, node.line, anchor)

    def _add(self, node: Node, line: int, anchor: str | None) -> None:
        """Put a finished node where it belongs: as key or value of the innermost container, or as a document."""
        if anchor:
            self.anchors[anchor] = node
        if not self.stack:
            self.total += node.size + _DOCUMENT_SIZE
            self._check_size(self.total, line)
            if node.value is not None:
                self.documents.append(node)
            return
        parent = self.stack[-1][0]
        if isinstance(parent.value, dict) and self.keys[-1] is None:
            self.keys[-1] = self._key(node, parent, line)
            return
        key, self.keys[-1] = self.keys[-1], None
        self._attach(parent, len(parent.value) if key is None else key, node, line)

    def _attach(self, parent: Node, key: str | int, node: Node, line: int) -> None:
        if isinstance(parent.value, dict):
            parent.value[key] = node.value
        else:
            parent.value.append(node.value)
            parent.key_lines[key] = line
        parent.children[key] = node
        parent.size += node.size
        parent.depth = max(parent.depth, node.depth + 1)
        self._check_size(parent.size, line)

    def _check_size(self, size: int, line: int) -> None:
        if size > MAX_SIZE:
            raise _Located(line, f"more than {MAX_SIZE} values, aliases expanded", "split it into several files")

    def _key(self, node: Node, parent: Node, line: int) -> str:
        if isinstance(node.value, (dict, list)):
            raise _Located(line, "a mapping or list used as a key", "a key is a string")
        key = str(node.value)
        if type(node.value) is not str:
            self._note(line, f"key {shown(key)} is not a string", "write it in quotes")
        elif key == "<<":
            self._note(line, "merge keys ('<<') are not supported", "write the fields out")
        elif key in parent.value or key in parent.key_lines:
            self._note(line, f"duplicate key {shown(key)}", f"it is on line {parent.key_lines[key]} already")
        parent.key_lines.setdefault(key, line)
        parent.size += node.size
        return key

    def _check_tag(self, tag: str | None, line: int) -> None:
        if tag is not None:
            short = tag.replace("tag:yaml.org,2002:", "!!")
            self._note(line, f"tag {shown(short)} is refused", "write the plain value")

    def _note(self, line: int, wrong: str, right: str) -> None:
        self.faults.append(Fault((), wrong, right, self.file, line))


def _resolve(text: str) -> Any:
    """The value of a plain scalar, by the part of the YAML 1.2 core schema that no reader disagrees about."""
    if text in _PLAIN:
        return _PLAIN[text]
    if text[:1] not in "+-.0123456789yYnNoO":
        return text
    if _INTEGER.match(text):
        return int(text)
    if _PREFIXED.match(text):
        return int(text, 0)
    if _AMBIGUOUS.match(text):
        return Ambiguous(text)
    if len(text) <= 400 and _FLOAT.match(text):
        return DecimalNumber(text.lower() if text.lstrip("+-")[:2].lower() in (".i", ".n") else text)
    return text
