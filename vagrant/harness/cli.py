"""The command line: vagrant/vm run | shell | build | box."""

import argparse
import os
import signal
import sys
from pathlib import Path

from harness import box, build, job
from harness.errors import HarnessError
from harness.recipes import RELEASES, recipe


def main() -> int:
    """Parses the arguments, does what they ask, and returns the exit status of the harness."""
    arguments = _parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # An exception rather than a silent death, so that QEMU and temporary files go too.
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        status: int = arguments.function(arguments)
    except HarnessError as error:
        print(f"vm: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Nobody reads the output any more; stdout goes elsewhere, so that Python does not fail on it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vagrant/vm", description="throw-away Debian virtual machines for tests")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a command in a copy of this checkout, and exit with its status")
    _machine_options(run)
    run.add_argument("--timeout", type=float, default=1800, metavar="S", help="seconds until it is ended (1800)")
    run.add_argument("--share-back", type=Path, metavar="DIR", help="where $RAWPOD_VM_RESULTS comes to")
    run.add_argument("command", nargs="+", help="one argument: a script for sh; several: a program and its arguments")
    run.set_defaults(function=_run)

    shell = commands.add_parser("shell", help="an interactive shell in the machine")
    _machine_options(shell)
    shell.set_defaults(function=_run, command=[], timeout=24 * 3600, share_back=None)

    make = commands.add_parser("build", help="build an image now rather than at its first use")
    _image_options(make)
    make.add_argument("--force", action="store_true", help="build it again, with the newest packages")
    make.set_defaults(function=_build)

    pack = commands.add_parser("box", help="make a box for vagrant's libvirt provider")
    pack.add_argument("--release", choices=RELEASES, default="trixie")
    pack.add_argument("--output", type=Path, metavar="FILE", help="where it goes (build/rawpod-RELEASE.box)")
    pack.set_defaults(function=_box)
    return parser


def _image_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--release", choices=RELEASES, default="trixie", help="Debian release (trixie)")
    parser.add_argument("--image", choices=("standard", "minimal"), default="standard", help="minimal: git and make")


def _machine_options(parser: argparse.ArgumentParser) -> None:
    _image_options(parser)
    parser.add_argument("--systemd", action="store_true", help="boot with systemd instead of a small init")
    parser.add_argument("--network", action="store_true", help="QEMU's user network (always on with --image minimal)")
    parser.add_argument("--memory", type=int, default=2560, metavar="MB", help="memory in MiB (2560)")
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="virtual processors (2)")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto", help="auto: KVM where it boots")


def _run(arguments: argparse.Namespace) -> int:
    minimal = arguments.image == "minimal"
    wanted = job.Job(
        command=arguments.command,
        systemd=arguments.systemd,
        network=arguments.network or minimal,
        memory=arguments.memory,
        cpus=arguments.cpus,
        timeout=arguments.timeout,
        share_back=arguments.share_back,
        with_repository=minimal,
    )
    return job.run(build.image(recipe(arguments.image, arguments.release)), wanted, arguments.accel)


def _build(arguments: argparse.Namespace) -> int:
    image = build.image(recipe(arguments.image, arguments.release), force=arguments.force)
    print(image.path)
    return 0


def _box(arguments: argparse.Namespace) -> int:
    print(box.make(arguments.release, arguments.output))
    return 0
