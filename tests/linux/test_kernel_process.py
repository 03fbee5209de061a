import os
import signal
import threading

import pytest

from kernel import credentials, process
from kernel.errors import RawpodError
from kernel.pidfd import ExitStatus, pidfd_send_signal, process_start_time, wait_pidfd
from kernel.process import clone3


def test_a_cloned_child_is_the_first_process_of_its_pid_namespace():
    read, write = os.pipe()
    child = clone3(process.CLONE_NEWPID)
    if child.pid == 0:
        os.write(write, str(os.getpid()).encode())
        os._exit(7)
    os.close(write)
    assert os.read(read, 10) == b"1"
    os.close(read)
    assert wait_pidfd(child.pidfd) == ExitStatus(7, 0)
    os.close(child.pidfd)


def test_a_child_begins_its_life_in_the_cgroup(cgroup):
    fd = cgroup.open()
    child = clone3(0, cgroup_fd=fd)
    if child.pid == 0:
        signal.pause()
    os.close(fd)
    try:
        assert cgroup.processes() == [child.pid]
    finally:
        pidfd_send_signal(child.pidfd, signal.SIGKILL)
        assert wait_pidfd(child.pidfd).shell == 137
        os.close(child.pidfd)


def test_clone3_is_refused_while_there_are_threads():
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(RawpodError, match="threads"):
            clone3(0)
    finally:
        done.set()
        thread.join()


def test_a_start_time_tells_two_processes_apart():
    assert process_start_time(os.getpid()) > process_start_time(1)
    with pytest.raises(ProcessLookupError):
        process_start_time(2**22 + 1)


def test_capability_masks_and_names_are_inverse():
    bits = credentials.mask(("CAP_CHOWN", "CAP_SYS_ADMIN"))
    assert bits == 1 | 1 << 21
    assert credentials.names(bits) == ["CAP_CHOWN", "CAP_SYS_ADMIN"]
