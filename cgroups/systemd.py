"""Cgroups as systemd's transient scopes (systemd.scope(5), org.freedesktop.systemd1(5)), where it owns the tree.

A scope is made for a process that exists, over D-Bus, and is delegated: what is below it is ours. Limits are told to
systemd as properties, so that it does not reset them when it next looks, and then written exactly, where the unit's
property is coarser than the file or there is none (`scope_properties`).

The process itself imports the D-Bus library when the first call is made.
"""

from __future__ import annotations

import os

from cgroups.cgroup import Cgroup
from kernel import events
from kernel.errors import BadInput, Conflict, HostError, NotFound
from kernel.record import Record

TYPE_CHECKING = False  # `typing` is not loaded at run time; type checkers take the name for true
if TYPE_CHECKING:
    import socket
    from typing import Any

    from cgroups.controllers import Limits
    from cgroups.hierarchy import Hierarchy

    Property = tuple[str, tuple[str, Any]]

_TIMEOUT = 30.0
_PRIVATE = "/run/systemd/private"
_SYSTEM_BUS = "/run/dbus/system_bus_socket"
_INFINITY = 2**64 - 1
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.-\\@")


class Scope(Record):
    """A transient scope: the slice that it is in, its name ("libpod-1234.scope"), further properties of the unit."""

    slice: str
    name: str
    properties: tuple[Property, ...] = ()

    def cgroup(self, hierarchy: Hierarchy) -> Cgroup:
        """Where systemd makes it: a-b.slice is a directory of a.slice (systemd.slice(5))."""
        return Cgroup(os.path.join(hierarchy.mount, *slice_path(self.slice), self.name))


def scope_of(cgroups_path: str, container_id: str, annotations: dict[str, str] | None = None) -> Scope:
    """The scope for linux.cgroupsPath, which is SLICE:PREFIX:NAME here, or "" for system.slice:rawpod:ID.

    Annotations org.systemd.property.NAME set properties of the unit, with values as in GVariant's text form. Raises
    BadInput for what systemd would not take.
    """
    if not cgroups_path:
        cgroups_path = f"system.slice:rawpod:{container_id}"
    parts = cgroups_path.split(":")
    if len(parts) != 3 or not parts[2]:
        raise BadInput(
            f"linux.cgroupsPath: {cgroups_path!r} names no scope", remedy="systemd's form is SLICE:PREFIX:NAME"
        )
    slice, prefix, name = parts
    if name.endswith(".slice"):
        raise BadInput(f"linux.cgroupsPath: {cgroups_path!r} is a slice", remedy="a container needs a scope of its own")
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if not _NAME.issuperset(unit) or len(unit) > 255:
        raise BadInput(f"linux.cgroupsPath: {unit!r} is not a unit's name (systemd.unit(5))")
    slice_path(slice or "system.slice")
    return Scope(slice or "system.slice", unit, tuple(_annotated(annotations or {})))


def slice_path(slice: str) -> list[str]:
    """The directories of a slice: ["a.slice", "a-b.slice"] for "a-b.slice", none for the root, "-.slice"."""
    stem = slice.removesuffix(".slice")
    if slice == "-.slice":
        return []
    parts = stem.split("-")
    if not slice.endswith(".slice") or not all(parts) or not _NAME.issuperset(stem):
        raise BadInput(f"{slice!r} is not a slice", remedy='a name like "machine.slice" or "a-b.slice"')
    return ["-".join(parts[: depth + 1]) + ".slice" for depth in range(len(parts))]


def start_scope(scope: Scope, pid: int, limits: Limits) -> None:
    """Make the scope around a process, and wait until it is in it. Raises Conflict if the unit is there already."""
    properties: list[Property] = [
        ("Description", ("s", f"rawpod container {scope.name.removesuffix('.scope')}")),
        ("Slice", ("s", scope.slice)),
        ("Delegate", ("b", True)),
        ("PIDs", ("au", [pid])),
        ("DefaultDependencies", ("b", False)),
        ("CollectMode", ("s", "inactive-or-failed")),
        *((f"{kind}Accounting", ("b", True)) for kind in ("CPU", "IO", "Memory", "Tasks")),
        *scope_properties(limits),
        *scope.properties,
    ]
    with _Manager() as manager:
        try:
            result = manager.job("StartTransientUnit", "ssa(sv)a(sa(sv))", (scope.name, "fail", properties, []))
        except _Refusal as error:
            if not error.name.endswith(".UnitExists"):
                raise
            raise Conflict(f'systemd unit "{scope.name}" exists', remedy="delete the container that has it") from error
    if result != "done":
        raise HostError(f'systemd could not start "{scope.name}": {result}', remedy=f"see `journalctl -u {scope.name}`")


