"""A pod as a whole: the host's namespaces, its names, its resolvers, the node it may be on."""

from __future__ import annotations

import re

import pytest

from kernel.errors import BadInput
from runtime.pod import dns, manifest, objects
from runtime.pod.faults import Faults
from runtime.pod.hostnames import fqdn, kernel_hostname, pod_hostname
from runtime.pod.node_labels import node_labels
from runtime.pod.objects_pod import PodDNSConfig, PodDNSConfigOption
from tests.unit.test_pod_compile import compiled
from tests.unit.test_pod_compile import pod as pod_of_one_container

POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: shop}}
spec: {{{spec}, containers: [{{name: main, image: host}}]}}
"""

HOST = """\
# made by hand
domain old.example
search corp.example example.com
nameserver 192.0.2.1
nameserver 192.0.2.2
options ndots:1 rotate
"""

FAULTS = {
    "hostUsers: false, hostPID: true": r"spec\.hostUsers: false does not go with hostPID: true",
    "hostUsers: false, hostIPC: true": r"spec\.hostUsers: false does not go with hostIPC: true",
    "shareProcessNamespace: true": r"spec\.shareProcessNamespace: not supported by rawpod yet",
    "schedulingGates: [{name: a}]": r"spec\.schedulingGates: not supported by rawpod yet",
    "priority: 5": r"spec\.priority: not supported by rawpod yet",
    "affinity: {nodeAffinity: {}}": r"spec\.affinity: not supported by rawpod yet",
    "os: {name: windows}": r"spec\.os: not supported by rawpod yet",
    "subdomain: A.b": r"spec\.subdomain: 'A\.b' is not a host's name",
    "dnsPolicy: Defautl": r"dnsPolicy: unknown policy 'Defautl' \(did you mean 'Default'\)",
    'dnsPolicy: "None"': r"dnsConfig\.nameservers: required with dnsPolicy: None",
    'dnsPolicy: "None", dnsConfig: {searches: [a]}': r"dnsConfig\.nameservers: required with dnsPolicy: None",
    "dnsConfig: {nameservers: [1.1.1.1, 2.2.2.2, 3.3.3.3, 4.4.4.4]}": r"nameservers: 4 are more .*at most 3",
    'dnsConfig: {nameservers: ["1.1.1.1\\nx"]}': r"nameservers\[0\]: .* is not an address",
    f"dnsConfig: {{searches: [{', '.join(['a'] * 33)}]}}": r"searches: 33 are too many \(at most 32\)",
    f"dnsConfig: {{searches: [{', '.join(['a' * 60 + '.b' * 40] * 20)}]}}": r"searches: too long \(at most 2048",
    'dnsConfig: {searches: ["a b"]}': r"searches\[0\]: 'a b' is not a domain",
    "dnsConfig: {options: [{value: '2'}]}": r"options\[0\]\.name: required",
    'dnsConfig: {options: [{name: "a\\nnameserver"}]}': r"options\[0\]\.name: .* is no option",
    'dnsConfig: {options: [{name: ndots, value: "2 x"}]}': r"options\[0\]\.value: '2 x' is no value",
    "nodeSelector: {disktype: ssd}": r"nodeSelector\.disktype: the node is not labelled 'disktype=ssd'",
    "nodeSelector: {kubernetes.io/os: windows}": r"not labelled 'kubernetes\.io/os=windows' \(it is 'linux'\)",
    "nodeSelector: {a b: c}": r"'a b' is not a label's name",
    "tolerations: [{effect: NoSchedule}]": r"tolerations\[0\]\.operator: 'Equal' without a key",
    "tolerations: [{key: a, operator: Is}]": r"operator: unknown operator 'Is' \(Equal or Exists\)",
    "tolerations: [{key: a, operator: Exists, value: b}]": r"value: 'b' with operator Exists",
    "tolerations: [{key: a, effect: NoScedule}]": r"unknown effect 'NoScedule' \(did you mean 'NoSchedule'\)",
    "tolerations: [{key: a, tolerationSeconds: 5}]": r"tolerationSeconds: given without effect NoExecute",
    "hostIPC: true, securityContext: {sysctls: [{name: kernel.shm_rmid_forced, value: '1'}]}": (
        r"'kernel\.shm_rmid_forced' would change the host's ipc namespace"
    ),
}


def pod(spec: str) -> objects.Pod:
    found = manifest.loads(POD.format(spec=spec))[0].object
    assert isinstance(found, objects.Pod)
    return found


@pytest.mark.parametrize("spec", FAULTS)
def test_a_fault_is_one_line_that_says_what_would_be_right(spec: str) -> None:
    with pytest.raises(Faults) as caught:
        pod(spec)
    (fault,) = caught.value.faults
    assert re.search(FAULTS[spec], str(fault)), fault


@pytest.mark.parametrize(
    "spec",
    [
        "priority: 0, preemptionPolicy: PreemptLowerPriority, schedulerName: default-scheduler, os: {name: linux}",
        "enableServiceLinks: false, affinity: {}, schedulingGates: [], shareProcessNamespace: false",
        "tolerations: [{operator: Exists}, {key: a, value: b, effect: NoExecute, tolerationSeconds: 300}]",
        "nodeSelector: {kubernetes.io/os: linux}",
        "dnsPolicy: ClusterFirstWithHostNet, hostNetwork: true",
        "dnsConfig: {searches: [., _sip.example, a.example.]}",
    ],
)
def test_what_the_one_node_fulfils_is_accepted(spec: str) -> None:
    assert pod(spec)


def test_what_is_left_out_is_as_in_kubernetes() -> None:
    made = pod("hostNetwork: false").spec
    assert (made.dns_policy, made.enable_service_links) == ("ClusterFirst", True)


@pytest.mark.parametrize(
    ("policy", "config", "expected"),
    [
        ("Default", None, HOST),
        ("ClusterFirst", None, HOST),
        ("None", PodDNSConfig(["192.0.2.9"]), "nameserver 192.0.2.9\n"),
        (
            "Default",
            PodDNSConfig(
                ["192.0.2.2", "192.0.2.3", "192.0.2.4"],
                ["example.com", "more.example"],
                [PodDNSConfigOption("ndots", "5"), PodDNSConfigOption("edns0")],
            ),
            "search corp.example example.com more.example\n"
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"
            "options ndots:5 rotate edns0\n",
        ),
    ],
)
def test_a_pods_resolvers_follow_its_policy(policy: str, config: PodDNSConfig | None, expected: str) -> None:
    assert dns.resolv_conf(HOST, policy, config) == expected


def test_the_search_list_stays_within_what_resolvers_read() -> None:
    many = PodDNSConfig(["192.0.2.1"], [f"{n}.{'a' * 60}.example" for n in range(40)])
    (line,) = [line for line in dns.resolv_conf("", "None", many).splitlines() if line.startswith("search")]
    assert len(line.split()) - 1 <= dns.MAX_SEARCHES
    assert len(line.removeprefix("search ")) <= dns.MAX_SEARCH_CHARACTERS


@pytest.mark.parametrize(
    ("spec", "long", "kernel"),
    [
        ("hostname: a", "", "a"),
        ("hostname: a, setHostnameAsFQDN: true", "", "a"),
        ("hostname: a, subdomain: b", "a.b.shop.svc.cluster.local", "a"),
        ("subdomain: b, setHostnameAsFQDN: true", "web.b.shop.svc.cluster.local", "web.b.shop.svc.cluster.local"),
    ],
)
def test_a_pod_with_a_subdomain_has_a_name_with_a_domain(spec: str, long: str, kernel: str) -> None:
    assert (fqdn(pod(spec)), kernel_hostname(pod(spec))) == (long, kernel)


def test_a_name_with_its_domain_is_not_cut_for_the_kernel() -> None:
    with pytest.raises(BadInput, match=r"setHostnameAsFQDN: .* has 65 characters, and a host's name 64 at most"):
        kernel_hostname(pod(f"hostname: {'a' * 40}, subdomain: b, setHostnameAsFQDN: true"))


def test_host_names_fit_the_kernel() -> None:
    long = objects.Pod(metadata=objects.ObjectMeta(name="a" * 62 + "-b"))
    assert pod_hostname(long) == "a" * 62


def test_with_the_hosts_processes_goes_no_pid_namespace() -> None:
    kinds = [{one.type for one in compiled(made).linux.namespaces} for made in both()]  # type: ignore[union-attr]
    assert kinds[0] - kinds[1] == {"pid"}


def both() -> tuple[objects.Pod, objects.Pod]:
    return pod_of_one_container(), pod_of_one_container(spec="hostPID: true,")


def test_the_nodes_labels_are_kubernetes_own() -> None:
    labels = node_labels()
    assert set(labels) == {"kubernetes.io/arch", "kubernetes.io/hostname", "kubernetes.io/os"}
    assert labels["kubernetes.io/os"] == "linux"
