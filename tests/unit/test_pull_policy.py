"""When images are pulled, what is waited between attempts, and whose credentials are shown to a registry."""

from __future__ import annotations

import json
import os
import threading
from base64 import b64encode
from pathlib import Path

import pytest

from runtime.pod import defaults, manifest, objects, pulling, pullpolicy
from runtime.pod.pullpolicy import BadCredentials, Registries
from runtime.supervisor import references


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("registry.local:5000/nginx", "Always"),
        (f"nginx@sha256:{'0' * 64}", "IfNotPresent"),
        ("host", "IfNotPresent"),
    ],
)
def test_the_tag_decides_where_nothing_is_said(image: str, policy: str) -> None:
    pod = objects.Pod(spec=objects.PodSpec(containers=[objects.Container(image=image)]))
    defaults.apply(pod)
    assert pod.spec.containers[0].image_pull_policy == policy


def test_attempts_are_kubelets_pauses_apart() -> None:
    backoff = pullpolicy.backoff()
    assert [backoff.next_delay(0.0) for _ in range(7)] == [10, 20, 40, 80, 160, 300, 300]


def secret(
    content: object, kind: str = "kubernetes.io/dockerconfigjson", key: str = ".dockerconfigjson"
) -> objects.Secret:
    return objects.Secret(type=kind, data={key: b64encode(json.dumps(content).encode()).decode()})


def test_the_first_secret_that_has_a_registry_counts() -> None:
    secrets = {
        "one": secret({"auths": {"a.local": {"auth": "b25l"}}}),
        "two": secret(
            {"a.local": {"auth": "dHdv"}, "b.local": {"auth": "dHdv"}}, "kubernetes.io/dockercfg", ".dockercfg"
        ),
    }
    found = pullpolicy.credentials(["absent", "one", "two"], secrets)
    assert found.auths == {"a.local": {"auth": "b25l"}, "b.local": {"auth": "dHdv"}}
    assert "b25l" not in repr(found)


@pytest.mark.parametrize(
    "given",
    [
        secret({}, kind="Opaque"),
        secret({"auths": {}}, key="other"),
        secret({"auths": ["hunter2"]}),
        secret({"auths": {"a.local": "hunter2"}}),
        secret(["hunter2"]),
        objects.Secret(
            type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": b64encode(b"hunter2").decode()}
        ),
    ],
)
def test_a_secret_without_credentials_is_named_and_not_shown(given: objects.Secret) -> None:
    with pytest.raises(BadCredentials, match=r"imagePullSecrets: .*Secret 'mine'") as caught:
        pullpolicy.credentials(["mine"], {"mine": given})
    assert "hunter2" not in str(caught.value)


def test_pull_secrets_come_along_where_they_are_there_and_are_waited_for_by_nobody() -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  imagePullSecrets: [{name: mine}]\n"
    (document,) = manifest.loads(text + "  containers: [{name: main, image: nginx}]\n")
    pod = json.loads(objects.dump(document.object))
    assert references.missing(pod, lambda _kind, _name: None) is None
    there = {"kind": "Secret"}
    assert references.values(pod, lambda _kind, _name: there)["Secret"] == {"mine": there}


def test_who_waits_for_a_pull_has_its_answer(tmp_path: Path) -> None:
    """All but one wait on the lock; none of them pulls again, and nothing of it is left."""
    began, go = threading.Event(), threading.Event()
    attempts: list[int] = []
    answers: list[bytes] = []

    def attempt() -> bytes:
        attempts.append(1)
        began.set()
        go.wait(30)
        return b"answer %d" % len(attempts)

    place = tmp_path / "pull"
    threads = [threading.Thread(target=lambda: answers.append(pulling.shared(place, attempt))) for _ in range(8)]
    threads[0].start()
    began.wait(30)
    for thread in threads[1:]:
        thread.start()
    inode = os.stat(place).st_ino
    while _waiting_for(inode) < 7:
        pass
    go.set()
    for thread in threads:
        thread.join(30)
    assert answers == [b"answer 1"] * 8
    assert attempts == [1]
    assert not place.exists()
    assert pulling.shared(place, attempt) == b"answer 2"


def _waiting_for(inode: int) -> int:
    """How many locks are waited for on a file: the lines with an arrow in /proc/locks (proc_locks(5))."""
    return sum(f":{inode} " in line and "->" in line for line in Path("/proc/locks").read_text().splitlines())


def test_after_a_puller_that_was_killed_the_next_one_pulls(tmp_path: Path) -> None:
    place = tmp_path / "pull"
    child = os.fork()
    if child == 0:
        pulling.shared(place, lambda: os._exit(9))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert place.exists()
    assert pulling.shared(place, lambda: b"pulled") == b"pulled"


def test_pulls_with_other_credentials_are_not_shared() -> None:
    names = {pulling._name("nginx", Registries(auths)) for auths in ({}, {"a": {"auth": "x"}}, {"a": {"auth": "y"}})}
    assert len(names) == 3
