"""Each process is killed under load: the relay goes on or comes back, and the books agree to the token."""

import pytest

from faults.running import Node

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture
async def node(tmp_path):
    async with Node(tmp_path, chunks=8, chunk_ms=5) as running:
        yield running


async def answered(node, more):
    goal = node.sent + more
    await node.until(lambda: node.sent >= goal, f"{more} more calls were sent")


@pytest.mark.parametrize("title", ["worker", "control", "valkey"])
async def test_a_killed_child_is_replaced_and_nothing_is_lost_or_doubled(node, title):
    async with node.load(clients=4, seed=7):
        await answered(node, 60)
        for _ in range(2):
            killed = node.kill(title)
            assert killed
            await node.until(lambda gone=killed: node.pids(title) and not set(node.pids(title)) & set(gone), "replaced")
            await answered(node, 60)
    await node.settle()
    figures = node.compare()
    assert figures["reached the provider"] >= 100
    if title != "worker":
        assert node.answers.keys() <= {"200", "200 stream"}, node.answers


async def test_a_killed_supervisor_takes_its_children_along_and_the_next_start_settles_everything(node):
    async with node.load(clients=4, seed=8):
        await answered(node, 60)
        children = [pid for title in ("worker", "control", "valkey") for pid in node.pids(title)]
        node.process.kill()
        node.process.wait()
        await node.until(lambda: not any(alive(pid) for pid in children), "rid of the children")
        node.start()
        await node.until_ready()
        await answered(node, 60)
    await node.settle()
    assert node.compare()["reached the provider"] >= 60


async def test_everything_killed_at_once_is_settled_at_the_next_start(node):
    async with node.load(clients=4, seed=9, chance_to_leave=0.2):
        await answered(node, 60)
        node.kill_everything()
        node.start()
        await node.until_ready()
        await answered(node, 60)
    await node.settle()
    assert node.compare()["reached the provider"] >= 60


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
