"""What a pod's directory asks for, turned into the sandbox's operations and the containers' configurations."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cgroups.controllers import Limits
from cgroups.hierarchy import Hierarchy
from kernel.errors import BadInput, NotFound, RawpodError
from kernel.operation import Operation
from rootfs.images.platform import here, parse_platform
from rootfs.images.store import Image, ImageStore
from rootfs.overlay import create_upper
from runtime import spec
from runtime.pod import annotations as pod_annotations
from runtime.pod import (
    defaults,
    directory,
    environment,
    profiles,
    pullpolicy,
    qos,
    quantities,
    sandbox,
    termination,
    users,
    volume_limits,
    volumes,
)
from runtime.pod.attempt import Prepared
from runtime.pod.compile import (
    ETC_FILES,
    ImageView,
    Surroundings,
    capabilities_of,
    compile_container,
    image_volumes,
    resolve_health,
    resolve_stop_signal,
)
from runtime.pod.environment import Sources
from runtime.pod.hostnames import fqdn, kernel_hostname, pod_hostname
from runtime.pod.idblocks import HOST_ROOT, PodRoot
from runtime.pod.logs import LogDirectory
from runtime.pod.objects import ConfigMap, Container, Pod, Secret, Volume
from runtime.pod.phase import INIT, MAIN, SIDECAR
from runtime.pod.probe_socket import Place
from runtime.pod.probes import rules_of
from runtime.pod.pullpolicy import Registries
from runtime.pod.records import POD_INITIALIZING, ContainerRecord, Waiting
from runtime.pod.runner import ImageMissing
from runtime.pod.termination import TerminationMessage
from runtime.settings import Settings

_SHM_SIZE = 64 * 1024 * 1024

_OCI_NAMES = {"user": "user", "net": "network", "ipc": "ipc", "uts": "uts"}


class _Values(msgspec.Struct):
    """values.json: the objects that the pod refers to, by name."""

    config_maps: dict[str, ConfigMap] = msgspec.field(name="ConfigMap", default_factory=dict)
    secrets: dict[str, Secret] = msgspec.field(name="Secret", default_factory=dict)


def pod_limits(pod: Pod) -> Limits:
    """What the containers may have together of each resource that all of them limit; no limit for the others. Pure."""
    given = [container.resources.limits if container.resources else {} for container in pod.spec.all_containers]
    limits = Limits()
    if all("memory" in one for one in given):
        memory = at_once(pod, [quantities.memory_bytes(one["memory"]) for one in given])
        limits = limits.replace(memory_max=memory, swap_max=0)
    if all("cpu" in one for one in given):
        millicores = at_once(pod, [quantities.cpu_millicores(one["cpu"]) for one in given])
        quota = quantities.cpu_quota_us(millicores)
        limits = limits.replace(cpu_quota_us=quota, cpu_period_us=quantities.CPU_PERIOD_US)
    if (pids := pod_annotations.pids_limit(pod.metadata.annotations)) is not None:
        limits = limits.replace(pids_max=at_once(pod, [pids] * len(given)))
    return limits


def at_once(pod: Pod, amounts: Sequence[int]) -> int:
    """The most of `amounts`, one a container, that containers which run at the same time have together. Pure.

    Sidecars run beside the containers and beside the init containers after them (Kubernetes, "Sidecar containers",
    resource sharing).
    """
    sidecars = most = 0
    for container, amount in zip(pod.spec.init_containers, amounts, strict=False):
        if container.is_sidecar:
            sidecars += amount
        most = max(most, sidecars + (0 if container.is_sidecar else amount))
    return max(most, sidecars + sum(amounts[len(pod.spec.init_containers) :]))


class Blueprint:
    """A pod as it was asked for, and all that follows from it. Makes nothing but a container's own directories."""

    def __init__(self, settings: Settings, pod: Pod, values: _Values, hierarchy: Hierarchy) -> None:
        self.pod = pod
        self.places = sandbox.Places(settings, pod.metadata.uid)
        self.network = pod_annotations.network(pod)
        self._settings, self._hierarchy = settings, hierarchy
        self._values = values
        self._sources = Sources(values.config_maps, values.secrets, machine=volumes.machine())
        self._images = ImageStore(settings.images)
        self._views: dict[str, tuple[Image, ImageView]] = {}

    @classmethod
    def read(cls, settings: Settings, uid: str, hierarchy: Hierarchy) -> Blueprint:
        """From STATE/pods/UID. Raises NotFound without pod.json, BadInput for one that cannot be read."""
        pod, values = _read(settings, uid)
        defaults.apply(pod)
        return cls(settings, pod, values, hierarchy)

    @property
    def qos_class(self) -> str:
        """Guaranteed, Burstable or BestEffort."""
        return qos.qos_class(msgspec.to_builtins(self.pod.spec))

    @property
    def restart_policy(self) -> str:
        return self.pod.spec.restart_policy

    @property
    def deadline(self) -> float | None:
        """Seconds from the pod's start within which it is to be over, None for no limit."""
        seconds = self.pod.spec.active_deadline_seconds
        return None if seconds is None else float(seconds)

    @property
    def grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL."""
        return float(self.pod.spec.termination_grace_period_seconds or 0)

    @property
    def containers(self) -> list[tuple[str, str]]:
        """Name and image of each, init containers first: other methods' `index` is that of this list."""
        return [(container.name, container.image) for container in self.pod.spec.all_containers]

    def records(self) -> list[ContainerRecord]:
        """What is known of each before anything has run."""
        spec = self.pod.spec
        state = Waiting(POD_INITIALIZING if spec.init_containers else "ContainerCreating")
        roles = [SIDECAR if container.is_sidecar else INIT for container in spec.init_containers]
        roles += [MAIN] * len(spec.containers)
        return [
            ContainerRecord(name, image, role, state=state)
            for (name, image), role in zip(self.containers, roles, strict=True)
        ]

    @property
    def metadata(self) -> dict[str, object]:
        """What lists of pods show of the object."""
        metadata: dict[str, object] = msgspec.to_builtins(self.pod.metadata)
        return {
            key: metadata[key] for key in ("name", "namespace", "uid", "labels", "ownerReferences") if key in metadata
        }

    def sandbox(self) -> list[Operation]:
        """The plan of what the containers share."""
        operations: list[Operation] = [
            sandbox.PodCgroup(
                self._hierarchy,
                sandbox.rawpod_cgroup(self._settings, self._hierarchy),
                self.places.cgroup(self._hierarchy),
                self._limits(),
            ),
            *([sandbox.IdBlock(self.places)] if self._own_users else []),
        ]
        name = kernel_hostname(self.pod)
        if kinds := self._namespaces():
            operations.append(sandbox.Namespaces(self.places, kinds, name, self._own_users))
        if self.network == "pod":
            operations.append(sandbox.AttachNetwork(self.places, self._ports()))
        aliases = tuple((alias.ip, tuple(alias.hostnames)) for alias in self.pod.spec.host_aliases)
        names = tuple(dict.fromkeys(filter(None, (fqdn(self.pod), pod_hostname(self.pod)))))
        asked = self.pod.spec
        operations.append(
            sandbox.EtcFiles(self.places, name, names, self.network, aliases, asked.dns_policy, asked.dns_config)
        )
        owner = self._owner
        if not self.pod.spec.host_ipc:
            operations.append(volumes.MemoryDirectory(self._shm(), _SHM_SIZE, mode=0o1777, owner=owner))
        operations += volumes.operations(
            self.pod,
            self._sources,
            self.places.memory_volumes,
            self._disk_volumes(),
            owner,
            pod_limits(self.pod).memory_max,
        )
        return operations

    @property
    def _owner(self) -> PodRoot:
        return PodRoot(self.places.id_blocks, self.places.uid) if self._own_users else HOST_ROOT

    def refresh(self, *, files: bool) -> list[str]:
        """Read again what the pod's directory says of its labels, annotations, ConfigMaps and Secrets.

        With `files` what volumes show of them is written anew; what could not be comes back as lines. Containers see
        the new values in their environment when they start again.
        """
        pod, values = _read(self._settings, self.places.uid)
        ours = {
            key: text for key, text in self.pod.metadata.annotations.items() if key.startswith(pod_annotations.PREFIX)
        }
        others = {
            key: text for key, text in pod.metadata.annotations.items() if not key.startswith(pod_annotations.PREFIX)
        }
        # rawpod's own say how the pod was made, which it stays.
        self.pod.metadata.labels, self.pod.metadata.annotations = pod.metadata.labels, others | ours
        self._values = values
        self._sources = self._sources.replace(config_maps=values.config_maps, secrets=values.secrets)
        return volumes.update(self.pod, self._sources, self.places.memory_volumes, self._owner) if files else []

    @property
    def _own_users(self) -> bool:
        return self.pod.spec.host_users is False

    def _limits(self) -> Limits:
        """The sum, where every container is limited. What the host lacks is for each container to report."""
        return pod_limits(self.pod).without({"memory", "cpu", "pids"} - self._hierarchy.controllers)

    def _namespaces(self) -> tuple[str, ...]:
        # With the host's network goes the host's name, as in Kubernetes.
        kinds = ("ipc",) if self.network == "host" else ("net", "ipc", "uts")
        return tuple(kind for kind in kinds if not (kind == "ipc" and self.pod.spec.host_ipc))

    def _ports(self) -> tuple[tuple[str, int, int, str], ...]:
        return tuple(
            (port.host_ip, port.host_port, port.container_port, port.protocol)
            for container in self.pod.spec.all_containers
            for port in container.ports
            if port.host_port
        )

    @property
    def disk_limits(self) -> list[volume_limits.DiskLimit]:
        """The volumes on disk that may have only so much of it."""
        return volume_limits.limits_of(self.pod, self._disk_volumes())

    def discard_volumes(self) -> None:
        """Remove the volumes on disk."""
        sandbox.remove_tree(self._disk_volumes())

    def _disk_volumes(self) -> Path:
        return self.places.overlay / ".volumes"

    def address(self) -> str:
        """The pod's address once the sandbox is set up, from then on known as status.podIP; "" for none of its own."""
        lease = sandbox.network_of(self._settings).lease(self.places.uid) if self.network == "pod" else None
        address = lease.address if lease else ""
        # The bridge's own address is where a pod finds its host.
        host_address = lease.gateway if lease else ""
        self._sources = self._sources.replace(address=address, host_address=host_address)
        return address

    def pull_policy(self, index: int) -> str:
        """When the container's image is pulled; the host's own never is, as no registry has it."""
        container = self.pod.spec.all_containers[index]
        return "IfNotPresent" if container.image == pullpolicy.HOST else container.image_pull_policy

    def wants_pull(self, index: int) -> bool:
        """Whether a start of the container has to wait for a pull. Raises BadInput for a malformed name."""
        policy, image = self.pull_policy(index), self.pod.spec.all_containers[index].image
        if wrong := pullpolicy.image_fault(image):
            raise BadInput(wrong)
        if policy == "IfNotPresent":
            with contextlib.suppress(NotFound):
                self._images.get(image)
                return False
        return policy != "Never"

    def registries(self) -> Registries:
        """The credentials that the pod's imagePullSecrets hold. Raises BadCredentials for one that holds none."""
        names = [reference.name for reference in self.pod.spec.image_pull_secrets]
        return pullpolicy.credentials(names, self._values.secrets)

    def prepare(self, index: int, attempt: int) -> tuple[Prepared, str]:
        """All that attempt number `attempt` of a container needs, its directories made; and its image's digest."""
        container = self.pod.spec.all_containers[index]
        image, view = self._image(container.image)
        layer = self._layer(index, attempt)
        made = create_upper(layer.parent, layer.name)
        ids = self.places.ids if self._own_users else None
        if ids is not None:
            os.chown(made.upper, ids, ids)  # an overlay shows its upper directory's owner on "/"
        message = self._termination(container, layer)
        message.create(ids or 0)
        cgroup = self.places.cgroup(self._hierarchy).child(container.name)
        joined = ("user", *self._namespaces()) if self._own_users else self._namespaces()
        surroundings = Surroundings(
            upper=made.upper,
            work=made.work,
            cgroups_path=self._hierarchy.name(cgroup.path),
            seccomp=self._seccomp(container),
            namespaces={_OCI_NAMES[kind]: str(self.places.namespace(kind)) for kind in joined},
            etc={path: str(self.places.etc(path.rpartition("/")[2])) for path in ETC_FILES},
            volumes={volume.name: str(self._volume(volume)) for volume in self.pod.spec.volumes},
            shm=str(self._shm()),
            ids=ids,
            mapped=volumes.mapped(self.pod),
            termination=str(message.path),
            image_volumes=_make_image_volumes(layer, image_volumes(container, view)),
            read_only=volumes.read_only(self.pod),
        )
        env = environment.resolve(self.pod, container, self._sources)
        volumes.make_sub_paths(container.volume_mounts, surroundings.volumes, env)
        config = compile_container(self.pod, container, image=view, surroundings=surroundings, env=env)
        bundle = self.places.bundle(container.name)
        bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
        prepared = Prepared(
            id=f"{self.places.uid}.{container.name}.{attempt}",
            config=config,
            encoded=spec.dump(config),
            hierarchy=self._hierarchy,
            missing_controllers=self._settings.missing_controllers,
            bundle=bundle,
            cgroup=cgroup,
            health=resolve_health(self.pod, container, view),
            probes=rules_of(container),
            place=self._place(),
            message=message,
            stop_signal=resolve_stop_signal(self.pod, container, view),
        )
        return prepared, image.digest

    def _place(self) -> Place:
        """Where probes find the pod: its address; over loopback where that is the host's, or all that there is."""
        if self.network == "pod":
            return Place(self._sources.address)
        return Place("127.0.0.1", "" if self.network == "host" else str(self.places.namespace("net")))

    def _termination(self, container: Container, layer: Path) -> TerminationMessage:
        """Beside the attempt's upper layer, so that it goes with it."""
        falls_back = container.termination_message_policy == termination.FALLBACK
        limit = termination.limit_of(len(self.pod.spec.all_containers))
        return TerminationMessage(layer / "termination-log", falls_back, limit)

    def _image(self, name: str) -> tuple[Image, ImageView]:
        try:
            image = self._images.get(name)
        except NotFound as error:
            raise ImageMissing(error.message, remedy=error.remedy) from None
        known = self._views.get(name)
        if known is None or known[0] != image:
            lowers, config = image.lowers, image.config
            view = ImageView(
                lowers=tuple(map(str, lowers)),
                binds=tuple((bind.source, bind.destination) for bind in image.binds),
                env=config.env,
                entrypoint=config.entrypoint,
                cmd=config.cmd,
                working_dir=config.working_dir,
                user=config.user,
                stop_signal=config.stop_signal,
                volumes=config.volumes,
                healthcheck=config.healthcheck,
                accounts=users.read_accounts(lowers),
            )
            known = self._views[name] = image, view
        return known

    def warnings(self, index: int) -> list[str]:
        """What is odd about the container's image, once it was prepared: that it is made for other machines."""
        image, _ = self._image(self.pod.spec.all_containers[index].image)
        if not image.platform or parse_platform(image.platform).normal() in (machine := here()).runs():
            return []
        return [f"image {image.name!r} is for {image.platform}, and this machine is {machine}"]

    def _seccomp(self, container: Container) -> spec.Seccomp | None:
        given = self._settings.pod(self.places.uid) / directory.SECCOMP
        bounding = capabilities_of(container).bounding
        return profiles.resolve(self.pod, container, bounding, self._settings.root / profiles.DIRECTORY, given)

    def _layer(self, index: int, attempt: int) -> Path:
        return self.places.overlay / self.pod.spec.all_containers[index].name / str(attempt)

    def _volume(self, volume: Volume) -> Path:
        return volumes.directory_of(volume, self.places.memory_volumes, self._disk_volumes())

    def _shm(self) -> Path:
        # Shared memory goes with the ipc namespace. Volumes' names never begin with a dot.
        if self.pod.spec.host_ipc:
            return Path("/dev/shm")
        return self.places.memory_volumes / ".shm"

    def discard(self, index: int, attempt: int) -> None:
        """Remove an attempt's upper layer. What cannot be removed now goes with the pod."""
        with contextlib.suppress(RawpodError, OSError):
            sandbox.remove_tree(self._layer(index, attempt))

    def log_directory(self, index: int) -> LogDirectory:
        """LOGS/pods/NAMESPACE_NAME_UID/CONTAINER."""
        meta = self.pod.metadata
        container = self.pod.spec.all_containers[index].name
        return LogDirectory.of(self._settings.logs, meta.namespace, meta.name, meta.uid, container)

    def keeps_stdin_open(self, index: int) -> bool:
        """Whether the container's standard input is a pipe and not /dev/null."""
        return self.pod.spec.all_containers[index].stdin


def _read(settings: Settings, uid: str) -> tuple[Pod, _Values]:
    where = settings.pod(uid)
    try:
        pod = msgspec.json.decode((where / directory.POD).read_bytes(), type=Pod)
        values = _Values()
        if (where / directory.VALUES).exists():
            values = msgspec.json.decode((where / directory.VALUES).read_bytes(), type=_Values)
    except FileNotFoundError:
        raise NotFound(f"pod {uid!r} has no {directory.POD}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"pod {uid!r}: {error}") from None
    if pod.metadata.uid != uid:
        raise BadInput(f"pod {uid!r} has the uid {pod.metadata.uid!r} in its {directory.POD}")
    return pod, values


def _make_image_volumes(layer: Path, wanted: list[str]) -> dict[str, str]:
    """An empty directory for each, beside the attempt's upper layer, so that it goes with it.

    They are root's on disk, also where the container's root is another user: they are id-mapped.
    """
    made: dict[str, str] = {}
    for number, path in enumerate(wanted):
        place = layer / "volumes" / str(number)
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        made[path] = str(place)
    return made
