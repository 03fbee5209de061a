"""Hooks of all six kinds (runtime/hooks.py), each a script of the host's that writes down what it was told."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from kernel.errors import ContainerError
from runtime import hooks, spec
from runtime.container import Container


@pytest.fixture
def script(tmp_path):
    """Write an executable script of the host's; its path."""

    def write(name, text):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def told(tmp_path, script):
    """A hook that appends a line to a file: its argument, state, namespaces and directory. And the lines so far."""
    log = tmp_path / "told"
    path = script(
        "tell",
        'state=$(cat); printf \'{"name":"%s","state":%s,"net":"%s","mnt":"%s","cwd":"%s","env":"%s"}\\n\' '
        f'"$1" "$state" "$(readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/mnt)" "$PWD" "$(env)" >> {log}',
    )

    def hook(name, **more):
        return spec.Hook(path, ["tell", name], env=[], **more)

    def lines():
        return [json.loads(line, strict=False) for line in log.read_text().splitlines()] if log.exists() else []

    return hook, lines


def _run(box, config):
    container = box.create(config)
    container.start()
    container.wait()
    container.delete()
    return container


def test_hooks_of_every_kind_run_in_order_with_the_state_of_the_moment(box, told, script):
    hook, lines = told
    (box.root / "started").write_text("#!/bin/sh\ncat > /tmp/state\nreadlink /proc/self/ns/net > /tmp/net\n")
    (box.root / "started").chmod(0o755)
    config = box.config("sh", "-c", "exit 0")
    config.annotations = {"org.example": "x"}
    config.hooks = spec.Hooks(
        prestart=[hook("prestart")],
        create_runtime=[hook("createRuntime 1"), hook("createRuntime 2")],
        create_container=[hook("createContainer")],
        start_container=[spec.Hook("/started", env=["PATH=/bin"])],
        poststart=[hook("poststart")],
        poststop=[hook("poststop")],
    )
    container = box.create(config)
    pid = container.pid
    before_start = [line["name"] for line in lines()]
    container.start()
    container.wait()
    container.delete()
    assert container.warnings == []

    seen = lines()
    assert before_start == ["prestart", "createRuntime 1", "createRuntime 2", "createContainer"]
    assert [line["name"] for line in seen] == [*before_start, "poststart", "poststop"]
    assert [line["state"]["status"] for line in seen] == ["created", *["creating"] * 3, "running", "stopped"]
    assert [line["state"].get("pid") for line in seen] == [pid, pid, pid, 1, pid, None]
    assert all(line["state"]["annotations"] == {"org.example": "x"} for line in seen)
    own = os.readlink("/proc/self/ns/net")
    assert [line["net"] == own for line in seen] == [True, True, True, False, True, True]
    inside = json.loads((box.root / "tmp/state").read_text())
    assert (inside["status"], inside["pid"], inside["id"]) == ("created", 1, "box")
    assert (box.root / "tmp/net").read_text().strip() == seen[3]["net"]


def test_a_create_container_hook_finds_the_mounts_at_root_path_and_may_add_to_them(box, script):
    # What a hook mounts there is there inside: its namespace is the container's.
    path = script(
        "add", f"mount -t tmpfs none {box.root}/etc && echo made > {box.root}/etc/made && ls {box.root}/proc/1"
    )
    config = box.config("busybox", "cat", "/etc/made")
    config.hooks = spec.Hooks(create_container=[spec.Hook(path, env=["PATH=/bin:/usr/bin"])])
    assert box.run(config)[1] == "made\n"
    assert not (box.root / "etc/made").exists()


def test_a_hooks_environment_and_arguments_are_exactly_those_given(box, tmp_path, script):
    path = script("env", f'echo "$0 $# $1" > {tmp_path}/args; tr "\\0" "\\n" < /proc/$$/environ > {tmp_path}/env')
    config = box.config("sh", "-c", "exit 0")
    config.hooks = spec.Hooks(create_runtime=[spec.Hook(path, ["zero", "one two"], ["PATH=/bin:/usr/bin", "A=b=c"])])
    _run(box, config)
    assert (tmp_path / "env").read_text().split() == ["PATH=/bin:/usr/bin", "A=b=c"]
    # The kernel puts the script's path in place of argv[0] for "#!".
    assert (tmp_path / "args").read_text().split(" ", 1)[1] == "1 one two\n"


@pytest.mark.parametrize("kind", ["prestart", "create_runtime", "create_container"])
def test_a_hook_that_fails_fails_create_says_what_it_printed_and_leaves_nothing(box, kind, script, told):
    hook, lines = told
    failing = spec.Hook(script("fail", "echo out; echo trouble >&2; exit 3"))
    config = box.config("sh")
    config.hooks = spec.Hooks(**{kind: [failing, hook("never")]}, poststop=[hook("poststop")])
    with pytest.raises(ContainerError, match=r"hook 0 \(.*fail'\): exit status 3: out \| trouble"):
        box.create(config)
    assert not box.cgroup.child("box").exists()
    assert [line["name"] for line in lines()] == ["poststop"]


