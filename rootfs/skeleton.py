"""What a root needs around /usr: the directories of the FHS, and an /etc with what programs read and no secret."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

VERSION = 1  # goes up when what is below changes

_FILE_MAX = 8 << 20

_DIRECTORIES = (
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/local", 0o775),
    ("var/log", 0o755),
    ("var/mail", 0o755),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
)

_LINKS = (
    ("var/run", "/run"),
    ("var/lock", "/run/lock"),
    ("etc/mtab", "../proc/self/mounts"),
)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Written, not copied: what these say on the machine is about the machine.
_WRITTEN = {
    "etc/environment": "",
    "etc/fstab": "",
    "etc/hostname": "localhost\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/profile": f"export PATH={_PATH}\n",
    "etc/resolv.conf": "",
    "etc/nsswitch.conf": (
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
        "protocols: files\nservices: files\nethers: files\nrpc: files\n"
    ),
}

# The accounts of a Debian system before anything is installed, as base-passwd has them.
_PASSWD = """\
root:*:0:0:root:/root:/bin/bash
daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:*:2:2:bin:/bin:/usr/sbin/nologin
sys:*:3:3:sys:/dev:/usr/sbin/nologin
sync:*:4:65534:sync:/bin:/bin/sync
games:*:5:60:games:/usr/games:/usr/sbin/nologin
man:*:6:12:man:/var/cache/man:/usr/sbin/nologin
lp:*:7:7:lp:/var/spool/lpd:/usr/sbin/nologin
mail:*:8:8:mail:/var/mail:/usr/sbin/nologin
news:*:9:9:news:/var/spool/news:/usr/sbin/nologin
uucp:*:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin
proxy:*:13:13:proxy:/bin:/usr/sbin/nologin
www-data:*:33:33:www-data:/var/www:/usr/sbin/nologin
backup:*:34:34:backup:/var/backups:/usr/sbin/nologin
_apt:*:42:65534::/nonexistent:/usr/sbin/nologin
nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUPS = {
    "root": 0,
    "daemon": 1,
    "bin": 2,
    "sys": 3,
    "adm": 4,
    "tty": 5,
    "disk": 6,
    "lp": 7,
    "mail": 8,
    "news": 9,
    "uucp": 10,
    "man": 12,
    "proxy": 13,
    "kmem": 15,
    "audio": 29,
    "www-data": 33,
    "backup": 34,
    "src": 40,
    "shadow": 42,
    "utmp": 43,
    "video": 44,
    "staff": 50,
    "games": 60,
    "users": 100,
    "nogroup": 65534,
}

# Copied from /etc where they are there: files, links, directories with what is in them. "-" or "." ends a prefix.
_COPIED = (
    "alternatives",
    "debian_version",
    "ethertypes",
    "gai.conf",
    "groff",
    "host.conf",
    "inputrc",
    "issue",
    "java-",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "lsb-release",
    "magic",
    "magic.mime",
    "mime.types",
    "netconfig",
    "networks",
    "os-release",
    "protocols",
    "python3",
    "python3.",
    "rpc",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)


class Entry(NamedTuple):
    """One thing in the root: `kind` is "directory", "link" (`data` is its target) or "file"."""

    path: str
    kind: str
    mode: int
    data: bytes


def directories() -> list[Entry]:
    """The empty directories and the links of the root, parents first."""
    made = [Entry(path, "directory", mode, b"") for path, mode in _DIRECTORIES]
    return made + [Entry(path, "link", 0o777, target.encode()) for path, target in _LINKS]


def files(machine: str) -> list[Entry]:
    """Everything below /etc, parents first: written by us, and copied from the root `machine`."""
    written = _WRITTEN | {
        "etc/passwd": _PASSWD,
        "etc/group": "".join(f"{name}:x:{gid}:\n" for name, gid in _GROUPS.items()),
    }
    entries = [Entry(path, "file", 0o644, text.encode()) for path, text in written.items()]
    made = {"etc"}
    for path in sources(machine):
        parent = os.path.dirname(path)
        if parent not in made:
            made.add(parent)
            entries.append(Entry(parent, "directory", 0o755, b""))
        entries.extend(_copies(machine, path))
    return entries


def sources(machine: str) -> list[str]:
    """The machine's files and directories that are copied, as paths relative to its root, sorted."""
    etc = os.path.join(machine, "etc")
    present = os.listdir(etc)
    found: list[str] = []
    for name in _COPIED:
        if name.endswith((".", "-")):
            found.extend(entry for entry in present if entry.startswith(name))
        elif name in present or ("/" in name and os.path.lexists(os.path.join(etc, name))):
            found.append(name)
    return sorted("etc/" + name for name in found)


def _copies(machine: str, path: str) -> Iterator[Entry]:
    source = os.path.join(machine, path)
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        yield Entry(path, "link", 0o777, os.fsencode(os.readlink(source)))
    elif stat.S_ISDIR(status.st_mode) and _is_public(status):
        yield Entry(path, "directory", 0o755, b"")
        for name in sorted(os.listdir(source)):
            yield from _copies(machine, f"{path}/{name}")
    elif stat.S_ISREG(status.st_mode) and _is_public(status) and status.st_size <= _FILE_MAX:
        with open(source, "rb") as file:
            data = file.read()
        # Certificates are public; some people keep the key in the same file.
        if b"PRIVATE KEY-----" not in data:
            yield Entry(path, "file", 0o755 if status.st_mode & 0o100 else 0o644, data)


def _is_public(status: os.stat_result) -> bool:
    return bool(status.st_mode & stat.S_IROTH)
