"""What an image's configuration asks for, as containers of it have it: by `rawpod run`, and in pods."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runtime.settings import Settings
from tests.images import busybox, make_image
from tests.linux.test_run import Rawpod, rawpod
from tests.pods import Pods, pods

__all__ = ["pods", "rawpod"]

pytestmark = pytest.mark.userland


def test_run_obeys_the_configuration(rawpod: Rawpod, settings: Settings) -> None:
    """Entrypoint and cmd, environment, a user by name with its groups, a working directory that is made."""
    script = "echo $COLOUR $0 $1; id -u; id -g; id -G; pwd; stat -c %u:%a ."
    make_image(
        settings.images,
        "web",
        env=("PATH=/bin", "COLOUR=blue"),
        entrypoint=("sh", "-c", script),
        cmd=("zero", "one"),
        user="web",
        working_dir="/srv/new/here",
    )
    base = ("run", "--rm", "--network", "none")
    there = ["33", "34", "34", "35", "/srv/new/here", "0:755"]
    assert rawpod(*base, "web").stdout.split() == ["blue", "zero", "one", *there]
    assert rawpod(*base, "-e", "COLOUR=red", "web", "two").stdout.split() == ["red", "two", *there]
    changed = rawpod(*base, "-u", "0:35", "-w", "/tmp", "--entrypoint", "sh", "web", "-c", script, "x").stdout.split()
    assert changed == ["blue", "x", "0", "35", "35", "/tmp", "0:1777"]
    assert rawpod(*base, "--entrypoint", "", "web", "pwd").stdout == "/srv/new/here\n"


def test_a_volume_of_the_image_has_what_the_image_has_there(rawpod: Rawpod, settings: Settings) -> None:
    """Owner, mode and contents; what is written goes neither into the upper layer nor into the image."""
    root = busybox().directory("data", mode=0o750, uid=33, gid=34).add("data/seed", b"seed\n", mode=0o640, uid=33)
    root.directory("data/sub").symlink("data/sub/link", "../seed")
    image = make_image(settings.images, "web", root, volumes=("/data", "/new/deep", "/data/sub"))
    script = "stat -c %u:%g:%a /data /new/deep; cat data/seed data/sub/link; echo x >> /data/seed; echo y > /new/deep/y"
    for options in ((), ("--userns", "auto")):
        done = rawpod("run", "--network", "none", *options, "--name", "one", "web", "sh", "-c", script)
        assert done.stdout.split() == ["33:34:750", "0:0:755", "seed", "seed"], done.stderr
        rawpod("rm", "one")
    assert (image.lowers[0] / "data/seed").read_text() == "seed\n"
    assert not list(settings.overlay.glob("*/*"))


def test_a_volume_of_the_user_hides_those_of_the_image(rawpod: Rawpod, settings: Settings, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "own").write_text("own\n")
    root = busybox().directory("data").add("data/seed", b"seed\n")
    make_image(settings.images, "web", root, volumes=("/data", "/data/sub/deep"))
    done = rawpod("run", "--rm", "--network", "none", "-v", f"{tmp_path}:/data", "web", "ls", "/data")
    assert done.stdout.split() == ["own"]
    assert os.listdir(tmp_path) == ["own"]


def test_row_22_a_volume_of_an_image_never_names_files_of_the_host(
    rawpod: Rawpod, settings: Settings, on_disk: Path
) -> None:
    """CVE-2022-23648: containerd copied what a link or ".." in the VOLUME led to on the host into the container.

    Fails when populate() is given the path as the host sees it instead of the descriptor inside the root: then the
    secret is in the volume.
    """
    secret = on_disk / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret\n")
    root = busybox().symlink("link", str(secret)).symlink("up", "../../../../../../../.." + str(secret))
    root.symlink("cwd", "/proc/self/cwd")
    script = "ls -a $0/; cat $0/key; echo leak > $0/key; exit 0"
    for path in (f"/../../../..{secret}", "/link", "/up"):
        make_image(settings.images, "web", root, volumes=(path,))
        shown = path.removeprefix("/../../../..")
        done = rawpod("run", "--rm", "--network", "none", "web", "sh", "-c", script, shown)
        assert "secret" not in done.stdout, path
        assert (secret / "key").read_text() == "secret\n"
        assert os.listdir(secret) == ["key"]
    make_image(settings.images, "web", root, volumes=("/cwd",))
    assert rawpod("run", "--rm", "--network", "none", "web", "ls", "/cwd", check=None).returncode
    assert (secret / "key").read_text() == "secret\n"


def test_row_23_labels_of_an_image_are_data_and_control_nothing(pods: Pods) -> None:
    """CVE-2026-53488. Fails when prepare takes the image's labels into the pod's annotations or the OCI config."""
    labels = {
        "rawpod.dev/pids-limit": "1",
        "rawpod.dev/network": "none",
        "rawpod.dev/user": "33",
        "rawpod.dev/stop-signal": "KILL",
        "run.oci.keep_original_groups": "1",
        "io.kubernetes.cri-o.userns-mode": "auto",
    }
    make_image(pods.settings.images, "web", cmd=("sh", "-c", "id -u; sleep 1000000"), labels=labels)
    pod = pods.start({"name": "main", "image": "web", "imagePullPolicy": "Never"})
    status = pod.running()
    assert status["podIP"]
    assert next(pod.follow("main")).output == b"0\n"
    config = json.loads((pod.directory / "containers/main/config.json").read_bytes())
    assert "annotations" not in config
    assert not set(labels) & set(json.dumps(status["rawpod"]["metadata"]).split('"'))


def test_the_images_stop_signal_ends_a_pod(pods: Pods) -> None:
    make_image(
        pods.settings.images,
        "web",
        cmd=("sh", "-c", "trap 'exit 7' USR1; trap '' TERM; echo up; while :; do sleep 0.05; done"),
        stop_signal="SIGUSR1",
    )
    pod = pods.start({"name": "main", "image": "web", "imagePullPolicy": "Never"}, restartPolicy="Always")
    pod.running()
    next(pod.follow("main"))
    pod.stop(grace=30)
    assert pod.state()["state"]["terminated"]["exitCode"] == 7


def test_commands_that_cannot_be_executed_say_why(rawpod: Rawpod, settings: Settings) -> None:
    elf = bytearray(64)
    elf[:20] = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00"  # EM_AARCH64, elf(5)
    root = busybox().add("bin/foreign", bytes(elf), mode=0o755).add("bin/data", b"data", mode=0o644)
    root.add("bin/script", b"#!/bin/nonesuch\n", mode=0o755)
    for program, code, told in (
        ("nonesuch", 127, "executable file not found in $PATH"),
        ("/bin/script", 127, "the interpreter or loader it names is missing"),
        ("data", 126, "permission denied"),
        ("foreign", 126, f"exec format error: not for this machine ({os.uname().machine})"),
    ):
        make_image(settings.images, "web", root, entrypoint=(program,), platform="linux/s390x")
        done = rawpod("run", "--rm", "--network", "none", "web", check=code)
        assert told in done.stderr, program
        assert "image 'web:latest' is for linux/s390x, and this machine is linux/" in done.stderr


def test_run_as_non_root_refuses_what_the_image_names(pods: Pods) -> None:
    make_image(pods.settings.images, "web", cmd=("true",), user="web")
    container = {"name": "main", "image": "web", "imagePullPolicy": "Never"}
    pod = pods.start(container, securityContext={"runAsNonRoot": True})
    pod.wait(lambda status: "CreateContainerConfigError" in str(status["containerStatuses"][0]["state"]))
    assert "user 'web' is a name, which stands for uid 33" in pod.state()["state"]["waiting"]["message"]
