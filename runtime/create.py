"""Making a container: the cgroup, the namespaces, the root filesystem, up to the gate where its process waits."""

from __future__ import annotations

import os
import time

from kernel import operation, relay
from kernel.cleanup import OnFailure
from kernel.errors import Conflict, ContainerError, RawpodError, SystemCallError
from kernel.operation import Assembly
from kernel.pidfd import pidfd_send_signal, process_start_time, wait_pidfd
from runtime import capabilities, plan, plan_process, spec, spec_codec, state
from runtime.attributes import session_keyring
from runtime.channel import Channel, Gate, error_from
from runtime.checks.config import check
from runtime.checks.host import check as check_host
from runtime.checks.mounts import mount_warnings
from runtime.cloning import clone, clone_apart
from runtime.container import Container, out_of_memory
from runtime.ids import check_id
from runtime.init import Extras, assemble_and_become, host_bounding_set, keeps_groups, seccomp_filter
from runtime.limits import settable_limits, unlimited
from runtime.ownership import own_pipes
from runtime.state import State, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cgroups.cgroup import Cgroup
    from cgroups.controllers import Limits
    from cgroups.hierarchy import Hierarchy
    from cgroups.systemd import Scope
    from kernel.operation import Undo
    from kernel.process import Child

    Directory = str | os.PathLike[str]

_SIGKILL = 9
_ESRCH = 3
# Below this the memory that the init stage takes is worth saving: it may be all there is.
_LITTLE_MEMORY = 8 << 20


def create(
    container_id: str,
    config: spec.Config,
    bundle: Directory,
    *,
    cgroup: Cgroup | None,
    scope: Scope | None = None,
    hierarchy: Hierarchy,
    stdio: tuple[int, int, int],
    state_dir: Directory,
    missing_controllers: str = "refuse",
    parent_death_signal: int = 0,
    detached: bool = False,
    new_keyring: bool = True,
    preserve_fds: int = 0,
    pivot: bool = True,
) -> Container:
    """Assemble the container up to the gate. What was begun is undone when a step fails.

    Without a `cgroup` the process stays in the caller's; with a `scope` systemd makes it. Raises NotSupported or
    BadInput for a description that cannot be built, ContainerError with the step that failed, ControllerMissing for a
    limit that the host cannot set. With `missing_controllers` "warn" such limits are left out and named in `warnings`.
    `parent_death_signal` ends the payload when the calling process ends. A `detached` container waits at a gate in
    `state_dir`, where any process can start it, others for their creator. Without `new_keyring` the payload has the
    caller's session keyring. The caller's descriptors 3 to 2 + `preserve_fds` go to the payload. Without `pivot` the
    root is changed by chroot(2), where pivot_root(2) cannot be had.
    """
    check_id(container_id)
    check(config)
    check_host(config)
    # Without one the container can be created and not started (config.md, "Process").
    process = config.process or spec.Process(args=[], cwd="/")
    if cgroup is None:
        limits, warnings = unlimited(config)
    else:
        limits, warnings = settable_limits(config, hierarchy, missing_controllers)
    directory = os.fspath(state_dir)
    keyring = session_keyring(container_id) if new_keyring else ""
    steps = plan.build(
        config,
        os.fspath(bundle),
        cgroup,
        limits,
        os.fspath(hierarchy.mount),
        scope,
        container_id=container_id,
        keyring=keyring,
        pivot=pivot,
    )
    _claim(directory, container_id)
    extras, not_granted = _extras(config, container_id, os.fspath(bundle), preserve_fds, parent_death_signal)
    record = _record(container_id, config, os.fspath(bundle), cgroup, scope)
    record.keyring = keyring
    with OnFailure() as on_failure:
        on_failure.call(os.close, extras.relay)
        on_failure.call(state.forget, directory)
        gate = Gate(directory) if detached else None
        # Before anything exists: should we be killed, what is to be taken back is known.
        state.save(directory, record)
        assembly = Assembly()
        done = operation.run(steps.parent, assembly)
        on_failure.call(done.undo)
        own_pipes(stdio, config.linux, process)
        child, channel = _begin(steps, assembly, process, stdio, gate, extras, _is_little(limits))
        on_failure.call(channel.close)
        on_failure.call(_end, child.pidfd)
        assembly.pid = child.pid
        record.pid, record.process_start_time = child.pid, process_start_time(child.pid)
        container = Container(record, directory, cgroup, child.pidfd, None if detached else channel)
        container.warnings = warnings + not_granted + mount_warnings(config)
        container.console_fd = _follow(container, channel, steps, done)
        container.save(Status.CREATED)
        if detached:
            # Until it hears this the process ends with us, and nobody is left waiting whom no state tells of.
            channel.send("kept")
            channel.close()
        while assembly.fds:
            os.close(assembly.fds.popitem()[1])
    os.close(extras.relay)
    return container


