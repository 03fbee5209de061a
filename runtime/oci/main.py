"""`rawpod-oci [OPTIONS] COMMAND …`: finds the command, runs it, and reports its failure where the caller looks for it.

Callers start this program several times for every container: a command's module is imported when it is asked for, and
none of them imports more than it needs.
"""

from __future__ import annotations

import os
import sys

from kernel.errors import BadInput, RawpodError
from kernel.record import Struct
from runtime.oci.options import Option, Parsed, parse, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.container import Container

DEFAULT_ROOT = "/run/rawpod/oci"

_GLOBAL = (
    Option("--root", "DIR", f"directory of the containers' state ({DEFAULT_ROOT})"),
    Option("--log", "FILE", "where errors are written as well, file or file descriptor path"),
    Option("--log-format", "text|json", "the form of the lines in the log"),
    Option("--log-level", "LEVEL", "debug, warning or error, as crun has it"),
    Option("--debug", help="log every step with the time it took"),
    Option("--systemd-cgroup", help="let systemd make the cgroup: cgroupsPath is SLICE:PREFIX:NAME"),
    Option("--cgroup-manager", "MANAGER", "cgroupfs, systemd or disabled"),
    Option("--rootless", "auto|false", "for runc's callers; rawpod runs as root"),
    Option("--version -v", help="print the version"),
    Option("--help -h", help="print this text"),
)
_HELP = Option("--help -h", help="print this text")

# Command: module, what it does. In the module: OPTIONS, WORDS (usage), IN_ORDER and run(invocation).
_COMMANDS = {
    "create": ("create", "create a container"),
    "start": ("start", "execute the process of a created container"),
    "run": ("run", "create and start a container, and wait for it"),
    "exec": ("exec", "run a further process in a container"),
    "state": ("state", "print the state of a container"),
    "list": ("list", "list the containers of this root"),
    "ps": ("ps", "list the processes of a container"),
    "kill": ("kill", "send a signal to a container"),
    "pause": ("pause", "stop all processes of a container"),
    "resume": ("pause", "let the processes of a paused container go on"),
    "delete": ("delete", "delete a container that has stopped"),
    "update": ("update", "change the limits of a container"),
    "events": ("events", "print figures of a container, and when it runs out of memory"),
    "mounts": ("mounts", "add mounts to a running container, or remove them"),
    "spec": ("spec", "write a config.json to begin with"),
    "features": ("features", "print what this runtime can do, as JSON"),
}
_REFUSED = ("checkpoint", "restore", "intelrdt")


class Invocation(Struct):
    """One call: what was asked for, and the options before the command."""

    command: str
    root: str
    parsed: Parsed
    cgroup_manager: str = "cgroupfs"
    debug: bool = False
    log: str = ""
    log_format: str = "text"

    def container_id(self) -> str:
        """The first word, checked. Raises BadInput: it becomes the name of a directory."""
        from runtime.ids import check_id

        if not self.parsed.words:
            raise BadInput("a container id is needed")
        check_id(self.parsed.words[0])
        return self.parsed.words[0]

    def no_more_words(self, count: int) -> None:
        """Raise BadInput for words that nobody asked for."""
        if len(self.parsed.words) > count:
            raise BadInput(f"unexpected argument {self.parsed.words[count]!r}")

    def warn(self, container: Container) -> None:
        """Tell the caller what was left out of the container, or failed and is no failure of the command; once."""
        if container.warnings:
            from runtime.oci.log import warn

            warn(container.warnings, self.log, self.log_format)
            container.warnings = []

    def directory(self, container_id: str) -> str:
        """Where a container's state is."""
        return os.path.join(self.root, container_id)


def main(arguments: Sequence[str] | None = None) -> None:
    """The program: never returns, exits with the command's status, or 1 (255 for `exec`) when it failed."""
    status = run(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    # The interpreter's own end frees objects one by one, which takes a millisecond and changes nothing.
    os._exit(status)


def run(arguments: Sequence[str]) -> int:
    """Execute one command line; its exit status."""
    given = Parsed()
    command = ""
    try:
        given = parse(_GLOBAL, arguments, in_order=True)
        if given.flag("--version"):
            from runtime.oci.features import version

            print(version())
            return 0
        if given.flag("--help") or not given.words or given.words[0] in ("help", "h"):
            print(_overview())
            return 0
        command, *rest = given.words
        return _run(command, rest, given)
    except (RawpodError, OSError) as error:
        from runtime.oci.log import report

        report(error, given.text("--log"), given.text("--log-format", "text"))
    return 255 if command == "exec" else 1


def _run(command: str, rest: Sequence[str], given: Parsed) -> int:
    if command not in _COMMANDS:
        if command in _REFUSED:
            raise BadInput(f"{command}: not supported by rawpod")
        raise BadInput(f"unknown command {command!r}", remedy="rawpod-oci --help lists them")
    module = __import__(f"runtime.oci.{_COMMANDS[command][0]}", fromlist=["run"])
    parsed = parse((*module.OPTIONS, _HELP), rest, in_order=module.IN_ORDER)
    if parsed.flag("--help"):
        print(f"rawpod-oci {command} {module.WORDS}\n\n{_COMMANDS[command][1]}\n\n{usage((*module.OPTIONS, _HELP))}")
        return 0
    invocation = Invocation(
        command=command,
        root=os.path.abspath(given.text("--root", DEFAULT_ROOT)),
        parsed=parsed,
        cgroup_manager=_cgroup_manager(given),
        debug=given.flag("--debug") or given.text("--log-level") == "debug",
        log=given.text("--log"),
        log_format=given.text("--log-format", "text"),
    )
    if given.text("--log-format", "text") not in ("text", "json"):
        raise BadInput(f"--log-format {given.text('--log-format')!r} is neither text nor json")
    if given.text("--rootless", "auto") not in ("auto", "false"):
        raise BadInput(f"--rootless {given.text('--rootless')}: rawpod runs as root", remedy="leave it at auto")
    execute: Callable[[Invocation], int] = module.run
    if not invocation.debug:
        return execute(invocation)
    from runtime.oci.log import timed

    return timed(lambda: execute(invocation), given.text("--log"), given.text("--log-format", "text"))


def _cgroup_manager(given: Parsed) -> str:
    if given.flag("--systemd-cgroup"):
        return "systemd"
    manager = given.text("--cgroup-manager", "cgroupfs")
    if manager not in ("cgroupfs", "systemd", "disabled"):
        raise BadInput(f"--cgroup-manager {manager!r} is none of cgroupfs, systemd, disabled")
    return manager


def _overview() -> str:
    commands = "\n".join(f"  {name:<10} {about}" for name, (_, about) in _COMMANDS.items())
    return f"rawpod-oci [OPTIONS] COMMAND …\n\nCommands:\n{commands}\n\nOptions:\n{usage(_GLOBAL)}"
