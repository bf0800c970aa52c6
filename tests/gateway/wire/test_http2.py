"""HTTP/2 to an upstream: many calls on a connection, its limits, its goodbyes, and what may be sent again."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trustme
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame

from http2_provider import Call, Http2Provider, fine
from taximeter import config
from taximeter.core.errors import (
    BadRequest,
    UpstreamCut,
    UpstreamGarbage,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from taximeter.gateway.upstream.http2 import TRIES
from taximeter.gateway.upstream.http2_stream import WINDOW_BYTES
from taximeter.gateway.upstream.response import Response
from taximeter.gateway.upstream.upstreams import Upstream
from upstream import Provider, Script, response
from waits import HANG_S, happens

MB = 1_000_000


class Client:
    """An upstream over HTTP/2 under test."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.transport: Any = upstream._transport

    async def send(self, body: Any = b"{}", *, method: bytes = b"POST", path: bytes = b"/v1/x", headers=()) -> Response:
        async with asyncio.timeout(HANG_S):
            return await self.upstream.send(method, path, list(headers), body)

    async def answer(self, body: Any = b"{}", **request: Any) -> tuple[int, bytes]:
        found = await self.send(body, **request)
        return found.status, await read_all(found)


async def read_all(answer: Response) -> bytes:
    async with asyncio.timeout(HANG_S):
        data = b""
        while piece := await answer.read():
            data += piece
    assert answer.ended
    return data


@pytest.fixture
async def h2provider() -> AsyncIterator[Http2Provider]:
    async with Http2Provider() as provider:
        yield provider


@pytest.fixture
async def speak() -> AsyncIterator[Callable[..., Client]]:
    """`speak(provider, **settings)`."""
    made = []

    def make(provider: Http2Provider | Provider, **settings: Any) -> Client:
        settings.setdefault("base_url", provider.base_url)
        made.append(Upstream(config.UpstreamSettings(http2=True, **settings), frozenset(), {"KEY": "sk-1"}))
        return Client(made[-1])

    yield make
    for upstream in made:
        await upstream.close()


def held(gate: asyncio.Event, body: bytes = b"ab") -> Callable[[Call], Any]:
    """An answer that has begun, and ends when the gate opens."""

    async def answer(call: Call) -> None:
        await call.complete.wait()
        call.head(200, [("content-type", "text/event-stream")])
        await call.send(body[:1])
        await gate.wait()
        await call.send(body[1:], last=True)

    return answer


def refused(code: ErrorCodes) -> Callable[[Call], Any]:
    async def answer(call: Call) -> None:
        await call.complete.wait()
        call.reset(code)

    return answer


async def stall(call: Call) -> None:
    await call.gone.wait()


# ── the usual ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_as_the_upstream_sees_it_and_its_answer(h2provider, speak) -> None:
    async def answer(call: Call) -> None:
        await call.complete.wait()
        call.head(200, [("content-type", "text/plain"), ("x-request-id", "r1"), ("content-length", "6")])
        await call.send(b"one")
        await call.send(b"two", last=True)

    h2provider.script(answer)
    client = speak(h2provider, api_key_env="KEY")
    found = await client.send(
        b'{"a":1}', path=b"/v1/chat?b=%20", headers=[(b"x-kept", b"v"), (b"connection", b"x-hop"), (b"x-hop", b"1")]
    )
    assert (found.status, await read_all(found)) == (200, b"onetwo")
    assert found.headers == [(b"content-type", b"text/plain"), (b"x-request-id", b"r1"), (b"content-length", b"6")]
    (call,) = h2provider.calls
    assert bytes(call.body) == b'{"a":1}'
    assert sorted(call.fields) == [
        (b":authority", b"127.0.0.1:%d" % h2provider.port),
        (b":method", b"POST"),
        (b":path", b"/v1/chat?b=%20"),
        (b":scheme", b"http"),
        (b"accept-encoding", b"identity"),
        (b"authorization", b"Bearer sk-1"),
        (b"content-length", b"7"),
        (b"x-kept", b"v"),
    ]


async def test_many_calls_share_one_connection(h2provider, speak) -> None:
    client = speak(h2provider)
    answers = await asyncio.gather(*[client.answer(path=b"/v1/%d" % number) for number in range(50)])
    assert answers == [(200, b'{"path": "/v1/%d"}' % number) for number in range(50)]
    assert (len(h2provider.connections), client.transport.opened) == (1, 1)


