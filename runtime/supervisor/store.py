"""Desired state and reported status: objects by kind, namespace and name, on disk.

All objects are held in memory, decoded and encoded; the database is what they are loaded from at start. So reads cost
nothing, and a write is one transaction: checked against memory, committed, and only then visible and told to watchers.
Everything happens in one thread, and nothing waits inside a transaction but the disk.

Every write takes the next version from one counter, as in Kubernetes: an object's metadata.resourceVersion is the
version of its last write, and a watch from a version gets everything after it.

Durability: a durable transaction is on disk when `transaction` returns (WAL, synchronous=FULL: one fsync). Status and
what the reconciler derives are written with synchronous=NORMAL: they survive the death of the process, and a power cut
may lose the last of them, which is harmless because they are computed again. SQLite keeps the order of commits in both.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kernel.errors import Conflict, HostError, NotFound, RawpodError
from runtime.supervisor.resources import Object
from runtime.supervisor.selectors import Matcher, everything

SCHEMA = 1
HISTORY = 8192
"""Changes kept for watches that start from an earlier version."""

# A power cut loses at most what was committed with synchronous=NORMAL since the last checkpoint, which SQLite makes at
# 1000 pages; a commit takes at least one. Counting on from beyond that never gives a version out twice.
_VERSIONS_SKIPPED_AT_OPEN = 1024

_TABLES = """
CREATE TABLE objects (
    kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE counter (version INTEGER NOT NULL);
INSERT INTO counter VALUES (0);
"""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])

Key = tuple[str, str, str]
"""Kind, namespace, name."""


class Compacted(RawpodError):
    """A watch asked for changes that are no longer, or not yet, known: list again, then watch from there."""


class AlreadyExists(Conflict):
    """An object of that name is there: Kubernetes tells this apart from a changed version."""


class StoreBroken(HostError):
    """The database is damaged: nothing is written any more, and the remedy tells how to recover it."""


class StoreFailed(HostError):
    """The disk did not take a write; nothing was changed and a later write may succeed."""


class Record(NamedTuple):
    """One object as stored: decoded, encoded, and the version of its last write."""

    item: Object
    body: bytes
    version: int


class Change(NamedTuple):
    """One write. `record` is the object after it, for DELETED the object as it last was, at the deletion's version."""

    type: str  # ADDED, MODIFIED or DELETED, as in a Kubernetes watch
    kind: str
    record: Record
    previous: Record | None


Watcher = Callable[[Change], None]


def key_of(item: Object) -> Key:
    """Where an object belongs."""
    return item["kind"], item["metadata"]["namespace"], item["metadata"]["name"]


class Store:
    """The objects in the database at `path`, which is made if there is none.

    Raises StoreBroken if the database is damaged or of a schema this program does not know.
    """

    def __init__(self, path: Path, *, history: int = HISTORY) -> None:
        self.path = path
        self.broken: StoreBroken | None = None
        self._records: dict[str, dict[tuple[str, str], Record]] = {}
        self._history: deque[Change] = deque(maxlen=history)
        self._watchers: list[Watcher] = []
        self._open: Transaction | None = None
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise self._unopened(error) from None
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            path.chmod(0o600)
            self._load()
        except BaseException as error:
            self._database.close()
            if isinstance(error, sqlite3.OperationalError):
                raise self._unopened(error) from None
            if isinstance(error, (sqlite3.DatabaseError, msgspec.DecodeError, KeyError)):
                raise self._damaged(str(error)) from None
            raise
        self._oldest = self.version

    def _unopened(self, error: sqlite3.OperationalError) -> StoreFailed:
        return StoreFailed(f'cannot open the store "{self.path}": {error}', remedy="is there space, is it ours?")

    def _load(self) -> None:
        schema = self._database.execute("PRAGMA user_version").fetchone()[0]
        if schema == 0 and not self._database.execute("SELECT name FROM sqlite_master").fetchall():
            self._database.executescript(f"BEGIN;{_TABLES}PRAGMA user_version={SCHEMA};COMMIT")
        elif schema != SCHEMA:
            raise StoreBroken(
                f'the store "{self.path}" has schema {schema}, this rawpod knows schema {SCHEMA}',
                remedy="run the version of rawpod that wrote it, or name another --root",
            )
        if (verdict := self._database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(verdict)
        for (body,) in self._database.execute("SELECT body FROM objects"):
            item = _decoder.decode(body)
            kind, namespace, name = key_of(item)
            version = int(item["metadata"]["resourceVersion"])
            self._records.setdefault(kind, {})[namespace, name] = Record(item, bytes(body), version)
        (version,) = self._database.execute("SELECT version FROM counter").fetchone()
        self.version = version + _VERSIONS_SKIPPED_AT_OPEN

    def _damaged(self, detail: str) -> StoreBroken:
        self.broken = StoreBroken(
            f'the store "{self.path}" is damaged, nothing is written to it: {detail}',
            remedy=(
                f'with the supervisor stopped (pods run on): `sqlite3 "{self.path}" .recover | sqlite3 recovered.db`, '
                f'remove "{self.path}"* and put recovered.db there; or remove it and apply the manifests again'
            ),
        )
        return self.broken

    def close(self) -> None:
        """Ends the use of the database; what was written stays."""
        self._database.close()

    def find(self, kind: str, namespace: str, name: str) -> Record | None:
        """The object's record, or None."""
        return self._records.get(kind, {}).get((namespace, name))

    def get(self, kind: str, namespace: str, name: str) -> Record:
        """The object's record. Raises NotFound."""
        record = self.find(kind, namespace, name)
        if record is None:
            raise NotFound(f'{kind} "{namespace}/{name}" not found')
        return record

    def select(self, kind: str, namespace: str | None = None, selector: Matcher = everything) -> list[Record]:
        """The records of a kind in one namespace or all, by namespace and name."""
        records = self._records.get(kind, {})
        return [
            record
            for key, record in sorted(records.items())
            if (namespace is None or key[0] == namespace) and selector(record.item)
        ]

    @contextmanager
    def transaction(self, *, durable: bool = True, keep: bool = True) -> Iterator["Transaction"]:
        """Writes that happen together or, if the block raises or `keep` is false (a dry run), not at all.

        Raises StoreBroken if the database is damaged, StoreFailed if the disk does not take the write.
        """
        if self.broken is not None:
            raise self.broken
        if self._open is not None:
            raise AssertionError("a transaction within a transaction")
        self._open = Transaction(self)
        try:
            yield self._open
            changes = self._open.changes if keep else []
            if changes:
                self._commit(changes, self._open.version, durable)
        finally:
            self._open = None
        for change in changes:
            for watcher in tuple(self._watchers):
                watcher(change)

    def _commit(self, changes: list[Change], version: int, durable: bool) -> None:
        database = self._database
        try:
            database.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            database.execute("BEGIN IMMEDIATE")
            for change in changes:
                key = key_of(change.record.item)
                if change.type == "DELETED":
                    database.execute("DELETE FROM objects WHERE kind=? AND namespace=? AND name=?", key)
                else:
                    database.execute("INSERT OR REPLACE INTO objects VALUES (?,?,?,?)", (*key, change.record.body))
            database.execute("UPDATE counter SET version=?", (version,))
            database.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            self._roll_back()
            if isinstance(error, sqlite3.OperationalError):
                raise StoreFailed(
                    f'the store "{self.path}" did not take the write: {error}', remedy="is the disk full?"
                ) from None
            raise self._damaged(str(error)) from None
        self.version = version
        for change in changes:
            kind, namespace, name = key_of(change.record.item)
            records = self._records.setdefault(kind, {})
            if change.type == "DELETED":
                del records[namespace, name]
            else:
                records[namespace, name] = change.record
            if len(self._history) == self._history.maxlen:
                self._oldest = self._history[0].record.version
            self._history.append(change)

    def _roll_back(self) -> None:
        if self._database.in_transaction:
            try:
                self._database.execute("ROLLBACK")
            except sqlite3.DatabaseError:
                return  # SQLite rolled back by itself, or the database is beyond help and the first error says so

    def watch(self, watcher: Watcher, since: int | None = None) -> Callable[[], None]:
        """Tells `watcher` of every change after version `since` (from now on if None), until the answer is called.

        Raises Compacted if changes after `since` are forgotten or `since` lies ahead.
        """
        if since is not None:
            if not self._oldest <= since <= self.version:
                raise Compacted(f"too old resource version: {since} (kept: {self._oldest} to {self.version})")
            for change in self._history:
                if change.record.version > since:
                    watcher(change)
        self._watchers.append(watcher)

        def stop() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return stop


class Transaction:
    """Writes being collected. It sees its own writes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._staged: dict[Key, Record | None] = {}
        self.changes: list[Change] = []
        self.version = store.version

    def find(self, kind: str, namespace: str, name: str) -> Record | None:
        """The record as this transaction sees it, or None."""
        key = (kind, namespace, name)
        return self._staged[key] if key in self._staged else self._store.find(*key)

    def get(self, kind: str, namespace: str, name: str) -> Record:
        """The record as this transaction sees it. Raises NotFound."""
        return self._current(kind, namespace, name, None)

    def create(self, item: Object) -> Record:
        """Adds an object. Raises AlreadyExists if one of that kind and name is there."""
        kind, namespace, name = key_of(item)
        if self.find(kind, namespace, name) is not None:
            raise AlreadyExists(f'{kind} "{namespace}/{name}" already exists')
        return self._stage("ADDED", item, None)

    def put(self, item: Object, *, if_version: int | None = None) -> Record:
        """Replaces an object, if `if_version` is None or still its version. Raises NotFound, Conflict.

        A write that changes nothing is none: the record and its version stay.
        """
        previous = self._current(*key_of(item), if_version)
        unchanged = {**item, "metadata": {**item["metadata"], "resourceVersion": str(previous.version)}}
        if unchanged == previous.item:
            return previous
        return self._stage("MODIFIED", item, previous)

    def delete(self, kind: str, namespace: str, name: str, *, if_version: int | None = None) -> Record:
        """Removes an object, if `if_version` is None or still its version. Raises NotFound, Conflict."""
        previous = self._current(kind, namespace, name, if_version)
        return self._stage("DELETED", previous.item, previous)

    def _current(self, kind: str, namespace: str, name: str, if_version: int | None) -> Record:
        record = self.find(kind, namespace, name)
        if record is None:
            raise NotFound(f'{kind} "{namespace}/{name}" not found')
        if if_version is not None and if_version != record.version:
            raise Conflict(
                f'{kind} "{namespace}/{name}" has changed: it is at version {record.version}, not {if_version}',
                remedy="read it again and repeat the change",
            )
        return record

    def _stage(self, change_type: str, item: Object, previous: Record | None) -> Record:
        self.version += 1
        metadata = {**item["metadata"], "resourceVersion": str(self.version)}
        versioned = {**item, "metadata": metadata}
        record = Record(versioned, _encoder.encode(versioned), self.version)
        self._staged[key_of(versioned)] = None if change_type == "DELETED" else record
        self.changes.append(Change(change_type, versioned["kind"], record, previous))
        return record
