"""Request bodies: whole and streamed, bounded, overtaken by an early answer, given up half-way."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import sys
import tracemalloc
from pathlib import Path

import pytest

from present import present
from taximeter.core.errors import BadRequest, UpstreamTimeout, UpstreamUnreachable
from upstream import CLOSE, RESET, STALL, Provider, chunk, response, stream_head
from waits import HANG_S

OK = response(b"fine")
MIB = 1024 * 1024


async def pieces(*data: bytes):
    for piece in data:
        yield piece


class Hung:
    """A body whose client sends some and then nothing."""

    def __init__(self, *data: bytes) -> None:
        self.data = list(data)
        self.go_on = asyncio.Event()
        self.left = False

    def __aiter__(self):
        return self

    async def __anext__(self) -> bytes:
        if self.data:
            return self.data.pop(0)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.left = True
            raise
        raise StopAsyncIteration


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 5 * MIB])
async def test_a_whole_body_arrives(provider, client, size) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    provider.script(OK)
    await client.answer(body)
    seen = provider.requests[0]
    assert (seen.body_bytes, seen.body_sha256) == (size, hashlib.sha256(body).hexdigest())
    assert (seen.header("content-length"), seen.header("transfer-encoding")) == (str(size), None)
    assert client.pool.idle == 1


async def test_a_streamed_body_keeps_its_length(provider, client) -> None:
    provider.script(OK)
    await client.answer(pieces(b"ab", b"", b"cde"), headers=[(b"content-length", b"5")])
    seen = provider.requests[0]
    assert (seen.body, seen.header("content-length"), seen.header("transfer-encoding")) == (b"abcde", "5", None)
    assert client.pool.idle == 1


async def test_a_streamed_body_without_length_is_chunked(provider, client) -> None:
    provider.script(OK)
    await client.answer(pieces(b"ab", b"", b"cde"))
    seen = provider.requests[0]
    assert (seen.body, seen.header("content-length"), seen.header("transfer-encoding")) == (b"abcde", None, "chunked")
    assert client.pool.idle == 1


@pytest.mark.parametrize("length", [b"4", b"6"])
async def test_a_body_of_another_length_than_it_says_is_never_complete_upstream(provider, client, length) -> None:
    provider.script(OK)
    with pytest.raises(BadRequest, match="Content-Length"):
        await client.send(pieces(b"ab", b"cde"), headers=[(b"content-length", length)])
    await provider.until(lambda: provider.open_connections == 0)
    assert not provider.requests[0].complete or provider.requests[0].body == b"abcd"[:4]
    assert client.pool.live == 0


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_large_upload_passes_in_bounded_memory(client_of) -> None:
    """200 MB through a provider in another process; what Python holds at any time stays far below it."""
    total, piece = 200 * MIB, b"x" * (256 * 1024)
    digest = hashlib.sha256(b"")

    async def upload():
        for _ in range(total // len(piece)):
            digest.update(piece)
            yield bytes(bytearray(piece))  # a new object each time, as from a socket

    async with Process() as port:
        client = client_of(Provider(port=port))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tracemalloc.start()
        try:
            answer = await client.send(upload(), path=b"/v1/files", headers=[(b"content-length", b"%d" % total)])
            body = await answer.read()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert digest.hexdigest().encode() in body and str(total).encode() in body
        assert peak < 8 * MIB
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


class Process:
    """The provider on its own, so that its memory is not ours."""

    async def __aenter__(self) -> int:
        script = Path(__file__).parents[2] / "upstream.py"
        self.process = await asyncio.create_subprocess_exec(sys.executable, script, stdout=asyncio.subprocess.PIPE)
        return int(await present(self.process.stdout).readline())

    async def __aexit__(self, *_: object) -> None:
        self.process.kill()
        await self.process.communicate()


async def test_an_upload_is_held_back_by_a_provider_that_does_not_read(provider, client) -> None:
    given = 0

    async def upload():
        nonlocal given
        while True:
            given += 1
            yield b"x" * 65536

    provider.script(STALL, at_head=True)
    sending = asyncio.ensure_future(client.send(upload()))
    await provider.until(lambda: provider.requests)
    connection = next(iter(client.pool._live))
    async with asyncio.timeout(HANG_S):
        while connection._upload._writable is None or connection._transport.get_write_buffer_size() == 0:
            await asyncio.sleep(0)
    stopped_at = given
    for _ in range(100):
        await asyncio.sleep(0)
    assert given <= stopped_at + 200  # kernel buffers may still take some; an unbounded upload would run on
    assert connection._transport.get_write_buffer_size() < MIB
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert client.pool.live == 0


async def test_an_early_refusal_is_relayed_and_the_rest_is_not_sent(provider, client) -> None:
    provider.script(response(b"too large", 413), at_head=True)
    body = Hung(b"x" * 1000)
    assert await client.answer(body, headers=[(b"content-length", b"5000")]) == (413, b"too large")
    assert client.pool.live == 0
    await provider.until(lambda: provider.open_connections == 0)
    assert body.left and not provider.requests[0].complete


async def test_an_early_refusal_that_streams_is_relayed(provider, client) -> None:
    go_on = asyncio.Event()
    provider.script(stream_head(413), chunk(b"too "), go_on, response(b"", framing="close")[:0], CLOSE, at_head=True)
    body = Hung(b"x")
    answer = await client.send(body)
    assert (answer.status, await answer.read()) == (413, b"too ")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert body.left
    answer.abort()
    assert client.pool.live == 0


async def test_a_refusal_whose_body_comes_later_is_the_last_of_its_connection(provider, client) -> None:
    """Else the next customer's request would be taken for the rest of this one's body."""
    go_on = asyncio.Event()
    head, body = response(b"no", 413).split(b"no")[0], Hung(b"x" * 10)
    provider.script(head, go_on, b"no", STALL, at_head=True)
    answer = await client.send(body, headers=[(b"content-length", b"100")])
    while not body.left:
        await asyncio.sleep(0)
    go_on.set()
    assert (answer.status, await answer.read()) == (413, b"no")
    assert (client.pool.live, client.pool.idle) == (0, 0)
    provider.script(OK)
    assert await client.answer() == (200, b"fine")


async def test_an_early_success_does_not_stop_the_upload(provider, client) -> None:
    go_on = asyncio.Event()
    provider.script(stream_head(), chunk(b"listening"), at_head=True)
    body = Hung(b"ab")
    answer = await client.send(body)
    assert (answer.status, await answer.read()) == (200, b"listening")
    body.go_on.set()
    await provider.until(lambda: provider.requests[0].complete)
    assert provider.requests[0].body == b"ab"
    go_on.set()
    answer.abort()


async def test_an_answer_that_ends_before_the_upload_does_is_the_last_of_its_connection(provider, client) -> None:
    provider.script(OK, at_head=True)
    body = Hung(b"ab")
    assert await client.answer(body) == (200, b"fine")
    assert client.pool.live == 0
    provider.script(OK)
    assert await client.answer() == (200, b"fine")


async def test_a_large_whole_body_answered_early_costs_the_connection(provider, client) -> None:
    """The provider answers at the head and reads on slowly: what is unsent must not lead the next request."""
    provider.script(response(b"early"), STALL, at_head=True)
    assert await client.answer(b"x" * 32 * MIB) == (200, b"early")
    assert client.pool.live == 0


class Gone(Exception):
    pass


async def test_a_client_that_leaves_in_mid_upload_is_told_as_it_is(provider, client) -> None:
    async def body():
        yield b"ab"
        raise Gone

    provider.script(OK)
    with pytest.raises(Gone):
        await client.send(body())
    await provider.until(lambda: provider.open_connections == 0)
    assert not provider.requests[0].complete
    assert client.pool.live == 0


async def test_a_cancelled_upload_hangs_up(provider, client) -> None:
    body = Hung(b"ab")
    sending = asyncio.ensure_future(client.send(body))
    await provider.until(lambda: provider.requests)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await provider.until(lambda: provider.open_connections == 0)
    assert body.left


@pytest.mark.parametrize("step", [RESET, CLOSE], ids=str)
async def test_a_provider_that_hangs_up_in_mid_upload_is_unreachable(provider, client, step) -> None:
    provider.script(step, at_head=True)
    body = Hung(b"ab")
    with pytest.raises(UpstreamUnreachable) as caught:
        await client.send(body)
    assert caught.value.sent
    await asyncio.sleep(0)
    assert body.left


async def test_a_slow_client_is_not_the_upstreams_silence(provider, client_of) -> None:
    client = client_of(provider, first_byte_timeout_s=0.05)
    provider.script(STALL)
    body = Hung(b"ab")
    sending = asyncio.ensure_future(client.send(body))
    await provider.until(lambda: provider.requests)
    connection = next(iter(client.pool._live))
    for _ in range(200):
        connection.tick()
    assert not connection.closed
    body.go_on.set()
    with pytest.raises(UpstreamTimeout):
        await sending
