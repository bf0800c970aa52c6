"""Journals that are not what they were: torn, opened twice, restored from a copy."""

import asyncio
import os
import random
import shutil
import sys

import pytest

from faults import books
from faults.faults import tear_last_lines
from faults.house import House
from taximeter.core.errors import JournalError
from taximeter.journal import adopt
from waits import run


@pytest.fixture
async def house(tmp_path):
    async with House(tmp_path) as running:
        yield running


async def test_a_torn_last_line_is_cut_off_and_its_call_settled(house, seed, figures):
    """Power went in the middle of a write: half a line at the end, cut at any byte."""
    dice = random.Random(seed)
    for number in range(3):
        async with house.load(clients=4, seed=seed + number):
            await house.answered(30)
            house.kill_everything()
        tear_last_lines(house, dice)
        house.start()
        await house.until_ready()
    await house.settle()
    figures.add(house.compare())


async def test_a_second_taximeter_on_the_same_data_directory_is_refused(house, seed, figures):
    async with house.load(clients=2, seed=seed):
        await house.answered(10)
        argv = [sys.executable, "-m", "taximeter", "serve"]
        env = {**os.environ, "TAXIMETER_DATA_DIR": str(house.data), "TAXIMETER_LISTEN": "127.0.0.1:0",
               "TAXIMETER_ADMIN_LISTEN": "127.0.0.1:0"}  # fmt: skip
        second = await asyncio.to_thread(run, argv, env=env)
        assert second.returncode != 0
        assert "in use by another Taximeter" in second.stderr
        await house.answered(10)
    await house.settle()
    assert house.answers.keys() <= {"200", "200 stream"}
    figures.add(house.compare())


async def test_a_journal_that_is_being_written_is_nobody_elses(house, seed, tmp_path, figures):
    async with house.load(clients=2, seed=seed):
        await house.answered(10)
        with pytest.raises(JournalError, match="still being written"):
            adopt(house.data / "journal", tmp_path / "other")
        await house.answered(10)
    await house.settle()
    figures.add(house.compare())


async def test_a_journal_directory_restored_from_a_copy_is_noticed_and_not_swallowed(house, seed):
    """Its files end before what was delivered from them: nothing of them is counted again, and an operator is told."""
    async with house.load(clients=4, seed=seed):
        await house.answered(40)
        shutil.copytree(house.data / "journal", house.folder / "copy")  # as a snapshot of the volume takes it
        await house.answered(40)
    await house.settle()
    before = house.compare()
    total = await house.get("/usage")
    house.kill_everything()
    shutil.rmtree(house.data / "journal")
    shutil.copytree(house.folder / "copy", house.data / "journal")
    house.start()

    async def told():
        return any("restored from a copy" in problem for problem in await house.problems())

    await house.until(told, "told that its journal was restored")
    async with house.load(clients=2, seed=seed + 1):  # it serves, and counts what is new
        await house.answered(20)

    async def counted():
        usage = await house.get("/usage")
        return usage is not None and usage["usage"]["requests"] == total["usage"]["requests"] + new

    new = len(books.reached(house.provider)) - before["reached the provider"]
    await house.until(counted, f"counting exactly {new} new calls")
