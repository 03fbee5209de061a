"""Manifests that are wrong: every fault is found, located, explained and said in one line; nothing secret is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernel.errors import BadInput
from runtime.pod import manifest, objects, pullpolicy
from runtime.pod.faults import Faults

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: main
    image: host
"""

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 3
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
      - name: main
        image: host
"""


def faults(text: str | bytes) -> list[str]:
    """The lines that a user sees for this manifest."""
    with pytest.raises(Faults) as caught:
        manifest.loads(text, "web.yaml")
    assert caught.value.exit_code == 2
    return str(caught.value).split("\n")


def only_fault(text: str | bytes) -> str:
    found = faults(text)
    assert len(found) == 1, found
    return found[0]


def container(lines: str) -> str:
    """POD with more lines in its container."""
    return POD + "".join(f"    {line}\n" for line in lines.split("\n"))


def spec(lines: str) -> str:
    """POD with more lines in its spec."""
    return POD + "".join(f"  {line}\n" for line in lines.split("\n"))


def test_a_good_manifest_becomes_objects_with_defaults() -> None:
    pod, deployment = (document.object for document in manifest.loads(f"{POD}---\n{DEPLOYMENT}"))
    assert isinstance(pod, objects.Pod) and isinstance(deployment, objects.Deployment)
    assert (pod.metadata.namespace, pod.spec.restart_policy) == ("default", "Always")
    assert deployment.spec.replicas == 3


@pytest.mark.parametrize("name", ["web.yaml"])
def test_the_example_is_valid(name: str) -> None:
    (document,) = manifest.load([Path(__file__).parents[2] / "examples" / name])
    assert isinstance(document.object, objects.Deployment)
    assert document.object.spec.replicas == 3
    assert len(document.object.spec.template.spec.containers) == 2


def test_the_example_of_images_is_valid() -> None:
    here, secret, pulled = manifest.load([Path(__file__).parents[2] / "examples/pull.yaml"])
    assert isinstance(here.object, objects.Pod) and isinstance(pulled.object, objects.Pod)
    assert isinstance(secret.object, objects.Secret)
    names = [reference.name for reference in pulled.object.spec.image_pull_secrets]
    login = pullpolicy.credentials(names, {secret.object.metadata.name: secret.object})
    assert list(login.auths) == ["registry.example.com"]


def test_a_faults_line_has_file_line_field_what_is_wrong_and_what_would_be_right() -> None:
    line = only_fault(POD.replace("image: host", "imaeg: host\n    image: host"))
    assert line == "web.yaml:8: spec.containers[0].imaeg: unknown field 'imaeg' (did you mean 'image')"


def test_all_faults_of_all_documents_are_shown_at_once_in_the_order_of_the_file() -> None:
    text = POD.replace("web", "../x").replace("name: main", "name: Main") + "---\n" + DEPLOYMENT.replace("3", "-1")
    assert [re.match(r"web\.yaml:(\d+): ([^:]+):", line)[2] for line in faults(text)] == [  # type: ignore[index]
        "metadata.name",
        "spec.containers[0].name",
        "spec.replicas",
    ]


ROWS: dict[str, tuple[str, str]] = {
    # What is wrong: a manifest, and what its one line must contain (a regular expression).
    "unknown field": (container("comand: [x]"), r":9: spec\.containers\[0\]\.comand: .*did you mean 'command'"),
    "unknown field far from any": (container("zzz: 1"), r"unknown field 'zzz' \(one of args, command"),
    "known field": (container("volumeDevices: [{name: a}]"), r"volumeDevices: not supported by rawpod yet"),
    "known pod field": (spec("serviceAccountName: x"), r"spec\.serviceAccountName: not supported by rawpod yet"),
    "policy of an init container": (
        spec("initContainers: [{name: first, image: host, restartPolicy: Never}]"),
        r"spec\.initContainers\[0\]\.restartPolicy: 'Never' is not a policy of an init container \(Always",
    ),
    "name of an init container": (
        spec("initContainers: [{name: main, image: host}]"),
        r"spec\.containers\[0\]\.name: 'main' is also the name of initContainers\[0\]",
    ),
    "user namespace of the host's network": (
        spec("hostUsers: false\nhostNetwork: true"),
        r"spec\.hostUsers: false does not go with hostNetwork: true",
    ),
    "deadline": (spec("activeDeadlineSeconds: 0"), r"activeDeadlineSeconds: 0 is out of range \(1 to"),
    "deadline of replicas": (
        DEPLOYMENT + "      activeDeadlineSeconds: 5\n",
        r"activeDeadlineSeconds: given in a template of replicas \(remove it",
    ),
    "termination message": (
        container("terminationMessagePath: /proc/x"),
        r"terminationMessagePath: a file cannot be mounted over '/proc/x' \(another path",
    ),
    "termination policy": (
        container("terminationMessagePolicy: Fallback"),
        r"terminationMessagePolicy: unknown policy 'Fallback' \(",
    ),
    "sub path that is absolute": (
        container("volumeMounts: [{name: v, mountPath: /v, subPath: /x}]") + "  volumes: [{name: v, emptyDir: {}}]",
        r"subPath: '/x' is absolute",
    ),
    "sub path that climbs": (
        container("volumeMounts: [{name: v, mountPath: /v, subPath: a/../b}]") + "  volumes: [{name: v, emptyDir: {}}]",
        r"subPath: 'a/\.\./b' contains '\.\.'",
    ),
    "sub path twice": (
        container("volumeMounts: [{name: v, mountPath: /v, subPath: a, subPathExpr: b}]")
        + "  volumes: [{name: v, emptyDir: {}}]",
        r"subPathExpr: given together with subPath",
    ),
    "propagation to the host": (
        container("volumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional}]")
        + "  volumes: [{name: v, emptyDir: {}}]",
        r"mountPropagation: 'Bidirectional' takes a privileged container",
    ),
    "propagation": (
        container("volumeMounts: [{name: v, mountPath: /v, mountPropagation: hostToContainer}]")
        + "  volumes: [{name: v, emptyDir: {}}]",
        r"unknown propagation .*did you mean 'HostToContainer'",
    ),
    "recursive and writable": (
        container("volumeMounts: [{name: v, mountPath: /v, recursiveReadOnly: Enabled}]")
        + "  volumes: [{name: v, emptyDir: {}}]",
        r"recursiveReadOnly: 'Enabled' without readOnly: true",
    ),
    "recursive and propagated": (
        container(
            "volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Enabled, "
            "mountPropagation: HostToContainer}]"
        )
        + "  volumes: [{name: v, emptyDir: {}}]",
        r"does not go with mountPropagation",
    ),
    "recursive": (
        container("volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: enabled}]")
        + "  volumes: [{name: v, emptyDir: {}}]",
        r"unknown value .*did you mean 'Enabled'",
    ),
    "empty projection": (
        spec("volumes: [{name: v, projected: {sources: [{}]}}]"),
        r"sources\[0\]: needs exactly one source",
    ),
    "projected path twice": (
        spec(
            "volumes: [{name: v, projected: {sources: [{configMap: {name: a, items: [{key: a, path: x}]}}, "
            "{secret: {name: b, items: [{key: a, path: ./x}]}}]}}]"
        ),
        r"sources\[1\]\.secret\.items\[0\]\.path: 'x' is also the path of sources\[0\]\.configMap\.items\[0\]",
    ),
    "field for a file": (
        spec("volumes: [{name: v, downwardAPI: {items: [{path: x, fieldRef: {fieldPath: status.podIP}}]}}]"),
        r"fieldPath: 'status\.podIP' is no field for a file",
    ),
    "file without a source": (
        spec("volumes: [{name: v, downwardAPI: {items: [{path: x}]}}]"),
        r"items\[0\]: needs exactly one source \(fieldRef or resourceFieldRef\)",
    ),
    "file of another container": (
        spec(
            "volumes: [{name: v, downwardAPI: {items: [{path: x, "
            "resourceFieldRef: {containerName: man, resource: limits.cpu}}]}}]"
        ),
        r"containerName: no container 'man' \(did you mean 'main'\)",
    ),
    "file of a resource": (
        spec(
            "volumes: [{name: v, downwardAPI: {items: [{path: x, "
            "resourceFieldRef: {containerName: main, resource: limits.ephemeral-storage}}]}}]"
        ),
        r"resource: not supported by rawpod yet",
    ),
    "unit of a resource": (
        spec(
            "volumes: [{name: v, downwardAPI: {items: [{path: x, "
            "resourceFieldRef: {containerName: main, resource: limits.cpu, divisor: 1Mi}}]}}]"
        ),
        r"divisor: '1Mi' is no unit \(one of 1, 1m\)",
    ),
    "reserved path": (
        spec("volumes: [{name: v, configMap: {name: c, items: [{key: a, path: ..data}]}}]"),
        r"path: '\.\.data' is not a path below the volume",
    ),
    "group of files": (spec("securityContext: {fsGroup: -1}"), r"fsGroup: -1 is not an id"),
    "group of files of another pod": (
        spec("hostUsers: false\nsecurityContext: {fsGroup: 65536}"),
        r"fsGroup: 65536 is none of the ids that a pod with hostUsers: false has \(0 to 65535\)",
    ),
    "policy for groups of files": (
        spec("securityContext: {fsGroup: 5, fsGroupChangePolicy: Onrootmismatch}"),
        r"fsGroupChangePolicy: unknown policy 'Onrootmismatch' \(did you mean 'OnRootMismatch'\)",
    ),
    "policy for groups": (
        spec("securityContext: {supplementalGroupsPolicy: strict}"),
        r"supplementalGroupsPolicy: unknown policy 'strict' \(did you mean 'Strict'\)",
    ),
    "unmasked with the host's users": (
        container("securityContext: {procMount: Unmasked}"),
        r"procMount: 'Unmasked' in a pod with the host's users \(hostUsers: false, or Default\)",
    ),
    "kind of proc": (container("securityContext: {procMount: x}"), r"procMount: unknown kind 'x'"),
    "AppArmor's default": (
        container("securityContext: {appArmorProfile: {type: RuntimeDefault}}"),
        r"appArmorProfile\.type: 'RuntimeDefault' is not supported by rawpod yet \(Localhost or Unconfined\)",
    ),
    "no AppArmor profile": (
        spec("securityContext: {appArmorProfile: {type: Localhost}}"),
        r"spec\.securityContext\.appArmorProfile\.localhostProfile: required",
    ),
    "two AppArmor profiles": (
        spec("securityContext: {appArmorProfile: {type: Unconfined, localhostProfile: x}}"),
        r"localhostProfile: given without type Localhost",
    ),
    "SELinux": (
        container("securityContext: {seLinuxOptions: {level: s0}}"),
        r"seLinuxOptions: not supported by rawpod yet",
    ),
    "privileged": (container("securityContext: {privileged: true}"), r"privileged: not supported by rawpod yet"),
    "no": (POD.replace("name: web", "name: no"), r":4: metadata\.name: 'no' .*in quotes: \"no\""),
    "octal": (POD.replace("name: web", "name: 010"), r":4: metadata\.name: '010' .*in quotes: \"010\""),
    "date": (POD.replace("name: web", "name: 2026-01-31"), r":4: metadata\.name: .*in quotes: \"2026-01-31\""),
    "number": (POD.replace("name: web", "name: 12"), r"metadata\.name: '12' is a whole number .*in quotes: \"12\""),
    "yes for a boolean": (spec("hostNetwork: yes"), r"hostNetwork: 'yes' .*\(write true\)"),
    "string for a boolean": (spec('hostNetwork: "x"'), r"hostNetwork: 'x' is a string where true or false belongs"),
    "string for a number": (container('ports: [{containerPort: "80"}]'), r"containerPort: '80' .*without quotes"),
    "mapping for a list": (POD.replace("- name: main", "  name: main"), r"containers: a mapping where a list belongs"),
    "wrong kind": (POD.replace("Pod", "Pdo"), r":2: kind: unknown kind 'Pdo' .*supported: v1 Pod, v1 ConfigMap"),
    "unsupported kind": (POD.replace("Pod", "Service"), r":2: kind: 'Service' is not supported .*supported: v1 Pod"),
    "wrong version": (DEPLOYMENT.replace("apps/v1", "apps/v1beta1"), r":1: apiVersion: .*'apps/v1beta1'.*\(apps/v1\)"),
    "no kind": (POD.replace("kind: Pod\n", ""), r"kind: required \(one of v1 Pod"),
    "not an object": ("- a\n", r"web\.yaml:1: not an object"),
    "no name": (POD.replace("name: web", "labels: {}"), r"metadata\.name: required"),
    "name with a path": (POD.replace("name: web", "name: ../x"), r"'\.\./x' is not a name \(at most 253 characters"),
    "name with NUL": (POD.replace("name: web", 'name: "a\\0"'), r"'a\\\\x00' is not a name \(at most 253"),
    "name with a newline": (POD.replace("name: web", 'name: "a\\nb"'), r"'a\\\\nb' is not a name \(at most 253"),
    "long name": (POD.replace("name: web", f"name: {'a' * 254}"), r"metadata\.name: .* is not a name \(at most 253"),
    "uid with a path": (POD.replace("name: web", "name: web\n  uid: ../x"), r"metadata\.uid: '\.\./x' is not a uid"),
    "label": (
        POD.replace("name: web", "name: web\n  labels: {a: 'x y'}"),
        r"metadata\.labels\.a: 'x y' is not a label",
    ),
    "replicas -1": (DEPLOYMENT.replace("3", "-1"), r":6: spec\.replicas: -1 is out of range \(0 to 10000\)"),
    "replicas 1.5": (DEPLOYMENT.replace("3", "1.5"), r"spec\.replicas: '1\.5' is a number .*\(0 to 10000\)"),
    "replicas 10^9": (DEPLOYMENT.replace("3", "1000000000"), r"spec\.replicas: 1000000000 .*\(0 to 10000\)"),
    "selector": (
        DEPLOYMENT.replace("    app: web\n  t", "    app: wob\n  t"),
        r":9: spec\.selector\.matchLabels\.app: 'wob'",
    ),
    "no selector": (DEPLOYMENT.replace("      app: web\n  t", "  t"), r":8: spec\.selector\.matchLabels: required"),
    "match expressions": (
        DEPLOYMENT.replace("selector:\n", "selector:\n    matchExpressions: [{}]\n"),
        r"matchExpressions: not supported by rawpod yet",
    ),
    "rolling update": (
        DEPLOYMENT.replace("  selector", "  strategy: {type: RollingUpdate}\n  selector"),
        r"spec\.strategy\.type: 'RollingUpdate' is not supported by rawpod yet \(Recreate\)",
    ),
    "paused": (
        DEPLOYMENT.replace("  selector", "  paused: true\n  selector"),
        r"spec\.paused: not supported by rawpod yet",
    ),
    "restart policy of replicas": (
        DEPLOYMENT + "      restartPolicy: Never\n",
        r"restartPolicy: 'Never' in a template",
    ),
    "memory 1m": (container("resources: {limits: {memory: 1m}}"), r"memory: memory '1m' .*for megabytes write 1M"),
    "memory -1": (container("resources: {limits: {memory: -1}}"), r"memory: memory '-1' is out of range .*64Mi"),
    "memory 1e999": (container("resources: {limits: {memory: 1e999}}"), r"memory: '1e999' is not a quantity .*64Mi"),
    "cpu 0": (container("resources: {limits: {cpu: 0}}"), r"cpu: cpu '0' is out of range .*500m is half a CPU"),
    "cpu NaN": (container("resources: {limits: {cpu: .nan}}"), r"cpu: '\.nan' is not a quantity .*500m"),
    "request over limit": (
        container("resources: {limits: {cpu: 500m}, requests: {cpu: 1}}"),
        r"requests\.cpu: '1' is more than the limit '500m'",
    ),
    "ephemeral storage": (container("resources: {limits: {ephemeral-storage: 1G}}"), r"not supported by rawpod yet"),
    "unknown resource": (container("resources: {limits: {mem: 1G}}"), r"unknown resource 'mem' .*memory"),
    "port 0": (container("ports: [{containerPort: 0}]"), r"containerPort: 0 is not a port \(1 to 65535\)"),
    "port 65536": (container("ports: [{containerPort: 65536}]"), r"65536 is not a port \(1 to 65535\)"),
    "protocol": (container("ports: [{containerPort: 1, protocol: tcp}]"), r"unknown protocol 'tcp' \(TCP or UDP\)"),
    "host port twice": (
        container("ports: [{containerPort: 1, hostPort: 80}, {containerPort: 2, hostPort: 80}]"),
        r"ports\[1\]\.hostPort: host port 80/TCP belongs to container 'main'",
    ),
    "host port of replicas": (
        DEPLOYMENT + "        ports: [{containerPort: 1, hostPort: 80}]\n",
        r"host port 80/TCP of container 'main' cannot belong to 3 replicas",
    ),
    "empty env name": (container("env: [{name: '', value: x}]"), r"env\[0\]\.name: required"),
    "= in env name": (container("env: [{name: 'A=B', value: x}]"), r"'A=B' is not the name of a variable"),
    "NUL in env name": (container('env: [{name: "A\\0", value: x}]'), r"'A\\\\x00' is not the name of a variable"),
    "NUL in env value": (container('env: [{name: A, value: "x\\0"}]'), r"env\[0\]\.value: contains a NUL byte"),
    "two sources": (
        container("env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]"),
        r"valueFrom: given together with value",
    ),
    "field": (
        container("env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.nam}}}]"),
        r"fieldPath: unknown field 'metadata\.nam' \(did you mean 'metadata\.name'\)",
    ),
    "no source": (container("env: [{name: A, valueFrom: {}}]"), r"needs exactly one source"),
    "relative mount": (
        container("volumeMounts: [{name: v, mountPath: data}]") + "  volumes: [{name: v, emptyDir: {}}]",
        r":9: .*mountPath: 'data' is not absolute",
    ),
    ".. in a mount": (
        container("volumeMounts: [{name: v, mountPath: /a/../b}]") + "  volumes: [{name: v, emptyDir: {}}]",
        r"mountPath: '/a/\.\./b' contains '\.\.'",
    ),
    "mount over /": (
        container("volumeMounts: [{name: v, mountPath: //}]") + "  volumes: [{name: v, emptyDir: {}}]",
        r"a volume cannot be mounted over the root",
    ),
    "mount over /proc": (
        container("volumeMounts: [{name: v, mountPath: /proc/}]") + "  volumes: [{name: v, emptyDir: {}}]",
        r"a volume cannot be mounted over '/proc'",
    ),
    "mount twice": (
        container("volumeMounts: [{name: v, mountPath: /a}, {name: v, mountPath: /a/}]")
        + "  volumes: [{name: v, emptyDir: {}}]",
        r"volumeMounts\[1\]\.mountPath: '/a' is also mounted by volumeMounts\[0\]",
    ),
    "no such volume": (
        container("volumeMounts: [{name: date, mountPath: /a}]") + "  volumes: [{name: data, emptyDir: {}}]",
        r"no volume 'date' in spec\.volumes \(did you mean 'data'\)",
    ),
    "two volume sources": (
        spec("volumes: [{name: v, emptyDir: {}, hostPath: {path: /x}}]"),
        r"volumes\[0\]: needs exactly one source",
    ),
    "host path with ..": (
        spec("volumes: [{name: v, hostPath: {path: /a/../b}}]"),
        r"hostPath\.path: .*contains '\.\.'",
    ),
    "limit of a volume": (
        spec("volumes: [{name: v, emptyDir: {sizeLimit: 1m}}]"),
        r"emptyDir\.sizeLimit: memory '1m' is in thousandths of a byte",
    ),
    "volume item": (
        spec("volumes: [{name: v, configMap: {name: c, items: [{key: a, path: ../x}]}}]"),
        r"items\[0\]\.path: '\.\./x' is not a path below the volume",
    ),
    "unsafe sysctl": (
        spec("securityContext: {sysctls: [{name: kernel.core_pattern, value: '1'}]}"),
        r"'kernel\.core_pattern' is not among the safe kernel parameters \(one of kernel\.shm_rmid_forced, net\.ipv4",
    ),
    "+ in a sysctl": (
        spec("securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '1+kernel.core_pattern=x'}]}"),
        r"sysctls\[0\]\.value: .* is no value for a kernel parameter",
    ),
    "sysctl of the host": (
        spec("hostNetwork: true\nsecurityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '1'}]}"),
        r"would change the host's network",
    ),
    "unknown capability": (
        container("securityContext: {capabilities: {add: [NET_ADMN]}}"),
        r"add\[0\]: unknown capability 'NET_ADMN' \(did you mean 'NET_ADMIN'\)",
    ),
    "unknown dropped capability": (
        container("securityContext: {capabilities: {drop: [NOTHING_SUCH]}}"),
        r"drop\[0\]: unknown capability 'NOTHING_SUCH'",
    ),
    "all capabilities": (container("securityContext: {capabilities: {add: [ALL]}}"), r"'ALL' is not supported"),
    "missing seccomp profile": (container("securityContext: {seccompProfile: {}}"), r"seccompProfile\.type: required"),
    "empty seccomp profile": (
        container("securityContext: {seccompProfile: {type: ''}}"),
        r"seccompProfile\.type: required \(one of Localhost, RuntimeDefault, Unconfined\)",
    ),
    "malformed seccomp profile": (
        container("securityContext: {seccompProfile: {type: unconfined}}"),
        r"unknown profile 'unconfined' \(did you mean 'Unconfined'\)",
    ),
    "seccomp profile of no file": (
        container("securityContext: {seccompProfile: {type: Localhost}}"),
        r"seccompProfile\.localhostProfile: required with type Localhost",
    ),
    "seccomp profile of an empty name": (
        spec("securityContext: {seccompProfile: {type: Localhost, localhostProfile: ''}}"),
        r"spec\.securityContext\.seccompProfile\.localhostProfile: required with type Localhost",
    ),
    "seccomp profile elsewhere": (
        container("securityContext: {seccompProfile: {type: Localhost, localhostProfile: a/../../b}}"),
        r"localhostProfile: 'a/\.\./\.\./b' is no path below ROOT/seccomp",
    ),
    "absolute seccomp profile": (
        container("securityContext: {seccompProfile: {type: Localhost, localhostProfile: /etc/passwd}}"),
        r"localhostProfile: '/etc/passwd' is no path below ROOT/seccomp",
    ),
    "seccomp profile of two kinds": (
        container("securityContext: {seccompProfile: {type: RuntimeDefault, localhostProfile: a}}"),
        r"localhostProfile: given without type Localhost",
    ),
    "uid -1": (container("securityContext: {runAsUser: -1}"), r"runAsUser: -1 is not an id \(0 to 4294967294\)"),
    "uid 2^32": (container("securityContext: {runAsUser: 4294967296}"), r"runAsUser: 4294967296 is not an id"),
    "uid 2^32-1": (spec("securityContext: {runAsUser: 4294967295}"), r"runAsUser: 4294967295 is not an id"),
    "root and not root": (
        container("securityContext: {runAsUser: 0, runAsNonRoot: true}"),
        r"runAsUser: uid 0 contradicts runAsNonRoot",
    ),
    "root in the pod and not root": (
        container("securityContext: {runAsNonRoot: true}") + "  securityContext: {runAsUser: 0}",
        r"containers\[0\]\.securityContext: uid 0 contradicts runAsNonRoot",
    ),
    "no image": (POD.replace("image: host", "image: ''"), r"image: required"),
    "bad image": (POD.replace("image: host", "image: a b"), r"image reference 'a b': character 2: "),
    "pull policy": (
        container("imagePullPolicy: IfPresent"),
        r"imagePullPolicy: unknown policy 'IfPresent' \(did you mean 'IfNotPresent'\)",
    ),
    "pull secret": (
        spec("imagePullSecrets: [{name: 'A B'}]"),
        r"spec\.imagePullSecrets\[0\]\.name: 'A B' is not an object's name",
    ),
    "no containers": (re.sub("  containers(.|\n)*", "  hostname: x\n", POD), r"spec\.containers: required"),
    "container name twice": (
        spec("- name: main\n  image: host"),
        r":9: spec\.containers\[1\]\.name: 'main' is also the name of containers\[0\]",
    ),
    "hosts line": (spec("hostAliases: [{ip: '1.2.3.4 x', hostnames: [a]}]"), r"ip: '1\.2\.3\.4 x' is not an address"),
    "hosts injection": (
        spec('hostAliases: [{ip: 1.2.3.4, hostnames: ["a\\n6.6.6.6 b"]}]'),
        r"hostnames\[0\]: .* is not a host's name",
    ),
    "annotation": (
        POD.replace("name: web", "name: web\n  annotations: {rawpod.dev/pid-limit: '5'}"),
        r"unknown annotation of rawpod \(did you mean 'rawpod\.dev/pids-limit'\)",
    ),
    "pids": (
        POD.replace("name: web", "name: web\n  annotations: {rawpod.dev/pids-limit: '0'}"),
        r"'0' is no number of tasks \(1 to 4194304\)",
    ),
    "user": (
        POD.replace("name: web", "name: web\n  annotations: {rawpod.dev/user: '4294967296'}"),
        r"user '4294967296' is neither a name nor an id",
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_fault_is_one_line_that_says_what_would_be_right(row: str) -> None:
    text, expected = ROWS[row]
    line = only_fault(text)
    assert line.startswith("web.yaml:") and re.search(expected, line.replace("\\", "\\\\")), line


@pytest.mark.parametrize(
    "text",
    [
        container("securityContext: {privileged: false}"),
        container("terminationMessagePath: ''\nvolumeDevices: null"),
        container("securityContext: {seccompProfile: {type: Unconfined}}"),
        container("securityContext: {seccompProfile: {type: RuntimeDefault}}"),
        spec("securityContext: {seccompProfile: {type: Localhost, localhostProfile: profiles/a.json}}"),
        container("securityContext: {procMount: Default, appArmorProfile: {type: Unconfined}, seLinuxOptions: {}}"),
        spec("automountServiceAccountToken: false\ndnsPolicy: Default\ntolerations: []"),
        container("volumeMounts: [{name: v, mountPath: /dev/shm}]")
        + "  volumes: [{name: v, emptyDir: {medium: Memory}}]",
        spec("volumes: [{name: v, configMap: {name: c, defaultMode: 0644}}]"),
        container("resources: {limits: {cpu: 0.5, memory: 1e9}}"),
    ],
)
def test_what_asks_for_nothing_more_than_there_is_is_accepted(text: str) -> None:
    assert manifest.loads(text)


def test_an_octal_mode_is_octal() -> None:
    (document,) = manifest.loads(spec("volumes: [{name: v, configMap: {name: c, defaultMode: 0640}}]"))
    assert isinstance(document.object, objects.Pod)
    source = document.object.spec.volumes[0].config_map
    assert source is not None and source.default_mode == 0o640


def test_one_bad_document_of_several_applies_none() -> None:
    assert len(faults(f"{POD}---\n{DEPLOYMENT.replace('replicas', 'replica')}")) == 1


def test_objects_of_the_same_name_are_both_named() -> None:
    line = only_fault(f"{POD}---\n{POD}")
    assert line == "web.yaml:13: metadata.name: Pod 'web' is there twice, first at web.yaml:4 (names must differ)"


def test_names_may_repeat_in_other_namespaces_and_kinds() -> None:
    other = POD.replace("name: web", "name: web\n  namespace: other")
    assert len(manifest.loads(f"{POD}---\n{other}---\n{DEPLOYMENT}")) == 3


def test_the_owner_of_a_host_port_is_named_over_documents() -> None:
    first = container("ports: [{containerPort: 1, hostPort: 80}]")
    line = only_fault(f"{first}---\n{first.replace('name: web', 'name: other')}")
    assert "host port 80/TCP belongs to Pod 'web'" in line


def test_the_same_host_port_of_other_addresses_and_protocols_is_another() -> None:
    ports = "{containerPort: 1, hostPort: 80, hostIP: 127.0.0.1}, {containerPort: 1, hostPort: 80, hostIP: 127.0.0.2}"
    assert manifest.loads(container(f"ports: [{ports}, {{containerPort: 1, hostPort: 80, protocol: UDP}}]"))


SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"


@pytest.mark.parametrize(
    "text",
    [
        SECRET + "data: {password: hunter2!}\n",
        SECRET + "data: {password: [hunter2]}\n",
        SECRET + "data: hunter2\n",
        SECRET + "stringData: {password: 2026-01-31, other: [hunter2]}\n",
        SECRET + "stringData: {password: {hunter2: hunter2}}\n",
        SECRET + "stringData:\n  password: [hunter2\n",
        SECRET + "stringData:\n  password: *hunter2x\n".replace("*hunter2x", "!hunter 2"),
        container("env: [{name: PASSWORD, value: 0x6875}]"),
        container("env: [{name: PASSWORD, value: [hunter2]}]"),
        container('env: [{name: PASSWORD, value: "hunter2\\0"}]'),
    ],
)
def test_values_that_may_be_secret_are_never_shown(text: str) -> None:
    shown = "\n".join(faults(text))
    assert "hunter2" not in shown and "2026-01-31" not in shown and "0x6875" not in shown


def test_lists_are_their_items() -> None:
    items = "".join("- " + "\n  ".join(POD.replace("web", name).splitlines()) + "\n" for name in ("a", "b"))
    text = f"apiVersion: v1\nkind: List\nitems:\n{items}"
    assert [document.object.metadata.name for document in manifest.loads(text)] == ["a", "b"]
    line = only_fault(text.replace("image: host", "image: Host", 1))
    assert line.startswith("web.yaml:11: items[0].spec.containers[0].image: ")


def test_what_get_shows_can_be_applied_again() -> None:
    meta = "name: web\n  uid: 1234-abcd\n  resourceVersion: '5'\n  creationTimestamp: '2026-01-31T00:00:00Z'"
    text = POD.replace("name: web", meta) + "status: {phase: Running, podIP: 10.0.0.1, nonsense: true}\n"
    (document,) = manifest.loads(text)
    assert (document.object.metadata.uid, document.object.metadata.resource_version) == ("", "")
    assert isinstance(document.object, objects.Pod) and document.object.status is None


def test_files_directories_and_json_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(POD.replace("web", "b"))
    (tmp_path / "a.json").write_text('{\t"apiVersion": "v1",\n"kind": "ConfigMap", "metadata": {"name": "a"}}')
    (tmp_path / "notes.txt").write_text("- no manifest")
    assert [document.object.metadata.name for document in manifest.load([tmp_path])] == ["a", "b"]
    assert [document.object.metadata.name for document in manifest.load([tmp_path / "b.yml"])] == ["b"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path, "a\0b"):
        with pytest.raises(BadInput) as caught:
            manifest.load([path])
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_the_apis_faults_find_their_line(tmp_path: Path) -> None:
    (document,) = manifest.loads(POD, "web.yaml")
    fault = manifest.Fault(("spec", "containers", 0, "image"), "unknown image 'host'")
    assert str(document.located(fault)) == "web.yaml:8: spec.containers[0].image: unknown image 'host'"


def test_a_token_of_a_service_account_is_refused_by_name() -> None:
    found = faults(spec("volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: x}}]}}]"))
    assert "serviceAccountToken: not supported by rawpod yet" in found[0]
