"""`rawpod-oci mounts`: mounts of a container that runs."""

import json
import subprocess
from pathlib import Path

import pytest

OCI = Path(__file__).parents[2] / ".venv/bin/rawpod-oci"


@pytest.fixture
def running(v2_layout, box, tmp_path):
    """Runs rawpod-oci; a container "box" is there that sleeps."""

    def oci(*arguments):
        words = [OCI, "--root", tmp_path / "state", "--cgroup-manager", "disabled", *arguments]
        return subprocess.run(words, cwd=box.bundle, capture_output=True, text=True, timeout=60)

    config = {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["busybox", "sleep", "1000"], "env": ["PATH=/bin"]},
        "mounts": [{"destination": "/proc", "type": "proc"}],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
    }
    (box.bundle / "config.json").write_text(json.dumps(config))
    # Not the pipes of the test: the container would hold them open.
    null = subprocess.DEVNULL
    words = [OCI, "--root", tmp_path / "state", "--cgroup-manager", "disabled", "run", "-d", "box"]
    subprocess.run(words, cwd=box.bundle, stdin=null, stdout=null, timeout=60, check=True)
    yield oci
    oci("delete", "--force", "box")


def test_mounts_are_added_to_a_running_container_and_removed(running, tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given/file").write_text("from the host")
    mounts = [
        {"destination": "/mnt/given", "type": "bind", "source": str(tmp_path / "given"), "options": ["rbind", "ro"]},
        {"destination": "/mnt/fresh", "type": "tmpfs", "source": "tmpfs"},
    ]
    (tmp_path / "mounts.json").write_text(json.dumps(mounts))
    assert running("mounts", "add", "box", tmp_path / "mounts.json").returncode == 0
    assert running("exec", "box", "busybox", "cat", "/mnt/given/file").stdout == "from the host"
    assert "Read-only" in running("exec", "box", "busybox", "touch", "/mnt/given/x").stderr
    assert running("exec", "box", "busybox", "touch", "/mnt/fresh/x").returncode == 0
    assert running("mounts", "remove", "box", tmp_path / "mounts.json").returncode == 0
    assert "/mnt/" not in running("exec", "box", "busybox", "cat", "/proc/mounts").stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1"),
        ("{}", "array of mounts"),
        ('[{"type": "tmpfs"}]', "destination"),
        ('[{"destination": 1}]', "str"),
    ],
)
def test_a_file_that_holds_no_mounts_is_refused(running, tmp_path, text, said):
    (tmp_path / "mounts.json").write_text(text)
    refused = running("mounts", "add", "box", tmp_path / "mounts.json")
    assert refused.returncode == 1 and said in refused.stderr
