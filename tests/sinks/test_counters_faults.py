"""The Redis counters when Redis answers late, never, or from the past; and every topology a URL can name."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from redis.exceptions import ConnectionError, RedisError

import valkeys
from closing import Closing
from ledger_fake import NOON_US, FakeHistory, batch, folded, record, traffic
from present import present
from taximeter.core.errors import ConfigError
from taximeter.core.record import Record
from taximeter.sinks.redis.client import ERRORS, RedisServer
from taximeter.sinks.redis.counters import Counters
from taximeter.sinks.redis.keys import REBUILDING
from taximeter.sinks.redis.nodes import refuse_eviction
from taximeter.sinks.redis.rebuild import CountersMoved
from taximeter.sinks.redis.split import split
from valkeys import Relay, Server, free_ports, kept_totals, running
from waits import CAP_S

TROUBLE = (*ERRORS, CountersMoved)


@pytest.fixture
def history() -> FakeHistory:
    return FakeHistory()


async def deliver(sink: Counters, records: list[Record]) -> int:
    """As delivery does it: ask the cursor, send what follows, on any trouble ask again. Answers how often it failed."""
    failures = 0
    async with asyncio.timeout(CAP_S):
        while True:
            try:
                at = (await sink.cursors(["j1"]))["j1"]
                while at < len(records):
                    at = (await sink.deliver([batch(records[at : at + 40])]))["j1"]
                return failures
            except TROUBLE:
                failures += 1
                await asyncio.sleep(0.01)


async def assert_exact(sink: Counters, records: list[Record]) -> None:
    for workspace in {r.workspace for r in records}:
        assert await kept_totals(sink, workspace) == folded(r for r in records if r.workspace == workspace)


async def test_a_lost_reply_does_not_count_twice(tmp_path: Path, history: FakeHistory, closing: Closing) -> None:
    [port] = free_ports(1)
    server = Server(tmp_path, port)
    records = traffic(1, 200)
    async with running(server), Relay(port) as relay:
        sink = closing(Counters(f"redis://127.0.0.1:{relay.port}/0", history=history))
        await sink.deliver([batch(records[:20])])
        for start in range(20, 200, 20):
            relay.drop_replies = True
            with pytest.raises(ConnectionError):
                await sink.deliver([batch(records[start : start + 20])])
            relay.drop_replies = False
            assert (await sink.cursors(["j1"]))["j1"] == start  # the watermark was not reached; the scripts had run
            assert await sink.deliver([batch(records[start : start + 20])]) == {"j1": start + 20}
        await assert_exact(sink, records)
        assert sink.duplicates_skipped == 180


async def test_a_lost_first_reply_does_not_make_a_new_workspace_look_lost(tmp_path: Path, closing: Closing) -> None:
    [port] = free_ports(1)
    server = Server(tmp_path, port)
    records = traffic(2, 20)
    async with running(server), Relay(port) as relay:
        sink = closing(Counters(f"redis://127.0.0.1:{relay.port}/0"))  # no history: a rebuild would fail
        await sink.cursors(["j1"])
        await sink.positions.meet({"acme", "globex", "initech"})
        relay.drop_replies = True
        with pytest.raises(ConnectionError):
            await sink.deliver([batch(records)])
        relay.drop_replies = False
        await sink.cursors(["j1"])
        await sink.deliver([batch(records)])
        await assert_exact(sink, records)


class Chaos:
    """Two journals, delivered by one node after another process life, while Redis loses replies, keys and its past."""

    def __init__(self, seed: int, server: Server, relay: Relay, *, audited: bool) -> None:
        self.audited = audited
        self.rng = random.Random(seed)
        self.server, self.relay = server, relay
        self.history = FakeHistory()
        self.journals = {name: traffic(seed, 300, journal_id=name) for name in ("j1", "j2")}
        self.written = dict.fromkeys(self.journals, 0)
        self.sink = self.new_life()
        self.saved: dict[bytes | str, bytes] = {}

    def new_life(self) -> Counters:
        return Counters(f"redis://127.0.0.1:{self.relay.port}/0", history=self.history, now_us=lambda: NOON_US)

    async def close(self) -> None:
        await self.sink.close()

    async def deliver(self) -> None:
        """One round of delivery, to the ends of what is written."""
        at = await self.sink.cursors(self.journals)
        while batches := [
            batch(records[at[name] : min(at[name] + 25, self.written[name])])
            for name, records in self.journals.items()
            if at[name] < self.written[name]
        ]:
            at |= await self.sink.deliver(batches)

    async def step(self) -> None:
        client = self.server.binary
        match self.rng.randrange(12):
            case 0:  # the process dies; its memory goes
                await self.sink.close()
                self.sink = self.new_life()
            case 1:
                await client.flushall()
            case 2 if self.audited:  # a shard of a Cluster forgets one workspace
                if keys := await client.keys(f"tm:{{{self.rng.choice(['acme', 'globex', 'initech'])}}}:*"):
                    await client.delete(*keys)
            case 3:  # a snapshot is taken, to go back to
                self.saved = {key: present(await client.dump(key)) for key in await client.keys("*")}
            case 4:  # the whole server goes back
                if self.saved:
                    await client.flushall()
                    for key, value in self.saved.items():
                        await client.restore(key, 0, value)
                    await client.client_kill_filter(_type="normal", skipme=True)
            case 5 if self.audited:
                await self.sink.auditor.audit()
            case 6:
                other = self.new_life()
                try:
                    await other.rebuild(self.rng.choice([None, "acme", "globex"]))
                finally:
                    await other.close()
            case 7 | 8:  # history catches up, maybe not all the way
                for name, records in self.journals.items():
                    done = self.history.cursors.get(name, 0)
                    upto = self.rng.randint(done, self.written[name])
                    if upto > done:
                        self.history.take(batch(records[done:upto]))
            case _:
                for name in self.journals:
                    self.written[name] = min(300, self.written[name] + self.rng.randrange(40))
                await self.deliver()

    async def settle(self) -> None:
        """Everything written, everything delivered, no more faults; audits until all is well where there are any."""
        self.written = dict.fromkeys(self.journals, 300)
        for records in self.journals.values():
            self.history.take(batch(records))
        for _ in range(20):
            with contextlib.suppress(*TROUBLE):
                await self.deliver()
                if not self.audited or not (await self.sink.auditor.audit()).rebuilt:
                    return
        pytest.fail("it does not settle")


@pytest.mark.parametrize("audited", [True, False])
@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_the_sums_come_out_exact(
    seed: int, audited: bool, tmp_path: Path, closing: Closing
) -> None:
    [port] = free_ports(1)
    server = Server(tmp_path, port)
    async with running(server), Relay(port) as relay:
        chaos = closing(Chaos(seed, server, relay, audited=audited))
        for _ in range(60):
            relay.replies_left = chaos.rng.choice([None, None, None, chaos.rng.randrange(12)])
            with contextlib.suppress(*TROUBLE):
                await chaos.step()
            relay.drop_replies, relay.replies_left = False, None
        await server.client.delete(REBUILDING)  # a lease left by a rebuild whose last reply was lost, over by now
        await chaos.settle()
        await assert_exact(chaos.sink, [*chaos.journals["j1"], *chaos.journals["j2"]])


async def test_a_server_restarted_from_an_older_file_gets_everything_again(
    tmp_path: Path, history: FakeHistory, closing: Closing
) -> None:
    [port] = free_ports(1)
    server = Server(tmp_path, port, "appendonly yes", "appendfsync always")
    records = traffic(3, 160)
    async with running(server):
        sink = closing(Counters(server.url, history=history))
        await sink.deliver([batch(records[:40])])
        older = {file: file.read_bytes() for file in (tmp_path / "appendonlydir").iterdir()}
        await sink.deliver([batch(records[40:80])])
        server.kill()
        for file, content in older.items():
            file.write_bytes(content)
        await server.start()
        assert await deliver(sink, records) > 0
        await assert_exact(sink, records)


async def test_a_server_that_is_away_for_a_while_is_caught_up_with(
    tmp_path: Path, history: FakeHistory, closing: Closing
) -> None:
    [port] = free_ports(1)
    server = Server(tmp_path, port, "appendonly yes", "appendfsync always")
    records = traffic(4, 200)
    async with running(server):
        sink = closing(Counters(server.url, history=history))
        await deliver(sink, records[:80])
        server.kill()
        with pytest.raises(ConnectionError):
            await sink.deliver([batch(records[80:120])])
        with pytest.raises(ConnectionError):
            await sink.cursors(["j1"])
        await server.start()
        assert await deliver(sink, records) == 0
        await assert_exact(sink, records)


async def test_tls_with_the_server_verified(tmp_path: Path, history: FakeHistory, closing: Closing) -> None:
    """The bundled Valkey has no TLS: a relay ends it before the server."""
    [port] = free_ports(1)
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with running(Server(tmp_path, port)), Relay(port, context) as relay:
        url = f"rediss://127.0.0.1:{relay.port}/0"
        sink = closing(Counters(f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}", history=history))
        await sink.deliver([batch([record(1)])])
        await assert_exact(sink, [record(1)])
        stranger = closing(Counters(url, history=history))
        with pytest.raises(ConnectionError, match="certificate"):
            await stranger.cursors([])


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[tuple[Server, Server, str]]:
    async with valkeys.watched(tmp_path) as servers:
        yield servers


async def test_sentinel_failover(watched: tuple[Server, Server, str], history: FakeHistory, closing: Closing) -> None:
    primary, replica, url = watched
    records = traffic(5, 300)
    sink = closing(Counters(url, history=history, timeout_s=5))
    await deliver(sink, records[:160])
    history.take(batch(records[:160]))
    primary.kill()
    assert await deliver(sink, records) > 0
    await assert_exact(sink, records)
    assert (await replica.client.role())[0] == "master"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[list[Server]]:
    async with valkeys.cluster(tmp_path) as servers:
        yield servers


async def test_cluster_with_a_primary_lost_under_way(
    cluster: list[Server], history: FakeHistory, closing: Closing
) -> None:
    workspaces = [f"ws-{n}" for n in range(12)]
    records = traffic(6, 400, workspaces=workspaces)
    sink = closing(
        Counters(
            f"redis+cluster://127.0.0.1:{cluster[0].port},127.0.0.1:{cluster[1].port}", history=history, timeout_s=5
        )
    )
    await deliver(sink, records[:200])
    await assert_exact(sink, records[:200])
    history.take(batch(records[:200]))
    await sink.rebuilder.register("n1", "h1")
    await refuse_eviction(sink.server)
    assert (await sink.auditor.audit()).checked == 12
    keys_on = [await server.client.dbsize() for server in cluster[:3]]
    assert all(keys_on), "the workspaces are spread over all primaries"
    cluster[0].kill()
    assert await deliver(sink, records) > 0
    await assert_exact(sink, records)
    history.take(batch(records))
    assert (await sink.auditor.audit()).rebuilt == []
    await sink.rebuild()
    await assert_exact(sink, records)


async def test_a_cluster_shard_that_lost_everything_is_rebuilt(
    cluster: list[Server], history: FakeHistory, closing: Closing
) -> None:
    workspaces = [f"ws-{n}" for n in range(12)]
    records = traffic(7, 300, workspaces=workspaces)
    url = f"redis+cluster://127.0.0.1:{cluster[2].port}"
    sink = closing(Counters(url, history=history, split=lambda: {"ws-3": 16}))
    await deliver(sink, records[:150])
    history.take(batch(records[:150]))
    assert await split(sink) == ["ws-3"]
    for server in cluster[:3]:
        assert await server.client.keys("tm:{ws-3|*"), "its parts are on all primaries"
        await server.client.flushall()
        await sink.auditor.audit()
        await deliver(sink, records)
        await assert_exact(sink, records)
        history.take(batch(records))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:6379", "scheme"),
        ("redis://127.0.0.1:port/0", "port|Port"),
        ("redis://127.0.0.1:6379/0?tiemout=5", "tiemout"),
        ("redis+cluster://127.0.0.1:7000/3", "database"),
        ("redis+cluster://127.0.0.1:7000,:7001", "host:port"),
        ("redis+sentinel://127.0.0.1:26379", "service"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_at_once(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        RedisServer(url)


def test_no_message_shows_the_password() -> None:
    with pytest.raises(ConfigError) as caught:
        RedisServer("redis://user:s3cret-pass@127.0.0.1:port/0")
    assert "s3cret-pass" not in str(caught.value)
    assert "s3cret-pass" not in RedisServer("redis+cluster://user:s3cret-pass@127.0.0.1:1,127.0.0.1:2").shown


async def test_credentials_reach_sentinel_and_server_apart(
    tmp_path: Path, history: FakeHistory, closing: Closing
) -> None:
    port, sentinel_port = free_ports(2)
    server = Server(tmp_path / "a", port)
    sentinel = Server(tmp_path / "s", sentinel_port, f"sentinel monitor meter 127.0.0.1 {port} 1", sentinel=True)
    async with running(server, sentinel):
        await sentinel.client.execute_command("ACL", "SETUSER", "looker", "on", ">look", "+@all", "allchannels")
        await sentinel.client.execute_command("ACL", "SETUSER", "default", "off")
        await server.client.execute_command("ACL", "SETUSER", "meter", "on", ">count", "allkeys", "+@all")
        await server.client.execute_command("ACL", "SETUSER", "default", "off")
        url = f"redis+sentinel://meter:count@127.0.0.1:{sentinel_port}/meter/0"
        sink = closing(Counters(f"{url}?sentinel_username=looker&sentinel_password=look", history=history))
        await sink.deliver([batch([record(1)])])
        await assert_exact(sink, [record(1)])
        wrong = closing(Counters(f"{url}?sentinel_username=looker&sentinel_password=wrong", history=history))
        with pytest.raises(RedisError):
            await wrong.cursors([])


async def test_a_rebuild_cut_short_is_begun_again_by_its_own_process_at_once(
    tmp_path: Path, history: FakeHistory, closing: Closing
) -> None:
    [port] = free_ports(1)
    server = Server(tmp_path, port)
    records = traffic(8, 60)
    async with running(server), Relay(port) as relay:
        sink = closing(Counters(f"redis://127.0.0.1:{relay.port}/0", history=history))
        await deliver(sink, records)
        history.take(batch(records))
        relay.replies_left = 8
        with pytest.raises(ERRORS):
            await sink.rebuild()
        relay.drop_replies, relay.replies_left = False, None
        assert await server.client.exists(REBUILDING)
        assert await sink.rebuild() == 3
        assert not await server.client.exists(REBUILDING)
        await deliver(sink, records)
        await assert_exact(sink, records)
