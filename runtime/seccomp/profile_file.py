"""Profiles in files: linux.seccomp of the runtime-spec, and what Docker, podman and CRI-O write in it besides.

They add conditions that are decided when a container is made: which architectures there are (`archMap`), and for a
group of calls what `includes` and `excludes` say of capabilities, architectures and the kernel's version. A profile
fails closed: an unknown property is an error, as it may be the very one that restricts.
"""

from __future__ import annotations

from kernel.errors import BadInput
from runtime import jsontext, spec, spec_codec
from runtime.seccomp.check import faults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

MAX_SIZE = 1024 * 1024
"""Bytes; Docker's profile has 17,000."""

_PROFILE = {
    *("defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "flags"),
    *("listenerPath", "listenerMetadata", "syscalls"),
}
_GROUP = {"name", "names", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes"}
_FILTER = {"caps", "arches", "minKernel"}
_ARG = {"index", "value", "valueTwo", "op"}
_ARCHITECTURES = {"x86_64": ("amd64", "x86_64"), "aarch64": ("arm64", "aarch64")}


def parse(data: bytes, what: str, capabilities: Collection[str], machine: str, release: str) -> spec.Seccomp:
    """The profile for a process with these capabilities in its bounding set, on a kernel as uname(2) tells of it.

    Raises BadInput, with `what` to name the profile, for one that is empty, malformed or not understood.
    """
    try:
        if not data.strip():
            raise ValueError("empty")
        document = jsontext.loads(data)
        _known(document, _PROFILE, "$")
        document = {**document, "architectures": _architectures(document)}
        groups = [
            _group(group, f"$.syscalls[{index}]")
            for index, group in enumerate(_list(document.get("syscalls"), "$.syscalls"))
            if _applies(group, f"$.syscalls[{index}]", capabilities, machine, release)
        ]
        document["syscalls"] = groups
        _errno_by_name(document, "defaultErrno", "defaultErrnoRet", "$")
        profile = spec_codec.struct(spec.Seccomp, document)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{what}: {error}", remedy="see config-linux.md, Seccomp, of the runtime-spec") from None
    if wrong := list(faults(profile, "$")):
        raise BadInput(f"{what}: {'; '.join(wrong)}", remedy="see config-linux.md, Seccomp, of the runtime-spec")
    return profile


def _known(value: Any, properties: set[str], place: str) -> None:
    if type(value) is not dict:
        raise ValueError(f"expected `object` - at `{place}`")
    for name in value:
        if name not in properties:
            raise ValueError(f"unknown property {name!r} - at `{place}`")


def _architectures(document: dict[str, Any]) -> list[str]:
    """Those listed, or all of archMap: the compiler takes those that the machine has."""
    listed = _list(document.get("architectures"), "$.architectures")
    mapped = _list(document.pop("archMap", None), "$.archMap")
    if listed and mapped:
        raise ValueError("architectures and archMap are both given")
    for index, entry in enumerate(mapped):
        _known(entry, {"architecture", "subArchitectures"}, f"$.archMap[{index}]")
        listed = [*listed, entry.get("architecture"), *_list(entry.get("subArchitectures"), f"$.archMap[{index}]")]
    return listed


def _list(value: Any, place: str) -> list[Any]:
    """A list; null is an empty one, as encoders in Go write it."""
    if value is None:
        return []
    if type(value) is not list:
        raise ValueError(f"expected `array` - at `{place}`")
    return value


def _applies(group: Any, place: str, capabilities: Collection[str], machine: str, release: str) -> bool:
    """Whether a group's `includes` all hold and none of its `excludes` do."""
    _known(group, _GROUP, place)
    wanted, unwanted = group.get("includes") or {}, group.get("excludes") or {}
    for name, conditions in (("includes", wanted), ("excludes", unwanted)):
        _known(conditions, _FILTER, f"{place}.{name}")
        for kind in ("caps", "arches"):
            if not all(isinstance(one, str) for one in _list(conditions.get(kind), f"{place}.{name}.{kind}")):
                raise ValueError(f"expected `str` - at `{place}.{name}.{kind}`")
    own = set(_ARCHITECTURES.get(machine, (machine,)))
    if not set(wanted.get("caps") or []) <= set(capabilities) or set(unwanted.get("caps") or []) & set(capabilities):
        return False
    if (wanted.get("arches") and not own & set(wanted["arches"])) or own & set(unwanted.get("arches") or []):
        return False
    if (least := wanted.get("minKernel")) and _version(release) < _version(least):
        return False
    return not ((least := unwanted.get("minKernel")) and _version(release) >= _version(least))


def _version(text: Any) -> tuple[int, int]:
    major, dot, rest = str(text).partition(".")
    minor = rest[: next((index for index, letter in enumerate(rest) if not letter.isdigit()), len(rest))]
    if not (dot and major.isdigit() and minor):
        raise ValueError(f"{text!r} is no version of a kernel")
    return int(major), int(minor)


def _group(group: dict[str, Any], place: str) -> dict[str, Any]:
    kept: dict[str, Any] = {
        name: group[name] for name in ("names", "action", "errnoRet", "errno", "args") if name in group
    }
    if name := group.get("name"):
        if kept.get("names"):
            raise ValueError(f"name and names are both given - at `{place}`")
        kept["names"] = [name]
    for index, arg in enumerate(_list(kept.get("args"), f"{place}.args")):
        _known(arg, _ARG, f"{place}.args[{index}]")
    _errno_by_name(kept, "errno", "errnoRet", place)
    return kept


def _errno_by_name(holder: dict[str, Any], by_name: str, by_number: str, place: str) -> None:
    """podman writes the errno's name beside its number, or alone."""
    name = holder.pop(by_name, None)
    if not name:
        return
    import errno

    number = getattr(errno, name, None) if isinstance(name, str) and name.startswith("E") else None
    if not isinstance(number, int):
        raise ValueError(f"unknown errno {name!r} - at `{place}.{by_name}`")
    if holder.get(by_number) not in (None, number):
        raise ValueError(f"{by_name} {name!r} is not {by_number} {holder[by_number]!r} - at `{place}`")
    holder[by_number] = number
