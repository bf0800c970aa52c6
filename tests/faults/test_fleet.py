"""Three nodes, one Redis, one PostgreSQL; one node is lost for good and another takes its journals over."""

import asyncio
import contextlib
import random
import sys

import pytest
import redis

import postgres
from faults import ledger_check
from faults.load import Load
from faults.running import Node
from upstream import Provider
from valkeys import Server, free_ports, running
from waits import run

pytestmark = [
    pytest.mark.skipif(postgres.binaries() is None, reason="no PostgreSQL is installed"),
]


@contextlib.asynccontextmanager
async def fleet(folder, count, config=""):
    """Nodes that share a provider, a Redis and a PostgreSQL."""
    more = config
    [port] = free_ports(1)
    with postgres.Postgres() as server:
        url = server.database()
        config = f'[redis]\nurl = "redis://127.0.0.1:{port}/0"\n[history]\nurl = "{url}"\n{more}'

        def client():
            return redis.Redis(port=port, decode_responses=True)

        async with (
            running(Server(folder / "redis", port)),
            Provider(chunks=8, chunk_ms=5) as provider,
            contextlib.AsyncExitStack() as opened,
        ):
            nodes = [
                Node(folder / f"node-{n}", workers=1, config=config, provider=provider, redis_client=client,
                      history_url=url)
                for n in range(count)
            ]  # fmt: skip
            await asyncio.gather(*(opened.enter_async_context(node) for node in nodes))
            yield nodes


async def test_three_nodes_one_lost_for_good_and_adopted_add_up_exactly(seed, tmp_path, figures):
    dice = random.Random(seed)
    async with fleet(tmp_path, 3) as nodes:
        first, second, lost = nodes
        load = Load([node.url for node in nodes])
        async with load.running(clients=6, seed=seed, chance_to_leave=0.1):
            for node in nodes:
                node.loads = load
            await first.answered(dice.randint(100, 200))
            gone = second.kill("control")
            await first.answered(dice.randint(20, 60))
            lost.kill_everything()
            load.urls.remove(lost.url)
            await second.until_replaced("control", gone)
            await first.answered(dice.randint(20, 60))
            adopted = await asyncio.to_thread(_adopt, lost, first)
            assert adopted.startswith("Moved"), adopted
            await first.answered(50)
        assert not list((lost.data / "journal").glob("*.jsonl"))
        for node in (first, second):
            await node.settle()
        assert len(load.whole) > 100
        with contextlib.closing(first.redis()) as client:
            data_dirs = [first.data, second.data]
            figures.add(ledger_check.compare(data_dirs, first.history_url, client, first.provider, load))


async def test_nodes_behind_a_load_balancer_restart_one_after_the_other_without_a_failed_call(seed, tmp_path, figures):
    """As pods are replaced: /readyz says 503 first, and the balancer, which asks it, sends calls elsewhere by then."""
    async with fleet(tmp_path, 2, config="[limits]\nshutdown_delay_s = 1.5\n") as nodes:
        load = Load([node.url for node in nodes])
        for node in nodes:
            node.loads = load
        balancing = asyncio.ensure_future(_balance(load, nodes))
        kept, fresh = load.running(clients=4, seed=seed), load.running(clients=4, seed=seed + 1, keep_alive=False)
        try:
            async with kept, fresh:
                for node, other in (nodes, reversed(nodes)):
                    await node.answered(50)
                    await node.stop()
                    assert load.urls == [other.url]
                    await other.answered(20)
                    node.start()
                    await node.until_ready()
                    await node.until(lambda: len(load.urls) == 2, "taken in by the balancer again")
                await node.answered(50)
        finally:
            balancing.cancel()
        for node in nodes:
            await node.settle()
        assert load.answers.keys() <= {"200", "200 stream"}
        with contextlib.closing(nodes[0].redis()) as client:
            data_dirs = [node.data for node in nodes]
            figures.add(ledger_check.compare(data_dirs, nodes[0].history_url, client, nodes[0].provider, load))


async def _balance(load, nodes):
    """Send calls to nodes that are ready, as a load balancer with a health check does."""
    while True:
        ready = [node.url for node in nodes if await node.get("/readyz") is not None]
        load.urls[:] = ready or load.urls
        await asyncio.sleep(0.1)


def _adopt(lost, heir):
    argv = [sys.executable, "-m", "taximeter", "adopt", lost.data, "--config", heir.folder / "taximeter.toml"]
    done = run(argv)
    assert done.returncode == 0, done.stderr
    return done.stdout
