"""The grammar of container ids, which become names of files and cgroups."""

from __future__ import annotations

from kernel.errors import BadInput

ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_ID = ALPHANUMERIC | frozenset("_.+-")


def check_id(container_id: str) -> None:
    """Ids become names of files and cgroups, so their grammar is narrow; raises BadInput."""
    if not 0 < len(container_id) < 254 or not _ID.issuperset(container_id) or container_id[0] in ".+-":
        raise BadInput(
            f"container id {container_id!r}: not a name",
            remedy="1 to 253 letters, digits, '_', '.', '+' and '-', beginning with a letter, digit or '_'",
        )
