"""A pod's resolv.conf(5): the host's or an empty one, as dnsPolicy says, and what dnsConfig adds. Pure."""

from __future__ import annotations

from kernel.record import Record
from runtime.pod.objects_pod import PodDNSConfig

POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
"""Kubernetes' own. There are no names of a cluster to be asked for first, so all but None are Default."""

MAX_NAMESERVERS = 3
MAX_SEARCHES = 32
MAX_SEARCH_CHARACTERS = 2048


class _Resolver(Record):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[tuple[str, str | None], ...] = ()


def resolv_conf(host: str, policy: str, config: PodDNSConfig | None) -> str:
    """The file's text, given that of the host. What goes beyond the limits of resolvers is cut off, as kubelet does."""
    base = "" if policy == "None" else host
    if config is None:
        return base
    found = _read(base)
    nameservers = _once((*found.nameservers, *config.nameservers))[:MAX_NAMESERVERS]
    searches = _fitting(_once((*found.searches, *config.searches)))
    options = dict(found.options) | {option.name: option.value for option in config.options}
    lines = [f"search {' '.join(searches)}"] if searches else []
    lines += [f"nameserver {address}" for address in nameservers]
    if options:
        lines.append("options " + " ".join(name if not value else f"{name}:{value}" for name, value in options.items()))
    return "".join(f"{line}\n" for line in lines)


def _read(text: str) -> _Resolver:
    """Of several search or domain lines the last one counts, of options all (resolv.conf(5))."""
    nameservers: list[str] = []
    searches: tuple[str, ...] = ()
    options: dict[str, str | None] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            nameservers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = tuple(words[1:])
        elif words[0] == "options":
            for word in words[1:]:
                name, colon, value = word.partition(":")
                options[name] = value if colon else None
    return _Resolver(tuple(nameservers), searches, tuple(options.items()))


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _fitting(searches: tuple[str, ...]) -> tuple[str, ...]:
    kept = searches[:MAX_SEARCHES]
    while len(" ".join(kept)) > MAX_SEARCH_CHARACTERS:
        kept = kept[:-1]
    return kept
