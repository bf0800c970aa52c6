"""A hard budget under load while everything is killed, emptied, restored or failed over: never more than its limit.

What was spent is the provider's own bill. Redis away refuses (`on_unavailable = "refuse"`): what passes otherwise is
the operator's choice, and not bounded.
"""

import asyncio
import contextlib
import random
from collections import Counter

import httpx2
import pytest
import redis

import valkeys
from faults.running import Node
from taximeter.budgets.rule import Budget
from taximeter.budgets.tally import charged, used
from valkeys import Server, free_ports, running

pytestmark = pytest.mark.timeout(240)

LIMIT = 12_000
SCOPED: list[tuple[dict[str, str], int]] = [
    ({"end_user": "*", "unit": "output_tokens", "period": "rolling 1h"}, 1_200),
    ({"end_user": "u1", "model": "gpt-4o-mini", "unit": "requests", "period": "month", "tz": "Asia/Tokyo"}, 40),
    ({"key_id": "", "upstream": "*", "track": "*", "unit": "input_tokens", "period": "total"}, 2_000),
]
"""Budgets beside that of the workspace, each of which some calls reach."""
USERS = 6
CONFIG = '[budget]\non_unavailable = "refuse"\n'
GOOD = {None, "budget_reserved", "insufficient_quota", "budget_unavailable", "journal_unavailable"}
"""What a call under a budget may be answered while Redis, workers and control come and go."""
PATH = "/w/acme/v1/chat/completions"


class Spenders:
    """Clients that spend as fast as they may."""

    def __init__(self, node, seed, clients=24):
        self.node, self.seed, self.clients = node, seed, clients
        self.answers: Counter[str | None] = Counter()
        self.last = None

    async def _client(self, number, client):
        dice = random.Random(f"{self.seed}/{number}")
        while True:
            text = " ".join(["word"] * dice.randint(1, 30))
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "max_tokens": 60}
            try:
                whose = {"x-end-user": f"u{number % USERS}", "x-track-id": f"t{number % 4}"}
                answer = await client.post(PATH, json=body | {"stream": dice.random() < 0.5}, headers=whose)
                self.last = answer.headers.get("x-taximeter-error")
            except httpx2.HTTPError as error:  # its worker was killed
                self.last = type(error).__name__
            self.answers[self.last] += 1
            if self.last is not None:
                await asyncio.sleep(0.02)  # do not spin

    @contextlib.asynccontextmanager
    async def spending(self):
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=self.node.url, limits=limits, timeout=60) as client:
            tasks = [asyncio.ensure_future(self._client(n, client)) for n in range(self.clients)]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in ended] == [asyncio.CancelledError] * len(ended), ended

    async def more(self, answers, kind="any"):
        """Wait until so many more calls were answered, `kind`: so."""

        def count():
            return self.answers.total() if kind == "any" else self.answers[kind]

        goal = count() + answers
        try:
            await self.node.until(lambda: count() >= goal, f"answered {answers} more calls ({kind})")
        except TimeoutError as error:
            raise AssertionError(f"{self.answers}: {error}") from None


async def make(node, scoped=SCOPED):
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.admin}") as control:
        asked = {"workspace": "acme", "limit": str(LIMIT), "unit": "tokens", "period": "total"}
        assert (await control.post("/budgets", json=asked)).status_code == 201
        for scope, limit in scoped:
            asked = {"workspace": "acme", "limit": str(limit), **scope}
            assert (await control.post("/budgets", json=asked)).status_code == 201
    async with httpx2.AsyncClient(base_url=node.url) as client:
        seen = 0
        while seen < 8:  # until every worker knows it
            await client.post("/w/acme/v1/vector_stores", json={})
            await node.settle()
            seen = sum("budgets" in record.tags for record in node.records())


def billed(node):
    return sum(bill.usage["total_tokens"] for bill in node.provider.ledger)


