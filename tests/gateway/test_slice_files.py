"""Slices as they are written down: whole or not at all, let go when their worker is dead, taken over with its node."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from taximeter.budgets.slice_files import DEAD_S, FOLDER, DeadSlices, SliceFile, take_over


async def let_go(data_dir: Path) -> list[tuple[str, list[str]]]:
    """What control lets go of dead workers."""
    found: list[tuple[str, list[str]]] = []
    now_s = 0.0

    async def release(workspace: str, names: list[str]) -> int:
        found.append((workspace, list(names)))
        return len(names)

    async def drained(_: str) -> bool:
        return True

    dead = DeadSlices(data_dir, release, drained, clock_s=lambda: now_s)  # type: ignore[arg-type]
    await dead.look()
    now_s = DEAD_S
    await dead.look()
    return found


async def test_a_slice_that_the_disk_took_in_part_is_not_asked_for_and_spoils_no_other(tmp_path, monkeypatch):
    slices, write = SliceFile(tmp_path), os.write
    slices.write([("w", "a")])
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
        with pytest.raises(OSError, match="No space") as raised:
            slices.write([("w", "b"), ("v", "c")])
        assert raised.value.errno == errno.ENOSPC
    slices.write([("v", "d")])
    assert await let_go(tmp_path) == []  # it lives
    slices.close()
    assert await let_go(tmp_path) == [("w", ["a"]), ("v", ["d"])]
    assert not list((tmp_path / FOLDER).iterdir())


async def test_slices_of_a_node_that_is_gone_are_let_go_by_the_one_that_takes_over(tmp_path):
    gone, here = tmp_path / "gone", tmp_path / "here"
    gone.mkdir()
    here.mkdir()
    take_over(gone, here)  # it had none
    slices = SliceFile(gone)
    slices.write([("w", "a"), ("w", "b")])
    with pytest.raises(BlockingIOError):
        take_over(gone, here)
    slices.close()
    take_over(gone, here)
    take_over(gone, here)
    assert await let_go(here) == [("w", ["a", "b"])]
    assert not list((gone / FOLDER).iterdir())


async def test_what_a_worker_that_ended_held_need_not_wait_once_all_is_counted(tmp_path):
    found = []

    async def release(workspace, names):
        found.extend(names)
        return len(names)

    async def drained(_):
        return True

    ended, killed = SliceFile(tmp_path), SliceFile(tmp_path)
    ended.write([("w", "a")])
    killed.write([("w", "b")])
    assert killed._fd is not None
    os.close(killed._fd)
    dead = DeadSlices(tmp_path, release, drained, clock_s=lambda: 0.0)
    await dead.look(all_counted=True)
    assert found == []  # the first still lives
    ended.close()
    await dead.look()
    assert found == []
    await dead.look(all_counted=True)
    assert found == ["a"]  # what the other one had asked for last may still be on its way
