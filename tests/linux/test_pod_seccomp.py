"""The seccomp profiles of pods and of `rawpod run`, as their payloads meet them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.settings import Settings
from tests.linux.test_run import Rawpod, rawpod  # noqa: F401
from tests.pods import Pods, container, pods, settings_on_disk  # noqa: F401

UNSHARE = ("sh", "-c", "grep Seccomp: /proc/self/status; unshare --uts true 2>&1; mkdir /tmp/x 2>&1; echo end")
NO_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 123}],
}


def profile(settings: Settings, name: str, content: str) -> str:
    path = settings.root / "seccomp" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return name


def context(kind: str, name: str = "") -> dict[str, Any]:
    return {"seccompProfile": {"type": kind} | ({"localhostProfile": name} if name else {})}


def test_pods_and_containers_have_the_profile_they_ask_for_and_the_default_otherwise(
    pods: Pods,  # noqa: F811
    settings: Settings,
) -> None:
    """Seen to fail without the profile in the container's description: Seccomp: 0, and unshare says nothing."""
    local = profile(settings, "own/no-mkdir.json", json.dumps(NO_MKDIR))
    as_admin = {"capabilities": {"add": ["SYS_ADMIN"]}, "allowPrivilegeEscalation": True}
    pod = pods.start(
        container("default", *UNSHARE, securityContext={"allowPrivilegeEscalation": True}),
        container("unconfined", *UNSHARE, securityContext=as_admin | context("Unconfined")),
        container("local", *UNSHARE, securityContext=as_admin | context("Localhost", local)),
        container("admin", *UNSHARE, securityContext=as_admin | context("RuntimeDefault")),
        restartPolicy="Never",
    )
    pod.ended()
    assert pod.log("default").startswith("Seccomp:\t2\nunshare: ") and pod.log("default").endswith("\nend\n")
    assert pod.log("unconfined") == "Seccomp:\t0\nend\n"
    assert pod.log("local") == "Seccomp:\t2\nmkdir: cannot create directory '/tmp/x': No medium found\nend\n"
    assert pod.log("admin") == "Seccomp:\t2\nend\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or directory"),
        ("", "empty"),
        ("{}", "missing required field `defaultAction`"),
        ('{"defaultAction": "SCMP_ACT_PERHAPS"}', "unknown action"),
    ],
)
def test_a_profile_that_is_missing_empty_or_malformed_keeps_the_payload_from_running(
    pods: Pods,  # noqa: F811
    settings: Settings,
    tmp_path: Path,
    content: str | None,
    message: str,
) -> None:
    """Corpus row 46 (CVE-2023-2431). Seen to fail with a profile that cannot be read taken for none."""
    if content is not None:
        profile(settings, "local.json", content)
    touched = tmp_path / "ran"
    pod = pods.start(
        container("c", "touch", str(touched), securityContext=context("Localhost", "local.json")),
        restartPolicy="Never",
    )
    pod.wait(lambda status: message in json.dumps(status["containerStatuses"][0]["state"]))
    assert "seccomp profile 'local.json'" in json.dumps(pod.state())
    pod.stop()
    assert not touched.exists()


def test_a_profile_that_leads_out_of_its_directory_is_not_read(pods: Pods, settings: Settings) -> None:  # noqa: F811
    """Seen to fail with the file opened by its path."""
    outside = settings.root / "outside.json"
    outside.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    (settings.root / "seccomp").mkdir()
    (settings.root / "seccomp" / "link.json").symlink_to(outside)
    pod = pods.start(container("c", "true", securityContext=context("Localhost", "link.json")), restartPolicy="Never")
    pod.wait(lambda status: "seccomp profile 'link.json'" in json.dumps(status["containerStatuses"][0]["state"]))
    pod.stop()


def test_run_has_the_default_profile_and_takes_another_as_docker_spells_it(
    rawpod: Rawpod,  # noqa: F811
    tmp_path: Path,
) -> None:
    def seccomp(*options: str) -> str:
        return rawpod("run", "--rm", *options, "host", "grep", "Seccomp:", "/proc/self/status").stdout

    def mkdir(*options: str) -> str:
        return rawpod("run", "--rm", *options, "host", "mkdir", "/tmp/x", check=None).stderr

    assert seccomp() == seccomp("--security-opt", "seccomp=default") == "Seccomp:\t2\n"
    assert seccomp("--security-opt", "seccomp=unconfined") == "Seccomp:\t0\n"
    file = tmp_path / "no-mkdir.json"
    file.write_text(json.dumps(NO_MKDIR))
    assert "No medium found" in mkdir("--security-opt", f"seccomp={file}")
    assert "No medium found" in mkdir("--security-opt", f"seccomp={file}", "--security-opt", "no-new-privileges=false")
    assert mkdir() == ""
    # In a user namespace of its own, where loading takes the namespace's CAP_SYS_ADMIN.
    privileges = ("--security-opt", "no-new-privileges=false")
    assert seccomp("--userns", "auto", *privileges) == seccomp("--userns", "auto") == "Seccomp:\t2\n"


@pytest.mark.parametrize("content", [None, "", "{}", '{"defaultAction": 1}'])
def test_run_with_a_profile_that_cannot_be_used_runs_nothing(
    rawpod: Rawpod,  # noqa: F811
    settings: Settings,
    tmp_path: Path,
    content: str | None,
) -> None:
    file = tmp_path / "profile.json"
    if content is not None:
        file.write_text(content)
    done = rawpod("run", "--security-opt", f"seccomp={file}", "host", "touch", str(tmp_path / "ran"), check=2)
    assert f"seccomp profile '{file}'" in done.stderr
    assert not settings.pods.exists() or not list(settings.pods.iterdir())
    assert "is not supported" in rawpod("run", "--security-opt", "apparmor=x", "host", "true", check=2).stderr


def test_exec_has_the_pods_filter(rawpod: Rawpod) -> None:  # noqa: F811
    rawpod("run", "-d", "--name", "s", "host", "sleep", "1000")
    assert rawpod("exec", "s", "grep", "Seccomp:", "/proc/self/status").stdout == "Seccomp:\t2\n"
    assert "Operation not permitted" in rawpod("exec", "s", "unshare", "--user", "true", check=None).stderr
    rawpod("rm", "-f", "s")
