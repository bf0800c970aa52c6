"""Death at chosen moments of a call's life, streamed and not: before it is sent, midway, at its very end."""

import asyncio
import random

import httpx2
import pytest

from faults import ledger_check, misbehaving
from faults.load import headers_of, request_of
from faults.running import Node
from taximeter.core.record import Outcome, Source
from upstream import Script
from waits import HANG_S

KINDS = ("chat", "stream", "embedding")


@pytest.fixture
async def node(tmp_path):
    async with Node(tmp_path, workers=1) as running:
        yield running


class Call:
    """One request of a client of its own, as a task; `seen` is what of the answer it got."""

    def __init__(self, node, dice, kind, upstream=""):
        path, self.body = request_of(kind, dice)
        self.headers, self.mark = headers_of(dice)
        self.url = node.url + (f"/u/{upstream}" if upstream else "") + "/v1" + path
        self.node = node
        self.seen = b""
        self.news = asyncio.Event()
        self.task = asyncio.create_task(self.run())

    async def run(self):
        async with httpx2.AsyncClient(timeout=HANG_S) as client:
            try:
                async with client.stream("POST", self.url, json=self.body, headers=self.headers) as answer:
                    async for piece in answer.aiter_raw():
                        self.seen += piece
                        self.news.set()
                if answer.status_code == 200 and (b"[DONE]" in self.seen or "stream" not in self.body):
                    self.node.loads.whole.add(self.mark)
            except httpx2.HTTPError:
                return

    async def until_whole(self):
        """Wait for the last byte: of a stream its terminal event, else the end of the JSON."""
        async with asyncio.timeout(HANG_S):
            while not (b"[DONE]" in self.seen if "stream" in self.body else self.seen.endswith(b"}")):
                self.news.clear()
                await self.news.wait()

    def record(self):
        [found] = [record for record in self.node.records() if record.track == self.mark]
        return found


async def killed(node, call, title="worker"):
    """kill -9; then wait for a new one and for the client."""
    gone = node.kill(title)
    await call.task
    await node.until_replaced(title, gone)


async def test_a_call_that_had_not_been_sent_yet_used_nothing_known(seed, tmp_path, figures):
    begun = asyncio.Event()

    async def says_nothing(reader, writer):
        await reader.read(1)  # of a TLS hello that will never be answered: the request itself cannot leave
        begun.set()
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(says_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    config = f'[[upstream]]\nname = "silent"\nbase_url = "https://127.0.0.1:{port}/v1"\n'
    dice = random.Random(seed)
    async with silent, Node(tmp_path, workers=1, upstreams=config) as node:
        for kind in KINDS:
            begun.clear()
            call = Call(node, dice, kind, upstream="silent")
            await begun.wait()
            await killed(node, call)
            await node.settle()
            record = call.record()
            assert (record.outcome, record.input_tokens, record.output_tokens) == (Outcome.INTERRUPTED, None, None)
            assert (record.input_source, record.output_source) == (Source.NONE, Source.NONE)
        figures.add(node.compare())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_whose_worker_dies_midway_is_settled_as_interrupted(node, seed, kind, figures):
    dice = random.Random(seed)
    never = asyncio.Event()
    for at in range(3):
        cut = dice.random() if at else 0.0

        def first_part(request, cut=cut):
            sent = misbehaving.cut(node.provider, request, at=cut)
            return sent.partition(b"data: [DONE]")[0]  # with its last event a stream has gone well

        node.provider.handler = lambda request, part=first_part: Script((part, never))
        call = Call(node, dice, kind)
        await node.provider.until(lambda mark=call.mark: mark in {bill.marker for bill in node.provider.ledger})
        await killed(node, call)
        node.provider.handler = None
        await node.settle()
        assert call.record().outcome is Outcome.INTERRUPTED
    figures.add(node.compare())


async def test_a_long_stream_cut_by_a_death_keeps_what_its_last_tick_knew(node, seed, figures):
    node.provider.chunks, node.provider.chunk_ms = 400, 20
    call = Call(node, random.Random(seed), "stream")
    await node.until(lambda: any(line.startswith(b'{"tick"') for _, line in ledger_check.lines([node.data])), "ticking")
    await killed(node, call)
    await node.settle()
    record = call.record()
    assert (record.outcome, record.output_source, record.partial) == (Outcome.INTERRUPTED, Source.ESTIMATED, True)
    assert 0 < record.output_tokens < 400
    figures.add(node.compare())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_death_after_the_last_upstream_byte_leaves_one_record(node, seed, kind, figures):
    dice = random.Random(seed)
    for _ in range(4):
        call = Call(node, dice, kind)
        await node.provider.until(lambda: node.provider.requests and node.provider.requests[-1].answered)
        if delay := dice.choice((0, 0, 1, 3)):
            await asyncio.sleep(delay / 1000)  # anywhere between the provider's last byte and the client's
        await killed(node, call)
    await node.settle()
    figures.add(node.compare())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_has_its_answer_finds_it_written_down_though_the_worker_dies_at_once(
    node, seed, kind, figures
):
    dice = random.Random(seed)
    for _ in range(3):
        call = Call(node, dice, kind)
        await call.until_whole()
        await killed(node, call)
        assert call.record().outcome is Outcome.OK
    await node.settle()
    figures.add(node.compare())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_death_between_the_record_and_the_clients_last_byte_keeps_the_record(node, seed, kind, figures):
    dice = random.Random(seed)
    for _ in range(3):
        call = Call(node, dice, kind)
        while not any(
            call.mark.encode() in line and line[:8] == b'{"close"' for _, line in ledger_check.lines([node.data])
        ):
            await asyncio.sleep(0)
        await killed(node, call)
        assert call.record().outcome is Outcome.OK
    await node.settle()
    figures.add(node.compare())


@pytest.mark.parametrize("sink", ["redis", "history"])
async def test_control_dies_whenever_a_sink_has_just_taken_a_batch(node, seed, sink, figures):
    """Between a sink's effect and anything after it: the next control asks the sink, and trusts nothing else.

    Three deaths a node: the supervisor waits twice as long before each further one's successor.
    """
    dice = random.Random(f"{seed}/{sink}")
    with node.redis() as client:
        async with node.load(clients=4, seed=seed):
            for _ in range(3):
                await node.until_ready()
                await node.answered(10)
                before = effect(node, client, sink)
                while effect(node, client, sink) == before:
                    await asyncio.sleep(dice.choice((0, 0.001)))
                gone = node.kill("control")
                await node.until_replaced("control", gone)
    await node.settle()
    assert node.answers.keys() <= {"200", "200 stream"}, node.answers
    figures.add(node.compare())


def effect(node, client, sink):
    """Something that changes with each batch."""
    if sink == "redis":
        return [client.hget(f"tm:{{{name}}}:total", "requests") for name in ("alpha", "beta", "gamma")]
    return (node.data / "history.db-wal").stat().st_mtime_ns