async def standing(node):
    """Spent, charged, held, once everything is counted and nothing is held any more."""

    async def there():
        found = (await node.get("/budgets") or {}).get("data")
        return found and found[0]["spent"] is not None and found[0]["held"] == 0

    await node.settle()
    await node.until(there, "counted, and nothing held")
    return (await node.get("/budgets"))["data"][0]


def check_scopes(records, sums):
    """What each value used is what Redis says, and nobody used more than the limit.

    `records` are all that were written, `sums` the counters of budgets in Redis.
    """
    for scope, limit in SCOPED:
        unit, period = scope["unit"], scope["period"]
        of = Budget(id="bud_00000000000a", workspace="acme", limit=limit, **scope)  # type: ignore[arg-type]
        used_by: Counter[tuple[str, ...]] = Counter()
        for record in records:
            allowance = of.allowance(record)
            if allowance is not None:
                used_by[allowance.values] += used(unit)(record) + charged(unit)(record)  # type: ignore[arg-type]
        assert used_by and max(used_by.values()) <= limit, (scope, used_by)
        label = f"tally:{unit}:{of.when.label}:"
        names = [f":{name}=" for name, _ in of.tally.scope]
        in_redis: Counter[tuple[str, ...]] = Counter()
        for key, amounts in sums.items():
            said = key.partition(label)[2].split(":")[1:]
            if label in key and [f":{each.partition('=')[0]}=" for each in said] == names:
                in_redis[tuple(each.partition("=")[2] for each in said)] += sum(map(int, amounts.values()))
        assert +in_redis == +used_by, (scope, period)


async def check(node, spenders, figures, nodes=(), *, scoped=True):
    now = await standing(node)
    records = [record for each in (nodes or [node]) for record in each.records()]
    client = node.redis()
    if scoped:
        check_scopes(records, {key: client.hgetall(key) for key in client.scan_iter("tm:{acme}:tally:*")})
    assert billed(node) <= now["spent"] + now["charged"] <= LIMIT, (billed(node), now, spenders.answers)
    assert spenders.answers["insufficient_quota"] and spenders.answers[None]
    errors = {kind for kind in spenders.answers if kind not in GOOD}
    assert all(kind.endswith(("Error", "upstream_cut")) for kind in errors), spenders.answers
    figures.add({"calls under a hard budget": spenders.answers.total(), "passed": spenders.answers[None]})


async def test_workers_control_and_the_embedded_redis_are_killed(seed, tmp_path, figures):
    dice = random.Random(seed)
    async with Node(tmp_path, workers=3, config=CONFIG, chunks=4, chunk_ms=3) as node:
        await make(node)
        async with Spenders(node, seed).spending() as spenders:
            for title in dice.sample(["worker", "worker", "control", "valkey", "worker"], 5):
                await spenders.more(dice.randint(40, 120))
                gone = node.kill(title)
                await spenders.more(20)
                await node.until_replaced(title, gone)
            await spenders.more(50, "insufficient_quota")
            for title in ("worker", "valkey"):
                gone = node.kill(title)
                await node.until_replaced(title, gone)
                await spenders.more(50, "insufficient_quota")
        await check(node, spenders, figures)


async def test_a_redis_is_emptied_restarted_without_its_file_and_restored_from_an_older_copy(seed, tmp_path, figures):
    dice = random.Random(seed)
    [port] = free_ports(1)
    server = Server(tmp_path / "redis", port)
    config = f'{CONFIG}[redis]\nurl = "{server.url}"\n'

    async def emptied():
        await server.client.flushall()

    async def forgot():
        (server.directory / "dump.rdb").unlink(missing_ok=True)
        server.kill()
        await server.start()

    async def went_back():
        await server.client.save()
        await spenders.more(60)
        server.kill()
        await server.start()

    async with (
        running(server),
        Node(
            tmp_path / "node",
            workers=3,
            config=config,
            chunks=4,
            chunk_ms=3,
            redis_client=lambda: redis.Redis(port=port, decode_responses=True),
        ) as node,
    ):
        await make(node)
        async with Spenders(node, seed).spending() as spenders:
            for upset in dice.sample([emptied, forgot, went_back, went_back], 4):
                await spenders.more(dice.randint(20, 60), None)
                await upset()
            await spenders.more(50, "insufficient_quota")
            for upset in dice.sample([emptied, forgot, went_back], 3):
                await upset()
                await spenders.more(50, "insufficient_quota")
        await check(node, spenders, figures)


