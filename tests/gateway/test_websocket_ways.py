"""WebSockets: ways to an upstream, pages in browsers, both ends' pace, and what an upstream does that it may not."""

import asyncio
import base64
import contextlib
import hashlib
import json
import ssl

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.typing import Origin, Subprotocol

from gateway.test_breakers import trip
from gateway.test_budget import redis
from gateway.test_rates import paced, rate
from gateway.test_websockets import CREATE, code_of, own, until, url
from taximeter.breaker.rule import Trips
from taximeter.gateway.admission.admission import Admission
from taximeter.gateway.websocket.openai import OpenAIBooks
from taximeter.keys.rule import digest
from waits import happens
from websocket_provider import USAGE, WebSocketProvider

__all__ = ["paced", "redis"]


async def speaks(running):
    """Whether a response comes through."""
    async with connect(url(running), **own()) as socket:
        await socket.send(CREATE)
        await until(socket, "response.done")
    (record,) = running.records
    return record["outcome"] == "ok"


async def test_an_upstream_over_tls_that_wants_our_certificate(serve, tmp_path):
    authority, ours = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ours.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ours.issue_cert("taximeter").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    async with WebSocketProvider(ssl=context) as provider:
        named = {"ca_file": str(tmp_path / "ca.pem")}
        async with serve(provider, upstream=named) as running:
            with pytest.raises(InvalidStatus) as refused:  # it wants a certificate
                await speaks(running)
            assert refused.value.response.status_code == 502
        async with serve(provider, upstream={**named, "client_cert_file": str(tmp_path / "client.pem")}) as running:
            assert await speaks(running)
        async with serve(provider) as running:
            with pytest.raises(InvalidStatus) as refused:  # we do not know its authority
                await speaks(running)
            assert refused.value.response.status_code == 502


async def test_an_upstream_on_a_unix_socket(serve, tmp_path):
    async with WebSocketProvider(unix=str(tmp_path / "up.sock")) as provider, serve(provider) as running:
        assert await speaks(running)


async def test_only_pages_that_may_call_open_a_session(serve):
    allowed = {"allowed_origins": ["https://ui.example.org"]}
    async with WebSocketProvider() as provider, serve(provider, cors=allowed) as running:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(running), origin=Origin("https://evil.example"), **own())
        assert refused.value.response.status_code == 403
        async with connect(url(running), origin=Origin("https://ui.example.org"), **own()) as socket:
            await until(socket, "session.created")
    assert len(provider.requests) == 1


async def test_an_upgrade_that_comes_back_to_us_is_refused(serve):
    async with WebSocketProvider() as provider, serve(provider) as running:
        async with connect(url(running), **own()) as socket:
            await until(socket, "session.created")
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(running), **own(**{"cdn-loop": provider.requests[0].headers["cdn-loop"]}))
    assert refused.value.response.status_code == 508
    assert len(provider.requests) == 1


async def test_no_secret_of_ours_goes_on_among_the_protocols(serve):
    key, admin = "tm-" + "f" * 64, "admin-token"
    auth = {"admin_token_sha256": digest(admin)}
    kept = ["realtime", "openai-insecure-api-key.sk-own"]
    async with WebSocketProvider() as provider, serve(provider, auth=auth) as running:
        for offered in ([key], [f"openai-insecure-api-key.{admin}"], ["team-tm-blue"], kept[1:]):
            protocols = [Subprotocol(each) for each in ("realtime", *offered)]
            async with connect(url(running), subprotocols=protocols) as socket:
                assert socket.subprotocol == "realtime"
        sent = [request.headers["sec-websocket-protocol"] for request in provider.requests]
    assert sent == ["realtime", "realtime", "realtime, team-tm-blue", ", ".join(kept)]


async def test_rates_and_breakers_hold_for_each_response_and_the_connection_stays(serve, paced, redis):
    async with WebSocketProvider() as provider, serve(provider) as running:
        paced(running, rate("few", requests_per_minute=1))
        async with connect(url(running), **own()) as socket:
            await socket.send(CREATE)
            await until(socket, "response.done")
            await socket.send(CREATE)
            assert (await until(socket, "error"))["error"]["code"] == "rate_limit_exceeded"
            paced(running)
            running.gate.admission.use_trips(Trips([trip(track="talk")]))
            await socket.send(CREATE)
            assert (await until(socket, "error"))["error"]["code"] == "breaker_open"
            running.gate.admission.use_trips(Trips())
            await socket.send(CREATE)
            await until(socket, "response.done")
    assert [record["outcome"] for record in running.records] == ["ok", "refused", "refused", "ok"]


async def test_a_message_of_ours_waits_for_the_end_of_the_one_that_is_passing(serve, paced, redis):
    refused = asyncio.Event()

    async def parts():
        yield '{"type": "response.output_'
        await refused.wait()
        yield 'text.delta", "delta": "Hi"}'

    async def talk_slowly(talk, event):
        await talk.connection.send(parts())

    async with WebSocketProvider(talk_slowly) as provider, serve(provider) as running:
        paced(running, rate("none", requests_per_minute=1))
        async with connect(url(running), **own()) as socket:
            await until(socket, "session.created")
            for _ in range(2):
                await socket.send(CREATE)
            await happens(lambda: running.records)
            refused.set()
            seen = [json.loads(await socket.recv())["type"] for _ in range(2)]
    assert seen == ["response.output_text.delta", "error"]
    assert running.records[0]["outcome"] == "refused"


# ── pace ─────────────────────────────────────────────────────────────────────────────────────────────────────

