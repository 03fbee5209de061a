"""Merge patch, JSON patch and the three-way merge, by their RFCs' own examples."""

from typing import Any

import pytest

from kernel.errors import BadInput
from runtime.supervisor import immutable
from runtime.supervisor.merging import three_way
from runtime.supervisor.patches import json_patch, merge


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Any, patch: Any, result: Any) -> None:
    assert merge(target, patch) == result


@pytest.mark.parametrize(
    ("target", "operation", "result"),
    [  # RFC 6902, appendix A
        ({"foo": "bar"}, {"op": "add", "path": "/baz", "value": "qux"}, {"baz": "qux", "foo": "bar"}),
        ({"foo": ["a", "b"]}, {"op": "add", "path": "/foo/1", "value": "q"}, {"foo": ["a", "q", "b"]}),
        ({"foo": ["a"]}, {"op": "add", "path": "/foo/-", "value": ["b"]}, {"foo": ["a", ["b"]]}),
        ({"a": 1, "b": 2}, {"op": "remove", "path": "/a"}, {"b": 2}),
        ({"foo": ["a", "b", "c"]}, {"op": "remove", "path": "/foo/1"}, {"foo": ["a", "c"]}),
        ({"a": 1}, {"op": "replace", "path": "/a", "value": 2}, {"a": 2}),
        ({"a": {"b": 1}, "c": {}}, {"op": "move", "from": "/a/b", "path": "/c/d"}, {"a": {}, "c": {"d": 1}}),
        ({"a": [1]}, {"op": "copy", "from": "/a", "path": "/b"}, {"a": [1], "b": [1]}),
        ({"/": 9, "~1": 10}, {"op": "test", "path": "/~01", "value": 10}, {"/": 9, "~1": 10}),
        ({"a": 1}, {"op": "replace", "path": "", "value": [2]}, [2]),
    ],
)
def test_json_patch(target: Any, operation: Any, result: Any) -> None:
    assert json_patch(target, [operation]) == result


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/missing"},
        {"op": "add", "path": "/a/b/c", "value": 1},
        {"op": "add", "path": "/list/9", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "add", "path": "a", "value": 1},
        {"op": "add", "path": "/b"},
        {"op": "test", "path": "/a", "value": 2},
        {"op": "move", "from": "/list", "path": "/list/0"},
        {"op": "dance", "path": "/a"},
        {},
        7,
    ],
)
def test_a_json_patch_that_cannot_be_done_is_named_and_leaves_the_target(operation: Any) -> None:
    target = {"a": 1, "list": [1]}
    with pytest.raises(BadInput, match="operation 1"):
        json_patch(target, [{"op": "add", "path": "/list/-", "value": 2}, operation])
    assert target == {"a": 1, "list": [1]}


def test_three_way_merge_removes_what_was_said_and_is_said_no_more() -> None:
    live = {"spec": {"replicas": 7, "old": 1, "ports": [1, 2], "default": True}}
    last = {"spec": {"old": 1, "ports": [1]}}
    wanted = {"spec": {"ports": [3], "new": {"x": 1}}}
    assert three_way(live, last, wanted) == {
        "spec": {"replicas": 7, "ports": [3], "default": True, "new": {"x": 1}},
    }


def test_lists_of_named_items_are_merged_item_by_item() -> None:
    live = {"containers": [{"name": "injected"}, {"name": "a", "image": "x", "tty": False}, {"name": "b"}]}
    last = {"containers": [{"name": "a", "image": "x", "stdin": True}, {"name": "b"}]}
    wanted = {"containers": [{"name": "new"}, {"name": "a", "image": "y"}]}
    assert three_way(live, last, wanted) == {
        "containers": [{"name": "new"}, {"name": "injected"}, {"name": "a", "image": "y", "tty": False}]
    }


@pytest.mark.parametrize(
    ("field", "key", "value"),
    [
        ("env", "name", "A"),
        ("ports", "containerPort", 80),
        ("ports", "port", 80),
        ("volumeMounts", "mountPath", "/x"),
        ("hostAliases", "ip", "10.0.0.1"),
        ("imagePullSecrets", "name", "s"),
    ],
)
def test_each_merged_list_has_its_own_key(field: str, key: str, value: Any) -> None:
    live = {field: [{key: value, "default": 1}, {key: "other" if isinstance(value, str) else 1}]}
    assert three_way(live, {}, {field: [{key: value, "set": 2}]}) == {
        field: [{key: value, "default": 1, "set": 2}, live[field][1]]
    }


def test_atomic_lists_and_lists_with_a_key_twice_are_replaced() -> None:
    live = {"tolerations": [{"key": "a"}], "ports": [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}]}
    wanted = {"tolerations": [{"key": "b"}], "ports": [{"containerPort": 53}], "volumes": []}
    assert three_way(live, {}, wanted) == wanted


def test_a_volume_and_a_strategy_take_one_form_alone() -> None:
    live = {"volumes": [{"name": "v", "emptyDir": {}}], "strategy": {"type": "RollingUpdate", "rollingUpdate": {}}}
    wanted = {"volumes": [{"name": "v", "configMap": {"name": "c"}}], "strategy": {"type": "Recreate"}}
    assert three_way(live, {}, wanted) == wanted


def test_what_may_not_change_in_a_pod_is_named() -> None:
    spec = {"containers": [{"name": "c", "image": "a"}], "tolerations": [{"key": "x"}]}
    old = {"kind": "Pod", "spec": spec}
    assert immutable.faults(old, {"kind": "Pod", "spec": {**spec, "tolerations": [{"key": "y"}, {"key": "x"}]}}) == []
    changed = {"containers": [{"name": "c", "image": "b"}], "tolerations": [], "hostname": "h"}
    [(field, message)] = immutable.faults(old, {"kind": "Pod", "spec": changed})
    assert field == "spec" and "spec.containers[0].image, spec.tolerations, spec.hostname" in message


def test_the_type_of_a_secret_and_what_is_immutable_stay() -> None:
    old = {"kind": "Secret", "type": "Opaque", "data": {}, "immutable": True}
    assert immutable.faults(old, dict(old)) == []
    new = {"kind": "Secret", "type": "other", "data": {"a": "b"}}
    assert [field for field, _ in immutable.faults(old, new)] == ["type", "data", "immutable"]