async def test_a_sentinel_fails_over(seed, tmp_path, figures):
    async with (
        valkeys.watched(tmp_path) as (primary, replica, url),
        Node(
            tmp_path / "node",
            workers=3,
            config=f'{CONFIG}[redis]\nurl = "{url}"\n',
            chunks=4,
            chunk_ms=3,
            redis_client=lambda: redis.Redis(port=replica.port, decode_responses=True),
        ) as node,
    ):
        await make(node)
        async with Spenders(node, seed).spending() as spenders:
            await spenders.more(60, None)
            primary.kill()
            await valkeys.answers(replica.client.role, lambda role: role[0] == "master")
            await spenders.more(50, "insufficient_quota")
        await check(node, spenders, figures)


async def test_two_nodes_share_a_redis_that_is_emptied_while_one_is_killed(seed, tmp_path, figures, postgres_server):
    [port] = free_ports(1)
    server = Server(tmp_path / "redis", port)
    postgres_url = postgres_server.database()
    more = {
        "config": f'{CONFIG}[redis]\nurl = "{server.url}"\n[history]\nurl = "{postgres_url}"\n',
        "history_url": postgres_url,
        "redis_client": lambda: redis.Redis(port=port, decode_responses=True),
    }
    async with (
        running(server),
        Node(tmp_path / "a", chunks=4, chunk_ms=3, **more) as one,
        Node(tmp_path / "b", provider=one.provider, **more) as other,
    ):
        await make(one)

        async def known():
            return bool((await other.get("/budgets") or {}).get("data"))

        await other.until(known, "known to the other node")
        async with Spenders(one, seed).spending() as here, Spenders(other, seed + 1).spending() as there:
            await here.more(60)
            await there.more(60)
            await server.client.flushall()
            await there.more(40)
            gone = one.kill("worker")
            await server.client.flushall()
            await one.until_replaced("worker", gone)
            await here.more(40, "insufficient_quota")
            await there.more(40, "insufficient_quota")
        await there.node.settle()
        await check(one, here, figures, [one, other])


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "emptied"])
async def test_while_redis_is_away_calls_go_on_within_slices(seed, tmp_path, figures, keeps):
    """And a worker is killed meanwhile. Redis comes back with what it had, or empty."""
    [port] = free_ports(1)
    server = Server(tmp_path / "redis", port, *(["appendonly yes"] if keeps else []))
    config = f'[budget]\non_unavailable = "slice"\nslice_percent = 5\n[redis]\nurl = "{server.url}"\n'

    async def granted():
        async with httpx2.AsyncClient(base_url=node.url) as many:  # until each of the workers has had a call
            await asyncio.gather(*(many.post("/w/acme/v1/vector_stores", json={}) for _ in range(12)))
        held = await server.client.hgetall("tm:{acme}:reserved")
        return sum(str(name).startswith("slice:") for name in held) == 3

    async with (
        running(server),
        Node(
            tmp_path / "node",
            workers=3,
            config=config,
            chunks=4,
            chunk_ms=3,
            redis_client=lambda: redis.Redis(port=port, decode_responses=True),
        ) as node,
    ):
        await make(node, ())  # of others, each value would need slices
        await node.until(granted, "each worker has a slice")
        server.kill()
        async with Spenders(node, seed, clients=12).spending() as spenders:
            await spenders.more(20, "budget_unavailable")
            passed = spenders.answers[None]
            gone = node.kill("worker")
            await node.until_replaced("worker", gone)
            await spenders.more(20, "budget_unavailable")
            await server.start()
            await spenders.more(30, "insufficient_quota")
        assert passed > 0, spenders.answers
        await check(node, spenders, figures, scoped=False)