MESSAGE = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 262_144})
MESSAGES = 160
"""40 MB: more than the kernel holds on the four sockets between the two ends."""
MOST_BYTES = 2 * 1024 * 1024
"""Of them in our memory: what one read brings, above what a transport holds before it says that it is full."""


def waiting_bytes(running):
    (session,) = running.server._sessions
    ends = session._client.transport, session._up.transport
    return session, sum(end.get_write_buffer_size() for end in ends)


async def test_a_client_that_reads_slowly_slows_the_upstream_down(serve):
    async def flood(talk, event):
        for _ in range(MESSAGES):
            await talk.connection.send(MESSAGE)

    async with (
        WebSocketProvider(flood) as provider,
        serve(provider) as running,
        connect(url(running), max_queue=1, max_size=None, **own()) as socket,
    ):
        await socket.send(json.dumps({"type": "flood"}))
        await happens(lambda: waiting_bytes(running)[0]._client.paused)
        assert waiting_bytes(running)[1] < MOST_BYTES
        await until(socket, "session.created")
        for _ in range(MESSAGES):
            assert await socket.recv() == MESSAGE


async def test_an_upstream_that_reads_slowly_slows_the_client_down(serve):
    reads = asyncio.Event()

    async def wait(talk, event):
        await reads.wait()

    async with (
        WebSocketProvider(wait) as provider,
        serve(provider) as running,
        connect(url(running), **own()) as socket,
    ):
        sending = asyncio.create_task(socket_of(socket, MESSAGES))
        await happens(lambda: waiting_bytes(running)[0]._client.reading_paused)
        assert waiting_bytes(running)[1] < MOST_BYTES
        assert not sending.done()
        reads.set()
        await sending
        await happens(lambda: len(provider.received) == MESSAGES)
    assert set(provider.received) == {MESSAGE}


async def socket_of(socket, times):
    for _ in range(times):
        await socket.send(MESSAGE)


# ── an upstream that does what it may not ────────────────────────────────────────────────────────────────────


class Raw:
    """An upstream that answers an upgrade so, and then sends these bytes; `answer`: in place of all that."""

    def __init__(self, data=b"", headers=b"", before=b"", answer=b""):
        self.data, self.headers, self.before, self.answer = data, headers, before, answer

    async def _answer(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        told = key.partition(b":")[2].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        if self.answer:
            writer.write(self.answer)
            writer.close()
            return
        writer.write(self.before)
        await writer.drain()
        accept = base64.b64encode(hashlib.sha1(told, usedforsecurity=False).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-accept: " + accept + b"\r\n" + self.headers + b"\r\n" + self.data
        )
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_):
        self._server.close()


async def test_an_extension_that_nobody_offered_is_refused(serve):
    async with Raw(headers=b"sec-websocket-extensions: permessage-deflate\r\n") as upstream, serve(upstream) as running:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(running), **own())
    assert refused.value.response.status_code == 502


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Fine\r\n\r\n",
        b"HTTP/1.1 101 Fine\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Fine\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: AAAA\r\n\r\n",
    ],
)
async def test_an_answer_101_to_something_else_opens_nothing(serve, answer):
    async with Raw(answer=answer) as upstream, serve(upstream) as running:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(running), **own())
    assert refused.value.response.status_code == 502


async def test_hints_that_come_before_the_upgrade_are_not_its_answer(serve):
    async with (
        Raw(before=b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n") as upstream,
        serve(upstream) as running,
        connect(url(running), **own()) as socket,
    ):
        assert "link" not in socket.response.headers  # type: ignore[union-attr]
        socket.transport.abort()


async def test_what_stands_before_bytes_that_are_no_frames_is_read_and_passed(serve):
    def event(kind, **members):
        return Frame(Opcode.TEXT, json.dumps({"type": kind, **members}).encode()).serialize(mask=False)

    made = {"id": "resp_1", "status": "completed", "usage": USAGE}
    sent = event("response.created", response=made) + event("response.done", response=made)
    async with Raw(sent + b"\xff\xff\xff") as upstream, serve(upstream) as running:
        async with connect(url(running), **own()) as socket:
            await until(socket, "response.done")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        (record,) = running.records
    assert (record["outcome"], record["total_tokens"], code_of(closed.value)) == ("ok", 253, 1002)


async def test_a_fault_of_ours_in_reading_breaks_no_relay_and_one_in_admitting_ends_the_session(
    serve, paced, redis, monkeypatch, caplog
):
    def fails(*_, **__):
        raise RuntimeError("ours")

    async with (
        WebSocketProvider() as provider,
        serve(provider) as running,
        connect(url(running), **own()) as socket,
    ):
        with monkeypatch.context() as patched:
            patched.setattr(OpenAIBooks, "server_says", fails)
            await socket.send(CREATE)
            await until(socket, "response.done")
        paced(running, rate("many", requests_per_minute=100))
        monkeypatch.setattr(Admission, "hold", fails)
        await socket.send(CREATE)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert (code_of(closed.value), len(provider.received)) == (1011, 1)
    assert [record["outcome"] for record in running.records] == ["interrupted"] * 2
    assert caplog.text.count("RuntimeError: ours") >= 2


async def test_a_client_whose_bytes_are_no_frames_is_told(serve):
    async with WebSocketProvider() as provider, serve(provider) as running, connect(url(running), **own()) as socket:
        await until(socket, "session.created")
        socket.transport.write(b"\xff\xff\xff")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert code_of(closed.value) == 1002
