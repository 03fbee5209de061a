"""From a pod to the OCI description: what the payload gets by default, and what a manifest changes."""

from __future__ import annotations

from typing import Any

import pytest

from kernel.errors import BadInput
from runtime import spec
from runtime.checks.config import check
from runtime.pod import environment, manifest, objects
from runtime.pod.compile import DEFAULT_CAPABILITIES, ImageView, Surroundings, compile_container
from runtime.pod.hostnames import pod_hostname
from runtime.pod.quantities import memory_bytes
from runtime.pod.run_options import pod_from_run_options
from runtime.pod.users import Accounts

ACCOUNTS = Accounts(
    passwd=b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/bin/false\n",
    group=b"root:x:0:\nwww:x:33:\ncdrom:x:24:www,other\nvideo:x:44:other\n",
)
IMAGE = ImageView(
    lowers=("/layers/b", "/layers/a"),
    binds=(("/usr", "/usr"),),
    env=("PATH=/opt/bin", "LANG=C"),
    entrypoint=("/entry",),
    cmd=("serve", "--all"),
    accounts=ACCOUNTS,
)
SURROUNDINGS = Surroundings(
    upper="/upper",
    work="/work",
    cgroups_path="/rawpod/uid/main",
    namespaces={"network": "/ns/net", "ipc": "/ns/ipc", "uts": "/ns/uts"},
    seccomp=None,
    etc={"/etc/hosts": "/pod/etc/hosts", "/etc/hostname": "/pod/etc/hostname"},
    volumes={"v": "/volumes/v", "w": "/volumes/w"},
    shm="/pod/shm",
)
VOLUMES = "[{name: v, emptyDir: {}}, {name: w, emptyDir: {}}]"


def pod(container: str = "", spec: str = "", annotations: str = "{}") -> objects.Pod:
    """A pod of one container, with further fields in YAML's flow style."""
    text = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: web, annotations: {annotations}}}
