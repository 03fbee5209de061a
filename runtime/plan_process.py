"""The part of the plan that is about the process, its hooks and the smaller properties of `linux`. Pure.

in the new process                              by the creating one, when asked
first       affinity, pinned files
(namespaces, mounts)
hooks       asks, then createContainer          prestart, createRuntime; network devices before them
(masks, read-only paths and root)
(pivot_root)
last        finds the program, asks             limits, scheduler, priorities, OOM score
"""

from __future__ import annotations

from rootfs.roots import BindRoot
from runtime import attributes, labels
from runtime.operations import AskParent
from runtime.program import FindProgram, search_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernel.operation import Operation
    from runtime import spec
    from runtime.hooks import Subject

HOOKS, ATTRIBUTES, DEVICES = "hooks", "attributes", "network devices"


def first(config: spec.Config) -> Iterator[Operation]:
    """What the new process does before everything else."""
    namespaces = {namespace.type: namespace.path for namespace in config.linux.namespaces} if config.linux else {}
    if namespaces.get("pid"):
        yield attributes.HideMemory()
    yield attributes.ResetAffinity()
    process = config.process
    if process is not None and (process.apparmor_profile or process.selinux_label):
        yield labels.PinAttributes()


def root_for_hooks(root: Operation) -> Operation:
    """The root where hooks look for it: at root.path, as `state` and config.json say."""
    return root.replace(in_place=True) if isinstance(root, BindRoot) else root


def before_pivot(config: spec.Config, subject: Subject | None) -> Iterator[Operation]:
    """Hooks, once the mounts are made and before any of them is closed to writing; the working directory."""
    if config.linux is not None and config.linux.net_devices:
        yield AskParent(DEVICES)
    if subject is not None:
        hooks = config.hooks
        assert hooks is not None
        if hooks.prestart or hooks.create_runtime or hooks.create_container:
            from runtime.hooks import RunHooksInside

            yield AskParent(HOOKS)
            if hooks.create_container:
                yield RunHooksInside("createContainer", tuple(hooks.create_container), subject)
    if config.process is not None:
        yield attributes.MakeWorkingDirectory(config.process.cwd)


def last(config: spec.Config) -> Iterator[Operation]:
    """What remains once the root is the container's: the last things that can fail before it counts as created."""
    process = config.process
    if process is None or not process.args:
        return
    yield FindProgram(process.args[0], search_path(process.env), process.cwd)
    if any(True for _ in attributes.from_process(process)):
        yield AskParent(ATTRIBUTES)


def asked(config: spec.Config, subject: Subject | None) -> dict[str, tuple[Operation, ...]]:
    """What the creating process executes when the new one asks for it."""
    made: dict[str, tuple[Operation, ...]] = {}
    if config.process is not None:
        made[ATTRIBUTES] = tuple(attributes.from_process(config.process))
    if config.linux is not None and config.linux.net_devices:
        from runtime.netdevices import MoveDevice

        made[DEVICES] = tuple(
            MoveDevice(name, device.name or name) for name, device in config.linux.net_devices.items()
        )
    if subject is not None:
        made[HOOKS] = tuple(_runtime_hooks(config, subject))
    return made


def _runtime_hooks(config: spec.Config, subject: Subject) -> Iterator[Operation]:
    from runtime.hooks import PoststopAfterFailure, RunHooks

    hooks = config.hooks
    assert hooks is not None
    if hooks.poststop:
        yield PoststopAfterFailure("poststop", tuple(hooks.poststop), subject)
    if hooks.prestart:
        yield RunHooks("prestart", tuple(hooks.prestart), subject)
    if hooks.create_runtime:
        yield RunHooks("createRuntime", tuple(hooks.create_runtime), subject)


def subject_of(config: spec.Config, container_id: str, bundle: str) -> Subject | None:
    """The container as its hooks are told of it; None where it has none, which then cost nothing."""
    if config.hooks is None or not any(getattr(config.hooks, kind) for kind in config.hooks._fields):
        return None
    from runtime.hooks import Subject
    from runtime.spec import OCI_VERSION

    return Subject(OCI_VERSION, container_id, bundle, config.annotations)
