"""`rawpod logs`: what containers wrote, read from the log files of pods on this machine, whoever started them."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from kernel.errors import BadInput, NotFound
from runtime.cli.pods import is_running, load
from runtime.pod import directory, logread
from runtime.pod.logoptions import LogOptions, Shown, attempts_back, before_now, duration, moment
from runtime.pod.logs import LogDirectory
from runtime.settings import Settings

Json = dict[str, Any]

_SELECTED_TAIL = 10
"""Lines of each log when pods are selected by label, as kubectl has it."""


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until the pods end.")
@click.option(
    "--tail",
    type=click.IntRange(min=-1),
    metavar="N",
    help="Only the last N lines; -1 for all. All if not given, 10 of each container with -l.",
)
@click.option("--since", metavar="DURATION", help="Only what is younger than 30s, 5m, 1h30m.")
@click.option("--since-time", metavar="TIME", help="Only what was written since 2026-01-02T03:04:05Z (RFC 3339).")
@click.option("-c", "--container", metavar="NAME", help="Which container of the pod.")
@click.option("--all-containers", is_flag=True, help="All containers of the pod.")
@click.option("-p", "--previous", is_flag=True, help="What the container's last attempt before this one wrote.")
@click.option("-l", "--selector", metavar="LABELS", help="The pods with these labels: app=web,tier!=db.")
@click.option("-n", "--namespace", metavar="NAME", help="Only pods of this namespace.")
@click.option("-t", "--timestamps", is_flag=True, help="Begin each line with its time.")
@click.option("--prefix", is_flag=True, help="Begin each line with [pod/POD/CONTAINER].")
@click.option("--limit-bytes", type=click.IntRange(min=1), metavar="N", help="End after N bytes of each log.")
@click.option(
    "--max-log-requests",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="With -f: refuse to follow more logs than that at once.",
)
@click.argument("name", metavar="[POD[/CONTAINER]]", required=False)
@click.pass_obj
def logs(
    settings: Settings,
    follow: bool,
    tail: int | None,
    since: str | None,
    since_time: str | None,
    container: str | None,
    all_containers: bool,
    previous: bool,
    selector: str | None,
    namespace: str | None,
    timestamps: bool,
    prefix: bool,
    limit_bytes: int | None,
    max_log_requests: int,
    name: str | None,
) -> None:
    """Print what containers wrote: standard output to the standard output, errors to the standard error.

    A container that is between two attempts shows the one that ended last.
    """
    if (name is None) == (selector is None):
        raise BadInput("which pod?", remedy="name one, or select some with -l LABELS, not both")
    if since is not None and since_time is not None:
        raise BadInput("--since and --since-time at once", remedy="leave one of them out")
    if all_containers and (container or (name and "/" in name)):
        raise BadInput("one container and --all-containers at once", remedy="leave one of them out")
    if tail is None and selector is not None:
        tail = _SELECTED_TAIL
    start = moment(since_time) if since_time else before_now(duration(since)) if since else None
    options = LogOptions(None if tail == -1 else tail, start, limit_bytes, timestamps)
    found = []
    for uid, status, chosen in _pods(settings, name, selector, namespace):
        for one in _containers(status, container or chosen, all_containers):
            found.append(_Log(settings, uid, status, one, options, prefix))
    if follow and not previous:
        if len(found) > max_log_requests:
            raise BadInput(f"following {len(found)} logs at once", remedy=f"--max-log-requests {len(found)}")
        _follow(found, options.tail)
    else:
        for log in found:
            log.print(options.tail, previous)


def _pods(
    settings: Settings, name: str | None, selector: str | None, namespace: str | None
) -> Iterator[tuple[str, Json, str | None]]:
    """Uid, status and the container named, of each pod meant."""
    if name is not None:
        uid, container, status = load(settings, name)
        if namespace not in (None, status["rawpod"]["metadata"]["namespace"]):
            raise NotFound(f"no pod {name!r} in namespace {namespace!r}", remedy="see `rawpod ps -a`")
        yield uid, status, container
        return
    from runtime.supervisor import selectors

    matches = selectors.labels(selector or "")
    for uid, status in directory.statuses(settings).items():
        item = {"metadata": status["rawpod"]["metadata"]}
        if namespace in (None, item["metadata"]["namespace"]) and matches(item):
            yield uid, status, None


def _containers(status: Json, container: str | None, everything: bool) -> list[str]:
    return list(status["rawpod"]["containers"]) if everything else [directory.choose_container(status, container)]


class _Log:
    """One container's log and how it is shown."""

    def __init__(
        self, settings: Settings, uid: str, status: Json, container: str, options: LogOptions, prefix: bool
    ) -> None:
        meta = status["rawpod"]["metadata"]
        self._directory = LogDirectory.of(settings.logs, meta["namespace"], meta["name"], uid, container)
        self._pod, self._status, self._container = settings.pod(uid), status, container
        self._shown = Shown(options)
        self._prefix = f"[pod/{meta['name']}/{container}] " if prefix else ""

    def print(self, tail: int | None, previous: bool) -> None:
        """What there is now."""
        back = attempts_back(_status_of(self._status, self._container), previous)
        for entry in logread.read(self._directory.path, tail=tail, back=back):
            self.show(entry)
            if self._shown.done:
                return

    def show(self, entry: logread.Entry) -> None:
        """One entry, on the stream it was written to."""
        stream = sys.stdout.buffer if entry.stream == "stdout" else sys.stderr.buffer
        stream.write(self._shown.text(entry, self._prefix))

    def source(self) -> logread.Source:
        """What is needed to follow it."""
        os.close(self._directory.open())  # there may be nothing yet
        return logread.Source(self._directory.path, self._pod, self._ended)

    def _ended(self) -> bool:
        if self._shown.done:
            return True
        now = directory.read_status(self._pod)
        return now is None or not is_running(now) or not directory.monitor_alive(now)


def _status_of(status: Json, container: str) -> Json:
    for key in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for one in status.get(key) or ():
            if one["name"] == container:
                found: Json = one
                return found
    return {"name": container}


def _follow(found: list[_Log], tail: int | None) -> None:
    followed = {log.source(): log for log in found}
    for source, entry in logread.follow_all(list(followed), tail=tail):
        followed[source].show(entry)
        # A reader at the other end of a pipe follows as it goes.
        sys.stdout.buffer.flush()
        sys.stderr.buffer.flush()
