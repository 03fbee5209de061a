"""What a pod waits for before it runs."""

from typing import Any

import pytest

from runtime.supervisor.references import missing, values

Object = dict[str, Any]

THERE: dict[tuple[str, str], Object] = {
    ("ConfigMap", "conf"): {"kind": "ConfigMap", "data": {"k": "v"}, "binaryData": {"b": "AA=="}},
    ("Secret", "safe"): {"kind": "Secret", "data": {"s": "cw=="}},
}


def lookup(kind: str, name: str) -> Object | None:
    return THERE.get((kind, name))


def env(**source: Any) -> Object:
    return {"containers": [{"name": "c", "env": [{"name": "E", "valueFrom": source}]}]}


def volume(**source: Any) -> Object:
    return {"containers": [{"name": "c"}], "volumes": [{"name": "v", **source}]}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"containers": [{"name": "c"}]}, None),
        (env(configMapKeyRef={"name": "conf", "key": "k"}), None),
        (env(configMapKeyRef={"name": "conf", "key": "x"}), 'configmap "conf" has no key "x"'),
        (env(secretKeyRef={"name": "none", "key": "x"}), 'secret "none" not found'),
        (env(secretKeyRef={"name": "none", "key": "x", "optional": True}), None),
        (env(fieldRef={"fieldPath": "metadata.name"}), None),
        ({"containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "no"}}]}]}, 'configmap "no" not found'),
        (volume(configMap={"name": "conf", "items": [{"key": "b", "path": "x"}]}), None),
        (volume(configMap={"name": "conf", "items": [{"key": "z", "path": "x"}]}), 'configmap "conf" has no key "z"'),
        (volume(secret={"secretName": "gone"}), 'secret "gone" not found'),
        (volume(projected={"sources": [{"secret": {"name": "gone"}}]}), 'secret "gone" not found'),
        (volume(projected={"sources": [{"secret": {"name": "gone", "optional": True}}]}), None),
        (volume(secret={"secretName": "gone", "optional": True}), None),
    ],
)
def test_what_is_missing(spec: Object, reason: str | None) -> None:
    assert missing({"spec": spec}, lookup) == reason


def test_values_are_what_is_referred_to_and_there() -> None:
    spec = env(secretKeyRef={"name": "safe", "key": "s"}) | {"volumes": [{"name": "v", "configMap": {"name": "no"}}]}
    assert values({"spec": spec}, lookup) == {"ConfigMap": {}, "Secret": {"safe": THERE["Secret", "safe"]}}
