"""Other settings, and another Taximeter in the place of this one, under load: no call is refused and none fails."""

import pytest

from faults.running import Node

WHOLE = {"200", "200 stream"}


@pytest.fixture
async def node(tmp_path):
    async with Node(tmp_path, chunks=20, chunk_ms=20) as running:
        yield running


async def test_a_reload_under_load_refuses_and_drops_no_call(node, seed, figures):
    """Kept connections and new ones, unary calls and streams; and the counters never go back."""
    counted = 0.0
    async with node.load(clients=4, seed=seed), node.fresh_load(clients=4, seed=seed + 1):
        for number in range(4):
            await node.answered(30)
            before = set(node.pids("worker"))
            node.config = f"usage_headers = {'false' if number % 2 else 'true'}"
            node.write_settings()
            assert await node.reload() == 0, node.log_end()
            await node.until(lambda gone=before: not gone & set(node.pids("worker")), "rid of the old workers")
            now = await node.metric("taximeter_requests_total")
            assert now >= counted > -1
            counted = now
        await node.answered(30)
    await node.settle()
    assert node.answers.keys() <= WHOLE
    assert await node.metric("taximeter_requests_total") == sum(node.answers.values())
    figures.add(node.compare())


async def test_settings_that_are_refused_change_nothing_under_load(node, seed, figures):
    bad = "[limits]\nshutdown_s = -1"
    async with node.load(clients=4, seed=seed):
        await node.answered(20)
        before = node.pids("worker")
        node.config = bad
        node.write_settings()
        assert await node.reload() == 2
        told = (await node.get("/healthz"))["reload"]
        assert not told["applied"] and "limits.shutdown_s" in told["problems"][0]
        await node.answered(20)
        assert node.pids("worker") == before
    await node.settle()
    assert node.answers.keys() <= WHOLE
    figures.add(node.compare())


async def test_a_restart_with_handed_over_sockets_refuses_and_drops_no_call(tmp_path, seed, figures):
    """As `systemctl restart` with a socket unit: systemd holds the sockets, connections wait meanwhile."""
    async with Node(tmp_path, activated=True, config="[limits]\nshutdown_delay_s = 0.5") as node:
        async with node.load(clients=4, seed=seed), node.fresh_load(clients=4, seed=seed + 1):
            for _ in range(2):
                await node.answered(30)
                await node.stop()
                node.start()
                await node.until_ready()
            await node.answered(30)
        await node.settle()
        assert node.answers.keys() <= WHOLE
        figures.add(node.compare())