async def test_the_first_byte_comes_at_once_and_a_stream_as_it_is_sent(h2provider, speak) -> None:
    gate = asyncio.Event()
    h2provider.script(held(gate))
    found = await speak(h2provider).send()
    assert await found.read() == b"a"
    gate.set()
    assert await read_all(found) == b"b"


@pytest.mark.parametrize("status, length", [(204, None), (304, "5"), (200, "5")])
async def test_answers_without_a_body(h2provider, speak, status, length) -> None:
    async def answer(call: Call) -> None:
        call.head(status, [("content-length", length)] if length else [], last=True)

    h2provider.script(answer, fine)
    client = speak(h2provider)
    found = await client.send(b"", method=b"HEAD")
    assert (found.status, await read_all(found)) == (status, b"")
    assert ((b"content-length", b"5") in found.headers) is (status == 200)
    assert (await client.answer())[0] == 200


async def test_interim_answers_and_trailers_are_passed_over(h2provider, speak) -> None:
    async def answer(call: Call) -> None:
        call.connection.h2.send_headers(call.id, [(":status", "103"), ("link", "x")])
        call.head(200)
        await call.send(b"ab")
        call.connection.h2.send_headers(call.id, [("x-trailer", "t")], end_stream=True)
        call.connection.flush()

    h2provider.script(answer)
    found = await speak(h2provider).send()
    assert (found.status, found.headers, await read_all(found)) == (200, [], b"ab")


async def test_uploads_stream_within_the_windows_of_the_upstream(h2provider, speak) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 10_000

    client = speak(h2provider)
    assert (await client.answer(body(), headers=[(b"content-length", b"300000")]))[0] == 200
    assert (await client.answer(body()))[0] == 200
    assert (await client.answer(b"y" * 300_000))[0] == 200
    assert [(len(call.body), call.value(b"content-length")) for call in h2provider.calls] == [
        (300_000, b"300000"), (300_000, None), (300_000, b"300000"),
    ]  # fmt: skip


async def test_a_slow_reader_holds_back_its_own_stream_and_no_other(h2provider, speak) -> None:
    async def much(call: Call) -> None:
        call.head(200)
        await call.send(b"x" * 8 * MB, last=True)

    h2provider.script(much)
    client = speak(h2provider)
    slow = await client.send()
    for _ in range(20):
        assert (await client.answer())[0] == 200
    assert slow._held_bytes <= 3 * WINDOW_BYTES
    assert len(await read_all(slow)) == 8 * MB
    assert len(h2provider.connections) == 1


async def test_an_answer_before_its_upload_has_ended_ends_the_upload(h2provider, speak) -> None:
    async def early(call: Call) -> None:
        call.head(413)
        await call.send(b"too large", last=True)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0)

    h2provider.script(early)
    client = speak(h2provider)
    assert await client.answer(endless()) == (413, b"too large")
    await h2provider.until(lambda: h2provider.calls[0].code == ErrorCodes.NO_ERROR)
    assert (await client.answer())[0] == 200
    assert len(h2provider.connections) == 1


async def test_what_an_upload_raises_is_raised(h2provider, speak) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise BadRequest("mine")

    async def short() -> AsyncIterator[bytes]:
        yield b"a"

    h2provider.script(stall, stall)
    client = speak(h2provider)
    with pytest.raises(BadRequest, match="mine"):
        await client.send(broken())
    with pytest.raises(BadRequest, match="does not have the 5 bytes"):
        await client.send(short(), headers=[(b"content-length", b"5")])
    await h2provider.until(lambda: [call.code for call in h2provider.calls] == [ErrorCodes.CANCEL] * 2)


async def test_a_reader_that_leaves_resets_its_stream_and_nothing_else(h2provider, speak) -> None:
    gate = asyncio.Event()
    h2provider.script(held(gate), held(gate))
    client = speak(h2provider)
    leaves, stays = await client.send(), await client.send()
    leaves.abort()
    await h2provider.until(lambda: h2provider.calls[0].code == ErrorCodes.CANCEL)
    gate.set()
    assert await read_all(stays) == b"ab"


async def test_what_is_no_header_is_refused_before_anything_is_sent(h2provider, speak) -> None:
    client = speak(h2provider)
    for value in (b"a\nb", b"a\rb", b"a\0b"):
        with pytest.raises(BadRequest):
            await client.send(headers=[(b"x-odd", value)])
    assert h2provider.calls == []
    assert (await client.answer())[0] == 200


