import os
import select
import signal
import subprocess

import pytest

from kernel import events
from kernel.errors import BadInput, CommandNotExecutable, CommandNotFound, Conflict, ContainerError, NotFound
from kernel.pidfd import ExitStatus
from runtime import spec, state
from runtime.create import create
from tests.boxes import output


def test_a_created_container_waits_until_it_is_started(box):
    with output() as (write, read):
        container = box.create(box.config("sh", "-c", "echo ran"), (0, write, write))
        assert state.load(box.bundle).status == "created"
        assert select.select([container.pidfd], [], [], 0.05)[0] == []
        container.start()
        assert container.wait() == ExitStatus(0, 0)
        assert state.load(box.bundle).status == "stopped"
        container.delete()
        assert read() == "ran\n"
    with pytest.raises(NotFound):
        state.load(box.bundle)


@pytest.mark.parametrize("code", [0, 1, 7, 126, 255])
def test_the_exit_code_is_the_payloads(box, code):
    assert box.run(box.config("sh", "-c", f"exit {code}"))[0] == ExitStatus(code, 0)


def test_a_signal_is_told_from_an_exit_code(box):
    container = box.create(box.config("sh", "-c", "exec busybox sleep 1000"))
    container.start()
    assert container.signal(signal.SIGKILL)
    status = container.wait()
    assert (status, status.shell) == (ExitStatus(0, 9), 137)
    container.delete()


def test_a_running_container_cannot_be_deleted_nor_started_again_nor_made_twice(box):
    container = box.create(box.config("busybox", "sleep", "1000"))
    container.start()
    try:
        for refused in (container.delete, container.start, lambda: box.create(box.config("sh"))):
            with pytest.raises(Conflict, match="running"):
                refused()
    finally:
        container.kill()
        container.wait()
        container.delete()


def _script(box, name, text, mode=0o755):
    (box.root / name).write_text(text)
    (box.root / name).chmod(mode)
    return f"/{name}"


def test_a_command_that_is_missing_or_cannot_be_executed_is_told_apart(box):
    cases = [
        ("nothing", CommandNotFound, r"executable file not found in \$PATH"),
        ("/no/such", CommandNotFound, "no such file or directory"),
        (_script(box, "x1", "#!/no/interpreter\n"), CommandNotFound, "interpreter"),
        (_script(box, "x2", "#!/bin/sh\n", 0o644), CommandNotExecutable, "permission denied"),
        (
            _script(box, "x3", "\x7fELF\2\1\1" + "\0" * 9 + "\2\0\xb7\0", 0o755),
            CommandNotExecutable,
            "exec format error",
        ),
        ("/etc", CommandNotExecutable, "is a directory"),
    ]
    for command, error, message in cases:
        with pytest.raises(error, match=message):
            box.run(box.config(command))


def test_a_bare_name_is_looked_up_in_the_path_of_the_container(box):
    (box.root / "opt").mkdir()
    _script(box, "opt/tool", "#!/bin/sh\necho found $0\n")
    status, printed = box.run(box.config("tool", env=["PATH=/none:/opt:/bin"]))
    assert (status.code, printed) == (0, "found /opt/tool\n")


def test_a_step_that_fails_is_named_and_nothing_is_left(box):
    config = box.config("sh")
    config.mounts.append(spec.Mount("/data", "bind", "/no/such/source", ["rbind"]))
    with pytest.raises(ContainerError, match=r"bind /no/such/source -> /data"):
        box.create(config)
    assert not box.cgroup.child("box").exists()
    assert not (box.bundle / state.FILE).exists()


def test_a_description_with_something_unsupported_is_refused_by_name_before_anything_is_done(box):
    config = box.config("sh")
    config.linux.intel_rdt = spec.IntelRdt()
    seen = []
    unsubscribe = events.subscribe(seen.append)
    with pytest.raises(Exception, match="intelRdt"):
        box.create(config)
    unsubscribe()
    assert seen == []


