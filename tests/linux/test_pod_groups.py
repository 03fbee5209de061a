"""fsGroup where ids on disk are not those of the container, and whose files it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.pod import objects, volumes
from runtime.pod.environment import Sources
from tests.pods import Pods, container, pods, settings_on_disk

pytestmark = pytest.mark.userland

__all__ = ["pods", "settings_on_disk"]


def test_volumes_of_a_pod_with_users_of_its_own_belong_to_its_group(pods: Pods) -> None:
    shell = "for at in /disk /memory; do echo x > $at/file; stat -c '%A %g' $at $at/file; done"
    pod = pods.start(
        container(
            "main",
            *("sh", "-c", shell),
            volumeMounts=[{"name": "disk", "mountPath": "/disk"}, {"name": "memory", "mountPath": "/memory"}],
        ),
        restartPolicy="Never",
        hostUsers=False,
        securityContext={"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000},
        volumes=[
            {"name": "disk", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    )
    assert pod.ended()["phase"] == "Succeeded", (pod.status, pod.log("main"))
    assert pod.log("main").splitlines() == ["drwxrwsrwx 2000", "-rw-r--r-- 2000"] * 2


def test_a_path_of_the_host_keeps_its_group(pods: Pods, on_disk: Path) -> None:
    shared = on_disk / "shared"
    shared.mkdir(mode=0o750)
    pod = pods.start(
        container("main", "true", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        restartPolicy="Never",
        securityContext={"fsGroup": 2000},
        volumes=[{"name": "v", "hostPath": {"path": str(shared)}}],
    )
    assert pod.ended()["phase"] == "Succeeded", pod.status
    assert (shared.stat().st_gid, shared.stat().st_mode & 0o7777) == (os.getgid(), 0o750)


def test_what_changes_in_a_volume_of_files_belongs_to_the_group_too(tmp_path: Path) -> None:
    """Seen to fail with the group left out of volumes.update()."""
    uid = os.urandom(6).hex()
    pod = objects.Pod(
        spec=objects.PodSpec(
            volumes=[objects.Volume("v", config_map=objects.ConfigMapVolumeSource("c", default_mode=0o600))],
            security_context=objects.PodSecurityContext(fs_group=2000),
        ),
        metadata=objects.ObjectMeta(name=uid, uid=uid),
    )
    for text in ("old", "new"):
        sources = Sources({"c": objects.ConfigMap(data={"key": text})})
        assert volumes.update(pod, sources, tmp_path) == []
        found = (tmp_path / "v/key").stat()
        assert (tmp_path / "v/key").read_text() == text
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, 2000, 0o640)
        assert {path.lstat().st_gid for path in (tmp_path / "v", *(tmp_path / "v").rglob("*"))} == {2000}
