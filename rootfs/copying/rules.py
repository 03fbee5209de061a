"""Where a copy goes: the rules of `docker cp`, from the spelling of both paths and what is there. Pure."""

from __future__ import annotations

import os

from kernel.errors import BadInput
from kernel.record import Record

STREAM = "-"
"""As a path of the host: a tar archive on standard input or output."""


class Place(Record):
    """A side of a copy: `path` in the container of that name, or on the host for ""."""

    container: str
    path: str

    def shown(self) -> str:
        """As the user wrote it."""
        return f"{self.container}:{self.path}" if self.container else self.path


def parse(text: str) -> Place:
    """CONTAINER:PATH, or a path of the host; one with a colon in it begins with "/" or ".". Raises BadInput."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")):
        if not text:
            raise BadInput("an empty path", remedy="CONTAINER:PATH, a path of this machine, or - for a tar archive")
        return Place("", _checked(text))
    if not container:
        raise BadInput(f"{text!r} names no container", remedy="CONTAINER:PATH, or ./ before a path of this machine")
    # The working directory of a container is its root.
    return Place(container, _checked("/" + path.lstrip("/")))


def check_sides(source: Place, target: Place) -> None:
    """Exactly one side is a container. Raises BadInput."""
    if source.container and target.container:
        raise BadInput("copying between containers is not supported", remedy="copy to this machine first")
    if not source.container and not target.container:
        raise BadInput("neither side is in a container", remedy="name one of them CONTAINER:PATH")


def _checked(path: str) -> str:
    if "\0" in path:
        raise BadInput(f"path {path!r} has a NUL byte in it")
    return path


def asserts_directory(path: str) -> bool:
    """Whether the spelling says that it is a directory: it ends with "/" or "/."."""
    return path.endswith("/") or os.path.basename(path) in (".", "..")


def means_contents(path: str) -> bool:
    """Whether a source stands for what is in the directory and not for the directory: "DIR/.", and the root itself."""
    return os.path.basename(path) == "." or not base_name(path)


def base_name(path: str) -> str:
    """The name that a source has at its target, by its spelling and, for ".." at the end, where the program runs."""
    return os.path.basename(os.path.abspath(path))


class Landing(Record):
    """Where the copy goes: into directory `directory` under `name`; with name "" what is in the source goes there."""

    directory: str
    name: str


def land(source: Place, source_is_directory: bool, target: Place, target_is: str) -> Landing:
    """The landing of `source`; `target_is` is "directory", "file" or "" for nothing there.

    Raises BadInput where the two do not go together.
    """
    if asserts_directory(source.path) and not source_is_directory:
        raise BadInput(f"{source.shown()!r} is not a directory")
    if target_is == "directory":
        contents = source_is_directory and means_contents(source.path)
        return Landing(target.path, "" if contents else base_name(source.path))
    if target_is == "file" and source_is_directory:
        raise BadInput(f"a directory cannot be copied over the file {target.shown()!r}")
    if asserts_directory(target.path) and (target_is == "file" or not source_is_directory):
        what = "is not a directory" if target_is == "file" else "is no existing directory"
        raise BadInput(f"{target.shown()!r} {what}")
    directory, name = split(target.path)
    if name in ("", ".", ".."):
        raise BadInput(f"{target.shown()!r} does not exist")
    return Landing(directory, name)


def split(path: str) -> tuple[str, str]:
    """Directory and last name of a path, slashes at its end left off."""
    directory, name = os.path.split(path.rstrip("/") or path)
    return directory or ".", name
