"""The YAML reader: what is no YAML is located, what is too much ends early, nothing but BadInput ever comes out."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import BadInput
from runtime.pod import manifest, yaml_source
from runtime.pod.faults import Faults
from runtime.pod.shape import Ambiguous, DecimalNumber


def fault(data: bytes, file: str = "web.yaml") -> str:
    _, faults = yaml_source.read(data, file)
    assert len(faults) == 1, [str(fault) for fault in faults]
    return str(faults[0])


def value(text: str) -> Any:
    (document,), faults = yaml_source.read(text.encode(), "web.yaml")
    assert not faults
    return document.value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "web.yaml:1: no document in the file"),
        (b"# nothing\n---\n", "web.yaml:1: no document in the file"),
        ("a: 1\n".encode("utf-16"), "web.yaml:1: UTF-16 text (save the file as UTF-8)"),
        ("a: 1\n".encode("utf-16-le"), "web.yaml:1: UTF-16 text"),
        (b"a: 1\nb: \xff\xfe\n", "web.yaml:2: byte 0xff is not UTF-8"),
        (b"\x7fELF\x02\x01\x01\0\0", "web.yaml:1: control character 0x7f"),
        (b"a: 1\nb: \0\n", "web.yaml:2: control character 0x00"),
        (b"a:\n\tb: 1\n", "web.yaml:2: syntax error: "),
        (b"a: [1,\n  2\nb: 3\n", "web.yaml:3: syntax error: "),
        (b"a: 'x\n\nb: 1\n", "web.yaml:4: syntax error: "),
        (b"a: 1\n b: 2\n", "web.yaml:2: syntax error: "),
        (b"a: *x\n", "web.yaml:1: undefined alias '*x'"),
        (b"a: &a [*a]\n", "web.yaml:1: alias '*a' stands inside of what it names"),
        (b"a: 1\nb: 2\na: 3\n", "web.yaml:3: duplicate key 'a' (it is on line 1 already)"),
        (b"a: {b: 1, b: 2}\n", "web.yaml:1: duplicate key 'b'"),
        (b"a: !!python/object:os.system [x]\n", "web.yaml:1: tag '!!python/object:os.system' is refused"),
        (b"a: 1\nb: !!str 5\n", "web.yaml:2: tag '!!str' is refused"),
        (b"a: !secret x\n", "web.yaml:1: tag '!secret' is refused"),
        (b"<<: {a: 1}\n", "web.yaml:1: merge keys ('<<') are not supported"),
        (b"no: 1\n", "web.yaml:1: key 'no' is not a string (write it in quotes)"),
        (b"80: 1\n", "web.yaml:1: key '80' is not a string"),
        (b"[a]: 1\n", "web.yaml:1: a mapping or list used as a key"),
        (b"---\na: 1\n...\n}", "web.yaml:4: syntax error: "),
    ],
)
def test_what_is_wrong_is_located(data: bytes, said: str) -> None:
    assert said in fault(data)


def test_a_tab_is_called_by_its_name() -> None:
    assert "indent with spaces, not with tabs" in fault(b"a:\n\tb: 1\n")


def test_where_an_unclosed_bracket_begins_is_said() -> None:
    assert "that begins on line 1" in fault(b"a: [1,\n  2\nb: 3\n")


def emulation_factor() -> float:
    """How many seconds of this machine are a second of a real one: 1, and more where a machine is emulated."""
    begun = time.process_time()
    sum(number % 7 for number in range(1_000_000))
    slowness = (time.process_time() - begun) / 0.1
    # An emulator is slower still with the parser's C than with this loop.
    return 1 if slowness < 2 else 2 * slowness


DEEP = 10_000
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 10)) for name in range(ord("b"), ord("m"))
)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (BOMB, "more than 200000 values, aliases expanded"),
        (b"a: &a '" + b"x" * 1_000_000 + b"'\nb: [" + b"*a," * 5000 + b"]", "more than 200000 values"),
        (b"[" * DEEP + b"]" * DEEP, "nested deeper than 64 levels"),
        (b"{a: " * DEEP + b"}" * DEEP, "nested deeper than 64 levels"),
        (b"- " * DEEP, "nested deeper than 64 levels"),
        (b"\n".join(b" " * depth + b"a:" for depth in range(2000)), "nested deeper than 64 levels"),
        (b"- a\n" * 2_000_000, "more than 200000 values"),
        (b"---\n- a\n" * 500_000, "more than 200000 values"),
        (b"a" * 100_000_000, "larger than the limit of 8388608 bytes"),
    ],
    ids=["aliases", "long aliases", "brackets", "braces", "dashes", "indentation", "wide", "documents", "100 MB"],
)
def test_bombs_end_in_a_limit_error(data: bytes, said: str) -> None:
    second = emulation_factor()
    begun = time.process_time()
    assert said in fault(data)
    assert time.process_time() - begun < second


def test_aliases_nested_by_aliases_count_as_deep_as_they_are() -> None:
    chain = b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [*a%d]\n" % (n, n, n - 1) for n in range(1, 200))
    assert "nested deeper than 64 levels" in fault(chain)


def test_a_file_of_100_megabytes_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(100_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(Faults, match="larger than the limit"):
            manifest.load([huge])
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(Faults, match="larger than the limit"):
        manifest.load(["/dev/zero"])


@pytest.mark.parametrize(
    "text", ["no", "Yes", "on", "OFF", "y", "010", "0644", "1_000", "2026-01-31", "0b11", "2026-1-1 10:00:00"]
)
def test_what_readers_disagree_about_is_ambiguous(text: str) -> None:
    assert value(f"a: {text}") == {"a": text}
    assert isinstance(value(f"a: {text}")["a"], Ambiguous)
    assert type(value(f"a: '{text}'")["a"]) is str


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-7", -7),
        ("0o17", 15),
        ("0xff", 255),
        ("22:30", "22:30"),
        ("80:80", "80:80"),
        ("host", "host"),
        ("1.2.3", "1.2.3"),
        ("64Mi", "64Mi"),
        ("-", "-"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, expected: object) -> None:
    if text == "-":
        assert value("a: '-'") == {"a": "-"}
        return
    found = value(f"a: {text}")["a"]
    assert (found, type(found)) == (expected, type(expected))


def test_decimal_numbers_remember_how_they_were_written() -> None:
    found = value("a: 1.10")["a"]
    assert isinstance(found, DecimalNumber) and found.text == "1.10"
    assert isinstance(value("a: 1e999")["a"], DecimalNumber) and isinstance(value("a: -.inf")["a"], DecimalNumber)


def test_lines_are_known_for_keys_items_and_what_is_missing() -> None:
    text = b"spec:\n  containers:\n\n  - name: a\n    image: x\n  -\n    name: b\n"
    (document,), _ = yaml_source.read(text, "web.yaml")
    assert document.line_of(("spec", "containers", 0, "image")) == 5
    assert document.line_of(("spec", "containers", 1, "name")) == 7
    assert document.line_of(("spec", "containers", 0, "ports")) == 4
    assert document.line_of(("metadata",)) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda key: key != "<<"), JSON, min_size=1, max_size=4))
def test_json_is_read_as_json(tree: dict[str, Any]) -> None:
    try:
        text = json.dumps(tree, indent="\t")
        text.encode()
        json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return  # lone surrogates are no text
    documents, faults = yaml_source.read(text.encode(), "x.json")
    if "\\u00" in text or "<<" in text or "\\uff" in text:
        return  # escaped control characters and merge keys have tests of their own
    assert not faults, [str(fault) for fault in faults]
    assert documents[0].value == tree


def only_bad_input(data: bytes) -> None:
    try:
        manifest.loads(data, "x.yaml")
    except BadInput as error:
        assert all(line.startswith(("x.yaml:", "and ")) for line in str(error).split("\n"))


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_manifest_or_bad_input(data: bytes) -> None:
    only_bad_input(data)


SCALARS = st.sampled_from(
    [
        "a",
        "no",
        "010",
        "1e999",
        ".nan",
        "-1",
        "null",
        "''",
        "2026-01-01",
        "x y",
        "*a",
        "&a b",
        "!t c",
        "|\n  x",
        "{}",
        "[]",
    ]
)
FIELDS = st.sampled_from(
    [
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "spec",
        "containers",
        "image",
        "data",
        "env",
        "value",
        "<<",
        "80",
        "items",
    ]
)
LINES = st.tuples(st.integers(0, 4), st.sampled_from(["", "- "]), FIELDS, SCALARS | st.just(""))


@given(st.lists(LINES, max_size=12))
@settings(max_examples=300, deadline=None)
def test_anything_like_a_manifest_is_one_or_bad_input(lines: list[tuple[int, str, str, str]]) -> None:
    body = "".join(f"{'  ' * depth}{dash}{field}: {scalar}\n" for depth, dash, field, scalar in lines)
    only_bad_input(body.encode())
    only_bad_input(b"apiVersion: v1\nkind: Pod\n" + body.encode())


KINDS = st.sampled_from([("v1", "Pod"), ("v1", "Secret"), ("v1", "ConfigMap"), ("apps/v1", "Deployment")])
WORDS = (
    "metadata name spec containers replicas selector matchLabels template env value valueFrom resources limits cpu "
    "volumes emptyDir data stringData securityContext runAsUser capabilities add ports hostPort"
)
NAMES = st.sampled_from(WORDS.split())
TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["host", "a", "1m"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=25,
)


@given(KINDS, st.dictionaries(NAMES, TREES, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_tree_is_judged_without_an_exception(kind: tuple[str, str], tree: dict[str, Any]) -> None:
    from runtime.pod.validate import decode

    _, faults = decode({"apiVersion": kind[0], "kind": kind[1], **tree})
    assert all("\n" not in str(fault) for fault in faults)
