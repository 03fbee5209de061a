"""A pod's directory, STATE/pods/UID: its files, how they are written, and how a pod is found by what a user types.

    pod.json        the Kubernetes object as it was asked for
    values.json     the ConfigMaps and Secrets it refers to, where it does
    seccomp.json    the seccomp profile that `rawpod run` was given, where it was
    status.json     its PodStatus; under "rawpod" the monitor, the containers' processes and whose pod it is
    monitor.sock    the control socket
    ns/             the pinned namespaces
    etc/            hosts, hostname, resolv.conf
    containers/     one bundle a container
    volumes/        volumes in memory

Nothing here imports the object types: `rawpod ps` reads fifty of these in a few milliseconds.
"""

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

from kernel.errors import BadInput, Conflict, NotFound
from kernel.pidfd import process_start_time
from runtime.settings import Settings

POD = "pod.json"
VALUES = "values.json"
SECCOMP = "seccomp.json"
STATUS = "status.json"

_UID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

Json = dict[str, Any]


def check_uid(uid: str) -> str:
    """The uid, which becomes part of paths and cgroup names. Raises BadInput for one that could lead elsewhere."""
    if not _UID.fullmatch(uid):
        raise BadInput(f"pod uid {uid!r} is malformed", remedy="at most 63 of a-z, 0-9 and -, not - at either end")
    return uid


def create(settings: Settings, uid: str, pod: bytes, values: bytes | None = None, seccomp: bytes | None = None) -> Path:
    """Make the pod's directory (mode 0700) and write what its monitor starts from. Raises Conflict if there is one."""
    directory = settings.pod(check_uid(uid))
    private(settings.pods)
    private(settings.overlay)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        raise Conflict(f"pod {uid!r} exists") from None
    replace_file(directory / POD, pod)
    if values is not None:
        replace_file(directory / VALUES, values)
    if seccomp is not None:
        replace_file(directory / SECCOMP, seccomp)
    return directory


def private(path: Path) -> None:
    """Make a directory for root alone, or close one that is there.

    Containers' layers are below some: a host's user who gets at them has what root of a container made setuid for his
    own (CVE-2021-41091, CVE-2024-25621).
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write by temporary file and rename: a reader sees the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    temporary.rename(path)


def write_status(directory: Path, status: Json) -> None:
    """Replace status.json."""
    replace_file(directory / STATUS, json.dumps(status).encode())


def read_status(directory: Path) -> Json | None:
    """status.json; None when there is none yet, or when it is damaged and so tells nothing."""
    try:
        status = json.loads((directory / STATUS).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return status if isinstance(status, dict) and isinstance(status.get("rawpod"), dict) else None


def monitor_alive(status: Json) -> bool:
    """Whether the monitor that wrote this status is still there, and its pid not somebody else's by now."""
    monitor = status["rawpod"].get("monitor", {})
    try:
        return bool(process_start_time(monitor["pid"]) == monitor["startTime"])
    except (KeyError, ProcessLookupError):
        return False


def uids(settings: Settings) -> list[str]:
    """All pods that have a directory."""
    try:
        return sorted(os.listdir(settings.pods))
    except FileNotFoundError:
        return []


def statuses(settings: Settings) -> dict[str, Json]:
    """The status of every pod that has one, by uid."""
    found: dict[str, Json] = {}
    for uid in uids(settings):
        if status := read_status(settings.pods / uid):
            found[uid] = status
    return found


def find(settings: Settings, name: str) -> tuple[str, str | None]:
    """(uid, container) of POD or POD/CONTAINER, where POD is a name, a uid, or the beginning of a single uid.

    Raises NotFound, and Conflict when several pods fit.
    """
    wanted, _, container = name.partition("/")
    uids: list[str] = []
    if wanted:
        with contextlib.suppress(FileNotFoundError):
            if wanted in (uids := os.listdir(settings.pods)):
                return wanted, container or None
    named = [uid for uid, status in statuses(settings).items() if pod_name(status) == wanted] if wanted else []
    matches = named or [uid for uid in uids if wanted and uid.startswith(wanted)]
    if not matches:
        raise NotFound(f"no pod {wanted!r}", remedy="see `rawpod ps -a`")
    if len(matches) > 1:
        raise Conflict(f"{wanted!r} fits several pods: {', '.join(sorted(matches))}", remedy="give a longer uid")
    return matches[0], container or None


def pod_name(status: Json) -> str:
    """The pod's name as its metadata has it."""
    name: str = status["rawpod"].get("metadata", {}).get("name", "")
    return name


def choose_container(status: Json, container: str | None) -> str:
    """The container meant: the one named, or the pod's only one beside its init containers.

    Raises NotFound or BadInput naming those there are.
    """
    names = list(status["rawpod"].get("containers", {}))
    main = [one["name"] for one in status.get("containerStatuses", ())] or names
    if container is None and len(main) == 1:
        return str(main[0])
    if container is None:
        raise BadInput(f"pod {pod_name(status)!r} has several containers", remedy=f"name one of {', '.join(names)}")
    if container not in names:
        raise NotFound(f"pod {pod_name(status)!r} has no container {container!r}", remedy=f"it has {', '.join(names)}")
    return container
