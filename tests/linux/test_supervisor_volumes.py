"""What pods show of ConfigMaps, Secrets and their own labels follows the store."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runtime.cli.client import MERGE_PATCH
from runtime.supervisor.resources import BY_KIND
from tests.linux.test_supervisor_life import PATIENCE, PODS, Object, Supervisor, deployment, ready, supervisor

__all__ = ["supervisor"]

pytestmark = pytest.mark.userland

VOLUMES = [
    {
        "name": "all",
        "projected": {
            "sources": [
                {"configMap": {"name": "settings"}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            ]
        },
    }
]


def config_map(colour: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": colour}}


def until_reads(path: Path, text: str) -> None:
    """Wait for the file to say it: nothing tells of a volume's change but the volume."""
    end = time.monotonic() + PATIENCE
    while text not in path.read_text():
        assert time.monotonic() < end, path.read_text()
        time.sleep(0.01)


def test_volumes_follow_the_store_also_after_the_supervisor_was_away(supervisor: Supervisor) -> None:
    wanted = deployment(1, volumeMounts=[{"name": "all", "mountPath": "/all"}])
    wanted["spec"]["template"]["spec"]["volumes"] = VOLUMES
    supervisor.apply(config_map("blue"), wanted)
    (pod,) = supervisor.until(PODS, ready(1))
    (payload,) = supervisor.payloads().values()
    seen = Path(f"/proc/{payload}/root/all")
    assert (seen / "colour").read_text() == "blue"
    supervisor.apply(config_map("red"))
    until_reads(seen / "colour", "red")
    supervisor.client.request(
        "PATCH", f"{PODS}/{pod['metadata']['name']}", {"metadata": {"labels": {"more": "yes"}}}, MERGE_PATCH
    )
    until_reads(seen / "labels", 'more="yes"')
    supervisor.process.kill()
    supervisor.process.wait()
    supervisor.start()
    supervisor.until(PODS, ready(1))
    supervisor.apply(config_map("green"))
    until_reads(seen / "colour", "green")
    supervisor.client.request("DELETE", f"{BY_KIND['ConfigMap'].path('default')}/settings")
    supervisor.apply({**config_map("late"), "metadata": {"name": "another"}})
    assert (seen / "colour").read_text() == "green"
    (same,) = supervisor.payloads().values()
    assert same == payload
