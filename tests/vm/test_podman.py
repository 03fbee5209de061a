"""podman with its own default runtime and with ours: every case has the same outcome with both."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel import mounts
from kernel.errors import SystemCallError
from tests.callers import IMAGE, RAWPOD_OCI, SIZE, Podman, run, settled, terminal

RUNTIMES = {"peer": os.environ.get("RAWPOD_PEER", "/usr/bin/crun"), "rawpod": str(RAWPOD_OCI)}
IDS = "containers:1000000:655360\n"

pytestmark = pytest.mark.timeout(400)

SERVE = "trap 'exit 3' TERM; trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done"
"""A payload that says when it is ready and ends by SIGTERM as it likes."""


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.peer if name == "peer" else ()) for name in RUNTIMES]
)
def engine(request: pytest.FixtureRequest, host: None, probe: Path) -> Iterator[Podman]:
    """podman with one of the runtimes; at the end nothing of its containers is left."""
    runtime = RUNTIMES[request.param]
    for program in ("podman", runtime):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    home = Path(tempfile.mkdtemp(prefix="podman-", dir="/var/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        for name in ("/etc/subuid", "/etc/subgid"):
            stack.enter_context(replaced(Path(name), IDS, home))
        engine = Podman(runtime, home, probe)
        stack.callback(forget_networks)
        stack.callback(unmount_below, home)
        # The firewall's chains and the directory of network namespaces stay once they are made.
        engine.once("--network", "podman", "-p", "18080:80", IMAGE, "true")
        assert settled(engine.traces) == []
        yield engine
        engine.clear()


@pytest.fixture
def podman(engine: Podman) -> Iterator[Podman]:
    """The same for one test, after which its containers are removed and have left nothing in the kernel."""
    yield engine
    engine.clear()
    assert settled(engine.traces) == []


@pytest.fixture
def podman_once(engine: Podman) -> Iterator[Podman]:
    """For tests of containers that remove themselves, which is quicker."""
    yield engine
    assert settled(engine.traces) == []


@contextlib.contextmanager
def replaced(file: Path, text: str, home: Path) -> Iterator[None]:
    """Another text in place of a file of the host, in this mount namespace alone."""
    other = home / file.name
    other.write_text(text)
    mounts.mount(str(other), str(file), None, mounts.MS_BIND)
    try:
        yield
    finally:
        mounts.umount2(str(file), mounts.MNT_DETACH)


def unmount_below(home: Path) -> None:
    """podman keeps its storage mounted on itself."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([point for point in points if point.startswith(f"{home}/")]):
        mounts.umount2(point, mounts.MNT_DETACH)


def forget_networks() -> None:
    """Undo what podman keeps for the next container with a network. It is the tests' own network namespace."""
    run(["nft", "flush", "ruleset"])
    with contextlib.suppress(SystemCallError):
        mounts.umount2("/run/netns", mounts.MNT_DETACH)


