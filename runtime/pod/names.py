"""The grammars of names: objects, labels, ports, keys, variables, images, kernel parameters.

Each function gives None for a name that is right and otherwise what would be right.
"""

from __future__ import annotations

import ipaddress
import re

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?\Z")
_PORT = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*\Z")
_KEY = re.compile(r"[-._a-zA-Z0-9]+\Z")
_VARIABLE = re.compile(r"[ -<>-~]+\Z")
_RESOLVER_WORD = re.compile(r"[-._a-zA-Z0-9]{1,255}\Z")
_UID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")

_SUBDOMAIN_RULE = (
    "at most {} characters: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
)
_LABEL_RULE = "at most 63 characters: lower-case letters, digits and '-', beginning and ending with a letter or digit"


def subdomain(text: str, limit: int = 253) -> str | None:
    """The name of an object (RFC 1123 subdomain)."""
    return None if len(text) <= limit and _SUBDOMAIN.match(text) else _SUBDOMAIN_RULE.format(limit)


def label(text: str) -> str | None:
    """The name of a container, a volume or a host (RFC 1123 label)."""
    return None if len(text) <= 63 and _LABEL.match(text) else _LABEL_RULE


def uid(text: str) -> str | None:
    """An object's uid: it becomes part of paths and cgroup names."""
    return None if _UID.match(text) else "at most 63 lower-case letters, digits and '-'"


def qualified(text: str) -> str | None:
    """The key of a label or annotation: an optional domain and '/', and a name."""
    domain, slash, name = text.rpartition("/")
    right = len(name) <= 63 and _QUALIFIED.match(name) and (not slash or subdomain(domain) is None)
    return None if right else "at most 63 letters, digits, '-', '_' and '.', with an optional domain and '/' before"


def label_value(text: str) -> str | None:
    """The value of a label."""
    right = not text or (len(text) <= 63 and _QUALIFIED.match(text))
    return None if right else "at most 63 letters, digits, '-', '_' and '.', beginning and ending with letter or digit"


def port(text: str) -> str | None:
    """The name of a port (IANA service name)."""
    return None if len(text) <= 15 and _PORT.match(text) else "at most 15 lower-case letters, digits and '-'"


def key(text: str) -> str | None:
    """A key of a ConfigMap or Secret: it becomes a file's name."""
    right = len(text) <= 253 and _KEY.match(text) and text != "." and not text.startswith("..")
    return None if right else "at most 253 letters, digits, '-', '_' and '.', not beginning with '..'"


def variable(text: str) -> str | None:
    """The name of an environment variable."""
    return None if _VARIABLE.match(text) else "printable ASCII characters without '='"


def address(text: str) -> str | None:
    """An IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return "an address as 10.0.0.1"
    return None


def search_domain(text: str) -> str | None:
    """A domain of resolv.conf(5): with a dot at its end or not, with underscores, or "." for the root alone."""
    right = text == "." or subdomain(text.removesuffix(".").replace("_", "a")) is None
    return None if right else "a domain as ns.svc.example, in lower case"


def resolver_word(text: str) -> str | None:
    """An option's name or value in resolv.conf(5): a line break or a space would begin something else."""
    return None if _RESOLVER_WORD.match(text) else "at most 255 letters, digits, '-', '_' and '.', as ndots"


SAFE_SYSCTLS = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
)
"""Kernel parameters that belong to a namespace of the pod and harm nobody else, as in Kubernetes."""

_SYSCTL_VALUE = re.compile(r"[0-9][0-9 \t,-]{0,255}\Z")


def sysctl(name: str) -> str | None:
    """A safe kernel parameter; both spellings, with dots and with slashes, name the same."""
    return None if name.replace("/", ".") in SAFE_SYSCTLS else f"one of {', '.join(SAFE_SYSCTLS)}"


def sysctl_value(text: str) -> str | None:
    """All safe parameters are numbers or ranges of numbers."""
    return None if _SYSCTL_VALUE.match(text) else "numbers, separated by spaces, commas or '-'"