def test_a_mount_over_the_root_is_refused(box):
    config = box.config("sh")
    config.mounts.append(spec.Mount("/x/..", "tmpfs", "tmpfs"))
    with pytest.raises(BadInput, match=r"\.\."):
        box.create(config)


def test_events_of_the_child_reach_the_parents_instruments(box):
    seen = []
    unsubscribe = events.subscribe(seen.append)
    box.run(box.config("sh", "-c", "true"))
    unsubscribe()
    names = [event.name for event in seen]
    assert names.index("clone3") < names.index("pivot_root") < names.index("execve")
    assert {event.pid for event in seen if event.name == "pivot_root"} == {1}
    assert os.getpid() in {event.pid for event in seen}


def test_a_payload_dies_with_its_parent_where_that_was_asked_for(box):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        container = box.create(box.config("busybox", "sleep", "1000"), parent_death_signal=signal.SIGKILL)
        container.start()
        os.write(write, str(container.pid).encode())
        signal.pause()
    pidfd = os.pidfd_open(int(os.read(read, 20)))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert select.select([pidfd], [], [], 10)[0] == [pidfd]
    for fd in (read, write, pidfd):
        os.close(fd)
    assert box.cgroup.child("box").wait_empty(5)
    (box.bundle / state.FILE).unlink()
    box.cgroup.child("box").delete()


def test_the_end_of_the_parent_before_the_start_ends_the_child_too(box):
    child = os.fork()
    if child == 0:
        box.create(box.config("sh"))
        os._exit(0)
    os.waitpid(child, 0)
    assert box.cgroup.child("box").wait_empty(5)
    (box.bundle / state.FILE).unlink()
    box.cgroup.child("box").delete()


def test_a_state_of_a_pid_that_another_process_has_now_is_stopped(box):
    record = state.State("1.2.0", "box", state.Status.RUNNING, "/b", pid=os.getpid(), process_start_time=1)
    state.save(box.bundle, record)
    assert state.load(box.bundle).status == "stopped"
    with pytest.raises(NotFound):
        state.open_process(record)
    (box.bundle / state.FILE).unlink()


@pytest.mark.parametrize("name", ["../x", "a/b", "", "-x", "x" * 300, "a\nb"])
def test_an_id_that_is_no_name_is_refused(box, name):
    # CVE-2014-9358: ids become names of files and cgroups.
    with pytest.raises(BadInput, match="container id"):
        box.create(box.config("sh"), container_id=name)


def test_a_cgroup_with_processes_of_another_is_refused_and_they_live_on(box):
    # Fails (the stranger is killed by the undo) when CreateCgroup takes what is there.
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        box.cgroup.child("box").create().add(stranger.pid)
        with pytest.raises(Conflict, match="not empty"):
            box.create(box.config("busybox", "true"))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    box.cgroup.child("box").delete()


def test_a_limit_that_fails_leaves_no_cgroup(box):
    config = box.config("busybox", "true")
    config.linux.resources = spec.Resources(unified={"cgroup.max.depth": "-7"})
    with pytest.raises(BadInput, match=r"cgroup\.max\.depth"):
        box.create(config)
    assert not box.cgroup.child("box").exists()


def test_limits_of_a_container_without_a_cgroup_are_a_warning(box):
    config = box.config("busybox", "true")
    rules = [spec.DeviceRule(False, access="rwm")]
    config.linux.resources = spec.Resources(pids=spec.Pids(7), devices=rules)
    container = create(
        "box", config, box.bundle, cgroup=None, hierarchy=box.hierarchy, stdio=(0, 1, 2), state_dir=box.bundle
    )
    container.start()
    assert container.wait() == ExitStatus(0, 0)
    container.delete()
    (line,) = container.warnings
    assert line.startswith("pids.max, the rules of linux.resources.devices not set: the container has no cgroup")
