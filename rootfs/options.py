"""The mount options of the OCI runtime-spec 1.2 (config.md, "Mounts") in terms of mount_setattr(2)."""

from __future__ import annotations

from kernel.errors import BadInput
from kernel.mounts import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
)
from kernel.record import Record
from rootfs.idmap import IdMaps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootfs.idmap import Ranges

# (set, clear). The access times are one field of the attributes, not bits: to set one clears the field first.
_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (MOUNT_ATTR_RDONLY, 0),
    "rw": (0, MOUNT_ATTR_RDONLY),
    "nosuid": (MOUNT_ATTR_NOSUID, 0),
    "suid": (0, MOUNT_ATTR_NOSUID),
    "nodev": (MOUNT_ATTR_NODEV, 0),
    "dev": (0, MOUNT_ATTR_NODEV),
    "noexec": (MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, MOUNT_ATTR_NOEXEC),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, MOUNT_ATTR_NOSYMFOLLOW),
    "noatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME),
    "strictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
    # The kernel's default is relatime; whatever is taken off leads back to it.
    "relatime": (0, MOUNT_ATTR__ATIME),
    "norelatime": (0, MOUNT_ATTR__ATIME),
    "atime": (0, MOUNT_ATTR__ATIME),
    "nostrictatime": (0, MOUNT_ATTR__ATIME),
}

_PROPAGATION = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}

# Flags of the superblock, which fsconfig(2) takes by these names.
_SUPERBLOCK = frozenset({"sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime"})

# "silent" and "loud" steer what the kernel prints: a filesystem context always answers its caller instead. The counter
# of an inode's versions is shown to no process; ext4, xfs and btrfs keep it always, since Linux 6.1.
_NOTHING_TO_DO = frozenset({"defaults", "silent", "loud", "iversion", "noiversion"})


COPY_SYMLINK, SOURCE_NOFOLLOW, TARGET_NOFOLLOW = "copy-symlink", "src-nofollow", "dest-nofollow"
"""What becomes of symbolic links at both ends of a bind, as crun has it (crun(1), "Extensions")."""

_LINKS = (COPY_SYMLINK, SOURCE_NOFOLLOW, TARGET_NOFOLLOW)


class MountOptions(Record):
    """Options parsed. `set`, `clear` are MOUNT_ATTR_* of the mount itself, `tree_*` of all mounts below it as well.

    `propagation` is 0 or MS_*, with MS_REC for the whole tree. `idmap` is the option as it was written, "ridmap" for
    the whole tree. `populate` fills an empty source of a bind with what it covers. `links` are those of _LINKS that
    are given. `within` is the directory of the host below which the source of a bind is looked up. `data` goes to the
    filesystem, in order.
    """

    bind: bool = False
    recursive: bool = False
    remount: bool = False
    set: int = 0
    clear: int = 0
    tree_set: int = 0
    tree_clear: int = 0
    propagation: int = 0
    copy_up: bool = False
    data: tuple[str, ...] = ()
    superblock: tuple[str, ...] = ()
    idmap: str = ""
    populate: bool = False
    links: frozenset[str] = frozenset()
    within: str = ""


def parse(options: Iterable[str]) -> MountOptions:
    """Sort `options` by what they mean; the last one wins. What rawpod does not know belongs to the filesystem."""
    bind = recursive = remount = copy_up = populate = False
    attributes, tree = (0, 0), (0, 0)
    propagation = 0
    idmap = within = ""
    links: set[str] = set()
    data: list[str] = []
    superblock: list[str] = []
    for option in options:
        if option in _ATTRIBUTES:
            attributes = _merge(attributes, _ATTRIBUTES[option])
        elif option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        elif option[:1] == "r" and option[1:] in _ATTRIBUTES:
            tree = _merge(tree, _ATTRIBUTES[option[1:]])
        elif option in ("bind", "rbind"):
            bind, recursive = True, option == "rbind"
        elif option == "remount":
            remount = True
        elif option == "tmpcopyup":
            copy_up = True
        elif option == "copyup":
            populate = True
        elif option in _LINKS:
            links.add(option)
        elif option.partition("=")[0] in ("idmap", "ridmap"):
            idmap = option
        elif option.startswith("within="):
            within = option.removeprefix("within=")
        elif option in _SUPERBLOCK:
            superblock.append(option)
        elif option not in _NOTHING_TO_DO:
            data.append(option)
    return MountOptions(
        bind,
        recursive,
        remount,
        *attributes,
        *tree,
        propagation,
        copy_up,
        tuple(data),
        tuple(superblock),
        idmap,
        populate,
        frozenset(links),
        within,
    )


def _merge(before: tuple[int, int], new: tuple[int, int]) -> tuple[int, int]:
    # The access time field is always cleared as a whole, its clear mask stays beside what is set.
    set_before, clear_before = before
    set_new, clear_new = new
    return (set_before & ~clear_new) | set_new, (clear_before & ~set_new) | clear_new


def names(set_: int, clear: int = 0) -> list[str]:
    """The attributes' OCI names, for descriptions."""
    found = [
        name
        for name, (bits, _) in _ATTRIBUTES.items()
        if bits and (set_ & MOUNT_ATTR__ATIME == bits if bits & MOUNT_ATTR__ATIME else set_ & bits)
    ]
    return found + [name for name in ("rw", "suid", "dev", "exec") if clear & _ATTRIBUTES[name][1]]


def known_options() -> list[str]:
    """Every option that is no filesystem's own, sorted (features.md, "Mount options")."""
    recursive = ["r" + name for name in _ATTRIBUTES]
    others = ["bind", "rbind", "remount", "tmpcopyup", "copyup", "idmap", "ridmap"]
    return sorted({*_ATTRIBUTES, *recursive, *_PROPAGATION, *_SUPERBLOCK, *_NOTHING_TO_DO, *others, *_LINKS})


def id_ranges(option: str, users: IdMaps | None) -> IdMaps | None:
    """The maps written in `idmap=uids=0-1000-1;gids=0-1000-1`, crun's form; None for the bare option.

    A range is "first id on disk-first id of the host-how many", several are joined by "#". One that begins with "@"
    counts from the container's own ids, which `users` maps. Raises BadInput.
    """
    _, has_value, text = option.partition("=")
    if not has_value:
        return None
    found: dict[str, Ranges] = {"uids": (), "gids": ()}
    for part in text.split(";"):
        kind, _, ranges = part.partition("=")
        if kind not in found:
            raise BadInput(f"mount option {option!r}: {part!r} is neither uids=… nor gids=…")
        container = () if users is None else getattr(users, kind)
        found[kind] = tuple(_range(option, word, container) for word in ranges.split("#"))
    return IdMaps(found["uids"] or found["gids"], found["gids"] or found["uids"])


def _range(option: str, word: str, container: Ranges) -> tuple[int, int, int]:
    numbers = word.removeprefix("@").split("-")
    if len(numbers) != 3 or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise BadInput(f"mount option {option!r}: {word!r} is not three numbers joined by '-'")
    first, second, count = map(int, numbers)
    if not word.startswith("@"):
        return first, second, count
    for inside, outside, size in container:
        if inside <= second and second + count <= inside + size:
            return first, outside + second - inside, count
    raise BadInput(f"mount option {option!r}: the container has no ids {second} to {second + count - 1}")
