"""A whole node on every kind of Redis, which fails over, forgets or is away while calls go on."""

import asyncio
import random
import ssl

import redis
import redis.cluster
import trustme

import valkeys
from faults.running import Node
from valkeys import Relay, Server, free_ports, running


def client_of(port):
    return lambda: redis.Redis(port=port, decode_responses=True)


def on(folder, url, client, **more):
    return Node(folder / "node", config=f'[redis]\nurl = "{url}"\n', redis_client=client, **more)


async def test_tls_and_an_acl_user_on_a_connection_that_loses_replies(seed, tmp_path, figures):
    [port] = free_ports(1)
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = Server(tmp_path / "redis", port)
    dice = random.Random(seed)
    async with running(server), Relay(port, context) as relay:
        allowed = ("+@read", "+@write", "+@scripting", "+@connection", "+time", "-@dangerous")
        await server.client.execute_command("ACL", "SETUSER", "meter", "on", ">count", "resetkeys", "~tm:*", *allowed)
        url = f"rediss://meter:count@127.0.0.1:{relay.port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}"
        async with on(tmp_path, url, client_of(port)) as node:
            async with node.load(clients=4, seed=seed):
                for _ in range(6):
                    await node.answered(dice.randint(10, 40))
                    relay.replies_left = dice.randint(0, 12)  # pieces until replies get lost
                    await node.answered(dice.randint(10, 40))
                    relay.replies_left, relay.drop_replies = None, False
            await node.settle()
            figures.add(node.compare())


async def test_a_sentinel_fails_over_under_load(seed, tmp_path, figures):
    async with (
        valkeys.watched(tmp_path) as (primary, replica, url),
        on(tmp_path, url, client_of(replica.port)) as node,
    ):
        async with node.load(clients=4, seed=seed):
            await node.answered(80)
            primary.kill()
            await valkeys.answers(replica.client.role, lambda role: role[0] == "master")
            await node.answered(80)
        await node.settle()
        await _evens_out(node)
        figures.add(node.compare())


async def test_a_cluster_loses_a_primary_and_a_shards_memory_under_load(seed, tmp_path, figures):
    dice = random.Random(seed)
    async with valkeys.cluster(tmp_path) as servers:
        url = f"redis+cluster://127.0.0.1:{servers[0].port},127.0.0.1:{servers[1].port}"

        def client():
            return redis.cluster.RedisCluster(host="127.0.0.1", port=servers[3].port, decode_responses=True)

        async with on(tmp_path, url, client) as node:
            async with node.load(clients=4, seed=seed):
                await node.answered(80)
                keys = [await server.client.dbsize() for server in servers[:3]]
                assert sum(map(bool, keys)) >= 2, f"the workspaces are on one shard: {keys}"
                servers[0].kill()
                await valkeys.answers(servers[3].client.role, lambda role: role[0] == "master")
                await node.answered(80)
                await dice.choice(servers[1:4]).client.flushall()
                await node.answered(80)
            await node.settle()
            await _evens_out(node)
            figures.add(node.compare())


async def test_a_redis_without_a_file_comes_back_empty_and_is_rebuilt(seed, tmp_path, figures):
    [port] = free_ports(1)
    server = Server(tmp_path / "redis", port)
    async with running(server), on(tmp_path, server.url, client_of(port)) as node:
        async with node.load(clients=4, seed=seed):
            await node.answered(60)
            server.kill()
            await node.answered(300)
            await node.until(node.problems, "its word of it")
            await server.start()
            await node.answered(60)
        await node.settle()
        assert node.answers.keys() <= {"200", "200 stream"}, node.answers
        figures.add(node.compare())


async def test_a_redis_that_may_evict_is_not_counted_in_until_it_may_not(seed, tmp_path, figures):
    [port] = free_ports(1)
    server = Server(tmp_path / "redis", port, "maxmemory 100mb", "maxmemory-policy allkeys-lru")
    async with running(server):
        node = on(tmp_path, server.url, client_of(port))
        node.until_ready = _refused_by(node)
        async with node:
            async with node.load(clients=2, seed=seed):
                await node.answered(30)
                assert not await server.client.keys("tm:{alpha}*")
                await server.client.config_set("maxmemory-policy", "noeviction")
                await Node.until_ready(node)
            await node.settle()
            assert node.answers.keys() <= {"200", "200 stream"}, node.answers
            figures.add(node.compare())


def _refused_by(node):
    async def refused():
        async def told():
            return any("noeviction" in problem for problem in await node.problems())

        await node.until(told, "refusing a Redis that may evict")

    return refused


async def _evens_out(node):
    """A fail-over that lost writes nobody remembers is found by the audit, once a minute."""
    for _ in range(90):
        try:
            node.compare()
        except AssertionError:
            await asyncio.sleep(1)
        else:
            return
