"""The runtime under test in a host of its own: RUNTIME="PROGRAM [ARGUMENTS]", by default this checkout's rawpod-oci."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cgroups.hierarchy import V2_CONTROLLERS, find
from kernel import mounts
from tests.host import _show_v2_alone, host, probe
from tests.oci.bundle import Bundle, Fifo
from tests.oci.known import LEAVES_CGROUPS, row_for, rows
from tests.oci.leaks import Traces
from tests.oci.runtime import CHECKOUT, Runtime

__all__ = ["host", "probe"]

RUNTIME = os.environ.get("RUNTIME", str(CHECKOUT / ".venv/bin/rawpod-oci"))
_PR_SET_CHILD_SUBREAPER = 36
APPLETS = tuple(
    """
    sh cat chmod chown chrt cut dd dmesg dnsdomainname echo env expr false find grep head hexdump hostname id
    ionice ip kill ls mkdir mkfifo mknod mount nc nice od printf ps pwd readlink rm sed seq setsid sleep sort
    stat stty sync sysctl tail tee test touch tr true tty umount uname unshare wc
    """.split()
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Expect the failures that are known of this runtime, and only those."""
    runtime = Runtime(RUNTIME, Path("/nonexistent"))
    if shutil.which(runtime.argv[0]) is None:
        pytest.exit(f"RUNTIME: no such program: {runtime.argv[0]}", returncode=pytest.ExitCode.USAGE_ERROR)
    version = runtime.version()
    table = rows(runtime)
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        row = row_for(table, version, item.name, getattr(item, "originalname", item.name))
        if row:
            item.add_marker(pytest.mark.xfail(strict=row.always, reason=row.reason))


@pytest.fixture(scope="session")
def machine(host: None) -> Iterator[str]:
    """The cgroup2 mount alone, a cgroup for all containers of this run, and this process as the orphans' parent."""
    hierarchy = find()
    _show_v2_alone(hierarchy)
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    _allow_devices(Path(tempfile.gettempdir()))
    name = f"oci-{secrets.token_hex(4)}"
    (Path("/sys/fs/cgroup") / name).mkdir()
    yield name
    with suppress(OSError):
        (Path("/sys/fs/cgroup") / name).rmdir()


@pytest.fixture(scope="session")
def controllers(machine: str) -> frozenset[str]:
    """The controllers that cgroups below the root of the hierarchy can have."""
    return frozenset(find().controllers)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, probe: Path) -> Path:
    """A root filesystem of one static program; those of the tests share its file."""
    root = tmp_path_factory.mktemp("oci") / "rootfs"
    for directory in ("bin", "proc", "dev", "sys", "etc", "tmp"):
        (root / directory).mkdir(parents=True)
    shutil.copy(probe, root / "bin/busybox")
    (root / "bin/busybox").chmod(0o755)
    return root


@pytest.fixture
def runtime(machine: str, tmp_path: Path) -> Runtime:
    """The runtime, with a --root of the test's own."""
    return Runtime(RUNTIME, tmp_path / "state")


@pytest.fixture
def bundles(runtime: Runtime, machine: str, tmp_path: Path, template: Path) -> Iterator[Callable[[], Bundle]]:
    """Makes bundles, each with a container id and a root filesystem of its own."""
    made: list[Bundle] = []

    def make() -> Bundle:
        container_id = f"c{secrets.token_hex(5)}"
        directory = tmp_path / container_id
        _fill(directory / "rootfs", template)
        made.append(Bundle(runtime, directory, container_id, f"/{machine}/{container_id}"))
        return made[-1]

    yield make
    for bundle in made:
        bundle.clean()


@pytest.fixture
def box(bundles: Callable[[], Bundle]) -> Bundle:
    """A bundle."""
    return bundles()


@pytest.fixture
def fifo(tmp_path: Path, box: Bundle) -> Iterator[Fifo]:
    """A named pipe that is /fifo in the container."""
    pipe = Fifo(box.rootfs / "fifo")
    yield pipe
    pipe.close()


@pytest.fixture(autouse=True)
def nothing_is_left(machine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test after which a mount, a cgroup, a process or a record of its containers is still there."""
    before = Traces.take(tmp_path)
    yield
    left = before.compared_with_now(sweep_cgroups=Runtime(RUNTIME, tmp_path).name in LEAVES_CGROUPS)
    if left and not request.node.get_closest_marker("xfail"):
        pytest.fail("the test left a trace:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def what_the_test_needs(request: pytest.FixtureRequest, machine: str) -> None:
    """Skip a test that is marked with what this host or this runtime's arguments do not give."""
    if request.node.get_closest_marker("needs_cgroups") and not Runtime(RUNTIME, Path("/")).manages_cgroups:
        pytest.skip("the runtime was told not to manage cgroups")
    marker = request.node.get_closest_marker("needs_controllers")
    missing = set(marker.args or V2_CONTROLLERS) - request.getfixturevalue("controllers") if marker else set()
    if missing:
        pytest.skip(f"needs {', '.join(sorted(missing))} on cgroup v2")


def _allow_devices(place: Path) -> None:
    """Let devices, programs and set-user-ID bits below a directory count, which /tmp often forbids, for this namespace."""
    while not place.is_mount():
        place = place.parent
    unwanted = mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOEXEC
    fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        mounts.mount_setattr(fd, "", mounts.AT_EMPTY_PATH, clear=unwanted)
    finally:
        os.close(fd)


def _fill(root: Path, template: Path) -> None:
    """A copy of the template that shares its program."""
    root.mkdir(parents=True)
    for directory in template.iterdir():
        (root / directory.name).mkdir(mode=stat.S_IMODE(directory.stat().st_mode))
    os.link(template / "bin/busybox", root / "bin/busybox")
    for applet in APPLETS:
        os.symlink("busybox", root / "bin" / applet)
