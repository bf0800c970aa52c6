"""Journals that are not what they were: torn, opened twice, restored from a copy."""

import asyncio
import os
import random
import shutil
import sys

import pytest

from faults import ledger_check
from faults.faults import tear_last_lines
from faults.running import Node
from taximeter.core.errors import JournalError
from taximeter.journal import adopt
from waits import run


@pytest.fixture
async def node(tmp_path):
    async with Node(tmp_path) as running:
        yield running


async def test_a_torn_last_line_is_cut_off_and_its_call_settled(node, seed, figures):
    """Power went in the middle of a write: half a line at the end, cut at any byte."""
    dice = random.Random(seed)
    for number in range(3):
        async with node.load(clients=4, seed=seed + number):
            await node.answered(30)
            node.kill_everything()
        tear_last_lines(node, dice)
        node.start()
        await node.until_ready()
    await node.settle()
    figures.add(node.compare())


async def test_a_second_taximeter_on_the_same_data_directory_is_refused(node, seed, figures):
    async with node.load(clients=2, seed=seed):
        await node.answered(10)
        argv = [sys.executable, "-m", "taximeter", "serve"]
        env = {**os.environ, "TAXIMETER_DATA_DIR": str(node.data), "TAXIMETER_LISTEN": "127.0.0.1:0",
               "TAXIMETER_ADMIN_LISTEN": "127.0.0.1:0"}  # fmt: skip
        second = await asyncio.to_thread(run, argv, env=env)
        assert second.returncode != 0
        assert "in use by another Taximeter" in second.stderr
        await node.answered(10)
    await node.settle()
    assert node.answers.keys() <= {"200", "200 stream"}
    figures.add(node.compare())


async def test_a_journal_that_is_being_written_is_nobody_elses(node, seed, tmp_path, figures):
    async with node.load(clients=2, seed=seed):
        await node.answered(10)
        with pytest.raises(JournalError, match="still being written"):
            adopt(node.data / "journal", tmp_path / "other")
        await node.answered(10)
    await node.settle()
    figures.add(node.compare())


async def test_a_journal_directory_restored_from_a_copy_is_noticed_and_not_swallowed(node, seed):
    """Its files end before what was delivered from them: nothing of them is counted again, and an operator is told."""
    async with node.load(clients=4, seed=seed):
        await node.answered(40)
        shutil.copytree(node.data / "journal", node.folder / "copy")  # as a snapshot of the volume takes it
        await node.answered(40)
    await node.settle()
    before = node.compare()
    total = await node.get("/usage")
    node.kill_everything()
    shutil.rmtree(node.data / "journal")
    shutil.copytree(node.folder / "copy", node.data / "journal")
    node.start()

    async def told():
        return any("restored from a copy" in problem for problem in await node.problems())

    await node.until(told, "told that its journal was restored")
    async with node.load(clients=2, seed=seed + 1):  # it serves, and counts what is new
        await node.answered(20)

    async def counted():
        usage = await node.get("/usage")
        return usage is not None and usage["usage"]["requests"] == total["usage"]["requests"] + new

    new = len(ledger_check.reached(node.provider)) - before["reached the provider"]
    await node.until(counted, f"counting exactly {new} new calls")