def set_scope(scope: Scope | str, limits: Limits) -> None:
    """Tell systemd of new limits, before they are written to the cgroup (`update.update`)."""
    properties = scope_properties(limits)
    if properties:
        with _Manager() as manager:
            name = scope if isinstance(scope, str) else scope.name
            manager.call("SetUnitProperties", "sba(sv)", (name, True, properties))


def stop_scope(name: str) -> None:
    """Stop the unit and wait until it is gone; its processes are killed. One that is gone is no error."""
    with _Manager() as manager:
        for method, signature, body in (("StopUnit", "ss", (name, "replace")), ("ResetFailedUnit", "s", (name,))):
            try:
                if method == "StopUnit":
                    manager.job(method, signature, body)
                else:
                    manager.call(method, signature, body)
            except NotFound:
                return


def scope_properties(limits: Limits) -> list[Property]:
    """The limits for which units have properties (systemd.resource-control(5)), `unified` files too."""
    files = dict(limits.files())
    found: list[Property] = []
    for name, key in _NUMBERS.items():
        # In `unified` there may be forms that only the kernel reads, as "64M": then the file alone has it.
        if files.get(name) == "max" or files.get(name, "").isdecimal():
            found.append((key, ("t", _INFINITY if files[name] == "max" else int(files[name]))))
    if files.get("cpu.idle") == "1":
        found.append(("CPUWeight", ("t", 0)))
    elif files.get("cpu.weight", "").isdecimal():
        found.append(("CPUWeight", ("t", int(files["cpu.weight"]))))
    quota = files.get("cpu.max", "").split()
    if 1 <= len(quota) <= 2 and all(text == "max" or text.isdecimal() for text in quota):
        found += _cpu_quota(*quota)
    for name, key in (("cpuset.cpus", "AllowedCPUs"), ("cpuset.mems", "AllowedMemoryNodes")):
        if files.get(name) and set(files[name]) <= set("0123456789,-"):
            found.append((key, ("ay", _bits(files[name]))))
    return found


_NUMBERS = {
    "memory.low": "MemoryLow",
    "memory.high": "MemoryHigh",
    "memory.max": "MemoryMax",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}


