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
async def fleet(folder, count):
    """Nodes that share a provider, a Redis and a PostgreSQL."""
    [port] = free_ports(1)
    with postgres.Postgres() as server:
        url = server.database()
        config = f'[redis]\nurl = "redis://127.0.0.1:{port}/0"\n[history]\nurl = "{url}"\n'

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


def _adopt(lost, heir):
    argv = [sys.executable, "-m", "taximeter", "adopt", lost.data, "--config", heir.folder / "taximeter.toml"]
    done = run(argv)
    assert done.returncode == 0, done.stderr
    return done.stdout
