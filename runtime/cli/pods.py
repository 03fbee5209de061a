"""`rawpod ps`, `stop`, `kill`, `rm`, `inspect`, `stats`: pods on this machine, whoever started them.

They read the pods' directories and talk to the pods' monitors; a supervisor is asked only about pods that are its own.
"""

import json
from typing import Any

import click

from kernel.errors import BadInput, Conflict, NotFound, RawpodError
from runtime.pod import directory
from runtime.settings import Settings

Json = dict[str, Any]

_OUTPUT = click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Form of output.")


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Ended containers, too.")
@_OUTPUT
@click.pass_obj
def ps(settings: Settings, everything: bool, output: str) -> None:
    """List running containers.

    With -o json: the pods' status documents in a list, `rawpod` in each holding the processes.
    """
    statuses = directory.statuses(settings)
    if output == "json":
        shown = [status for status in statuses.values() if everything or is_running(status)]
        click.echo(json.dumps(shown, indent=2))
        return
    rows = [
        row
        for uid, status in statuses.items()
        for row in _rows(uid, status, directory.monitor_alive(status) or not is_running(status))
        if everything or row[4].startswith("running")
    ]
    _table(("NAME", "UID", "IMAGE", "COMMAND", "STATUS", "RESTARTS", "ADDRESS"), rows)


def is_running(status: Json) -> bool:
    """Whether the pod is not over: a container of it runs or will."""
    return status.get("phase") not in ("Succeeded", "Failed")


def _rows(uid: str, status: Json, current: bool) -> list[tuple[str, ...]]:
    containers = status["rawpod"].get("containers", {})
    rows: list[tuple[str, ...]] = []
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        name = directory.pod_name(status)
        if len(containers) > 1:
            name += f"/{container['name']}"
        internal = containers.get(container["name"], {})
        state = _state(container["state"], internal.get("health")) if current else "unknown: its monitor is gone"
        command = " ".join(internal.get("command", []))
        restarts, address = str(container["restartCount"]), status.get("podIP", "-")
        rows.append((name, uid[:12], container["image"], _short(command), state, restarts, address))
    return rows


def _short(text: str, limit: int = 40) -> str:
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"


def _state(state: Json, health: Json | None = None) -> str:
    if "running" in state:
        well = f" ({health['status']})" if health else ""
        return f"running since {state['running']['startedAt'].replace('T', ' ').rstrip('Z')}{well}"
    if "terminated" in state:
        return f"ended: {state['terminated']['reason']} ({state['terminated']['exitCode']})"
    return f"waiting: {state['waiting']['reason']}"


def _table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in [heading, *rows]) for column in range(len(heading))]
    for row in [heading, *rows]:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def load(settings: Settings, name: str) -> tuple[str, str | None, Json]:
    """(uid, container, status) of what the user named. Raises NotFound."""
    uid, container = directory.find(settings, name)
    status = directory.read_status(settings.pod(uid))
    if status is None:
        raise NotFound(f"pod {uid!r} has no readable status", remedy=f"remove it with `rawpod rm -f {uid}`")
    return uid, container, status


@click.command()
@click.option("-t", "--time", "grace", type=click.FloatRange(min=0), metavar="S", help="Seconds between TERM and KILL.")
@click.argument("names", metavar="POD…", nargs=-1, required=True)
@click.pass_obj
def stop(settings: Settings, grace: float | None, names: tuple[str, ...]) -> None:
    """End pods, politely first. Without -t the pod's own grace period holds.

    A pod that a supervisor keeps is not stopped: it would be replaced at once.
    """
    from runtime.pod import control

    for name in names:
        uid, container, status = load(settings, name)
        _no_container(name, container)
        if status["rawpod"].get("owner") == "supervisor":
            raise Conflict(
                f"pod {directory.pod_name(status)!r} is kept by the supervisor, which would replace it",
                remedy="`rawpod scale` or `rawpod delete` what it belongs to, or `rawpod rm` to have it replaced",
            )
        if is_running(status):
            control.request(settings.pod(uid), {"do": "stop", "grace": grace})
        click.echo(name)


def _no_container(name: str, container: str | None) -> None:
    if container is not None:
        raise BadInput(f"{name!r} is one container", remedy="the containers of a pod end together: name the pod")


@click.command()
@click.option("-s", "--signal", "wanted", default="KILL", metavar="SIG", help="Name or number; KILL if not given.")
@click.argument("names", metavar="POD[/CONTAINER]…", nargs=-1, required=True)
@click.pass_obj
def kill(settings: Settings, wanted: str, names: tuple[str, ...]) -> None:
    """Send a signal to a container's first process. Restart policies apply to what ends by it."""
    from runtime.pod import control
    from runtime.pod.signals import signal_number

    number = signal_number(wanted)
    for name in names:
        uid, container, status = load(settings, name)
        container = directory.choose_container(status, container)
        control.request(settings.pod(uid), {"do": "signal", "container": container, "signal": number})
        click.echo(name)


