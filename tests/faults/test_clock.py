"""The clock is stepped under load, by hours and days, forwards and back: every process sees it, nobody counts twice."""

import random
from pathlib import Path

import pytest

from faults.house import House

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
HOUR_US = 3_600_000_000

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian: apt-get install faketime)"),
]


def latest_hour(house):
    """The hour of the last record written (journals are in the order of their names, records in that of time)."""
    return {record.event_id.partition(":")[0]: record.ended_at // HOUR_US for record in house.records()}


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
    }
    async with House(tmp_path, env=env) as house:
        async with house.load(clients=4, seed=seed):
            await house.answered(40)
            for step in dice.sample(("-2h", "+2h", "-36h", "+36h", "-5h"), 4):
                before = latest_hour(house)
                offset.write_text(step + "\n")
                await house.until(lambda before=before: latest_hour(house) != before, f"seeing a step of {step}")
                await house.answered(40)
                if dice.random() < 0.5:
                    gone = house.kill(dice.choice(("worker", "control")))[:1]
                    await house.until(lambda gone=gone: not any(map(is_there, gone)), "rid of it")
            await house.until_ready()
        await house.settle()
        records = house.records()
        assert len({record.ended_at // HOUR_US for record in records}) >= 5, "the clock was not stepped"
        assert all((record.duration_ms or 0) >= 0 and (record.ttft_ms or 0) >= 0 for record in records)
        figures.add(house.compare())


def is_there(pid):
    return Path(f"/proc/{pid}").exists()
