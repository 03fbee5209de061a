"""Holes around what controls containers: sockets, directories, ids (the numbers are those of docs/security-corpus.md).

Each test says by which change it was seen to fail.
"""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernel.errors import BadInput, RawpodError
from rootfs.images.store import ImageStore
from runtime.channel import Gate
from runtime.ids import check_id
from runtime.pod import control, directory
from runtime.supervisor import door
from tests.linux.test_oci_callers import config, oci
from tests.linux.test_run import arguments
from tests.linux.test_supervisor_life import PODS, deployment, ready, supervisor
from tests.pods import container, pods
from tests.rootfs_lab import tree

__all__ = ["config", "oci", "pods", "supervisor"]

NOBODY = 65534
FOREVER = ("sh", "-c", "echo up; exec sleep 1000000")


def as_stranger(work):
    """What `work` answers in a forked process of another user, without any capability."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writing, json.dumps(work()).encode())
        except BaseException as error:
            os.write(writing, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = json.load(file)
    os.waitpid(child, 0)
    return answer


class Open:
    """A socket's directory and its file, open to others for once: what is asked is who is let in all the same."""

    def __init__(self, path):
        self.path = Path(path)

    def __enter__(self):
        self.modes = [(path, path.stat().st_mode) for path in (self.path, self.path.parent)]
        for path, _ in self.modes:
            path.chmod(0o777)
        self.home = os.open(".", os.O_PATH | os.O_DIRECTORY)
        os.chdir(self.path.parent)  # the way there may be closed
        return self

    def __exit__(self, *_):
        os.fchdir(self.home)
        os.close(self.home)
        for path, mode in self.modes:
            path.chmod(stat.S_IMODE(mode))

    def ask(self, kind, packet):
        """What a stranger gets for a packet; "" when the connection is ended."""

        def work():
            with socket.socket(socket.AF_UNIX, kind) as client:
                client.settimeout(30)
                client.connect(self.path.name)
                try:
                    client.send(packet)
                    return client.recv(65536).decode()
                except ConnectionError:
                    return ""

        return as_stranger(work)


def test_row_41_the_monitor_obeys_nobody_but_root(pods):
    """CVE-2020-15257: whoever reaches the socket is asked who he is.

    Seen to fail without the look at SO_PEERCRED in control.Server: the stranger reads the status and stops the pod.
    """
    pod = pods.start(container("main", *FOREVER))
    pod.running()
    with Open(pod.directory / control.SOCKET) as opened:
        assert opened.ask(socket.SOCK_SEQPACKET, b'{"do": "watch"}') == ""
        assert opened.ask(socket.SOCK_SEQPACKET, b'{"do": "stop", "grace": 0}') == ""
    assert control.request(pod.directory, {"do": "signal", "container": "main", "signal": 18}) == {"done": True}


