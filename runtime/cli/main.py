"""The program `rawpod`: its table of commands, its options for all of them, and how it ends.

Commands are imported when they are used: `rawpod ps` must not pay for what `rawpod supervisor` needs. The table below
carries each command's one-line help, so that `rawpod --help` imports none of them.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

from kernel.errors import RawpodError
from runtime import VERSION


class Entry(NamedTuple):
    """A command: where it is defined ("module:name") and its line in `rawpod --help`."""

    name: str
    target: str
    help: str


class Section(NamedTuple):
    """A heading of `rawpod --help` and the commands below it."""

    title: str
    entries: tuple[Entry, ...]


SECTIONS = (
    Section(
        "Containers and pods on this machine",
        (
            Entry("run", "runtime.cli.run:run", "Run a command in a container, without a supervisor."),
            Entry("ps", "runtime.cli.pods:ps", "List running containers."),
            Entry("exec", "runtime.cli.exec:exec_", "Run a command in a running container."),
            Entry("attach", "runtime.cli.attach:attach", "Show what a container writes from now on, and write to it."),
            Entry("cp", "runtime.cli.cp:cp", "Copy files into and out of containers."),
            Entry("logs", "runtime.cli.logs:logs", "Print what containers wrote."),
            Entry("top", "runtime.cli.top:top", "Show what pods use now, and what they wait for."),
            Entry("port-forward", "runtime.cli.port_forward:port_forward", "Reach a pod's ports from this machine."),
            Entry("stop", "runtime.cli.pods:stop", "End pods, politely first."),
            Entry("kill", "runtime.cli.pods:kill", "Send a signal to a container."),
            Entry("rm", "runtime.cli.pods:rm", "Remove ended pods."),
            Entry("inspect", "runtime.cli.pods:inspect", "Show all that is known about a pod."),
            Entry("stats", "runtime.cli.pods:stats", "Show what containers use."),
        ),
    ),
    Section(
        "Desired state, kept by the supervisor",
        (
            Entry("supervisor", "runtime.cli.supervisor:supervisor", "Run the daemon in the foreground."),
            Entry("apply", "runtime.cli.apply:apply", "Create or change objects as manifests say."),
            Entry("diff", "runtime.cli.diff:diff", "Show what apply would change."),
            Entry("get", "runtime.cli.objects:get", "List objects."),
            Entry("describe", "runtime.cli.describe:describe", "Show objects in detail."),
            Entry("delete", "runtime.cli.objects:delete", "Delete objects and what they own."),
            Entry("wait", "runtime.cli.wait:wait", "Wait until objects are as asked for."),
            Entry("scale", "runtime.cli.objects:scale", "Set a number of replicas."),
        ),
    ),
    Section(
        "Images and the host",
        (
            Entry("pull", "runtime.cli.image_registry:pull", "Fetch an image from a registry."),
            Entry("push", "runtime.cli.image_registry:push", "Send an image to a registry."),
            Entry("oci", "runtime.cli.oci:oci", "The OCI runtime command line, as rawpod-oci."),
            Entry("image", "runtime.cli.image:image", "Import, list and remove images."),
            Entry("doctor", "runtime.cli.doctor:doctor", "Check the host, with a remedy for what is missing."),
        ),
    ),
)


class ReaderGone(Exception):
    """Whoever read our output has closed it. Not an OSError: click would end the program with 1 for EPIPE."""


@contextmanager
def _telling_closed_pipes() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, and lists commands from its table."""

    def __init__(self, *, sections: tuple[Section, ...], **attributes: Any) -> None:
        super().__init__(**attributes)
        self.sections = sections
        self.table = {entry.name: entry for section in sections for entry in section.entries}

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        with _telling_closed_pipes():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with _telling_closed_pipes():
            return super().invoke(ctx)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.table.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in self.sections:
            with formatter.section(section.title):
                formatter.write_dl([(entry.name, entry.help) for entry in section.entries])


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _option(name: str, variable: str, text: str, **attributes: Any) -> Decorator:
    return click.option(name, envvar=f"RAWPOD_{variable}", help=text, show_envvar=True, **attributes)


@click.group(cls=LazyGroup, sections=SECTIONS, context_settings={"help_option_names": ["-h", "--help"]})
@_option("--root", "ROOT", "Images, upper layers and desired state; /var/lib/rawpod.", metavar="DIR")
@_option("--state", "STATE", "Actual state, gone at reboot; /run/rawpod.", metavar="DIR")
@_option("--socket", "SOCKET", "The supervisor's door; rawpod.sock in the state directory.", metavar="FILE")
@_option(
    "--cgroup", "CGROUP", "Cgroup to work below, as /proc/self/cgroup writes it; found if not given.", metavar="PATH"
)
@_option("--bridge", "BRIDGE", "Bridge of the pods' network; rawpod0.", metavar="NAME")
@_option("--subnet", "SUBNET", "Addresses for pods; 10.88.0.0/16.", metavar="CIDR")
@_option(
    "--missing-controllers",
    "MISSING_CONTROLLERS",
    "What to do about a limit whose controller is not on cgroup v2.",
    type=click.Choice(["refuse", "warn"]),
)
@_option("--registries", "REGISTRIES", "Mirrors, short names; /etc/rawpod/registries.toml.", metavar="FILE")
@_option("--internal", "INTERNAL", "Pods reach one another and the host, nothing beyond.", is_flag=True)
@click.version_option(VERSION, message="rawpod %(version)s")
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """Containers and pods straight from kernel primitives."""
    from pathlib import Path

    from runtime.settings import Settings

    given: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, False)}
    # Children and threads may change directory, so a relative root is made absolute once, here.
    given |= {name: Path(given[name]).absolute() for name in ("root", "state", "socket", "registries") if name in given}
    if "state" in given:
        given.setdefault("socket", given["state"] / "rawpod.sock")
    ctx.obj = Settings(**given)


def main() -> NoReturn:
    """Runs the program and ends the process.

    A command that returns an int sets the exit status with it. A RawpodError is one line and its own status.
    """
    # What is made without a mode of its own is nobody else's to write, whatever our caller's umask; and payloads have
    # the one that other runtimes give them.
    os.umask(0o022)
    try:
        result = cli.main(prog_name="rawpod", standalone_mode=False)
        sys.stdout.flush()  # a reader who has gone is noticed here, not in the interpreter's shutdown
        status = result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        status = 2
    except (KeyboardInterrupt, click.Abort):
        status = 130
    except RawpodError as error:
        # Faults of manifests are told as compilers do, so that editors find the line: `file:line: …`.
        prefix = "" if hasattr(error, "faults") else "rawpod: "
        print("\n".join(prefix + line for line in str(error).splitlines()), file=sys.stderr)
        status = error.exit_code
    except (BrokenPipeError, ReaderGone):
        # What is still buffered would fail again at exit (the same is done in Python's documentation of SIGPIPE).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except OSError as error:
        # BrokenPipeError is one as well and was caught above.
        print(f"rawpod: {error}", file=sys.stderr)
        status = RawpodError.exit_code
    sys.exit(status)


if __name__ == "__main__":
    main()
