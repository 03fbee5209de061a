"""Volumes of pods as their containers see them."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kernel.mounts import MNT_DETACH, MS_PRIVATE, MS_SHARED, mount, umount2
from runtime.pod import directory
from tests.pods import Json, Pods, RunningPod, container, pods, settings_on_disk

__all__ = ["pods", "settings_on_disk"]

pytestmark = pytest.mark.userland

FOREVER = "exec sleep 1000000"


def mounted(name: str, path: str, **fields: Any) -> Json:
    return {"name": name, "mountPath": path, **fields}


def once(pods: Pods, script: str, mounts: list[Json], volumes: list[Json], **fields: Any) -> str:
    """What a container says that runs `script` with those volumes."""
    env = fields.pop("env", [])
    main = container("main", "sh", "-c", script, volumeMounts=mounts, env=env)
    pod = pods.start(main, restartPolicy="Never", volumes=volumes, **fields)
    pod.ended()
    return pod.log("main")


def config_map(name: str, **data: str) -> Json:
    return {name: {"metadata": {"name": name}, "data": data}}


def secret(name: str, **data: str) -> Json:
    return {
        name: {
            "metadata": {"name": name},
            "data": {key: b64encode(text.encode()).decode() for key, text in data.items()},
        }
    }


def refresh(pod: RunningPod, values: Json, **metadata: Any) -> None:
    """What a supervisor does when something that the pod shows has changed."""
    wanted = json.loads((pod.directory / directory.POD).read_bytes())
    wanted["metadata"] |= metadata
    directory.replace_file(pod.directory / directory.POD, json.dumps(wanted).encode())
    directory.replace_file(pod.directory / directory.VALUES, json.dumps(values).encode())
    from runtime.pod import control

    assert control.request(pod.directory, {"do": "refresh"}) == {"done": True}


def inside(pod: RunningPod, path: str) -> Path:
    return Path(f"/proc/{pod.process('main')['pid']}/root{path}")


PROJECTED = {
    "name": "all",
    "projected": {
        "defaultMode": 0o440,
        "sources": [
            {"configMap": {"name": "settings", "items": [{"key": "colour", "path": "my/colour", "mode": 0o444}]}},
            {"secret": {"name": "login"}},
            {"secret": {"name": "missing", "optional": True}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
                        {
                            "path": "memory",
                            "resourceFieldRef": {
                                "containerName": "main",
                                "resource": "requests.memory",
                                "divisor": "1Mi",
                            },
                        },
                    ]
                }
            },
        ],
    },
}
VALUES = {"ConfigMap": config_map("settings", colour="blue"), "Secret": secret("login", password="open")}


def test_a_projected_volume_has_files_of_all_its_sources(pods: Pods) -> None:
    script = "cd /all; for f in my/colour password labels name memory; do echo $(cat $f) $(stat -Lc %a $f); done"
    said = once(
        pods,
        script + "; touch /all/new 2>/dev/null || echo denied",
        [mounted("all", "/all")],
        [PROJECTED],
        values=VALUES,
        metadata={"labels": {"app": "web", "note": 'say "so"'}},
    )
    pod = pods.pods[0]
    assert said.splitlines() == [
        "blue 444",
        "open 440",
        r'app="web" note="say \"so\"" 440',
        "web 440",
        "0 440",
        "denied",
    ], pod.status


def test_volumes_follow_what_they_show_while_the_pod_runs(pods: Pods) -> None:
    """All of the files change at once, by one rename; what was opened before stays as it was."""
    pod = pods.start(
        container(
            "main",
            "sh",
            "-c",
            FOREVER,
            volumeMounts=[mounted("all", "/all"), mounted("all", "/one", subPath="my/colour")],
        ),
        volumes=[PROJECTED],
        values=VALUES,
        metadata={"labels": {"app": "web"}},
    )
    pod.running()
    before = os.readlink(inside(pod, "/all/..data"))
    fd = os.open(inside(pod, "/all/..data"), os.O_RDONLY | os.O_DIRECTORY)
    held = os.open("my/colour", os.O_RDONLY, dir_fd=fd)
    refresh(pod, VALUES)
    assert os.readlink(inside(pod, "/all/..data")) == before
    new = {"ConfigMap": config_map("settings", colour="red"), "Secret": secret("login", other="key")}
    refresh(pod, new, labels={"app": "next"})
    assert os.readlink(inside(pod, "/all/..data")) != before
    assert inside(pod, "/all/my/colour").read_text() == "red"
    assert inside(pod, "/all/labels").read_text() == 'app="next"'
    assert inside(pod, "/all/other").read_text() == "key"
    assert not inside(pod, "/all/password").is_symlink()
    assert os.read(held, 10) == b"blue"
    assert inside(pod, "/one").read_text() == "blue"  # as in Kubernetes: a subPath is what it was at the start
    os.close(held)
    os.close(fd)
    # Without the ConfigMap, which has to be there, the volume keeps what it has.
    refresh(pod, {"Secret": new["Secret"]})
    assert inside(pod, "/all/my/colour").read_text() == "red"


def test_a_pod_with_users_of_its_own_owns_its_files(pods: Pods) -> None:
    said = once(
        pods,
        "cat /all/password; stat -Lc ' %u:%g' /all /all/password; stat -c %u:%g /all/password",
        [mounted("all", "/all")],
        [PROJECTED],
        values=VALUES,
        hostUsers=False,
    )
    assert said == "open 0:0\n 0:0\n0:0\n"


def test_a_sub_path_is_made_in_its_volume_and_shared(pods: Pods) -> None:
    data = {"name": "data", "emptyDir": {}}
    mounts = [mounted("data", "/all"), mounted("data", "/part", subPathExpr="logs/$(NAME)/$$x")]
    script = "echo hello > /part/file; cat '/all/logs/one/$x/file'; stat -c %a /part /all/logs"
    assert once(pods, script, mounts, [data], env=[{"name": "NAME", "value": "one"}]) == "hello\n777\n777\n"


def test_a_sub_path_may_be_a_file(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("of the host\n")
    volume = {"name": "host", "hostPath": {"path": str(tmp_path)}}
    assert (
        once(pods, "cat /etc/my.conf", [mounted("host", "/etc/my.conf", subPath="conf")], [volume]) == "of the host\n"
    )


@pytest.mark.parametrize(
    ("link", "users"), [("/etc", True), ("../../../../../../../../etc", True), ("inner/up", True), ("/etc", False)]
)
def test_row_25_a_sub_path_does_not_lead_out_of_its_volume(pods: Pods, on_disk: Path, link: str, users: bool) -> None:
    """CVE-2017-1002101, CVE-2021-25741.

    Seen to fail without RESOLVE_BENEATH in kernel.paths.open_beneath: the container runs, with the host's directory.
    """
    volume = on_disk / "volume"
    (volume / "inner").mkdir(parents=True)
    (volume / "inner/up").symlink_to("../../..")
    (volume / "x").symlink_to(link)
    main = container("main", "sh", "-c", FOREVER, volumeMounts=[mounted("v", "/part", subPath="x")])
    pod = pods.start(main, volumes=[{"name": "v", "hostPath": {"path": str(volume)}}], hostUsers=users)
    pod.wait(lambda status: "running" in status["containerStatuses"][0]["state"] or "leads out" in str(status))
    assert "leads out" in pod.state()["state"]["waiting"]["message"]


def test_a_missing_variable_in_a_sub_path_keeps_the_container_from_being_made(pods: Pods) -> None:
    mounts = [mounted("data", "/part", subPathExpr="$(NOBODY)")]
    pod = pods.start(
        container("main", "sh", "-c", FOREVER, volumeMounts=mounts), volumes=[{"name": "data", "emptyDir": {}}]
    )
    pod.wait(lambda status: "no variable 'NOBODY'" in str(status))


def test_a_pod_that_exceeds_a_volumes_limit_is_evicted(pods: Pods) -> None:
    script = "echo small > /fine/x; head -c 3M /dev/zero > /data/x; exec sleep 1000000"
    pod = pods.start(
        container("main", "sh", "-c", script, volumeMounts=[mounted("data", "/data"), mounted("fine", "/fine")]),
        volumes=[
            {"name": "fine", "emptyDir": {"sizeLimit": "1Mi"}},
            {"name": "data", "emptyDir": {"sizeLimit": "2Mi"}},
        ],
        restartPolicy="Always",
    )
    status = pod.ended()
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert status["message"] == 'Usage of EmptyDir volume "data" exceeds the limit "2Mi". '
    assert not (pod.settings.overlay / pod.uid / ".volumes").exists()


def test_host_paths_of_all_types(pods: Pods, tmp_path: Path) -> None:
    import socket

    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(tmp_path / "socket"))
        (tmp_path / "file").write_text("file\n")
        kinds = {
            "Directory": tmp_path,
            "DirectoryOrCreate": tmp_path / "new/dir",
            "File": tmp_path / "file",
            "FileOrCreate": tmp_path / "made",
            "Socket": tmp_path / "socket",
            "CharDevice": Path("/dev/null"),
            "": tmp_path / "file",
        }
        volumes = [
            {"name": f"v{number}", "hostPath": {"path": str(path), "type": kind}}
            for number, (kind, path) in enumerate(kinds.items())
        ]
        mounts = [mounted(f"v{number}", f"/v{number}") for number in range(len(kinds))]
        said = once(pods, "for n in 0 1 2 3 4 5 6; do stat -c %F /v$n; done", mounts, volumes)
    assert said.splitlines() == [
        "directory",
        "directory",
        "regular file",
        "regular empty file",
        "socket",
        "character special file",
        "regular file",
    ]


def test_a_host_path_of_another_type_keeps_the_pod_waiting(pods: Pods, tmp_path: Path) -> None:
    volume = {"name": "v", "hostPath": {"path": str(tmp_path), "type": "BlockDevice"}}
    pod = pods.start(container("main", "true", volumeMounts=[mounted("v", "/v")]), volumes=[volume])
    pod.wait(lambda status: "is no BlockDevice" in status.get("message", ""))


def test_mounts_of_the_host_arrive_where_they_are_asked_for(pods: Pods, tmp_path: Path) -> None:
    mount("tmpfs", tmp_path, "tmpfs", 0, None)
    try:
        mount(None, tmp_path, None, MS_SHARED)
        (tmp_path / "later").mkdir()
        mounts = [mounted("v", "/follows", mountPropagation="HostToContainer"), mounted("v", "/alone")]
        pod = pods.start(
            container("main", "sh", "-c", FOREVER, volumeMounts=mounts),
            volumes=[{"name": "v", "hostPath": {"path": str(tmp_path)}}],
        )
        pod.running()
        mount("tmpfs", tmp_path / "later", "tmpfs", 0, None)
        (tmp_path / "later/new").touch()
        assert inside(pod, "/follows/later/new").exists()
        assert not inside(pod, "/alone/later/new").exists()
        pod.stop()
    finally:
        umount2(tmp_path, MNT_DETACH)


def test_read_only_reaches_what_is_mounted_below_as_far_as_asked(pods: Pods, tmp_path: Path) -> None:
    mount("tmpfs", tmp_path, "tmpfs", 0, None)
    try:
        mount(None, tmp_path, None, MS_PRIVATE)
        (tmp_path / "below").mkdir()
        mount("tmpfs", tmp_path / "below", "tmpfs", 0, None)
        modes = ("", "Disabled", "IfPossible", "Enabled")
        mounts = [
            mounted("v", f"/v{number}", readOnly=True, **({"recursiveReadOnly": mode} if mode else {}))
            for number, mode in enumerate(modes)
        ]
        volume = {"name": "v", "hostPath": {"path": str(tmp_path)}}
        script = "for n in 0 1 2 3; do for d in . below; do touch /v$n/$d/x 2>/dev/null && echo wrote $n $d; done; done"
        assert once(pods, f"{script}; true", mounts, [volume]) == "wrote 1 below\n"
    finally:
        umount2(tmp_path, MNT_DETACH)