@click.command()
@click.option("-f", "--force", is_flag=True, help="Running ones too: they are killed.")
@click.argument("names", metavar="POD…", nargs=-1, required=True)
@click.pass_obj
def rm(settings: Settings, force: bool, names: tuple[str, ...]) -> None:
    """Remove ended pods with their logs.

    A pod that a supervisor keeps is deleted through its door, with the pod's grace period (none with -f).
    """
    for name in names:
        uid, container = directory.find(settings, name)
        _no_container(name, container)
        status = directory.read_status(settings.pod(uid))
        if status is not None and status["rawpod"].get("owner") == "supervisor":
            _delete_through_the_door(settings, status, force)
        elif status is not None and is_running(status) and directory.monitor_alive(status) and not force:
            raise Conflict(f"pod {name!r} is running", remedy=f"`rawpod stop {name}` first, or `rawpod rm -f {name}`")
        else:
            from runtime.pod import sandbox

            sandbox.destroy(settings, uid)
            sandbox.tidy(settings)
        click.echo(name)


def _delete_through_the_door(settings: Settings, status: Json, force: bool) -> None:
    from runtime.cli.client import Client

    meta = status["rawpod"]["metadata"]
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
    Client(settings.socket).request("DELETE", path, gracePeriodSeconds=0 if force else None)
    for owner in meta.get("ownerReferences", []):
        click.echo(f"rawpod: {owner['kind']} {owner['name']} replaces pod {meta['name']}", err=True)


@click.command()
@click.argument("names", metavar="POD…", nargs=-1, required=True)
@click.pass_obj
def inspect(settings: Settings, names: tuple[str, ...]) -> None:
    """Show all that is known about pods, as a JSON list of {"pod": manifest, "status": status, "images": images}.

    "images" has the image of each container by its name, with what its configuration says (ports, volumes, labels …),
    or null where the image is not in the store any more.
    """
    found = []
    for name in names:
        uid, _, status = load(settings, name)
        manifest = json.loads((settings.pod(uid) / directory.POD).read_bytes())
        images = {
            one["name"]: _image(settings, one)
            for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
        }
        found.append({"pod": manifest, "status": status, "images": images})
    click.echo(json.dumps(found, indent=2))


def _image(settings: Settings, container: Json) -> Json | None:
    """What the store has about the image that a container is made of."""
    from rootfs.images.store import HOST, ImageStore

    name, digest = container["image"], container.get("imageID") or ""
    try:
        image = ImageStore(settings.images).get(name if name == HOST else digest)
    except RawpodError:
        return None
    if image.digest != digest:
        return None
    return {"name": image.name, "digest": digest, "platform": image.platform, "config": image.config.to_json()}


@click.command()
@click.option(
    "-w", "--watch", type=click.FloatRange(min=0.1), metavar="S", help="Again every S seconds, with CPU shares."
)
@_OUTPUT
@click.argument("names", metavar="[POD…]", nargs=-1)
@click.pass_obj
def stats(settings: Settings, watch: float | None, output: str, names: tuple[str, ...]) -> None:
    """Show what containers use: CPU time, memory, tasks, bytes read and written.

    With -o json: a list of {"name", "uid", "container", "stats"}; a part is null where its controller is not on v2.
    """
    import time

    from runtime.cli import usage

    chosen = {directory.find(settings, name)[0] for name in names}
    before: dict[str, tuple[float, int]] = {}
    while True:
        readings = usage.read_all(directory.statuses(settings), chosen)
        if output == "json":
            click.echo(json.dumps([reading.to_json() for reading in readings]))
        else:
            _table(usage.HEADING, [reading.row(before) for reading in readings])
        if watch is None:
            return
        before = {reading.key: (reading.time, reading.cpu_us) for reading in readings}
        time.sleep(watch)
        click.echo()


def started_error(status: Json) -> RawpodError | None:
    """Why a pod could not be started, None if it could."""
    from kernel.errors import CommandNotExecutable, CommandNotFound

    kinds = {126: CommandNotExecutable, 127: CommandNotFound}
    if status.get("reason") == "CreatePodSandboxError":
        return RawpodError(status["message"])
    for container in status.get("containerStatuses", []):
        waiting, ended = container["state"].get("waiting"), container["state"].get("terminated")
        if waiting and waiting["reason"] in ("CreateContainerError", "CreateContainerConfigError", "ErrImageNeverPull"):
            return RawpodError(waiting.get("message", waiting["reason"]))
        if ended and ended["reason"] == "StartError":
            return kinds.get(ended["exitCode"], RawpodError)(ended.get("message", ""))
    return None