def test_row_41_the_supervisor_obeys_nobody_but_root(supervisor, settings):
    """CVE-2020-15257. Seen to fail without only_root_and_self() among the middlewares: the pods are listed."""
    with Open(settings.socket) as opened:
        answer = opened.ask(socket.SOCK_STREAM, f"GET {PODS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith("HTTP/1.1 403 ")
    assert "only root may use this socket" in answer


@pytest.mark.parametrize("user_namespace", [False, True])
def test_row_41_a_created_container_is_started_by_root_alone(oci, config, tmp_path, user_namespace):
    """CVE-2020-15257 for the socket that a created container waits at.

    In a user namespace the kernel shows all of the outside as one user, so there the file's mode decides. Seen to fail
    without the look at the peer in Gate.wait(): the stranger's "start" has the process executed.
    """
    if user_namespace:
        config["linux"]["namespaces"].append({"type": "user"})
        ids = [{"containerID": 0, "hostID": 0x20000, "size": 0x10000}]
        config["linux"] |= {"uidMappings": ids, "gidMappings": ids}
    assert oci("create", "box") == (0, "")
    gate = tmp_path / "state/box" / Gate.FILE
    try:
        assert stat.S_IMODE(gate.stat().st_mode) == 0o600
        if not user_namespace:
            with Open(gate) as opened:
                assert opened.ask(socket.SOCK_SEQPACKET, b'{"kind": "start"}') == ""
        assert json.loads(oci("state", "box")[1])["status"] == "created"
        assert oci("start", "box") == (0, "")
        assert json.loads(oci("state", "box")[1])["status"] == "running"
    finally:
        oci("delete", "--force", "box")


@pytest.mark.parametrize(
    ("file", "listen"),
    [
        (control.SOCKET, lambda path: control.listen(path.parent)),
        ("rawpod.sock", door.listen),
        (Gate.FILE, lambda path: Gate(str(path.parent))),
    ],
    ids=["monitor", "supervisor", "gate"],
)
def test_row_41_control_sockets_are_files_for_their_owner(tmp_path, file, listen):
    """CVE-2020-15257: no name in the abstract space, which the network namespace shares, and mode 0600.

    The mode is there before the file is, whatever the umask. Seen to fail without fchmod() in each of the three.
    """
    before = os.umask(0)
    try:
        listener = listen(tmp_path / file)
    finally:
        os.umask(before)
    try:
        inode = (tmp_path / file).stat()
        assert stat.S_ISSOCK(inode.st_mode)
        assert stat.S_IMODE(inode.st_mode) == 0o600
    finally:
        listener.close()


def test_row_41_nothing_of_a_running_instance_is_in_the_abstract_space_or_in_a_container(supervisor, settings):
    """CVE-2020-15257. Seen to fail with the monitor listening at "\\0" + uid; not tried with the state mounted."""
    supervisor.apply(deployment(1))
    supervisor.until(PODS, ready(1))
    names = [line.split(maxsplit=7)[7:] for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    assert [name for name in names if name and name[0].startswith("@")] == []
    (pid,) = supervisor.payloads().values()
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        assert "pods/" not in line.split()[3] or line.split()[4].startswith("/etc/"), line
    inside = Path(f"/proc/{pid}/root")
    assert not (inside / str(settings.socket)[1:]).exists()
    assert not (inside / str(settings.pods)[1:]).exists()


def seen_by_a_stranger(top):
    """What another user can read, list or write of a directory tree, once he is in its top directory."""
    names = [os.fspath(path.relative_to(top)) for path in sorted(top.rglob("*")) if not path.is_symlink()]
    top.chmod(0o755)

    def work():
        return [name for name in names if os.access(name, os.R_OK) or os.access(name, os.W_OK)]

    home = os.open(".", os.O_PATH | os.O_DIRECTORY)
    os.chdir(top)  # the way there may be closed
    try:
        return as_stranger(work)
    finally:
        os.fchdir(home)
        os.close(home)


def test_row_42_nothing_that_an_instance_keeps_is_open_to_others(supervisor, settings):
    """CVE-2024-25621: state, images, layers, logs and database, with all parents open.

    Seen to fail with mode 0755 for the pods' directories, and for the images', one at a time.
    """
    supervisor.apply(deployment(1))
    supervisor.until(PODS, ready(1))
    own = {"supervisor.log"}  # the test's
    for top in (settings.root, settings.state):
        assert set(seen_by_a_stranger(top)) - own == set()


def test_row_42_a_callers_umask_opens_nothing(settings):
    """CVE-2024-25621, for callers whose umask is 0, as a daemon's may be.

    Seen to fail without umask() in the command line's main(): the parents of what has a mode of its own are 0777.
    """
    command = arguments(settings, "run", "--rm", "--network=none", "host", "sh", "-c", "umask")
    for top in (settings.root, settings.state):
        top.rmdir()
    done = subprocess.run(command, umask=0, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "0022\n", done
    for top in (settings.root, settings.state):
        shared = {path for path in (top, *top.rglob("*")) if not path.is_symlink() and path.stat().st_mode & 0o022}
        # A layer's own /tmp is behind directories that are closed.
        assert {path for path in shared if "images" not in path.parts} == set()


def test_row_42_what_the_oci_command_keeps_is_not_open_to_others(oci, config, tmp_path):
    """CVE-2024-25621. Seen to fail with mode 0755 for the container's directory in runtime.oci.create."""
    assert oci("create", "box", umask=0) == (0, "")
    try:
        assert seen_by_a_stranger(tmp_path / "state") == []
    finally:
        oci("delete", "--force", "box")


HOSTILE = ["..", ".", "../victim", "a/../../victim", "/etc", "a/b", "", "a" * 254, "a\nb", "-a", ".a", "a b", "ä"]
COMMANDS = {
    "create": (),
    "run": (),
    "start": (),
    "state": (),
    "kill": (),
    "delete": (),
    "delete --force": (),
    "exec": ("true",),
    "ps": (),
    "pause": (),
    "resume": (),
    "update --pids-limit 5": (),
    "events --stats": (),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_row_34_an_id_is_not_a_path_for_any_oci_command(oci, tmp_path, command):
    """CVE-2014-9358. Seen to fail without check_id() in Invocation.container_id(): delete removes the victim."""
    for victim in (tmp_path / "victim", tmp_path / "state/.a"):
        victim.mkdir(parents=True)
        (victim / "file").touch()
    before = tree(tmp_path / "victim"), tree(tmp_path / "state")
    for name in HOSTILE:
        status, printed = oci(*command.split(), "--", name, *COMMANDS[command])
        assert status in (1, 255), (name, printed)
        assert "not a name" in printed, (name, printed)
        assert (tree(tmp_path / "victim"), tree(tmp_path / "state")) == before


_NAMES = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="a0-_.+/\\\0\n:@%~", max_size=12),
    st.lists(st.sampled_from(["..", ".", "/", "a", "0", "-", "%", "\0"]), max_size=6).map("".join),
)


@example("a/b")
@example("a" * 260)
@given(_NAMES)
def test_row_34_whatever_is_taken_for_an_id_is_one_component_of_a_path(name):
    """CVE-2014-9358, for ids of containers and uids of pods. Seen to fail with "/" in either grammar, and unbounded."""
    for check in (check_id, directory.check_uid):
        try:
            check(name)
        except BadInput:
            continue
        assert os.path.normpath(os.path.join("/top", name)) == f"/top/{name}"
        assert "/" not in name
        assert len(os.fsencode(name)) <= 255
        assert name.isascii()
        assert name.isprintable()


@pytest.mark.parametrize("name", ["../victim", "..", "/etc/passwd", "a/../../b", "a" * 256, "a\0b", "a\nb", "%2e%2e"])
def test_row_34_an_images_name_is_not_a_path(tmp_path, name):
    """CVE-2014-9358. Seen to fail with the name as it is for the record's file."""
    (tmp_path / "victim").write_text("untouched\n")
    store = ImageStore(tmp_path / "images")
    for use in (store.get, store.remove, lambda name: store.import_tar(name, tmp_path / "victim")):
        with pytest.raises(RawpodError, match=r"character \d+|does not exist|archive"):
            use(name)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "images") == ["victim"]
    assert (tmp_path / "victim").read_text() == "untouched\n"


def test_row_34_a_pods_name_on_the_command_line_is_not_a_path(settings):
    """CVE-2014-9358. Not tried with the mitigation taken out: names are looked up among those there are."""
    victim = settings.state / "victim"
    victim.mkdir()
    (victim / "status.json").write_text('{"rawpod": {}}')
    (settings.pods).mkdir(mode=0o700)
    for command in (("rm", "-f"), ("stop",), ("kill",), ("logs",), ("exec",)):
        more = ("true",) if command == ("exec",) else ()
        words = arguments(settings, *command, "../victim", *more)
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0, done
        assert "no pod '../victim'" in done.stderr or "no pod ''" in done.stderr or "'..'" in done.stderr, done
    assert (victim / "status.json").exists()
    done = subprocess.run(
        arguments(settings, "run", "--name", "../x", "host", "true"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, (done, sys.executable)
    assert list(settings.pods.iterdir()) == []
    (victim / "status.json").unlink()
    victim.rmdir()
