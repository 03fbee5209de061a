"""Selectors as URLs and specs write them."""

import pytest

from kernel.errors import BadInput, NotSupported
from runtime.supervisor.selectors import fields, labels, of_spec


def item(name: str = "a", **held: str) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "default", "labels": held}, "status": {"phase": "Running"}}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app!=web", False),
        ("tier!=db", True),
        ("app in (api, web),tier notin (db)", True),
        ("app in (api)", False),
        ("app", True),
        ("!app", False),
        ("!tier", True),
        ("example.org/x", False),
    ],
)
def test_label_selector(selector: str, selected: bool) -> None:
    assert labels(selector)(item(app="web")) is selected


@pytest.mark.parametrize("selector", ["app=web tier=db", "app in web", "=web", "a=b=c", "app>1"])
def test_a_label_selector_that_does_not_parse_is_named(selector: str) -> None:
    with pytest.raises(BadInput, match="label selector"):
        labels(selector)


def test_field_selector() -> None:
    assert fields("metadata.name=a,status.phase!=Pending")(item())
    assert not fields("metadata.name=b")(item())
    with pytest.raises(NotSupported, match=r"spec\.nodeName"):
        fields("spec.nodeName=x")


def test_an_empty_selector_of_a_spec_selects_nothing() -> None:
    assert not of_spec({})(item(app="web"))
    assert of_spec({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]})(item(app="web"))
    assert not of_spec({"matchLabels": {"app": "web", "x": "y"}})(item(app="web"))
