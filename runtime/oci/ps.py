"""`ps`: the processes of a container."""

from __future__ import annotations

from kernel.errors import BadInput, RawpodError
from runtime import jsontext
from runtime.container import Container
from runtime.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.oci.main import Invocation

OPTIONS = (Option("--format -f", "table|json", "the form of the list; json has process ids alone"),)
WORDS = "[OPTIONS] ID [OPTIONS OF ps(1)]"
IN_ORDER = True


def run(invocation: Invocation) -> int:
    """Print the processes."""
    container = Container.load(invocation.directory(invocation.container_id()))
    pids = sorted(container.processes())
    form = invocation.parsed.text("--format", "table")
    if form == "json":
        print(jsontext.dumps(pids).decode())
    elif form == "table":
        _table(pids, invocation.parsed.words[1:])
    else:
        raise BadInput(f"--format {form!r} is neither table nor json")
    return 0


def _table(pids: list[int], options: list[str]) -> None:
    """The lines of the host's ps(1) about these processes; its options decide what is in them."""
    import subprocess

    try:
        printed = subprocess.run(["ps", *(options or ["-ef"])], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RawpodError("ps(1) is not installed", remedy="apt-get install procps, or --format json") from None
    if printed.returncode != 0:
        raise BadInput(f"ps {' '.join(options)}: {printed.stderr.strip()}")
    head, *lines = printed.stdout.splitlines()
    if "PID" not in head.split():
        raise BadInput("the options of ps(1) leave out the column PID")
    column = head.split().index("PID")
    print(head)
    for line in lines:
        fields = line.split()
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            print(line)
