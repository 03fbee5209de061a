"""Columns of text."""

from __future__ import annotations


def render(head: list[str], rows: list[list[str]]) -> str:
    """Rows under a head, each column as wide as its widest entry."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "   ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
