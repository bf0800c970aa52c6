"""The disk is full for the journal: lenient mode serves on and counts what it could not keep, strict mode refuses."""

import asyncio
import random
import shutil
import subprocess

import pytest

from faults.faults import fill_disk, make_room
from faults.running import Node

BUFFER = 40
LENIENT = f"[journal]\nbuffer_records = {BUFFER}\n"
STRICT = f'[journal]\non_error = "refuse"\nbuffer_records = {BUFFER}\n'


async def healthy_again(node):
    async def told():
        return await node.get("/readyz") is not None

    await node.until(told, "ready again")


@pytest.mark.parametrize("workers", [1, 2])
async def test_lenient_serves_on_and_counts_what_it_lost_to_the_record(seed, tmp_path, workers, figures):
    async with Node(tmp_path, workers=workers, config=LENIENT) as node:
        async with node.load(clients=6, seed=seed):
            await node.answered(50)
            fill_disk(node)
            await node.answered(400)
            assert await node.get("/readyz") is None
            assert await node.metric("taximeter_journal_errors_total")
            make_room(node)
            await healthy_again(node)
            await node.answered(50)
        await node.settle()
        lost = int(await node.metric("taximeter_records_lost_total"))
        assert node.answers.keys() <= {"200", "200 stream"}, node.answers
        assert lost >= 400 - (BUFFER + 6) * workers
        figures.add(node.compare(lost=lost))


async def test_lenient_loses_nothing_while_the_buffer_holds(seed, tmp_path, figures):
    async with Node(tmp_path) as node:
        async with node.load(clients=6, seed=seed):
            for _ in range(3):
                await node.answered(40)
                fill_disk(node)
                await node.answered(100)
                make_room(node)
                await healthy_again(node)
        await node.settle()
        assert node.answers.keys() <= {"200", "200 stream"}, node.answers
        assert await node.metric("taximeter_records_lost_total") == 0
        figures.add(node.compare())


async def test_a_worker_killed_on_a_full_disk_has_told_how_much_goes_with_it(seed, tmp_path, figures):
    dice = random.Random(seed)
    async with Node(tmp_path, config=LENIENT) as node:
        async with node.load(clients=6, seed=seed):
            await node.answered(50)
            fill_disk(node)
            await node.answered(dice.randint(10, 200))
            gone = node.kill("worker")
            await node.until_replaced("worker", gone)
            await node.answered(50)
        await node.settle()
        lost = int(await node.metric("taximeter_records_lost_total"))
        # Clients saw whole answers whose close line waited in memory: lenient mode does not hold those back.
        node.loads.whole.clear()
        figures.add(node.compare(lost=lost))


async def test_strict_refuses_and_loses_nothing(seed, tmp_path, figures):
    async with Node(tmp_path, config=STRICT) as node:
        async with node.load(clients=6, seed=seed, chance_to_leave=0.1):
            await node.answered(50)
            fill_disk(node)
            refused = node.answers["503"] + node.answers["503 stream"] + node.answers["left"]
            await node.answered(300)
            assert node.answers["503"] > refused
            make_room(node)
            await healthy_again(node)
            await node.answered(50)
        await node.settle()
        assert await node.metric("taximeter_records_lost_total") == 0
        figures.add(node.compare())


async def test_a_disk_that_is_really_full(seed, tmp_path, figures):
    """A file system of 600 KB under the journal, filled by another: ENOSPC and short writes, as they come."""
    journal = tmp_path / "data" / "journal"
    journal.mkdir(parents=True, mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", journal]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        async with Node(tmp_path, config=LENIENT) as node:
            async with node.load(clients=6, seed=seed):
                await node.until(lambda: shutil.disk_usage(journal).free < 200_000, "filling its disk")
                hog = journal.parent / "journal" / ".hog"
                with hog.open("wb", buffering=0) as file:
                    try:
                        while True:
                            file.write(b"\0" * 1000)
                    except OSError:
                        pass
                await node.answered(300)
                assert await node.get("/readyz") is None
                hog.unlink()
                await healthy_again(node)
            await node.settle()
            lost = int(await node.metric("taximeter_records_lost_total"))
            assert node.answers.keys() <= {"200", "200 stream"}, node.answers
            figures.add(node.compare(lost=lost))
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "-l", journal], check=False)
