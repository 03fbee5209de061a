"""`list`: the containers below --root."""

from __future__ import annotations

import os

from kernel.errors import BadInput, RawpodError
from runtime import jsontext
from runtime.oci import table
from runtime.oci.options import Option
from runtime.oci.state import current, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.oci.main import Invocation
    from runtime.state import State

OPTIONS = (
    Option("--format -f", "table|json", "the form of the list"),
    Option("--quiet -q", help="ids only"),
)
WORDS = "[OPTIONS]"
IN_ORDER = False


def run(invocation: Invocation) -> int:
    """Print the list."""
    invocation.no_more_words(0)
    records = _records(invocation.root)
    form = invocation.parsed.text("--format", "table")
    if invocation.parsed.flag("--quiet"):
        for record in records:
            print(record.id)
    elif form == "json":
        print(jsontext.dumps([shown(record) for record in records]).decode())
    elif form == "table":
        rows = [[r.id, str(shown(r)["pid"]), r.status, r.bundle, r.created, "root"] for r in records]
        print(table.render(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], rows))
    else:
        raise BadInput(f"--format {form!r} is neither table nor json")
    return 0


def _records(root: str) -> list[State]:
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    records = []
    for name in names:
        try:
            records.append(current(os.path.join(root, name)))
        except (RawpodError, NotADirectoryError):
            continue  # being created or deleted at this moment
    return records