# ── its limits ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_calls_over_the_upstreams_limit_wait_for_a_stream(speak) -> None:
    gate = asyncio.Event()
    async with Http2Provider(max_streams=2, answer=held(gate)) as provider:
        client = speak(provider, max_connections=1)
        begun = [await client.send(), await client.send()]
        waiting = [asyncio.create_task(client.answer()) for _ in range(6)]
        await happens(lambda: len(client.transport._waiting) == 6)
        assert len(provider.calls) == 2
        gate.set()
        assert [await read_all(each) for each in begun] == [b"ab"] * 2
        assert await asyncio.gather(*waiting) == [(200, b"ab")] * 6
        assert len(provider.connections) == 1


async def test_calls_over_the_limit_do_not_wait_for_ever(speak) -> None:
    async with Http2Provider(max_streams=2, answer=stall) as provider:
        client = speak(provider, max_connections=1, connect_timeout_s=0.2)
        begun = [asyncio.create_task(client.send()) for _ in range(2)]
        await provider.until(lambda: len(provider.calls) == 2)
        with pytest.raises(UpstreamTimeout, match="All streams of its connections are in use") as caught:
            await client.send()
        assert not caught.value.sent and len(provider.calls) == 2
        for each in begun:
            each.cancel()
        await asyncio.gather(*begun, return_exceptions=True)


async def test_where_more_connections_are_allowed_calls_over_the_limit_take_another(speak) -> None:
    gate = asyncio.Event()
    async with Http2Provider(max_streams=2, answer=held(gate)) as provider:
        client = speak(provider, max_connections=3)
        begun = [await client.send() for _ in range(6)]
        assert [len(connection.calls) for connection in provider.connections] == [2, 2, 2]
        gate.set()
        assert [await read_all(each) for each in begun] == [b"ab"] * 6