spec: {{volumes: {VOLUMES}, {spec} containers: [{{name: main, image: image, {container}}}]}}
"""
    found = manifest.loads(text)[0].object
    assert isinstance(found, objects.Pod)
    return found


def compiled(pod: objects.Pod, image: ImageView = IMAGE, surroundings: Surroundings = SURROUNDINGS) -> spec.Config:
    container = pod.spec.containers[0]
    env = environment.resolve(pod, container, environment.Sources())
    config = compile_container(pod, container, image=image, surroundings=surroundings, env=env)
    spec_accepts(config)
    return config


def spec_accepts(config: spec.Config) -> None:
    """Whatever is compiled is well formed and asks for nothing that is not executed."""
    check(config)
    assert spec.load(spec.dump(config)) == config


def process(config: spec.Config) -> spec.Process:
    assert config.process is not None
    return config.process


def resources(config: spec.Config) -> spec.Resources:
    assert config.linux is not None and config.linux.resources is not None
    return config.linux.resources


def mounts(config: spec.Config) -> dict[str, spec.Mount]:
    return {mount.destination: mount for mount in config.mounts}


def environ(config: spec.Config) -> dict[str, str]:
    return dict(text.split("=", 1) for text in process(config).env)  # type: ignore[misc]


def test_the_root_is_an_overlay_and_comes_first() -> None:
    first = compiled(pod()).mounts[0]
    assert (first.destination, first.type) == ("/", "overlay")
    assert first.options == ["lowerdir=/layers/b:/layers/a", "upperdir=/upper", "workdir=/work"]


def test_a_payload_has_eleven_capabilities_and_none_it_could_pass_on() -> None:
    capabilities = process(compiled(pod())).capabilities
    assert capabilities is not None
    assert capabilities.bounding == capabilities.effective == capabilities.permitted == sorted(DEFAULT_CAPABILITIES)
    assert len(DEFAULT_CAPABILITIES) == 11
    assert capabilities.inheritable == capabilities.ambient == []
    assert not {"CAP_NET_RAW", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SYS_ADMIN"} & set(capabilities.bounding)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ("{drop: [ALL]}", []),
        ("{drop: [ALL], add: [NET_BIND_SERVICE]}", ["CAP_NET_BIND_SERVICE"]),
        ("{drop: [ALL], add: [CAP_CHOWN]}", ["CAP_CHOWN"]),
        ("{add: [NET_ADMIN]}", sorted((*DEFAULT_CAPABILITIES, "CAP_NET_ADMIN"))),
        ("{drop: [CHOWN]}", sorted(set(DEFAULT_CAPABILITIES) - {"CAP_CHOWN"})),
    ],
)
def test_capabilities_are_dropped_and_added(changes: str, names: list[str]) -> None:
    capabilities = process(compiled(pod(f"securityContext: {{capabilities: {changes}}}"))).capabilities
    assert capabilities is not None
    assert capabilities.bounding == capabilities.permitted == names


def test_new_privileges_are_possible_only_when_asked_for() -> None:
    assert process(compiled(pod())).no_new_privileges
    assert process(compiled(pod("securityContext: {allowPrivilegeEscalation: false}"))).no_new_privileges
    assert not process(compiled(pod("securityContext: {allowPrivilegeEscalation: true}"))).no_new_privileges


def test_files_of_the_kernel_are_masked_or_read_only() -> None:
    linux = compiled(pod()).linux
    assert linux is not None
    assert {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"} <= set(linux.masked_paths)
    assert {"/proc/sys", "/proc/sysrq-trigger", "/proc/bus"} <= set(linux.readonly_paths)


def test_every_container_has_the_mounts_of_the_oci_specification() -> None:
    found = mounts(compiled(pod()))
    kinds = {
        place: found[place].type for place in ("/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys", "/sys/fs/cgroup")
    }
    assert list(kinds.values()) == ["proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup"]
    assert "ro" in found["/sys"].options and "ro" in found["/sys/fs/cgroup"].options
    assert all({"nosuid", "noexec"} <= set(found[place].options) for place in ("/proc", "/sys", "/dev/pts", "/dev/shm"))


def test_the_images_directories_of_the_host_are_read_only_with_all_below_them() -> None:
    assert mounts(compiled(pod()))["/usr"].options == ["rbind", "rprivate", "rro", "rnodev"]


def test_shared_memory_is_the_pods_or_else_the_containers_own() -> None:
    assert mounts(compiled(pod()))["/dev/shm"].source == "/pod/shm"
    assert mounts(compiled(pod(), surroundings=SURROUNDINGS.replace(shm="")))["/dev/shm"].type == "tmpfs"


def test_volumes_take_the_place_of_default_mounts_and_files() -> None:
    text = "volumeMounts: [{name: v, mountPath: /dev/shm}, {name: w, mountPath: /etc/hosts, readOnly: true}]"
    config = compiled(pod(text))
    assert mounts(config)["/dev/shm"].source == "/volumes/v"
    assert mounts(config)["/etc/hosts"].source == "/volumes/w"
    assert len(mounts(config)) == len(config.mounts)


def test_volumes_are_mounted_from_the_outside_inwards() -> None:
    config = compiled(pod("volumeMounts: [{name: v, mountPath: /a/b/c}, {name: w, mountPath: /a/b, readOnly: true}]"))
    assert [(mount.destination, mount.options[-1]) for mount in config.mounts[-2:]] == [
        ("/a/b", "rro"),
        ("/a/b/c", "rw"),
    ]


def test_namespaces_are_joined_made_or_left_out() -> None:
    linux = compiled(pod()).linux
    assert linux is not None
    kinds = {namespace.type: namespace.path for namespace in linux.namespaces}
    assert kinds == {"network": "/ns/net", "ipc": "/ns/ipc", "uts": "/ns/uts", "pid": "", "mount": "", "cgroup": ""}
    of_host = compiled(pod(), surroundings=SURROUNDINGS.replace(namespaces={"ipc": "", "uts": ""}))
    assert of_host.linux is not None
    assert "network" not in {namespace.type for namespace in of_host.linux.namespaces}
    assert of_host.hostname == "web"


@pytest.mark.parametrize(
    ("fields", "args"),
    [
        ("", ["/entry", "serve", "--all"]),
        ("args: [x]", ["/entry", "x"]),
        ("command: [/other]", ["/other"]),
        ("command: [/other], args: [x, '$(LANG)']", ["/other", "x", "C"]),
        ("command: [echo, '$$(LANG)', '$(NONE)']", ["echo", "$(LANG)", "$(NONE)"]),
    ],
)
def test_command_and_args_replace_entrypoint_and_cmd(fields: str, args: list[str]) -> None:
    assert process(compiled(pod(fields))).args == args


def test_a_container_without_a_command_is_refused() -> None:
    with pytest.raises(BadInput, match="container 'main': no command, and image 'image' has none"):
        compiled(pod(), image=ImageView(lowers=("/l",)))


def test_the_environment_is_the_images_then_the_manifests() -> None:
    found = environ(compiled(pod("env: [{name: LANG, value: de}, {name: A, value: '$(LANG)'}]")))
    assert found == {"HOME": "/root", "PATH": "/opt/bin", "HOSTNAME": "web", "LANG": "de", "A": "de"}
    assert environ(compiled(pod("tty: true")))["TERM"] == "xterm"
    assert environ(compiled(pod("env: [{name: HOME, value: /x}]")))["HOME"] == "/x"


@pytest.mark.parametrize("text", ["=x", "A", "A=\0"])
def test_a_malformed_image_config_is_named(text: str) -> None:
    with pytest.raises(BadInput, match=r"image 'image': config\.Env\[0\]"):
        compiled(pod(), image=IMAGE.replace(env=(text,)))


@pytest.mark.parametrize(
    ("own", "of_image", "cwd"),
    [("", "", "/"), ("", "srv/x", "/srv/x"), ("/a", "/b", "/a"), ("", "/../../etc", "/etc"), ("", "//x//y/.", "/x/y")],
)
def test_the_working_directory_is_absolute_and_plain(own: str, of_image: str, cwd: str) -> None:
    fields = f"workingDir: {own}" if own else ""
    assert process(compiled(pod(fields), image=IMAGE.replace(working_dir=of_image))).cwd == cwd


def test_limits_are_hard_and_requests_are_shares() -> None:
    limits = "resources: {limits: {cpu: 500m, memory: 64Mi}, requests: {cpu: 250m, memory: 32Mi}}"
    found = resources(compiled(pod(limits)))
    assert found.cpu == spec.CPU(quota=50_000, period=100_000, shares=256)
    assert found.memory == spec.Memory(limit=64 << 20, swap=64 << 20, reservation=32 << 20)
    assert resources(compiled(pod())) == spec.Resources(devices=found.devices)


def test_devices_are_denied_but_for_those_that_every_container_has() -> None:
    denied, *allowed = resources(compiled(pod())).devices
    assert denied == spec.DeviceRule(False, "a", access="rwm")
    numbers = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None)]
    assert allowed == [spec.DeviceRule(True, "c", major, minor, "rwm") for major, minor in numbers]


def test_a_cpu_limit_without_a_request_is_a_request_too() -> None:
    cpu = resources(compiled(pod("resources: {limits: {cpu: 2}}"))).cpu
    assert cpu == spec.CPU(quota=200_000, period=100_000, shares=2048)


def test_annotations_limit_tasks_and_name_the_user() -> None:
    found = compiled(pod(annotations="{rawpod.dev/pids-limit: '100', rawpod.dev/user: 'www'}"))
    assert resources(found).pids == spec.Pids(100)
    assert process(found).user == spec.User(uid=33, gid=33, additional_gids=[33, 24])


def test_kernel_parameters_and_a_read_only_root_are_passed_on() -> None:
    text = "securityContext: {sysctls: [{name: net/ipv4/tcp_syncookies, value: '1'}]},"
    config = compiled(pod("securityContext: {readOnlyRootFilesystem: true}", text))
    assert config.linux is not None and config.linux.sysctl == {"net.ipv4.tcp_syncookies": "1"}
    assert config.root is not None and config.root.readonly


@pytest.mark.parametrize(
    ("container", "spec_fields", "of_image", "expected"),
    [
        ("", "", "", (0, 0, [0])),
        ("", "", "www", (33, 33, [33, 24])),
        ("", "", "33:44", (33, 44, [44])),
        ("", "", "1000", (1000, 0, [0])),
        ("securityContext: {runAsUser: 33}", "", "", (33, 33, [33, 24])),
        ("securityContext: {runAsUser: 5, runAsGroup: 6}", "", "www", (5, 6, [6])),
        ("", "securityContext: {runAsUser: 5, supplementalGroups: [9, 8, 9]},", "www", (5, 0, [0, 8, 9])),
        ("securityContext: {runAsUser: 7}", "securityContext: {runAsUser: 5, runAsGroup: 4},", "", (7, 4, [4])),
    ],
)
def test_the_user_is_containers_pods_or_images(
    container: str, spec_fields: str, of_image: str, expected: tuple[int, int, list[int]]
) -> None:
    user = process(compiled(pod(container, spec_fields), image=IMAGE.replace(user=of_image))).user
    assert (user.uid, user.gid, user.additional_gids) == expected


@pytest.mark.parametrize(
    ("of_image", "said"),
    [
        ("", "the user is uid 0"),
        ("root", "user 'root' is a name, which stands for uid 0"),
        ("www", "user 'www' is a name, which stands for uid 33"),
        ("0:33", "the user is uid 0"),
        ("00", "the user is uid 0"),
    ],
)
def test_run_as_non_root_refuses_root_and_names_and_shows_the_uid(of_image: str, said: str) -> None:
    not_root = pod("securityContext: {runAsNonRoot: true}")
    with pytest.raises(BadInput, match=said):
        compiled(not_root, image=IMAGE.replace(user=of_image))
    assert process(compiled(not_root, image=IMAGE.replace(user="1000"))).user.uid == 1000


def test_groups_are_those_of_the_image_and_the_pod_or_with_strict_the_pods_alone() -> None:
    def groups(policy: str) -> list[int]:
        context = f"supplementalGroups: [7], fsGroup: 5, supplementalGroupsPolicy: {policy}"
        made = pod(spec=f"securityContext: {{runAsUser: 33, {context}}},")
        return process(compiled(made)).user.additional_gids

    assert groups("Merge") == [33, 5, 7, 24]
    assert groups("Strict") == [33, 5, 7]


def test_proc_is_unmasked_for_users_who_are_nobody_on_the_host() -> None:
    unmasked = compiled(pod("securityContext: {procMount: Unmasked}", spec="hostUsers: false,")).linux
    masked = compiled(pod("securityContext: {procMount: Default}")).linux
    assert unmasked is not None and masked is not None
    assert unmasked.masked_paths == unmasked.readonly_paths == []
    assert "/proc/kcore" in masked.masked_paths and "/proc/sys" in masked.readonly_paths


def test_a_containers_apparmor_profile_stands_before_that_of_its_pod() -> None:
    named = "appArmorProfile: {type: Localhost, localhostProfile: k8s-apparmor-example}"
    shared = f"securityContext: {{{named}}},"
    assert process(compiled(pod(spec=shared))).apparmor_profile == "k8s-apparmor-example"
    own = "securityContext: {appArmorProfile: {type: Unconfined}}"
    assert process(compiled(pod(own, spec=shared))).apparmor_profile == ""


def run(**options: Any) -> objects.Pod:
    return pod_from_run_options(**{"name": "x", "image": "host", **options})


def test_the_options_of_run_are_a_pod() -> None:
    made = run(
        command=["echo", "$(HOME)"],
        memory="64Mi",
        cpus="0.5",
        pids=100,
        volumes=["/srv:/data:ro", "/tmp:/tmp"],
        env=["A=$(B)", "EMPTY="],
        workdir="/data",
        user="33:44",
        network="none",
        hostname="box",
        tty=True,
    )
    volumes = {"volume-0": "/srv", "volume-1": "/tmp"}
    config = compiled(made, image=IMAGE.replace(entrypoint=()), surroundings=SURROUNDINGS.replace(volumes=volumes))
    found = process(config)
    assert (found.args, found.cwd, found.terminal) == (["echo", "$(HOME)"], "/data", True)
    assert (found.user.uid, found.user.gid) == (33, 44)
    assert environ(config)["A"] == "$(B)" and environ(config)["EMPTY"] == ""
    assert mounts(config)["/data"].options[-1] == "rro" and mounts(config)["/tmp"].options[-1] == "rw"
    assert resources(config).pids == spec.Pids(100)
    assert (made.spec.restart_policy, pod_hostname(made)) == ("Never", "box")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "Host"}, "IMAGE: image reference 'Host': character 1: "),
        ({"name": "X"}, "--name: 'X' is not a"),
        ({"memory": "64x"}, "--memory"),
        ({"cpus": "0"}, "--cpus: cpu '0' is out of range"),
        ({"pids": 0}, "--pids: '0' is no number of tasks"),
        ({"volumes": ["/a"]}, "--volume: '/a' is not a volume"),
        ({"volumes": ["/a:/b:rx"]}, "--volume: '/a:/b:rx' is not a volume"),
        ({"volumes": ["/a:b"]}, "--volume: 'b' is not absolute"),
        ({"volumes": ["/a:/proc"]}, "--volume: a volume cannot be mounted over '/proc'"),
        ({"env": ["A"]}, "--env: 'A' has no value"),
        ({"env": ["=x"]}, "--env: required"),
        ({"workdir": "x"}, "--workdir: 'x' is not absolute"),
        ({"user": "-1"}, "--user: user '-1' is neither"),
        ({"user": "4294967296"}, "--user: user '4294967296' is neither"),
        ({"network": "bridge"}, "--network: unknown network 'bridge' (pod, host or none)"),
        ({"hostname": "a_b"}, "--hostname: 'a_b' is not a host's name"),
    ],
)
def test_a_faulty_option_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        run(**options)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_all_faulty_options_are_named_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        run(memory="x", cpus="y", workdir="z")
    assert len(str(caught.value).split("\n")) == 3


@pytest.mark.parametrize("text", ["64m", "64M", "64Mi", "65536k", "67108864", "67108864b"])
def test_memory_may_be_written_as_docker_does(text: str) -> None:
    pod = run(memory=text)
    assert memory_bytes(pod.spec.containers[0].resources.limits["memory"]) == 64 << 20
