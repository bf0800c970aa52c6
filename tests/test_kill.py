"""Each process is killed under load: the relay goes on or comes back, and the books agree to the token."""

import pytest

from faults.house import House

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture
async def house(tmp_path):
    async with House(tmp_path, chunks=8, chunk_ms=5) as running:
        yield running


async def answered(house, more):
    goal = house.sent + more
    await house.until(lambda: house.sent >= goal, f"{more} more calls were sent")


@pytest.mark.parametrize("title", ["worker", "control", "valkey"])
async def test_a_killed_child_is_replaced_and_nothing_is_lost_or_doubled(house, title):
    async with house.load(clients=4, seed=7):
        await answered(house, 60)
        for _ in range(2):
            killed = house.kill(title)
            assert killed
            await house.until(
                lambda gone=killed: house.pids(title) and not set(house.pids(title)) & set(gone), "replaced"
            )
            await answered(house, 60)
    await house.settle()
    figures = house.compare()
    assert figures["reached the provider"] >= 100
    if title != "worker":
        assert house.answers.keys() <= {"200", "200 stream"}, house.answers


async def test_a_killed_supervisor_takes_its_children_along_and_the_next_start_settles_everything(house):
    async with house.load(clients=4, seed=8):
        await answered(house, 60)
        children = [pid for title in ("worker", "control", "valkey") for pid in house.pids(title)]
        house.process.kill()
        house.process.wait()
        await house.until(lambda: not any(alive(pid) for pid in children), "rid of the children")
        house.start()
        await house.until_ready()
        await answered(house, 60)
    await house.settle()
    assert house.compare()["reached the provider"] >= 60


async def test_everything_killed_at_once_is_settled_at_the_next_start(house):
    async with house.load(clients=4, seed=9, chance_to_leave=0.2):
        await answered(house, 60)
        house.kill_everything()
        house.start()
        await house.until_ready()
        await answered(house, 60)
    await house.settle()
    assert house.compare()["reached the provider"] >= 60


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
