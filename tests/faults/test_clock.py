"""The clock is stepped under load, by hours and days, forwards and back: every process sees it, nobody counts twice."""

import random
import time
from functools import partial
from pathlib import Path

import pytest

from faults.running import Node

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
HOUR_US = 3_600_000_000

pytestmark = [
    pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian: apt-get install faketime)"),
]


STEPS_H = (-36, -5, -2, 2, 36)


def hours(node):
    """Those in which records ended."""
    return {record.ended_at // HOUR_US for record in node.records()}


async def test_a_stepped_clock_moves_records_to_other_hours_and_loses_none(seed, tmp_path, figures):
    dice = random.Random(seed)
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    env = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1",  # s, how soon a step is seen
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
        # else a wait with a time limit by the monotonic clock returns at once: every wait for the GIL would spin
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }
    keep = "[journal]\nkeep_s = 1000000.0\n"  # else a step forwards rightly removes delivered files, which are compared
    async with Node(tmp_path, env=env, config=keep) as node:
        async with node.load(clients=4, seed=seed):
            await node.answered(40)
            for step_h in dice.sample(STEPS_H, 4):
                offset.write_text(f"{step_h:+}h\n")
                hour = time.time_ns() // 1000 // HOUR_US + step_h
                await node.until(partial(sees, node, hour), f"seeing a step of {step_h} h")
                await node.answered(40)
                if dice.random() < 0.5:
                    gone = node.kill(dice.choice(("worker", "control")))[:1]
                    await node.until(partial(all_gone, gone), "rid of it")
            await node.until_ready()
        await node.settle()
        assert len(hours(node)) >= 5
        assert all((record.duration_ms or 0) >= 0 and (record.ttft_ms or 0) >= 0 for record in node.records())
        figures.add(node.compare())


def is_there(pid):
    return Path(f"/proc/{pid}").exists()


def sees(node: Node, hour: int) -> bool:
    return bool({hour, hour + 1} & hours(node))


def all_gone(pids: list[int]) -> bool:
    return not any(map(is_there, pids))
