"""`rawpod top`: what pods and their containers use at present, from two readings of their cgroups."""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from cgroups import stats
from cgroups.cgroup import Cgroup
from kernel.errors import BadInput, NotFound
from kernel.record import Record
from runtime.cli.pods import load
from runtime.cli.tables import line, widths
from runtime.cli.usage import size
from runtime.pod import directory
from runtime.settings import Settings

Json = dict[str, Any]

_HEADING = ("CPU(cores)", "MEMORY(bytes)", "READ/s", "WRITTEN/s", "PSI CPU", "PSI MEMORY", "PSI IO")
_RESOURCES = ("cpu", "memory", "io")


class Usage(Record):
    """What a cgroup used. None for what the kernel does not count there.

    `cpu` is in thousandths of a processor, `read` and `written` in bytes a second, over the time between the readings.
    `memory` is the working set in bytes, without file cache that could be dropped at once. `pressure` has for each
    resource the percentage of the last 10 seconds in which some task waited for it.
    """

    cpu: float | None
    memory: int | None
    read: float | None
    written: float | None
    pressure: dict[str, float]

    def cells(self) -> list[str]:
        """The cells below the heading."""
        rates = [f"{size(rate)}" if rate is not None else "-" for rate in (self.read, self.written)]
        return [
            f"{self.cpu:.0f}m" if self.cpu is not None else "-",
            f"{self.memory / 1024 / 1024:.0f}Mi" if self.memory is not None else "-",
            *rates,
            *(f"{self.pressure[name]:.1f}%" if name in self.pressure else "-" for name in _RESOURCES),
        ]

    def to_json(self) -> Json:
        """The figures as plain data, under the names that they have here."""
        return {name: getattr(self, name) for name in self._fields}


class _Reading(Record):
    time: float
    stats: stats.Stats
    inactive_file: int


class Row(Record):
    """A pod, or a container of one, and its cgroup."""

    namespace: str
    pod: str
    container: str | None
    cgroup: str


@click.command()
@click.argument("what", nargs=-1, metavar="[pods [POD…] | POD…]")
@click.option("--containers", is_flag=True, help="A row for each container, as when pods are named.")
@click.option("-l", "--selector", metavar="LABELS", help="Only pods with these labels: app=web,tier!=db.")
@click.option("--sort-by", type=click.Choice(["cpu", "memory"]), help="The greatest first.")
@click.option("--no-headers", is_flag=True, help="Without the first row.")
@click.option(
    "--interval", type=click.FloatRange(min=0.05), default=1.0, show_default=True, metavar="S", help="Seconds measured."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Form of output.")
@click.pass_obj
def top(
    settings: Settings,
    what: tuple[str, ...],
    containers: bool,
    selector: str | None,
    sort_by: str | None,
    no_headers: bool,
    interval: float,
    output: str,
) -> None:
    """Show what pods use now: processors, memory, block I/O, and the share of time they waited for each (PSI).

    What the host does not count on cgroup v2 is "-", and named on standard error.
    """
    names = what[1:] if what[:1] in (("pods",), ("pod",), ("po",)) else what
    if names and selector:
        raise BadInput("names and -l at once", remedy="leave one of them out")
    rows = _rows(settings, names, selector, containers or bool(names))
    before = {row: _read(row) for row in rows}
    time.sleep(interval)
    found = [(row, use) for row in rows if (use := _usage(before[row], _read(row))) is not None]
    if sort_by:
        key: Callable[[tuple[Row, Usage]], float] = lambda pair: -(getattr(pair[1], sort_by) or 0)  # noqa: E731
        found.sort(key=key)
    if output == "json":
        click.echo(json.dumps([_plain(row) | use.to_json() for row, use in found], indent=2))
        return
    if not found:
        print("no running pods found", file=sys.stderr)
        return
    _print(found, headings=not no_headers)


def _plain(row: Row) -> Json:
    return {"namespace": row.namespace, "pod": row.pod, "container": row.container}


def _print(found: list[tuple[Row, Usage]], *, headings: bool) -> None:
    apart = any(row.container is not None for row, _ in found)
    table = [["POD", *(["NAME"] if apart else []), *_HEADING]] if headings else []
    table += [[row.pod, *([row.container or ""] if apart else []), *use.cells()] for row, use in found]
    columns = widths(table)
    for cells in table:
        print(line(cells, columns))
    if missing := sorted({name for _, use in found for name in _missing(use)}):
        told = ", ".join(missing)
        print(f"rawpod: not counted on this host's cgroup v2: {told} (see `rawpod doctor`)", file=sys.stderr)


def _missing(use: Usage) -> list[str]:
    parts = {"cpu": use.cpu, "memory": use.memory, "io": use.read}
    absent = [name for name, value in parts.items() if value is None]
    return absent + [f"pressure of {name}" for name in _RESOURCES if name not in use.pressure]


def _rows(settings: Settings, names: tuple[str, ...], selector: str | None, apart: bool) -> list[Row]:
    if names:
        chosen = [load(settings, name) for name in names]
    else:
        from runtime.supervisor import selectors

        matches = selectors.labels(selector or "")
        statuses = directory.statuses(settings).items()
        chosen = [(uid, None, one) for uid, one in statuses if matches({"metadata": one["rawpod"]["metadata"]})]
    rows: list[Row] = []
    for _, container, status in chosen:
        internal = status["rawpod"]
        meta = internal["metadata"]
        if container is not None and container not in internal["containers"]:
            directory.choose_container(status, container)  # which raises
        running = {name: facts for name, facts in internal["containers"].items() if facts["pid"]}
        if apart:
            wanted = {name: facts for name, facts in running.items() if container in (None, name)}
            rows += [Row(meta["namespace"], meta["name"], name, facts["cgroup"]) for name, facts in wanted.items()]
        elif running:
            rows.append(Row(meta["namespace"], meta["name"], None, internal["cgroup"]))
    return rows


def _read(row: Row) -> _Reading | None:
    """None if it has ended meanwhile."""
    cgroup = Cgroup(row.cgroup)
    with contextlib.suppress(NotFound):
        figures = stats.read(cgroup)
        lines = (stats.text(cgroup, "memory.stat") or "").splitlines()
        inactive = next((int(text.split()[1]) for text in lines if text.startswith("inactive_file ")), 0)
        return _Reading(time.monotonic(), figures, inactive)
    return None


def _usage(before: _Reading | None, now: _Reading | None) -> Usage | None:
    if before is None or now is None:
        return None
    seconds = max(now.time - before.time, 1e-9)
    old, new = before.stats, now.stats
    cpu = read = written = None
    if new.cpu and old.cpu:
        cpu = max(0.0, (new.cpu.usage_us - old.cpu.usage_us) / 1000 / seconds)
    if new.io is not None and old.io is not None:
        read = _rate([one.rbytes for one in old.io.values()], [one.rbytes for one in new.io.values()], seconds)
        written = _rate([one.wbytes for one in old.io.values()], [one.wbytes for one in new.io.values()], seconds)
    memory = max(0, new.memory.current - now.inactive_file) if new.memory else None
    pressure = {name: lines["some"].avg10 for name, lines in new.pressure.items() if name in _RESOURCES}
    return Usage(cpu, memory, read, written, pressure)


def _rate(before: list[int], now: list[int], seconds: float) -> float:
    return max(0.0, (sum(now) - sum(before)) / seconds)
