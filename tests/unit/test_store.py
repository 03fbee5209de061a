"""The store: versions, transactions, watches, and what it does when the disk fails it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import Conflict, NotFound
from runtime.supervisor.selectors import labels
from runtime.supervisor.store import Change, Compacted, Store, StoreBroken, StoreFailed


def config_map(name: str, namespace: str = "default", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"name": name}},
        "data": data,
    }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state.db", history=8)
    yield opened
    opened.close()


def create(store: Store, *items: dict[str, Any]) -> None:
    with store.transaction() as writes:
        for item in items:
            writes.create(item)


def test_what_was_written_is_there_after_reopening_and_versions_go_on(tmp_path: Path) -> None:
    first = Store(tmp_path / "state.db")
    create(first, config_map("a", key="value"))
    version = first.version
    first.close()
    second = Store(tmp_path / "state.db")
    record = second.get("ConfigMap", "default", "a")
    assert record.item["data"] == {"key": "value"}
    assert record.version == version < second.version
    second.close()


def test_every_write_takes_the_next_version_of_one_counter(store: Store) -> None:
    start = store.version
    create(store, config_map("a"), config_map("b"))
    with store.transaction() as writes:
        writes.put(config_map("a", key="new"))
    assert store.get("ConfigMap", "default", "b").item["metadata"]["resourceVersion"] == str(start + 2)
    assert store.get("ConfigMap", "default", "a").item["metadata"]["resourceVersion"] == str(start + 3)


def test_put_at_an_old_version_is_a_conflict_and_changes_nothing(store: Store) -> None:
    create(store, config_map("a"))
    old = store.get("ConfigMap", "default", "a").version
    with store.transaction() as writes:
        writes.put(config_map("a", key="first"), if_version=old)
    with pytest.raises(Conflict, match="has changed"), store.transaction() as writes:
        writes.put(config_map("a", key="second"), if_version=old)
    assert store.get("ConfigMap", "default", "a").item["data"] == {"key": "first"}


def test_put_of_the_same_is_no_write(store: Store) -> None:
    create(store, config_map("a"))
    seen: list[Change] = []
    store.watch(seen.append)
    with store.transaction() as writes:
        writes.put(config_map("a"))
    assert seen == []


def test_a_transaction_that_raises_leaves_nothing(store: Store, tmp_path: Path) -> None:
    seen: list[Change] = []
    store.watch(seen.append)
    with pytest.raises(NotFound), store.transaction() as writes:
        writes.create(config_map("a"))
        writes.delete("ConfigMap", "default", "missing")
    assert store.select("ConfigMap") == [] and seen == []
    with closing(sqlite3.connect(tmp_path / "state.db")) as other, other:
        assert other.execute("SELECT count(*) FROM objects").fetchone() == (0,)
    other.close()


def test_a_transaction_sees_its_own_writes(store: Store) -> None:
    with store.transaction() as writes:
        writes.create(config_map("a"))
        with pytest.raises(Conflict):
            writes.create(config_map("a"))
        writes.delete("ConfigMap", "default", "a")
        assert writes.find("ConfigMap", "default", "a") is None
    assert store.select("ConfigMap") == []


def test_select_by_namespace_and_label(store: Store) -> None:
    create(store, config_map("a"), config_map("b", "other"), config_map("a", "other"))
    assert [r.item["metadata"]["name"] for r in store.select("ConfigMap", "other")] == ["a", "b"]
    assert len(store.select("ConfigMap", None, labels("name=a"))) == 2


def test_a_watch_gets_what_came_after_its_version_then_what_comes(store: Store) -> None:
    create(store, config_map("a"))
    since = store.version
    create(store, config_map("b"))
    seen: list[Change] = []
    stop = store.watch(seen.append, since)
    with store.transaction() as writes:
        writes.put(config_map("b", key="v"))
        writes.delete("ConfigMap", "default", "a")
    stop()
    create(store, config_map("c"))
    assert [(c.type, c.record.item["metadata"]["name"]) for c in seen] == [
        ("ADDED", "b"),
        ("MODIFIED", "b"),
        ("DELETED", "a"),
    ]
    assert [c.record.version for c in seen] == [since + 1, since + 2, since + 3]


def test_a_watch_from_what_is_forgotten_or_ahead_is_refused(store: Store) -> None:
    start = store.version
    for number in range(12):  # the history of this store holds 8
        create(store, config_map(f"a{number}"))
    for since in (start, start + 3, store.version + 1):
        with pytest.raises(Compacted):
            store.watch(lambda _change: None, since)
    seen: list[Change] = []
    store.watch(seen.append, start + 4)
    assert len(seen) == 8


def test_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "state.db")) as other, other:
        other.execute("PRAGMA user_version=99")
        other.execute("CREATE TABLE future (x)")
    other.close()
    with pytest.raises(StoreBroken, match="schema 99"):
        Store(tmp_path / "state.db")


@pytest.mark.parametrize("damage", ["text", "torn"])
def test_a_damaged_database_is_refused_with_the_way_to_recover(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.db"
    store = Store(path)
    create(store, *(config_map(f"a{n}", text="x" * 3000) for n in range(20)))
    store.close()
    data = path.read_bytes()
    path.write_bytes(b"not a database, not at all" * 100 if damage == "text" else data[:8192] + bytes(len(data) - 8192))
    with pytest.raises(StoreBroken, match=r"\.recover"):
        Store(path)


def test_a_full_disk_refuses_the_write_and_a_later_one_succeeds(store: Store) -> None:
    create(store, config_map("a"))
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreFailed, match="full"):
        create(store, config_map("big", text="x" * 100_000))
    assert store.find("ConfigMap", "default", "big") is None
    store._database.execute("PRAGMA max_page_count=1000000")
    create(store, config_map("big", text="x" * 100_000))
    assert store.find("ConfigMap", "default", "big") is not None


def test_damage_found_while_writing_stops_all_writes_and_reads_go_on(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = Store(path)
    create(store, *(config_map(f"a{n}", text="x" * 3000) for n in range(50)))
    store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store._database.execute("PRAGMA cache_size=0")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(StoreBroken):
        create(store, config_map("new", text="x" * 3000))
    with pytest.raises(StoreBroken, match=r"\.recover"):
        create(store, config_map("newer"))
    assert len(store.select("ConfigMap")) == 50
    store.close()


def test_the_database_is_the_owners_alone(store: Store) -> None:
    assert store.path.stat().st_mode & 0o777 == 0o600