async def test_an_upstream_that_allows_no_stream_is_not_dialed_again_and_again(speak) -> None:
    async with Http2Provider(max_streams=0) as provider:
        client = speak(provider, connect_timeout_s=0.2)
        with pytest.raises(UpstreamTimeout):
            await client.send()
        assert len(provider.connections) == 1
        waiting = asyncio.create_task(speak(provider).answer())
        await provider.until(lambda: len(provider.connections) == 2)
        provider.connections[1].set({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        assert (await waiting)[0] == 200


async def test_settings_that_change_are_followed(h2provider, speak) -> None:
    gate = asyncio.Event()
    h2provider.script(held(gate))
    client = speak(h2provider, max_connections=1)
    begun = await client.send()
    (connection,) = h2provider.connections
    connection.set({SettingCodes.MAX_CONCURRENT_STREAMS: 1, SettingCodes.MAX_FRAME_SIZE: 20_000})
    await h2provider.until(lambda: connection.acknowledged == 2)
    waiting = asyncio.create_task(client.answer(b"z" * 60_000))
    await happens(lambda: client.transport._waiting)
    connection.set({SettingCodes.MAX_CONCURRENT_STREAMS: 2, SettingCodes.INITIAL_WINDOW_SIZE: 10})
    await h2provider.until(lambda: len(h2provider.calls) == 2 and len(h2provider.calls[1].body) == 10)
    connection.set({SettingCodes.INITIAL_WINDOW_SIZE: 100_000})
    assert (await waiting)[0] == 200
    assert len(h2provider.calls[1].body) == 60_000
    gate.set()
    await read_all(begun)


async def test_an_upload_that_the_upstream_does_not_take_ends_in_time(speak) -> None:
    async with Http2Provider(reads=False, answer=stall) as provider:
        client = speak(provider, first_byte_timeout_s=0.2)
        with pytest.raises(UpstreamTimeout, match="did not answer in time") as caught:
            await client.send(b"x" * MB)
        assert caught.value.sent
        await provider.until(lambda: provider.calls[0].code == ErrorCodes.CANCEL)


async def test_an_upload_that_waits_for_its_client_is_not_the_upstreams_silence(h2provider, speak) -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await go_on.wait()
        yield b"b"

    client = speak(h2provider, first_byte_timeout_s=0.1)
    calling = asyncio.create_task(client.answer(slow()))
    await h2provider.until(lambda: h2provider.calls)
    (connection,) = client.transport._live
    for _ in range(50):
        connection.tick()
    go_on.set()
    assert (await calling)[0] == 200


# ── goodbyes and refusals ────────────────────────────────────────────────────────────────────────────────────


async def test_a_graceful_goaway_cuts_no_stream_that_runs(h2provider, speak) -> None:
    gate = asyncio.Event()
    h2provider.script(held(gate), held(gate, b"cd"))
    client = speak(h2provider)
    begun = [await client.send(), await client.send()]
    (first,) = h2provider.connections
    first.goaway(2**31 - 1)  # as servers begin a shutdown
    first.goaway(3)
    assert await begun[0].read() == b"a"
    await happens(lambda: all(each.retired for each in client.transport._live))
    assert (await client.answer())[0] == 200, "on another connection"
    assert [len(each.calls) for each in h2provider.connections] == [2, 1]
    gate.set()
    assert [await read_all(each) for each in begun] == [b"b", b"cd"]
    await h2provider.until(lambda: not first.open)


async def test_a_connection_that_drains_takes_no_place_of_a_new_one(h2provider, speak) -> None:
    gate = asyncio.Event()
    h2provider.script(held(gate))
    client = speak(h2provider, max_connections=1)
    begun = await client.send()
    h2provider.connections[0].goaway(1)
    assert (await client.answer())[0] == 200
    gate.set()
    assert await read_all(begun) == b"ab"


async def test_what_a_goaway_says_was_not_done_is_sent_again(h2provider, speak) -> None:
    gate = asyncio.Event()

    async def leave(call: Call) -> None:
        await call.complete.wait()
        call.connection.goaway(1)

    h2provider.script(held(gate), leave, leave)
    client = speak(h2provider)
    begun = await client.send()
    answers = await asyncio.gather(client.answer(b"1"), client.answer(b"2"))
    assert [status for status, _ in answers] == [200, 200]
    assert sorted(bytes(call.body) for call in h2provider.calls) == [b"1", b"1", b"2", b"2", b"{}"]
    gate.set()
    assert await read_all(begun) == b"ab"


async def test_a_refused_stream_is_sent_again(h2provider, speak) -> None:
    h2provider.script(refused(ErrorCodes.REFUSED_STREAM))
    assert (await speak(h2provider).answer(b"once"))[0] == 200
    assert [bytes(call.body) for call in h2provider.calls] == [b"once"] * 2


async def test_an_upstream_that_refuses_every_stream_is_asked_a_few_times(h2provider, speak) -> None:
    h2provider.answer = refused(ErrorCodes.REFUSED_STREAM)
    with pytest.raises(UpstreamUnreachable, match="REFUSED_STREAM") as caught:
        await speak(h2provider).send()
    assert not caught.value.sent, "nothing was done, so nothing can be billed"
    assert len(h2provider.calls) == TRIES


async def test_a_body_that_is_gone_is_not_sent_again(h2provider, speak) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"a"

    h2provider.script(refused(ErrorCodes.REFUSED_STREAM))
    with pytest.raises(UpstreamUnreachable, match="REFUSED_STREAM") as caught:
        await speak(h2provider).send(body())
    assert not caught.value.sent and len(h2provider.calls) == 1


@pytest.mark.parametrize("code", [code for code in ErrorCodes if code is not ErrorCodes.REFUSED_STREAM])
async def test_any_other_reset_is_not_sent_again(h2provider, speak, code) -> None:
    h2provider.script(refused(code))
    client = speak(h2provider)
    with pytest.raises(UpstreamUnreachable, match=code.name) as caught:
        await client.send()
    assert caught.value.sent and len(h2provider.calls) == 1
    assert (await client.answer())[0] == 200
    assert len(h2provider.connections) == 1


async def test_a_reset_in_the_middle_cuts_one_answer(h2provider, speak) -> None:
    async def cut(call: Call) -> None:
        call.head(200)
        await call.send(b"a")
        call.reset(ErrorCodes.INTERNAL_ERROR)

    gate = asyncio.Event()
    h2provider.script(cut, held(gate))
    client = speak(h2provider)
    found, other = await client.send(), await client.send()
    assert await found.read() == b"a"
    with pytest.raises(UpstreamCut, match="INTERNAL_ERROR"):
        await found.read()
    gate.set()
    assert await read_all(other) == b"ab"


@pytest.mark.parametrize("said", [None, ErrorCodes.ENHANCE_YOUR_CALM])
async def test_a_connection_that_ends_cuts_what_runs_and_is_replaced(h2provider, speak, said) -> None:
    async def hang_up(call: Call) -> None:
        await call.complete.wait()
        if said is not None:
            call.connection.goaway(call.id, said)
        call.connection.transport.close()

    gate = asyncio.Event()
    h2provider.script(held(gate), hang_up)
    client = speak(h2provider)
    begun = await client.send()
    why = "ENHANCE_YOUR_CALM" if said else "before it answered.$"
    with pytest.raises(UpstreamUnreachable, match=why) as caught:
        await client.send()
    assert caught.value.sent
    assert await begun.read() == b"a"
    with pytest.raises(UpstreamCut):
        await begun.read()
    assert (await client.answer())[0] == 200
    assert len(h2provider.calls) == 3


# ── silence ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_upstream_that_never_answers(h2provider, speak) -> None:
    h2provider.script(stall)
    client = speak(h2provider, first_byte_timeout_s=0.1)
    with pytest.raises(UpstreamTimeout, match="did not answer in time") as caught:
        await client.send()
    assert caught.value.sent
    await h2provider.until(lambda: h2provider.calls[0].code == ErrorCodes.CANCEL)
    assert (await client.answer())[0] == 200
    assert len(h2provider.connections) == 2, "a connection on which nothing came is not used again"


async def test_an_upstream_that_falls_silent(h2provider, speak) -> None:
    h2provider.script(held(asyncio.Event()))
    found = await speak(h2provider, idle_timeout_s=0.1).send()
    assert await found.read() == b"a"
    with pytest.raises(UpstreamTimeout, match="fell silent"):
        await found.read()


async def test_a_timeout_ends_its_own_stream_only(h2provider, speak) -> None:
    beats = asyncio.Event()

    async def beat(call: Call) -> None:
        call.head(200)
        while not beats.is_set():
            await call.send(b".")
            await asyncio.sleep(0.01)
        await call.send(b"!", last=True)

    h2provider.script(beat, stall)
    client = speak(h2provider, first_byte_timeout_s=0.1)
    lively = asyncio.create_task(client.answer())
    await h2provider.until(lambda: h2provider.calls)
    with pytest.raises(UpstreamTimeout):
        await client.send()
    beats.set()
    assert (await lively)[1].endswith(b"!")
    assert (await client.answer())[0] == 200
    assert len(h2provider.connections) == 1


async def test_an_upstream_that_does_not_speak_ends_in_time(speak) -> None:
    async with Http2Provider(silent=True) as provider:
        with pytest.raises(UpstreamTimeout, match="within the connect timeout") as caught:
            await speak(provider, connect_timeout_s=0.1).send()
        assert not caught.value.sent and provider.calls == []


async def test_an_idle_connection_is_closed_after_its_time(h2provider, speak) -> None:
    client = speak(h2provider, keep_alive_s=0.05)
    await client.answer()
    await h2provider.until(lambda: not h2provider.connections[0].open)
    assert (await client.answer())[0] == 200


async def test_closing_drops_everything(h2provider, speak) -> None:
    h2provider.script(held(asyncio.Event()))
    client = speak(h2provider)
    begun = await client.send()
    await client.upstream.close()
    await begun.read()
    with pytest.raises(UpstreamCut):
        await begun.read()
    await h2provider.until(lambda: not h2provider.connections[0].open)


# ── what is no HTTP/2 ────────────────────────────────────────────────────────────────────────────────────────


async def test_where_http2_is_not_spoken_without_tls(provider, speak) -> None:
    provider.handler = lambda _: Script((response(b"HTTP/1.1 is what I speak", 400),))
    with pytest.raises((UpstreamGarbage, UpstreamUnreachable)) as caught:
        await speak(provider).send()
    assert not caught.value.sent


@pytest.mark.parametrize(
    "frame, error",
    [
        (b"\x00\x00\x00\x00\x00\x00\x00\x00\x01", UpstreamGarbage),  # DATA before a head
        (b"\x00\x00\x04\x01\x04\x00\x00\x00\x01\xff\xff\xff\xff", UpstreamGarbage),  # a head that cannot be read
        (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", UpstreamGarbage),  # a frame of 16 MB
        (b"\x00\x00\x01\x06\x00\x00\x00\x00\x00x", UpstreamGarbage),  # a PING of one byte
    ],
)
async def test_what_breaks_the_protocol_ends_the_connection(h2provider, speak, frame, error) -> None:
    async def garbage(call: Call) -> None:
        await call.complete.wait()
        call.connection.transport.write(frame)

    h2provider.script(garbage)
    client = speak(h2provider)
    with pytest.raises(error) as caught:
        await client.send()
    assert caught.value.sent
    assert (await client.answer())[0] == 200
    assert len(h2provider.connections) == 2


async def test_an_answer_before_what_breaks_the_protocol_is_not_lost_with_it(h2provider, speak) -> None:
    async def complete(call: Call) -> None:
        await call.complete.wait()
        h2 = call.connection.h2
        h2.send_headers(call.id, [(":status", "200")])
        h2.send_data(call.id, b"all of it", end_stream=True)
        call.connection.transport.write(h2.data_to_send() + b"\x00\x00\x01\x06\x00\x00\x00\x00\x00x")

    h2provider.script(complete)
    assert await speak(h2provider).answer() == (200, b"all of it")


@pytest.mark.parametrize(
    "behind", [GoAwayFrame(0, last_stream_id=0).serialize(), b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"]
)
async def test_an_answer_is_not_lost_with_what_comes_behind_it_and_its_call_is_not_sent_again(
    h2provider, speak, behind
) -> None:
    async def complete(call: Call) -> None:
        await call.complete.wait()
        h2 = call.connection.h2
        h2.send_headers(call.id, [(":status", "200")])
        h2.send_data(call.id, b"all of it", end_stream=True)
        call.connection.transport.write(h2.data_to_send() + behind)

    h2provider.script(complete)
    assert await speak(h2provider).answer() == (200, b"all of it")
    assert len(h2provider.calls) == 1


async def test_an_answer_that_has_begun_is_cut_and_not_sent_again_by_a_goaway_that_denies_it(h2provider, speak) -> None:
    async def begun(call: Call) -> None:
        await call.complete.wait()
        h2 = call.connection.h2
        h2.send_headers(call.id, [(":status", "200")])
        h2.send_data(call.id, b"some")
        call.connection.transport.write(h2.data_to_send() + GoAwayFrame(0, last_stream_id=0).serialize())

    h2provider.script(begun)
    found = await speak(h2provider).send()
    with pytest.raises(UpstreamCut):
        await read_all(found)
    assert len(h2provider.calls) == 1


@pytest.mark.parametrize(
    "fields",
    [
        [(":status", "99")],
        [(":status", "600")],
        [(":status", "abc")],
        [(":status", "200")] + [("x", "y")] * 300,
        [(":status", "200"), (":status", "200")],
        [("x", "y")],
        [("x", "y"), (":status", "200")],
        [(":status", "200"), ("Content-Type", "x")],
        [(":status", "200"), ("x y", "z")],
        [(":status", "200"), ("", "z")],
        [(":status", "200"), ("x", "a\r\nb: c")],
        [(":status", "200"), ("x", "a\0")],
        [(":status", "200"), ("x", " a")],
        [(":status", "200"), ("connection", "close")],
        [(":status", "200"), ("transfer-encoding", "chunked")],
    ],
)
async def test_a_head_that_cannot_be_passed_on_ends_its_stream_only(h2provider, speak, fields) -> None:
    async def odd(call: Call) -> None:
        await call.complete.wait()
        head = HeadersFrame(call.id, call.connection.h2.encoder.encode(fields), flags=["END_HEADERS"])
        body = DataFrame(call.id, b"abc", flags=["END_STREAM"])
        call.connection.transport.write(head.serialize() + body.serialize())

    gate = asyncio.Event()
    h2provider.script(held(gate), odd)
    client = speak(h2provider)
    another = await client.send()
    with pytest.raises(UpstreamGarbage):
        await client.send()
    gate.set()
    assert await read_all(another) == b"ab"
    assert (await client.answer())[0] == 200
    assert len(h2provider.connections) == 1


@pytest.fixture
def secured(tmp_path) -> Callable[..., tuple[ssl.SSLContext, str]]:
    """`secured(protocols)`: a server's context, and the file of who vouches for it."""

    def make(*protocols: str) -> tuple[ssl.SSLContext, str]:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        context.set_alpn_protocols(list(protocols))
        return context, str(tmp_path / "ca.pem")

    return make


async def test_tls_agrees_on_http2(secured, speak) -> None:
    context, ca_file = secured("h2", "http/1.1")
    async with Http2Provider(ssl=context) as provider:
        assert (await speak(provider, ca_file=ca_file).answer())[0] == 200
        assert provider.calls[0].value(b":scheme") == b"https"


async def test_where_tls_agrees_on_http1_that_is_spoken(secured, speak) -> None:
    context, ca_file = secured("http/1.1")
    async with Provider(ssl=context) as provider:
        provider.handler = lambda _: Script((response(b"fine"),))
        client = speak(provider, ca_file=ca_file)
        answers = await asyncio.gather(*[client.answer() for _ in range(5)])
        assert answers == [(200, b"fine")] * 5
        assert len(provider.requests) == 5
