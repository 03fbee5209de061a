"""What callers of runc and crun ask for beyond the specification."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

OCI = Path(__file__).parents[2] / ".venv/bin/rawpod-oci"
# The host's Python in a container: busybox can send nothing to a unix socket.
LIBRARIES = ("/usr", "/lib", "/lib64")
SAYS_READY = """
import os, socket
end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
end.connect(os.environ["NOTIFY_SOCKET"])
end.send(b"STATUS=nearly\\nMAINPID=1")
end.send(b"READY=1")
"""


@pytest.fixture
def config(box, settings):
    """A configuration whose cgroup is the test's own."""
    return {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["busybox", "sleep", "1000"], "env": ["PATH=/bin"]},
        "mounts": [
            {"destination": "/proc", "type": "proc"},
            {"destination": "/dev", "type": "tmpfs"},
            {"destination": "/dev/pts", "type": "devpts"},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "cgroup")],
            "cgroupsPath": f"{settings.cgroup}/box",
        },
    }


@pytest.fixture
def oci(box, config, tmp_path):
    """Call rawpod-oci in the bundle; its status and what it printed."""

    def call(*arguments, **more):
        (box.bundle / "config.json").write_text(json.dumps(config))
        with open(tmp_path / "printed", "w+") as printed:
            null = subprocess.DEVNULL
            command = [OCI, "--root", tmp_path / "state", *arguments]
            ended = subprocess.run(command, cwd=box.bundle, stdin=null, stdout=printed, stderr=printed, **more)
            printed.seek(0)
            return ended.returncode, printed.read()

    return call


def test_delete_takes_all_containers_that_an_expression_matches(oci, config, settings):
    for name in ("web-1", "web-2", "other"):
        config["linux"]["cgroupsPath"] = f"{settings.cgroup}/{name}"
        assert oci("create", name) == (0, "")
    assert oci("delete", "--force", "--regex", "^web-.$") == (0, "")
    assert oci("list", "-q") == (0, "other\n")
    assert oci("delete", "--force", "--regex", "nothing") == (0, "")
    assert oci("delete", "--force", "--regex", ".") == (0, "")
    assert oci("list", "-q") == (0, "")


def test_signal_0_tells_whether_there_is_a_process(oci):
    assert oci("run", "--detach", "box") == (0, "")
    assert oci("kill", "box", "0") == oci("kill", "--all", "box", "0") == (0, "")
    assert oci("kill", "box", "KILL") == (0, "")
    assert oci("delete", "--force", "box") == (0, "")


def test_debug_lines_have_the_form_of_the_log_and_go_on_after_start(oci, config):
    # Fails when the child's events after the gate go to the channel that its creator had.
    config["process"]["args"] = ["busybox", "true"]
    status, printed = oci("--debug", "run", "box")
    assert status == 0
    assert all(line.startswith('time="') and " level=debug " in line for line in printed.splitlines())
    assert "setresuid" in printed or "capset" in printed


def test_a_terminals_output_has_no_carriage_returns_where_it_is_no_screen(oci, config):
    config["process"] |= {"args": ["busybox", "echo", "line"], "terminal": True}
    assert oci("run", "box") == (0, "line\n")


@pytest.mark.parametrize("commands", [[["run"]], [["run", "--detach"]], [["create"], ["start"]]], ids=str)
def test_a_supervisor_hears_that_a_container_is_ready_and_nothing_else_of_it(oci, config, commands):
    config["mounts"] += [{"destination": path, "source": path, "options": ["rbind", "ro"]} for path in LIBRARIES]
    config["process"]["args"] = ["/usr/bin/python3", "-ISc", SAYS_READY]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(b"\0rawpod-test-notify")
        supervisor.settimeout(10)
        for command in commands:
            assert oci(*command, "box", env=os.environ | {"NOTIFY_SOCKET": "@rawpod-test-notify"}) == (0, "")
        heard = [supervisor.recv(4096), supervisor.recv(4096)]
        supervisor.setblocking(False)
        with pytest.raises(BlockingIOError):
            supervisor.recv(4096)
    assert heard[0] == b"READY=1"
    assert heard[1].startswith(b"MAINPID=") and heard[1] != b"MAINPID=1"
    assert oci("delete", "--force", "box") == (0, "")


