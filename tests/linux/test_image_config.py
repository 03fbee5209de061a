"""What an image's configuration asks for, as containers of it have it: by `rawpod run`, and in pods."""

from __future__ import annotations

from runtime.settings import Settings
from tests.images import make_image
from tests.linux.test_run import Rawpod, rawpod
from tests.pods import Pods, pods

__all__ = ["pods", "rawpod"]


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
