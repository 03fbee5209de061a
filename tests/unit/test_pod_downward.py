"""What a pod says of itself in files."""

from __future__ import annotations

import pytest

from runtime.pod import downward
from runtime.pod.objects import Container, ObjectMeta, Pod, PodSpec, ResourceFieldSelector, ResourceRequirements

MACHINE = downward.Machine(4000, 8 * 2**30)
POD = Pod(
    metadata=ObjectMeta(
        name="web",
        namespace="shop",
        uid="u",
        labels={"b": "2", "a": "1"},
        annotations={"note": 'a "b"\n\\c\x01\u200b€'},
    ),
    spec=PodSpec(
        containers=[
            Container(name="bare"),
            Container(
                name="full",
                resources=ResourceRequirements(
                    limits={"cpu": "1500m", "memory": "64Mi"}, requests={"memory": "10000001"}
                ),
            ),
        ]
    ),
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u"),
        ("metadata.labels", 'a="1"\nb="2"'),
        ("metadata.annotations", 'note="a \\"b\\"\\n\\\\c\\x01\\u200b€"'),
        ("metadata.labels['a']", "1"),
        ("metadata.labels['none']", ""),
    ],
)
def test_fields(path: str, expected: str) -> None:
    assert downward.is_volume_field(path)
    assert downward.field(POD, path) == expected


@pytest.mark.parametrize(
    ("container", "resource", "divisor", "expected"),
    [
        ("full", "limits.cpu", None, "2"),
        ("full", "limits.cpu", "1m", "1500"),
        ("full", "requests.cpu", "0", "2"),  # left out: the limit
        ("full", "limits.memory", "1Mi", "64"),
        ("full", "requests.memory", "1M", "11"),  # rounded up
        ("bare", "limits.cpu", "1m", "4000"),  # all of the machine
        ("bare", "limits.memory", "1Gi", "8"),
        ("bare", "requests.memory", "1", "0"),
    ],
)
def test_resources(container: str, resource: str, divisor: str | None, expected: str) -> None:
    selector = ResourceFieldSelector(container, resource, divisor)  # type: ignore[arg-type]
    assert downward.resource(POD, selector, MACHINE) == expected