@pytest.mark.parametrize("expression", ["", "("])
def test_a_malformed_expression_deletes_nothing(oci, expression):
    assert oci("create", "box")[0] == 0
    assert oci("delete", "--force", "--regex", expression)[0] == 1
    assert oci("list", "-q") == (0, "box\n")
    assert oci("delete", "--force", "box") == (0, "")


@pytest.mark.parametrize(("annotations", "groups"), [({}, []), ({"run.oci.keep_original_groups": "1"}, [5, 7])])
def test_the_callers_groups_are_kept_only_where_an_annotation_asks_for_it(oci, config, annotations, groups):
    config["annotations"] = annotations
    config["process"]["args"] = ["busybox", "grep", "^Groups:", "/proc/self/status"]
    status, printed = oci("run", "box", extra_groups=[5, 7])
    assert (status, [int(group) for group in printed.split()[1:]]) == (0, groups)


ESCAPE = """
import os
os.mkdir("/tmp/x")
os.chroot("/tmp/x")
for _ in range(64):
    os.chdir("..")
os.chroot(".")
print("in", sorted(os.listdir("/")))
"""


@pytest.mark.parametrize("with_hook", [False, True])
def test_a_root_by_chroot_where_pivot_root_cannot_be_had(oci, box, config, tmp_path, with_hook):
    """--no-pivot, as runc has it: the same root, entered by exec as well, and a chroot that is left leads back to it.

    A hook sees the root in its place until then.
    """
    config["mounts"] += [
        {"destination": path, "source": path, "type": "bind", "options": ["rbind", "ro"]} for path in LIBRARIES
    ]
    config["process"]["capabilities"] = {kind: ["CAP_SYS_CHROOT"] for kind in ("bounding", "effective", "permitted")}
    if with_hook:
        config["hooks"] = {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "touch from-hook"]}]}
    status, printed = oci("run", "--no-pivot", "--detach", "box")
    assert (status, "CAP_SYS_ADMIN" in printed) == (0, True), printed
    try:
        status, printed = oci("exec", "box", "busybox", "ls", "/")
        assert (status, sorted(printed.split())) == (0, sorted(os.listdir(box.root)))
        assert ("from-hook" in printed) == with_hook
        mounted = oci("exec", "box", "busybox", "cat", "/proc/1/mountinfo")[1]
        assert str(tmp_path) not in mounted.replace(str(box.root), "")
        assert "/sys" not in [line.split()[4] for line in mounted.splitlines()]
        left = oci("exec", "--cap", "CAP_SYS_CHROOT", "box", "/usr/bin/python3", "-c", ESCAPE)[1]
        assert left == f"in {sorted(os.listdir(box.root))}\n"
    finally:
        assert oci("delete", "--force", "box")[0] == 0


def test_the_hosts_proc_is_no_help_below_a_root_by_chroot(oci, config):
    """A user namespace may mount a procfs where it finds one without masks. Fails without _unmount_kernels()."""
    config["linux"]["maskedPaths"] = ["/proc/kcore", "/proc/keys"]
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    config["process"]["args"] = ["busybox", "unshare", "-Urmpf", "busybox", "mount", "-t", "proc", "proc", "/tmp"]
    status, printed = oci("run", "--no-pivot", "box")
    assert (status, "permission denied" in printed) == (1, True), printed


def test_a_root_by_chroot_is_refused_where_the_hosts_mounts_are_in_reach(oci, config):
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= {kind: [{"containerID": 0, "hostID": 0, "size": 9}] for kind in ("uidMappings", "gidMappings")}
    status, printed = oci("create", "--no-pivot", "box")
    assert (status, "--no-pivot with a user namespace" in printed) == (1, True), printed