def _cpu_quota(quota: str, period: str = "100000") -> list[Property]:
    # Microseconds in each second. systemd takes whole percents, and the scope's must never be below the file's.
    share = _INFINITY if quota == "max" else -(-int(quota) * 100 // int(period)) * 10_000
    return [("CPUQuotaPeriodUSec", ("t", int(period))), ("CPUQuotaPerSecUSec", ("t", share))]


def _bits(spans: str) -> bytes:
    """A list like "0-3,7" as systemd takes it: a bit a number, the lowest first."""
    mask = 0
    for span in spans.strip().split(","):
        first, _, last = span.partition("-")
        for number in range(int(first), int(last or first) + 1):
            mask |= 1 << number
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def _annotated(annotations: dict[str, str]) -> list[Property]:
    found: list[Property] = []
    for annotation, text in annotations.items():
        name = annotation.removeprefix("org.systemd.property.")
        if name == annotation:
            continue
        if len(name) < 3 or not name.isascii() or not name.isalpha():
            raise BadInput(f"annotation {annotation!r}: {name!r} is not the name of a property")
        kind, value = _variant(annotation, text)
        if name.endswith("Sec") and not name.endswith("USec"):
            # Documented in seconds, taken in microseconds (org.freedesktop.systemd1(5)).
            if kind not in ("i", "u", "x", "t", "d"):
                raise BadInput(f"annotation {annotation!r}: {text!r} is not a number of seconds")
            name, kind, value = f"{name[:-3]}USec", "t", int(value * 1_000_000)
        found.append((name, (kind, value)))
    return found


_WIDTHS = {"byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t"}


def _variant(annotation: str, text: str) -> tuple[str, Any]:
    """A value in GVariant's text form, as far as units' properties need it: words, numbers, lists of words."""
    from ast import literal_eval

    word, _, rest = text.strip().partition(" ")
    try:
        if text.strip() in ("true", "false"):
            return "b", text.strip() == "true"
        if word in _WIDTHS:
            return _WIDTHS[word], int(rest, 0)
        value = literal_eval(text.strip())
    except (ValueError, SyntaxError):
        value = None
    if isinstance(value, str):
        return "s", value
    if type(value) is int:
        return "i", value
    if isinstance(value, float):
        return "d", value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "as", value
    raise BadInput(f"annotation {annotation!r}: {text!r} is no value", remedy="one like 'text', true, 5 or uint64 5")


class _Refusal(HostError):
    """An error that systemd answered, by its D-Bus name."""

    def __init__(self, method: str, name: str, text: str) -> None:
        super().__init__(f"systemd refused {method}: {text}", remedy=None)
        self.name = name


def _connect(path: str) -> socket.socket:
    """A connection past the handshake of D-Bus, as the user that this process is (SO_PEERCRED)."""
    import socket

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(_TIMEOUT)
        connection.connect(path)
        # BEGIN at once, as systemd's own clients do it: what comes in the same read as a BEGIN of its own is left lying
        # by sd-bus until there is more to read.
        connection.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\nBEGIN\r\n")
        answer = b""
        while not answer.endswith(b"\r\n"):
            data = connection.recv(1024)
            if not data:
                break
            answer += data
        if not answer.startswith(b"OK "):
            raise ConnectionRefusedError(f"authentication failed: {answer.decode(errors='replace').strip()}")
    except BaseException:
        connection.close()
        raise
    return connection


class _Manager:
    """A connection to the manager of the system: its own socket as root, where no bus daemon is needed, or the bus."""

    def __enter__(self) -> _Manager:
        try:
            from jeepney import Parser
        except ImportError:
            raise HostError("the systemd cgroup manager needs jeepney", remedy="pip install jeepney") from None
        direct = os.geteuid() == 0 and os.path.exists(_PRIVATE)
        where = _PRIVATE if direct else _SYSTEM_BUS
        self._parser = Parser()
        self._serial = 0
        self._ended: dict[str, str] = {}
        try:
            self._socket = _connect(where)
        except OSError as error:
            raise HostError(
                f'cannot reach systemd at "{where}": {error}',
                remedy="systemd must be PID 1 here; otherwise use --cgroup-manager=cgroupfs",
            ) from error
        if not direct:
            self._say_hello()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _say_hello(self) -> None:
        from jeepney import MatchRule, message_bus

        self._ask(message_bus.Hello(), "Hello")
        rule = MatchRule(type="signal", interface="org.freedesktop.systemd1.Manager", member="JobRemoved")
        self._ask(message_bus.AddMatch(rule), "AddMatch")
        self.call("Subscribe", None, ())

    def call(self, method: str, signature: str | None, body: tuple[Any, ...]) -> tuple[Any, ...]:
        """Call a method of the manager and wait for the answer. Raises NotFound for no such unit, or HostError."""
        from jeepney import DBusAddress, new_method_call

        manager = DBusAddress(
            "/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager"
        )
        with events.report("systemd_call", method=method, unit=body[0] if body else ""):
            return self._ask(new_method_call(manager, method, signature, body), method)

    def job(self, method: str, signature: str, body: tuple[Any, ...]) -> str:
        """Call a method that starts a job, and wait for its result: "done", "failed", "timeout" …"""
        self._ended.clear()
        (job,) = self.call(method, signature, body)
        while job not in self._ended:
            self._note(self._receive())
        return self._ended[job]

    def _ask(self, message: Any, method: str) -> tuple[Any, ...]:
        from jeepney import HeaderFields, MessageType

        self._serial += 1
        self._socket.sendall(message.serialise(serial=self._serial))
        while True:
            answer = self._receive()
            if answer.header.fields.get(HeaderFields.reply_serial) != self._serial:
                self._note(answer)
                continue
            if answer.header.message_type is not MessageType.error:
                body: tuple[Any, ...] = answer.body
                return body
            name = str(answer.header.fields.get(HeaderFields.error_name, ""))
            text = str(answer.body[0]) if answer.body else name
            raise NotFound(text) if name.endswith(".NoSuchUnit") else _Refusal(method, name, text)

    def _note(self, message: Any) -> None:
        from jeepney import HeaderFields

        if message.header.fields.get(HeaderFields.member) == "JobRemoved":
            _, job, _, result = message.body
            self._ended[job] = result

    def _receive(self) -> Any:
        try:
            while (message := self._parser.get_next_message()) is None:
                data = self._socket.recv(65536)
                if not data:
                    raise HostError("systemd closed the connection")
                self._parser.add_data(data)
        except TimeoutError:
            raise HostError(f"systemd has not answered within {_TIMEOUT:g} s") from None
        except OSError as error:
            raise HostError(f"the connection to systemd broke: {error}") from error
        return message
