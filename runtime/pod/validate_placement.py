"""What must hold for a pod's place: the host's namespaces, its names, its resolvers, the node it may be on."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.pod import dns, names
from runtime.pod.faults import Fault, Path, nearest, shown
from runtime.pod.node_labels import node_labels
from runtime.pod.objects_pod import PodDNSConfig, Toleration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.pod.objects import PodSpec

_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")


def placement_faults(spec: PodSpec, path: Path) -> Iterator[Fault]:
    """All of them, at paths below `path`."""
    yield from _names(spec, path)
    yield from _host_namespaces(spec, path)
    yield from _dns(spec, path)
    yield from _node_selector(spec.node_selector, (*path, "nodeSelector"))
    for index, toleration in enumerate(spec.tolerations):
        yield from _toleration(toleration, (*path, "tolerations", index))


def _names(spec: PodSpec, path: Path) -> Iterator[Fault]:
    for field, text in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        if text and (rule := names.label(text)):
            yield Fault((*path, field), f"{shown(text)} is not a host's name", rule)
    if spec.node_name and (rule := names.subdomain(spec.node_name)):
        yield Fault((*path, "nodeName"), f"{shown(spec.node_name)} is not a node's name", rule)


def _host_namespaces(spec: PodSpec, path: Path) -> Iterator[Fault]:
    """Kubernetes' own rules: what is the host's belongs to the host's users."""
    asked = {"hostNetwork": spec.host_network, "hostPID": spec.host_pid, "hostIPC": spec.host_ipc}
    if spec.host_users is False:
        for field in (name for name, wanted in asked.items() if wanted):
            yield Fault((*path, "hostUsers"), f"false does not go with {field}: true", "one of them")


def _dns(spec: PodSpec, path: Path) -> Iterator[Fault]:
    policy, config = spec.dns_policy, spec.dns_config
    if policy and policy not in dns.POLICIES:
        yield Fault((*path, "dnsPolicy"), f"unknown policy {shown(policy)}", nearest(policy, dns.POLICIES))
    if policy == "None" and not (config and config.nameservers):
        yield Fault((*path, "dnsConfig", "nameservers"), "required with dnsPolicy: None", "at least one address")
    if config is not None:
        yield from _dns_config(config, (*path, "dnsConfig"))


def _dns_config(config: PodDNSConfig, path: Path) -> Iterator[Fault]:
    if len(config.nameservers) > dns.MAX_NAMESERVERS:
        wrong = f"{len(config.nameservers)} are more than resolvers ask"
        yield Fault((*path, "nameservers"), wrong, f"at most {dns.MAX_NAMESERVERS}")
    for index, address in enumerate(config.nameservers):
        if rule := names.address(address):
            yield Fault((*path, "nameservers", index), f"{shown(address)} is not an address", rule)
    if len(config.searches) > dns.MAX_SEARCHES:
        wrong = f"{len(config.searches)} are too many"
        yield Fault((*path, "searches"), wrong, f"at most {dns.MAX_SEARCHES}")
    if len(" ".join(config.searches)) > dns.MAX_SEARCH_CHARACTERS:
        yield Fault((*path, "searches"), "too long", f"at most {dns.MAX_SEARCH_CHARACTERS} characters with spaces")
    for index, domain in enumerate(config.searches):
        if rule := names.search_domain(domain):
            yield Fault((*path, "searches", index), f"{shown(domain)} is not a domain", rule)
    for index, option in enumerate(config.options):
        place = (*path, "options", index)
        if rule := names.resolver_word(option.name):
            yield Fault((*place, "name"), f"{shown(option.name)} is no option" if option.name else "required", rule)
        if option.value and (rule := names.resolver_word(option.value)):
            yield Fault((*place, "value"), f"{shown(option.value)} is no value", rule)


def _node_selector(selector: dict[str, str], path: Path) -> Iterator[Fault]:
    """Where Kubernetes leaves a pod Pending for want of a node, the only node there is never comes to fit."""
    labels = node_labels()
    for key, value in selector.items():
        if rule := names.qualified(key):
            yield Fault((*path, key), f"{shown(key)} is not a label's name", rule)
        elif rule := names.label_value(value):
            yield Fault((*path, key), f"{shown(value)} is not a label's value", rule)
        elif labels.get(key) != value:
            has = f"it is {shown(labels[key])}" if key in labels else f"it has {', '.join(sorted(labels))}"
            yield Fault((*path, key), f"the node is not labelled {shown(f'{key}={value}', 140)}", has)


def _toleration(toleration: Toleration, path: Path) -> Iterator[Fault]:
    operator = toleration.operator or "Equal"
    if toleration.key and (rule := names.qualified(toleration.key)):
        yield Fault((*path, "key"), f"{shown(toleration.key)} is not a taint's name", rule)
    if operator not in ("Equal", "Exists"):
        yield Fault((*path, "operator"), f"unknown operator {shown(operator)}", "Equal or Exists")
    elif not toleration.key and operator != "Exists":
        yield Fault((*path, "operator"), f"{shown(operator)} without a key", "Exists, which stands for all taints")
    if operator == "Exists" and toleration.value:
        yield Fault((*path, "value"), f"{shown(toleration.value)} with operator Exists", "remove it")
    elif rule := names.label_value(toleration.value):
        yield Fault((*path, "value"), f"{shown(toleration.value)} is not a taint's value", rule)
    if toleration.effect not in _EFFECTS:
        wrong = f"unknown effect {shown(toleration.effect)}"
        yield Fault((*path, "effect"), wrong, nearest(toleration.effect, _EFFECTS[1:]))
    if toleration.toleration_seconds is not None and toleration.effect != "NoExecute":
        yield Fault((*path, "tolerationSeconds"), "given without effect NoExecute", "remove it")
