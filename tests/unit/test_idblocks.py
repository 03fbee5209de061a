"""Blocks of user ids: never one twice, found again by the pod's uid, whatever a crash left."""

import os
from pathlib import Path

import pytest

from kernel.errors import HostError
from runtime.pod.idblocks import SIZE, IdBlocks


def test_a_pod_keeps_its_block_and_no_other_gets_it(tmp_path: Path) -> None:
    blocks = IdBlocks(tmp_path)
    assert blocks.find("a") is None
    assert [blocks.acquire(uid) for uid in ("a", "b", "a")] == [SIZE, 2 * SIZE, SIZE]
    assert blocks.find("b") == 2 * SIZE


@pytest.mark.parametrize("damage", ["", "a\n", "a\n7\n", "a\n../owners/a\n", "a\n\n", "a\n2\n"])
def test_a_damaged_file_does_not_lose_the_block(tmp_path: Path, damage: str) -> None:
    blocks = IdBlocks(tmp_path)
    assert [blocks.acquire(uid) for uid in ("a", "b")] == [SIZE, 2 * SIZE]
    (tmp_path / "ids/owners/a").write_text(damage)
    assert (blocks.find("a"), blocks.acquire("a")) == (SIZE, SIZE)
    blocks.release("a")
    assert os.listdir(tmp_path / "ids/blocks") == ["2"]


def test_a_block_just_freed_rests(tmp_path: Path) -> None:
    blocks = IdBlocks(tmp_path, last=3)
    blocks.acquire("a")
    blocks.release("a")
    blocks.release("a")
    assert [blocks.acquire(uid) for uid in ("b", "c", "d")] == [2 * SIZE, 3 * SIZE, SIZE]


def test_none_left_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    blocks = IdBlocks(tmp_path, last=1)
    blocks.acquire("a")
    with pytest.raises(HostError, match="no block"):
        blocks.acquire("b")
    assert os.listdir(tmp_path / "ids/owners") == ["a"]


def test_a_crash_before_the_block_leaves_a_name_that_is_taken_up_or_released(tmp_path: Path) -> None:
    blocks = IdBlocks(tmp_path)
    blocks.acquire("a")
    (tmp_path / "ids/owners/b").write_text("b\n")
    assert blocks.find("b") is None
    assert blocks.acquire("b") == 2 * SIZE
    (tmp_path / "ids/owners/c").write_text("c\n")
    blocks.release("c")
    assert sorted(os.listdir(tmp_path / "ids/owners")) == ["a", "b"]
