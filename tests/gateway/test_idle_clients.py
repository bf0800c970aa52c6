"""Clients that are there and do not go on, with their uploads or their answers: what they held is free again."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from gateway.test_budget import budget, gated, redis  # noqa: F401 -- fixtures
from gateway.test_uploads import head, open_to, rest
from taximeter.server.exchange import Exchange
from upstream import STALL, chunk, response, stream_head
from waits import HANG_S, happens

IDLE_S = 0.2
TWO = {"upstream": {"max_connections": 2}, "limits": {"client_idle_s": IDLE_S}}
MANY = 100
PARTS = [b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"x" * 100_000) for _ in range(60)]
STREAM = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello there"}]}).encode()
JSON = [("content-type", "application/json")]


async def idle_upload(running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """More than what a span of `body_timeout_s` asks for, and then nothing."""
    return await open_to(running.port, head(200_000, "application/octet-stream"), b"x" * 50_000)


async def idle_reader(running, body=STREAM, path="/v1/chat/completions") -> socket.socket:
    """Asks, and never reads."""
    client, loop = socket.socket(), asyncio.get_running_loop()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", running.port))
    request = head(len(body)).replace(b"/v1/chat/completions", path.encode())
    await loop.sock_sendall(client, request + body)
    return client


async def served(running) -> int:
    """The status of a usual call, which needs a connection to the upstream."""
    body = b'{"model":"m","messages":[]}'
    opened = await open_to(running.port, head(len(body))[:-2] + b"Connection: close\r\n\r\n", body)
    return (await rest(*opened))[0]


async def test_two_uploads_that_stop_do_not_starve_a_pool_of_two(serve, provider) -> None:
    async with serve(provider, **TWO) as running:
        stopped = [await idle_upload(running) for _ in range(2)]
        await provider.until(lambda: len(provider.requests) == 2)
        assert await served(running) == 200
        answers = [await rest(*each) for each in stopped]
        await happens(lambda: len(running.records) == 3)
        records = running.records
        await provider.until(lambda: sum(request.client_left for request in provider.requests) == 2)
    for status, headers, body in answers:
        assert (status, headers["x-taximeter-error"], headers["connection"]) == (408, "client_idle", "close")
        assert json.loads(body)["error"]["message"] == "Nothing of the request's body came in 0.2 s."
    ends = sorted((record["outcome"], record.get("error_code")) for record in records)
    assert ends == [("client_left", "client_idle")] * 2 + [("ok", None)]


async def test_two_answers_that_nobody_reads_do_not_starve_a_pool_of_two(serve, provider) -> None:
    for _ in range(2):
        provider.script(stream_head(), *map(chunk, PARTS), STALL)
    async with serve(provider, **TWO) as running:
        readers = [await idle_reader(running) for _ in range(2)]
        await provider.until(lambda: len(provider.requests) == 2)
        assert await served(running) == 200
        await provider.until(lambda: sum(request.client_left for request in provider.requests) == 2)
        await happens(lambda: len(running.records) == 3)
        records = [record for record in running.records if record["outcome"] != "ok"]
        for reader in readers:
            reader.close()
    assert [(record["outcome"], record["error_code"]) for record in records] == [("client_left", "client_idle")] * 2
    assert [(record["partial"], record.get("output_source")) for record in records] == [(True, "estimated")] * 2


async def test_many_that_stop_both_ways_are_all_let_go(serve, provider) -> None:
    provider.handler = lambda request: None
    for _ in range(MANY // 2):
        provider.script(stream_head(), *map(chunk, PARTS), STALL)
    more = {"upstream": {"max_connections": MANY}, "limits": {"client_idle_s": 1}}
    async with serve(provider, **more) as running:
        readers = [await idle_reader(running) for _ in range(MANY // 2)]
        await provider.until(lambda: len(provider.requests) == MANY // 2)
        uploads = [await idle_upload(running) for _ in range(MANY // 2)]
        assert await served(running) == 200
        await happens(lambda: len(running.records) == MANY + 1)
        pool = running.gate.upstreams.all[0]._transport.pool
        await happens(lambda: pool.live == pool.idle)
        for reader in readers:
            reader.close()
        for _, writer in uploads:
            writer.close()
        ends = {(record["outcome"], record.get("error_code")) for record in running.records}
    assert ends == {("client_left", "client_idle"), ("ok", None)}


async def test_a_whole_answer_that_nobody_reads_is_read_to_its_usage(serve, provider) -> None:
    """Its provider bills it anyway."""
    usage = b'"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'
    provider.script(response(b'{"pad":"' + b"x" * 8_000_000 + b'",' + usage, headers=JSON))
    async with serve(provider, **TWO) as running:
        with await idle_reader(running, STREAM.replace(b"true", b"false")):
            record = await running.record()
    assert (record["outcome"], record["error_code"]) == ("client_left", "client_idle")
    assert (record["input_tokens"], record["output_tokens"], record.get("partial", False)) == (3, 4, False)
    assert provider.requests[0].answered


async def test_who_had_the_last_event_and_reads_no_further_had_everything(serve, provider) -> None:
    provider.script(stream_head(), *map(chunk, PARTS), chunk(b"data: [DONE]\n\n"), chunk(b"\n" * 20_000_000), STALL)
    async with serve(provider, **TWO) as running:
        client = await idle_reader(running)
        loop, received = asyncio.get_running_loop(), b""
        with client:
            while b"[DONE]" not in received:
                received = received[-6:] + await loop.sock_recv(client, 65_536)
            await provider.until(lambda: provider.requests[0].client_left)
            record = await running.record()
    assert (record["outcome"], record.get("error_code")) == ("ok", None)


async def test_who_waits_for_leave_to_upload_is_not_idle(edged) -> None:
    """`Expect: 100-continue`: it is us who have not asked for the body yet."""
    asks = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await asks.wait()
        body, _ = await exchange.body(100)
        exchange.answer(200, [(b"content-length", b"5")], body)

    async with edged(handler, client_idle_s=IDLE_S) as edge:
        reader, writer = await edge.open(head(5)[:-2] + b"Expect: 100-continue\r\n\r\n")
        await happens(lambda: any(one._patience for one in edge.server.connections))
        (connection,) = edge.server.connections
        idle_at = connection._patience.idle_at
        await happens(lambda: connection._patience.idle_at > idle_at + 2 * IDLE_S)
        asks.set()
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANG_S) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await asyncio.wait_for(reader.readuntil(b"hello"), HANG_S)).startswith(b"HTTP/1.1 200 ")


async def test_an_early_answer_does_not_keep_a_connection_that_never_uploads(serve, provider) -> None:
    async with serve(provider, **TWO, auth={"mode": "keys"}) as running:
        waits = head(5)[:-2] + b"Expect: 100-continue\r\n\r\n"
        status, _, _ = await rest(*await open_to(running.port, waits))
        assert status == 401
        await happens(lambda: not running.server.connections)


@pytest.mark.usefixtures("redis")
async def test_what_an_unread_answer_held_of_its_budget_is_let_go(serve, provider, gated) -> None:  # noqa: F811
    provider.script(stream_head(), *map(chunk, PARTS), STALL)
    async with serve(provider, **TWO) as running:
        gated(running, budget(limit=100_000))
        with await idle_reader(running, STREAM[:-1] + b',"max_tokens":40}', "/w/acme/v1/chat/completions"):
            record = await running.record()
        assert (record["outcome"], record["error_code"]) == ("client_left", "client_idle")
        assert not running.gate.admission.budgets._flying