def _begin(
    steps: plan.Plan,
    assembly: Assembly,
    process: spec.Process,
    stdio: tuple[int, int, int],
    gate: Gate | None,
    extras: Extras,
    apart: bool,
) -> tuple[Child, Channel]:
    """Clone the process, which goes its own way, and answer it with our end of the channel to it."""
    ours, theirs = Channel.pair()
    try:
        child = (clone_apart if apart else clone)(steps, assembly.fds.get("cgroup", -1))
        if child.pid == 0:
            # Its copy of our end would keep the channel open after our death.
            ours.close()
            assemble_and_become(steps.child, process, stdio, theirs, fds=assembly.fds, gate=gate, extras=extras)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        if gate is not None:
            gate.close()
    return child, ours


def _is_little(limits: Limits) -> bool:
    return 0 <= (limits.memory_max or -1) < _LITTLE_MEMORY


def _record(container_id: str, config: spec.Config, bundle: str, cgroup: Cgroup | None, scope: Scope | None) -> State:
    return State(
        oci_version=spec.OCI_VERSION,
        id=container_id,
        status=Status.CREATING,
        bundle=bundle,
        annotations=config.annotations,
        cgroup=cgroup.path if cgroup else "",
        scope=scope.name if scope else "",
        rootfs=config.root.path if config.root else "",
        created=_now(),
        hooks=_later_hooks(config.hooks),
    )


def _extras(
    config: spec.Config, container_id: str, bundle: str, preserve_fds: int, parent_death_signal: int
) -> tuple[Extras, list[str]]:
    """What becoming the payload takes, and a warning for each capability that it will not have."""
    process = config.process or spec.Process(args=[], cwd="/")
    linux = config.linux or spec.Linux()
    new_user = any(namespace.type == "user" for namespace in linux.namespaces)
    available = capabilities.ALL if new_user else host_bounding_set()
    _, warnings = capabilities.grant(process.capabilities, available)
    filter = seccomp_filter(linux, process)
    extras = Extras(
        relay=relay.make(),
        capabilities=available,
        preserve_fds=preserve_fds,
        parent_death_signal=parent_death_signal,
        linux=linux,
        hooks=tuple(config.hooks.start_container) if config.hooks else (),
        subject=plan_process.subject_of(config, container_id, bundle),
        filter=filter,
        keep_groups=keeps_groups(config.annotations),
    )
    return extras, warnings


def _later_hooks(hooks: spec.Hooks | None) -> dict[str, Any]:
    """Those that start and delete will need: the state keeps them, and config.json may change meanwhile."""
    if hooks is None:
        return {}
    kept: dict[str, Any] = spec_codec.plain(spec.Hooks(poststart=hooks.poststart, poststop=hooks.poststop))
    return kept


def _follow(container: Container, channel: Channel, steps: plan.Plan, done: Undo) -> int | None:
    """Do what the child asks for until it waits at the gate; the terminal's descriptor, if there is one."""
    console: int | None = None
    while True:
        message, fds = channel.receive()
        if message is None:
            raise out_of_memory(container.id, container.cgroup) or ContainerError(
                f"container {container.id!r} ended while it was assembled"
            )
        if message["kind"] == "ask":
            for step in steps.asked[message["what"]]:
                done.execute(step)
            channel.send("done")
        elif message["kind"] == "console":
            (console,) = fds
        elif message["kind"] == "created":
            return console
        else:
            raise error_from(message)


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def _claim(directory: str, container_id: str) -> None:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    try:
        present = state.load(directory)
    except RawpodError:
        return
    if present.status.can_kill:
        raise Conflict(f"container {container_id!r} exists and is {present.status}")


def _end(pidfd: int) -> None:
    try:
        pidfd_send_signal(pidfd, _SIGKILL)
    except SystemCallError as error:
        if error.errno != _ESRCH:
            raise
    wait_pidfd(pidfd)
    os.close(pidfd)
