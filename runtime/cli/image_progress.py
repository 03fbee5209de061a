"""How `rawpod pull` and `push` show how far they are: bars on a terminal, lines elsewhere, or JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from rich.progress import TaskID

    from rootfs.registry.pull import Event

_SECONDS = 0.2  # between two reports of one layer's bytes
_SHOWN = 12  # digits of a digest


class Quiet(AbstractContextManager["Quiet"]):
    """Nothing but what was got around."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, event: Event) -> None:
        """Show how far a layer is."""

    def note(self, text: str) -> None:
        """Show what went otherwise than it should."""
        click.echo(f"rawpod: {text}", err=True)


class Lines(Quiet):
    """A line for each change of state, on standard error."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        if self._states.get(event.layer) != event.state:
            self._states[event.layer] = event.state
            click.echo(f"{short(event.layer)}: {event.state} ({size(event.total)})", err=True)


class Json(Quiet):
    """An object a line on standard output: {"layer", "state", "current", "total"}, and {"note"}."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}

    def __call__(self, event: Event) -> None:
        state, when = self._last.get(event.layer, ("", 0.0))
        now = time.monotonic()
        if state != event.state or now - when >= _SECONDS:
            self._last[event.layer] = (event.state, now)
            self.say(**event._asdict())

    def note(self, text: str) -> None:
        self.say(note=text)

    def say(self, **fields: object) -> None:
        """Write one object. Whoever reads has it at once."""
        click.echo(json.dumps(fields))
        sys.stdout.flush()


class Bars(Quiet):
    """A bar for each layer, on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns: list[Any] = [TextColumn("{task.description}"), TextColumn("{task.fields[state]:<11}"), BarColumn(30)]
        columns += [DownloadColumn(binary_units=True), TransferSpeedColumn()]
        self._bars = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        if event.layer not in self._tasks:
            self._tasks[event.layer] = self._bars.add_task(short(event.layer), total=event.total, state=event.state)
        # Unpacking has no figure of its own: the bar runs until it ends.
        total = None if event.state == "unpacking" else event.total
        self._bars.update(self._tasks[event.layer], completed=event.current, total=total, state=event.state)

    def note(self, text: str) -> None:
        self._bars.console.print(f"rawpod: {text}", markup=False, highlight=False)


def short(digest: str) -> str:
    """The beginning of a digest, as Docker shows it."""
    return digest.partition(":")[2][:_SHOWN]


def size(number: float) -> str:
    """Bytes, for people."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def choose(form: str, quiet: bool) -> Quiet:
    """`form` is "auto", "plain" or "json"."""
    if form == "json":
        return Json()
    if quiet:
        return Quiet()
    return Bars() if form == "auto" and sys.stderr.isatty() else Lines()