def test_a_start_container_hook_that_fails_fails_start(box):
    config = box.config("sh", "-c", "exit 0")
    config.hooks = spec.Hooks(start_container=[spec.Hook("/bin/busybox", ["false"])])
    container = box.create(config)
    with pytest.raises(ContainerError, match=r"startContainer hook 0 \('/bin/busybox'\): exit status 1"):
        container.start()
    container.wait()
    container.delete()


def test_a_start_container_hook_is_as_confined_as_the_container(box):
    # Fails when they are run before set_identity: the container's own files would be executed with every capability.
    (box.root / "hook").write_text("#!/bin/sh\ngrep -E '^(Uid|CapEff|NoNewPrivs)' /proc/self/status > /tmp/seen\n")
    (box.root / "hook").chmod(0o755)
    user = spec.User(uid=1000, gid=1000)
    config = box.config("sh", "-c", "exit 0", user=user, no_new_privileges=True)
    config.hooks = spec.Hooks(start_container=[spec.Hook("/hook", env=["PATH=/bin"])])
    _run(box, config)
    assert (box.root / "tmp/seen").read_text().split() == [
        *("Uid:", "1000", "1000", "1000", "1000"),
        *("CapEff:", "0" * 16, "NoNewPrivs:", "1"),
    ]


@pytest.mark.parametrize("kind", ["poststart", "poststop"])
def test_later_hooks_that_fail_are_warnings_and_the_others_run(box, kind, script, told):
    hook, lines = told
    config = box.config("sh", "-c", "exit 0")
    config.hooks = spec.Hooks(**{kind: [spec.Hook(script("fail", "exit 3")), hook("after")]})
    container = _run(box, config)
    assert len(container.warnings) == 1
    assert "exit status 3" in container.warnings[0]
    assert [line["name"] for line in lines()] == ["after"]


def test_later_hooks_are_run_by_whichever_process_starts_and_deletes(box, told):
    hook, lines = told
    config = box.config("sh", "-c", "exit 0")
    config.hooks = spec.Hooks(poststart=[hook("poststart")], poststop=[hook("poststop")])
    made = box.create(config, detached=True)
    starter = Container.load(box.bundle)
    starter.start()
    os.close(starter.pidfd)
    made.wait()
    Container.load(box.bundle).delete()
    assert [line["name"] for line in lines()] == ["poststart", "poststop"]


def _is_alive(pid):
    try:
        # Where we are the one who gets orphans it is ours to collect.
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return Path(f"/proc/{pid}").exists()


def test_a_hook_past_its_timeout_is_killed_with_its_group(tmp_path, script):
    path = script("slow", f"echo begun; sleep 100 & echo $! > {tmp_path}/pid; wait")
    begun = time.monotonic()
    with pytest.raises(ContainerError, match="killed after its timeout of 1 s: begun"):
        hooks.run("a hook", spec.Hook(path, env=["PATH=/bin:/usr/bin"], timeout=1), b"{}")
    assert time.monotonic() - begun < 20
    sleeper = int((tmp_path / "pid").read_text())
    while _is_alive(sleeper):
        assert time.monotonic() - begun < 20


def test_a_hook_need_not_read_and_may_leave_a_daemon(tmp_path, script):
    # The state does not fit a pipe; the daemon holds the hook's output open.
    path = script("daemon", f"sleep 1000 & echo $! > {tmp_path}/pid")
    begun = time.monotonic()
    hooks.run("a hook", spec.Hook(path, env=["PATH=/bin:/usr/bin"]), b" " * 500_000)
    assert time.monotonic() - begun < 100
    daemon = int((tmp_path / "pid").read_text())
    os.kill(daemon, signal.SIGKILL)
    while _is_alive(daemon):
        assert time.monotonic() - begun < 100


def test_a_large_state_arrives_whole_and_endless_output_is_cut(tmp_path, script):
    path = script("read", f"cat > {tmp_path}/state; head -c 1000000 /dev/zero | tr '\\0' x; exit 1")
    with pytest.raises(ContainerError) as caught:
        hooks.run("a hook", spec.Hook(path, env=["PATH=/bin:/usr/bin"]), b"y" * 500_000)
    assert (tmp_path / "state").stat().st_size == 500_000
    assert 1000 < len(str(caught.value)) < 20_000


def test_a_hook_that_cannot_be_executed_is_named(tmp_path):
    with pytest.raises(ContainerError, match="a hook: no such file or directory"):
        hooks.run("a hook", spec.Hook(str(tmp_path / "none")), b"{}")


def test_a_hook_gets_no_descriptor_of_ours_and_default_signals(tmp_path, script):
    path = script("fds", f"readlink /proc/$$/fd/* > {tmp_path}/fds; grep SigIgn /proc/$$/status > {tmp_path}/ignored")
    # As a careless caller of ours leaves one open. Fails without the closing actions of spawn.
    leaked = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        hooks.run("a hook", spec.Hook(path, env=["PATH=/bin:/usr/bin"]), b"{}")
    finally:
        os.close(leaked)
    assert str(tmp_path) not in (tmp_path / "fds").read_text().split()
    # 32 and 33 are the C library's own: posix_spawn leaves them ignored.
    assert int((tmp_path / "ignored").read_text().split()[1], 16) & ~0x180000000 == 0
