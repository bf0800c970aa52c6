"""A PostgreSQL that commits and does not say so, that drops its connections, that is locked."""

import asyncio
import random

import psycopg
import pytest

import postgres
from faults.relay import CommitRelay
from faults.running import Node

pytestmark = [
    pytest.mark.skipif(postgres.binaries() is None, reason="no PostgreSQL is installed"),
]


DROP_CONNECTIONS = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'taximeter'"


async def test_a_commit_whose_answer_is_lost_is_not_done_twice(seed, tmp_path, figures):
    dice = random.Random(seed)
    with postgres.Postgres() as server:
        url = server.database()
        async with CommitRelay(tmp_path / "pg", server.folder) as relay:
            lossy = url.replace(str(server.folder), str(relay.folder))
            async with Node(tmp_path / "node", config=f'[history]\nurl = "{lossy}"\n', history_url=url) as node:
                async with node.load(clients=4, seed=seed):
                    for _ in range(4):
                        await node.answered(dice.randint(20, 60))
                        relay.loses_commits = True
                        await node.answered(dice.randint(20, 60))
                        relay.loses_commits = False
                await node.settle()
                assert relay.lost
                figures.add(node.compare())


async def test_a_server_that_drops_connections_and_holds_locks_gets_everything_once(seed, tmp_path, figures):
    dice = random.Random(seed)
    with postgres.Postgres() as server:
        url = server.database()
        async with Node(tmp_path / "node", config=f'[history]\nurl = "{url}"\n', history_url=url) as node:
            async with node.load(clients=4, seed=seed):
                for _ in range(5):
                    await node.answered(dice.randint(20, 60))
                    with psycopg.connect(url) as admin:
                        admin.execute("lock table usage_events in access exclusive mode")
                        await asyncio.sleep(dice.uniform(0.1, 0.8))
                        admin.execute(DROP_CONNECTIONS)
            await node.settle()
            assert node.answers.keys() <= {"200", "200 stream"}, node.answers
            figures.add(node.compare())


async def test_a_node_serves_while_its_history_has_not_answered_yet(seed, tmp_path, figures):
    """After a power cut a node may be up before its database is: calls are relayed and kept, then delivered."""
    with postgres.Postgres() as server:
        url = server.database()
        async with CommitRelay(tmp_path / "pg", server.folder) as relay:
            lossy = url.replace(str(server.folder), str(relay.folder))
            async with Node(tmp_path / "node", config=f'[history]\nurl = "{lossy}"\n', history_url=url) as node:
                async with node.load(clients=2, seed=seed):
                    await node.answered(20)
                    relay.refuses = True
                    node.kill_everything()
                    node.start()
                    answered = node.answers["200"]
                    await node.until(lambda: node.answers["200"] > answered + 40, "serving without its history")
                    await node.until(node.problems, "its word of it")
                    relay.refuses = False
                    await node.until_ready()
                await node.settle()
                figures.add(node.compare())
