"""One pod kept as the store asks for: brought up, followed, taken down.

A keeper is a task that acts and then waits for the next event: a change of the pod or of what it refers to, a status
from its monitor, the monitor's end. Nothing is looked at twice without cause.
"""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from kernel.errors import NotFound, RawpodError
from runtime.pod import control, directory
from runtime.pod.backoff import Backoff
from runtime.pod.qos import qos_class
from runtime.settings import Settings
from runtime.supervisor import references
from runtime.supervisor.given import Given
from runtime.supervisor.meta import FINISHED_PHASES, finished, terminating, uid_of
from runtime.supervisor.registry import DEFAULT_GRACE, Registry
from runtime.supervisor.resources import Object
from runtime.supervisor.spawnerlink import SpawnerLink
from runtime.supervisor.store import Store

log = logging.getLogger("rawpod.node")

_RETRY_SAVE = 1.0
_RETRY_DESTROY = 5.0


class Keeper:
    """Keeps the pod of this uid. `ended` is called when nothing of it is left, here and in the store."""

    def __init__(
        self,
        uid: str,
        key: tuple[str, str],
        *,
        store: Store,
        registry: Registry,
        settings: Settings,
        spawner: SpawnerLink,
        ended: Callable[["Keeper"], None],
    ) -> None:
        self.uid, self.key = uid, key
        self._store, self._registry, self._settings, self._spawner = store, registry, settings, spawner
        self._directory = settings.pod(uid)
        self._backoff = Backoff()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._watching: socket.socket | None = None
        self._final = False  # the monitor's last word was that the pod is over
        self._connected_at = 0.0
        self._ending = False
        self._given: Given | None = None
        self._unsaved: Object | None = None
        self._save_timer: asyncio.TimerHandle | None = None
        self._save_failed = False
        self.task = self._loop.create_task(self._run())
        self.task.add_done_callback(lambda _task: ended(self))

    @property
    def label(self) -> str:
        """The pod's name in messages."""
        return "/".join(self.key)

    def wake(self) -> None:
        """Something that may matter has changed."""
        self._changed.set()

    def refers_to(self, kind: str, name: str) -> bool:
        """Whether the pod makes use of this ConfigMap or Secret."""
        pod = self._pod()
        return pod is not None and any(
            reference.kind == kind and reference.name == name for reference in references.of_pod(pod)
        )

    async def _wait(self, timeout: float | None = None) -> None:
        """Until something changes or `timeout` seconds have passed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout)
        self._changed.clear()

    async def _delay(self, seconds: float) -> None:
        """Until `seconds` have passed or the pod is to go."""
        deadline = self._loop.time() + seconds
        while (left := deadline - self._loop.time()) > 0:
            pod = self._pod()
            if pod is None or terminating(pod):
                return
            await self._wait(left)

    def _pod(self) -> Object | None:
        """The pod as the store has it, None once it is not there any more."""
        record = self._store.find("Pod", *self.key)
        return record.item if record is not None and uid_of(record.item) == self.uid else None

    async def _run(self) -> None:
        try:
            while (pod := self._pod()) is not None and not terminating(pod):
                try:
                    await self._keep(pod)
                except (RawpodError, OSError) as error:
                    delay = max(1.0, self._backoff.next_delay(0.0))
                    log.error("pod %s: %s (again in %g s)", self.label, error, delay)
                    self._pending("CreatePodSandboxError", str(error))
                    await self._delay(delay)
            await self._take_down()
        finally:
            self._unwatch()
            if self._save_timer is not None:
                self._save_timer.cancel()

    # --- up -----------------------------------------------------------------------------------------------------

    async def _keep(self, pod: Object) -> None:
        """One step: returns when the pod has to be looked at again."""
        if self._watching is not None or finished(pod):
            self._refresh(pod)
            await self._wait()
        elif self._connect():
            log.info("pod %s: monitor connected", self.label)
        elif self._ended_unseen():
            return
        elif self._directory.exists():
            await self._clear_up()
        elif (reason := references.missing(pod, self._lookup)) is not None:
            self._pending("CreateContainerConfigError", reason)
            await self._wait()
        else:
            await self._bring_up(pod)

    async def _clear_up(self) -> None:
        """The monitor is gone and the pod is not over: take away what it left, so that it begins anew."""
        log.warning("pod %s: its monitor is gone, clearing up", self.label)
        self._pending("MonitorGone", "the pod's monitor ended unexpectedly, the pod is started again")
        await self._spawner.destroy(self.uid)
        delay = self._backoff.next_delay(self._loop.time() - self._connected_at)
        if delay:
            log.warning("pod %s: started again in %g s", self.label, delay)
            await self._delay(delay)

    def _lookup(self, kind: str, name: str) -> Object | None:
        record = self._store.find(kind, self.key[0], name)
        return record.item if record is not None else None

    async def _bring_up(self, pod: Object) -> None:
        given = self._to_give(pod)
        wanted = {key: value for key, value in pod.items() if key != "status"}
        directory.create(self._settings, self.uid, msgspec.json.encode(wanted), given.values)
        self._given = given
        pid = await self._spawner.spawn(self.uid)
        log.info("pod %s: monitor %d started", self.label, pid)
        if not self._connect() and not self._ended_unseen():
            raise RawpodError(
                f"the monitor of pod {self.label} ended at once", remedy=f"see {self._directory}/monitor.log"
            )

    def _to_give(self, pod: Object) -> Given:
        found = references.values(pod, self._lookup)
        values = msgspec.json.encode(found) if any(found.values()) else None
        return Given(values, pod["metadata"].get("labels") or {}, pod["metadata"].get("annotations") or {})

    def _refresh(self, pod: Object) -> None:
        """Give the monitor what has changed of the pod's labels and annotations, and of what it refers to."""
        if self._watching is None:
            return
        try:
            if self._given is None:  # the pod was adopted
                self._given = Given.read(self._directory)
            given = self._to_give(pod)
            if given != self._given:
                given.write(self._directory)
                self._watching.send(b'{"do":"refresh"}')
                self._given = given
        except OSError as error:
            log.error("pod %s: cannot pass on what has changed: %s", self.label, error)

    def _connect(self) -> bool:
        """Begin to follow the monitor, if there is one."""
        try:
            connection = control.connect(self._directory)
        except (NotFound, OSError):
            return False
        connection.setblocking(False)
        try:
            connection.send(b'{"do":"watch"}')
        except OSError:
            connection.close()
            return False
        self._watching = connection
        self._connected_at = self._loop.time()
        self._loop.add_reader(connection, self._reported)
        return True

    def _unwatch(self) -> None:
        if self._watching is not None:
            self._loop.remove_reader(self._watching)
            self._watching.close()
            self._watching = None

    def _reported(self) -> None:
        """The monitor has sent a status, or has ended."""
        assert self._watching is not None
        try:
            packet = self._watching.recv(control.MAX_PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            message = json.loads(packet)
            if "error" in message:
                log.error("pod %s: %s", self.label, message["error"])
            status = message.get("status")
            if isinstance(status, dict) and not self._ending:
                self._save(status)
            return
        self._unwatch()
        if not self._final and (pod := self._pod()) is not None and not terminating(pod):
            log.warning("pod %s: its monitor has ended", self.label)
        self._changed.set()

    def _ended_unseen(self) -> bool:
        """Whether the pod came to its end while nobody watched: then that is its status."""
        status = directory.read_status(self._directory)
        if status is None or status.get("phase") not in FINISHED_PHASES:
            return False
        self._save(status)
        return True

    # --- status -------------------------------------------------------------------------------------------------

    def _save(self, status: dict[str, Any]) -> None:
        """Put the monitor's status into the store; if that fails, the payloads run on and it is tried again."""
        self._final = status.get("phase") in FINISHED_PHASES
        self._unsaved = {key: value for key, value in status.items() if key != "rawpod"}
        self._flush()

    def _flush(self) -> None:
        pod, status = self._pod(), self._unsaved
        self._save_timer = None
        if pod is None or status is None:
            return
        try:
            with self._store.transaction(durable=False) as writes:
                self._registry.set_status(writes, pod, status)
        except RawpodError as error:
            if not self._save_failed:
                log.error("pod %s: cannot keep its status, trying on: %s", self.label, error)
            self._save_failed = True
            self._save_timer = self._loop.call_later(_RETRY_SAVE, self._flush)
        else:
            self._unsaved, self._save_failed = None, False

    def _pending(self, reason: str, message: str) -> None:
        """Report why the pod does not run."""
        pod = self._pod()
        if pod is None:
            return
        waiting = {"waiting": {"reason": reason, "message": message}}
        containers = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": waiting,
            }
            for container in pod["spec"]["containers"]
        ]
        status = {
            "phase": "Pending",
            "reason": reason,
            "message": message,
            "containerStatuses": containers,
            "qosClass": qos_class(pod["spec"]),
        }
        if pod.get("status") != status:
            self._save(status)

    # --- down ---------------------------------------------------------------------------------------------------

    async def _take_down(self) -> None:
        """Stop the pod, remove all that it left, and at last the object."""
        await self._stop()
        while True:
            try:
                if self._directory.exists():
                    await self._spawner.destroy(self.uid)
                self._remove()
                return
            except (RawpodError, OSError) as error:
                log.error("pod %s: cannot be removed yet: %s", self.label, error)
                self._remaining(str(error))
                await self._wait(_RETRY_DESTROY)

    def _remaining(self, message: str) -> None:
        pod = self._pod()
        if pod is not None and pod.get("status", {}).get("message") != message:
            self._save({**pod.get("status", {}), "reason": "Terminating", "message": message})

    def _remove(self) -> None:
        if self._pod() is not None:
            with self._store.transaction(durable=False) as writes:
                writes.delete("Pod", *self.key)
        log.info("pod %s: removed", self.label)

    async def _stop(self) -> None:
        """Ask the monitor to end the pod, again if less time is left to it, until it has or is gone."""
        if self._watching is None and not self._connect():
            return
        asked: int | None = None
        while self._watching is not None:
            pod = self._pod()
            grace = self._grace(pod)
            if asked is None or grace < asked:
                asked = grace
                self._ask_to_stop(grace)
            # The answer comes on the connection of the watch, and so does the end of the monitor.
            await self._wait()

    def _grace(self, pod: Object | None) -> int:
        if pod is None:
            return 0
        own = pod["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE)
        return int(pod["metadata"].get("deletionGracePeriodSeconds", own))

    def _ask_to_stop(self, grace: int) -> None:
        assert self._watching is not None
        with contextlib.suppress(OSError):  # gone: seen as the end of the connection
            self._watching.send(json.dumps({"do": "stop", "grace": grace}).encode())

    async def end(self) -> None:
        """Stops keeping, ends the pod and removes what it left. The object stays, as if the pod had never run."""
        self._ending = True
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        try:
            await self._stop()
        finally:
            self._unwatch()
        if self._directory.exists():
            await self._spawner.destroy(self.uid)
        pod = self._pod()
        if pod is not None and not finished(pod):
            self._save({"phase": "Pending", "qosClass": qos_class(pod["spec"])})