def status_of(text: str) -> dict[str, str]:
    """The fields of proc_pid_status(5)."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


# Exit statuses and output


def test_exit_status_is_the_payloads(podman_once: Podman) -> None:
    for status in (0, 1, 42):
        podman_once.box(f"exit {status}", check=status)


def test_what_cannot_be_executed_is_126_or_127(podman_once: Podman) -> None:
    assert "/nonesuch" in podman_once("run", "--rm", IMAGE, "/nonesuch", check=127).stderr
    podman_once("run", "--rm", IMAGE, "nonesuch", check=127)
    assert "ermission denied" in podman_once("run", "--rm", IMAGE, "/etc/passwd", check=126).stderr


def test_a_container_that_cannot_be_made_fails_with_the_reason(podman_once: Podman) -> None:
    done = podman_once("run", "--rm", "--sysctl", "kernel.shm_rmid_forced=x", IMAGE, "true", check=None)
    assert (done.returncode, "shm_rmid_forced" in done.stderr) == (126, True), done


def test_streams_are_the_payloads(podman_once: Podman) -> None:
    done = podman_once("run", "--rm", "-i", IMAGE, "sh", "-c", "cat; echo err >&2", stdin="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "err\n")


def test_a_terminal_has_the_size_of_ours(podman_once: Podman) -> None:
    words = [*podman_once.words, "run", "--rm", "-it", IMAGE, "sh", "-c", f"{SIZE}; exit 9"]
    with terminal(words, rows=31, columns=99) as screen:
        status, printed = screen.end()
    assert (status, printed.split()) == (9, ["/dev/pts/0", "31", "99"])


# The life of a container


def test_a_detached_container_logs_is_listed_and_stops(podman: Podman) -> None:
    podman.detached("web", IMAGE, "sh", "-c", SERVE)
    wait_for_log(podman, "web", "up")
    assert podman("ps", "--format", "{{.Names}}").stdout == "web\n"
    assert podman.inspect("web", ".State.Status") == "running"
    assert podman("top", "web", "pid", "comm").stdout.split()[:4] == ["PID", "COMMAND", "1", "sh"]
    podman("kill", "-s", "HUP", "web")
    wait_for_log(podman, "web", "hup")
    podman("stop", "-t", "60", "web")
    assert podman.inspect("web", ".State.Status") == "exited"
    assert podman("wait", "web").stdout == "3\n"


def test_a_stopped_container_starts_again(podman: Podman) -> None:
    podman.detached("web", IMAGE, "sh", "-c", "echo x >> /tmp/starts; wc -l < /tmp/starts; exec sleep 100000")
    podman("stop", "-t", "0", "web")
    podman("start", "web")
    wait_for_log(podman, "web", "2")


def test_what_ignores_sigterm_is_killed_in_time(podman: Podman) -> None:
    podman.detached("deaf", IMAGE, "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    wait_for_log(podman, "deaf", "up")
    podman("stop", "-t", "1", "deaf")
    assert podman.inspect("deaf", ".State.ExitCode") == "137"


def test_kill_ends_it_with_137(podman: Podman) -> None:
    podman.detached("web", IMAGE, "sleep", "100000")
    podman("kill", "web")
    assert podman("wait", "web").stdout == "137\n"


def test_exec_joins_and_returns_the_status(podman: Podman) -> None:
    podman.detached("web", "--hostname", "inside", IMAGE, "sleep", "100000")
    assert podman("exec", "web", "hostname").stdout == "inside\n"
    assert podman("exec", "-i", "web", "cat", stdin="in\n").stdout == "in\n"
    podman("exec", "web", "sh", "-c", "exit 7", check=7)
    podman("exec", "web", "/nonesuch", check=127)
    podman("exec", "web", "/etc/passwd", check=126)
    words = ("exec", "-u", "daemon", "-w", "/tmp", "-e", "A=b", "web", "sh", "-c", "id -u; id -G; pwd; echo $A")
    assert podman(*words).stdout.split() == ["1", "1", "50", "/tmp", "b"]
    with terminal([*podman.words, "exec", "-it", "web", "sh", "-c", SIZE], rows=33, columns=77) as screen:
        status, printed = screen.end()
    device, *size = printed.split()
    assert (status, device[:-1], size) == (0, "/dev/pts/", ["33", "77"])


def test_attach_to_a_terminal_and_detach(podman: Podman) -> None:
    podman("run", "-dit", "--name", "shell", IMAGE, "sh")
    with terminal([*podman.words, "attach", "--detach-keys", "ctrl-q", "shell"]) as screen:
        screen.type("echo a$((40+2))\n")
        screen.until("a42")
        screen.type("\x11")
        screen.end()
    assert podman.inspect("shell", ".State.Status") == "running"


def test_pause_freezes_it(podman: Podman) -> None:
    podman.detached("web", IMAGE, "sleep", "100000")
    podman("pause", "web")
    assert podman.inspect("web", ".State.Status") == "paused"
    assert "frozen 1" in (podman.cgroup("web") / "cgroup.events").read_text()
    podman("unpause", "web")
    assert podman.inspect("web", ".State.Status") == "running"
    assert "frozen 0" in (podman.cgroup("web") / "cgroup.events").read_text()


def test_a_healthcheck_tells_well_from_ill(podman: Podman) -> None:
    options = ("--health-cmd", "test -e /tmp/well", "--health-interval", "disable", "--health-retries", "1")
    podman.detached("web", *options, IMAGE, "sleep", "100000")
    podman("healthcheck", "run", "web", check=1)
    podman("exec", "web", "touch", "/tmp/well")
    podman("healthcheck", "run", "web")


def test_an_init_is_the_first_process(podman_once: Podman) -> None:
    assert podman_once.box("cat /proc/1/cmdline", "--init").startswith("/run/podman-init\0--\0sh")


# Resources


def test_limits_are_in_its_cgroup_and_can_be_changed(podman: Podman) -> None:
    limits = ("-m", "64m", "--memory-swap", "96m", "--cpus", "0.5", "--pids-limit", "50", "--cpuset-cpus", "0")
    podman.detached("web", *limits, IMAGE, "sleep", "100000")
    cgroup = podman.cgroup("web")

    def values(*names: str) -> list[str]:
        return [(cgroup / name).read_text().strip() for name in names]

    names = ("memory.max", "memory.swap.max", "cpu.max", "pids.max", "cpuset.cpus")
    assert values(*names) == [str(64 << 20), str(32 << 20), "50000 100000", "50", "0"]
    podman("update", "--memory", "128m", "--memory-swap", "128m", "--cpus", "0.75", "web")
    assert values("memory.max", "memory.swap.max", "cpu.max", "pids.max") == [str(128 << 20), "0", "75000 100000", "50"]
    stats = json.loads(podman("stats", "--no-stream", "--format", "json", "web").stdout)[0]
    assert (stats["pids"], stats["mem_usage"].startswith("0B")) == ("1", False), stats


def test_too_much_memory_is_an_oom_kill(podman_once: Podman) -> None:
    podman_once("run", "--rm", "-m", "16m", IMAGE, "tail", "/dev/zero", check=137)


def test_ulimits(podman_once: Podman) -> None:
    assert podman_once.box("ulimit -Sn; ulimit -Hn", "--ulimit", "nofile=100:200").split() == ["100", "200"]


# The network


def test_a_published_port_is_reached(podman: Podman) -> None:
    podman.detached("web", "--network", "podman", "-p", "18080:80", IMAGE, "httpd", "-f", "-p", "80", "-h", "/etc")
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 18080), timeout=10) as client:
            client.sendall(b"GET /group HTTP/1.0\r\n\r\n")
            answer = client.makefile("rb").read()
            if answer:
                break
    assert b"staff:x:50:daemon" in answer


# Isolation and the root


def test_user_namespace_of_its_own(podman_once: Podman) -> None:
    script = "cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /tmp/x && stat -c %u /tmp/x; id -u"
    inside, outside, count, *owners = podman_once.box(script, "--userns=auto").split()
    assert (inside, owners) == ("0", ["0", "0", "0"])
    assert int(outside) >= 1000000
    assert int(count) < 655360


def test_a_read_only_root(podman_once: Podman) -> None:
    script = "touch /x; touch /tmp/y && echo tmp"
    done = podman_once("run", "--rm", "--read-only", IMAGE, "sh", "-c", script)
    assert ("Read-only" in done.stderr, done.stdout) == (True, "tmp\n")


def test_capabilities_are_those_asked_for(podman_once: Podman) -> None:
    dropped = status_of(podman_once.once("--cap-drop", "all", IMAGE, "cat", "/proc/self/status"))
    assert {dropped[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    one = status_of(podman_once.once("--cap-drop=all", "--cap-add=net_admin", IMAGE, "cat", "/proc/self/status"))
    assert {int(one[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {1 << 12}


def test_privileged_has_everything(podman_once: Podman) -> None:
    privileged = status_of(podman_once.once("--privileged", IMAGE, "cat", "/proc/self/status"))
    ours = status_of(Path("/proc/self/status").read_text())
    assert (privileged["CapEff"], privileged["Seccomp"]) == (ours["CapBnd"], "0")


def test_no_new_privileges_and_a_user(podman_once: Podman) -> None:
    options = ("--security-opt", "no-new-privileges", "--user", "daemon", "--workdir", "/data", "--umask", "0027")
    script = "pwd; umask; cat /proc/self/status"
    workdir, umask, *lines = podman_once.box(script, *options).splitlines()
    status = status_of("\n".join(lines))
    assert (workdir, umask, status["NoNewPrivs"]) == ("/data", "0027", "1")
    assert (status["Uid"].split(), status["Groups"].split()) == (["1"] * 4, ["1", "50"])


def test_seccomp_default_none_and_a_file(podman_once: Podman, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    script = "grep Seccomp: /proc/self/status; mkdir /tmp/d 2>&1; touch /tmp/f && echo touched"
    assert podman_once.box(script).split() == ["Seccomp:", "2", "touched"]
    assert podman_once.box(script, "--security-opt", "seccomp=unconfined").split() == ["Seccomp:", "0", "touched"]
    denied = podman_once.box(script, "--security-opt", f"seccomp={profile}").splitlines()
    assert (denied[0].split()[1], os.strerror(errno.EXDEV) in denied[1], denied[2]) == ("2", True, "touched")


def test_a_device_under_another_name(podman_once: Podman) -> None:
    script = "stat -c '%t:%T %F' /dev/nothing; echo x > /dev/nothing && head -c 1 /dev/nothing | wc -c"
    assert podman_once.box(script, "--device", "/dev/null:/dev/nothing").splitlines() == [
        "1:3 character special file",
        "0",
    ]


def test_a_device_not_asked_for_cannot_be_opened(podman_once: Podman) -> None:
    script = "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg"
    done = podman_once("run", "--rm", "--cap-add", "mknod", IMAGE, "sh", "-c", script, check=1)
    assert os.strerror(errno.EPERM) in done.stderr
    if not Path("/dev/fuse").exists():
        run(["modprobe", "fuse"])
    podman_once.box("test -c /dev/fuse && exec 3<>/dev/fuse", "--device", "/dev/fuse")


def test_tmpfs_volumes_and_their_options(podman_once: Podman, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("there")
    script = "cat /ro/file; touch /ro/new; touch /rw/new; df /t | tail -n 1 | awk '{print $2}'; stat -c %a /t"
    options = ("-v", f"{tmp_path}:/ro:ro", "-v", f"{tmp_path}:/rw:Z", "--tmpfs", "/t:size=1m,mode=1750")
    done = podman_once("run", "--rm", *options, IMAGE, "sh", "-c", script)
    assert (done.stdout.split(), "Read-only" in done.stderr) == (["there1024", "1750"], True)
    assert (tmp_path / "new").exists()


def test_hostname_sysctl_and_environment(podman_once: Podman) -> None:
    options = ("--hostname", "h", "--sysctl", "net.ipv4.ip_unprivileged_port_start=0", "-e", "A=b c")
    script = "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; echo $A"
    assert podman_once.box(script, *options).splitlines() == ["h", "0", "b c"]


# Pods


def test_the_containers_of_a_pod_share_its_network(podman: Podman, request: pytest.FixtureRequest) -> None:
    version, manager = podman("info", "--format", "{{.Version.Version}} {{.Host.CgroupManager}}").stdout.split()
    if version.startswith("4.3") and manager == "cgroupfs" and podman.runtime != RUNTIMES["rawpod"]:
        # runc fails when it opens /dev/null there. rawpod-oci binds the devices of the host where it may not make any.
        reason = "podman 4.3 itself forbids all devices in the cgroup of a pod, where crun makes them"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    podman("pod", "create", "--name", "pair", "--network", "none")
    podman.detached("server", "--pod", "pair", IMAGE, "httpd", "-f", "-p", "127.0.0.1:80", "-h", "/etc")
    script = "until wget -qO- http://127.0.0.1/group; do sleep 0.1; done; exec sleep 100000"
    podman.detached("client", "--pod", "pair", IMAGE, "sh", "-c", script)
    wait_for_log(podman, "client", "staff:x:50:daemon")
    namespaces = [os.readlink(f"/proc/{podman.inspect(name, '.State.Pid')}/ns/net") for name in ("server", "client")]
    assert namespaces[0] == namespaces[1] != os.readlink("/proc/self/ns/net")
    podman("pod", "stop", "-t", "0", "pair")
    assert podman.inspect("client", ".State.Status") == "exited"
    podman("pod", "start", "pair")
    assert podman.inspect("client", ".State.Status") == "running"
    podman("pod", "rm", "-f", "-t", "0", "pair")


def wait_for_log(podman: Podman, name: str, text: str) -> None:
    """Wait until a line of the container's log is `text`."""
    with terminal([*podman.words, "logs", "-f", name]) as screen:
        screen.until(text)


def test_the_runtime_is_the_one_asked_for(engine: Podman) -> None:
    assert run([engine.runtime, "--version"]).stdout
    assert engine("info", "--format", "{{.Host.OCIRuntime.Path}}").stdout.strip() == engine.runtime
