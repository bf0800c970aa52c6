"""What an answer must look like to be relayed, and when its connection may carry another (DESIGN §2.3)."""

from __future__ import annotations

import asyncio

import pytest

from taximeter.core.errors import UpstreamCut, UpstreamGarbage, UpstreamUnreachable
from upstream import CLOSE, EOF, LAST_CHUNK, RESET, chunk, response, stream_head
from waits import HANG_S

H = b"HTTP/1.1 200 OK\r\n"
CHUNKED = H + b"Transfer-Encoding: chunked\r\n\r\n"
OK = response(b"fine")

GARBAGE = {
    "te and cl": H + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "cl and te": H + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "two equal lengths": H + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    "two lengths": H + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "list of lengths": H + b"Content-Length: 2, 2\r\n\r\nhi",
    "signed length": H + b"Content-Length: +2\r\n\r\nhi",
    "negative length": H + b"Content-Length: -2\r\n\r\nhi",
    "empty length": H + b"Content-Length:\r\n\r\nhi",
    "hex length": H + b"Content-Length: 0x2\r\n\r\nhi",
    "huge length": H + b"Content-Length: 99999999999999999999\r\n\r\nhi",
    "bare lf after status": b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nhi",
    "bare lf after header": H + b"A: b\nContent-Length: 2\r\n\r\nhi",
    "bare lf at end of head": H + b"Content-Length: 2\r\n\nhi",
    "bare cr": H + b"A: b\rc\r\nContent-Length: 2\r\n\r\nhi",
    "obs-fold": H + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\nhi",
    "space before colon": H + b"Content-Length : 2\r\n\r\nhi",
    "bad name": H + b"A(b: c\r\nContent-Length: 2\r\n\r\nhi",
    "empty name": H + b": c\r\nContent-Length: 2\r\n\r\nhi",
    "no colon": H + b"abc\r\nContent-Length: 2\r\n\r\nhi",
    "nul in value": H + b"A: b\0c\r\nContent-Length: 2\r\n\r\nhi",
    "control in value": H + b"A: b\x01c\r\nContent-Length: 2\r\n\r\nhi",
    "gzip coding": H + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "coding after chunked": H + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "identity coding": H + b"Transfer-Encoding: identity\r\n\r\nhi",
    "chunked twice": H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "unknown coding": H + b"Transfer-Encoding: xchunked\r\n\r\nhi",
    "http 0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "http 2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "http 1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "lower case": b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "other protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "html": b"<html>busy</html>",
    "line break first": b"\r\n" + OK,
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nhi",
    "status 600": b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nhi",
    "protocol switch": b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "201 fields": H + b"".join(b"A%d: b\r\n" % n for n in range(201)) + b"\r\n",
    "64 KiB in one value": H + b"A: " + b"b" * 65536 + b"\r\n\r\n",
    "64 KiB in many": H + b"".join(b"A: " + b"b" * 1000 + b"\r\n" for n in range(70)) + b"\r\n",
    "a head without end": H + b"A: " + b"b" * 400_000,
    "33 interim heads": b"HTTP/1.1 103 Early\r\n\r\n" * 33 + OK,
    "long interim heads": (b"HTTP/1.1 103 Early\r\nLink: " + b"x" * 30_000 + b"\r\n\r\n") * 3 + OK,
}

BAD_BODIES = {
    "bare lf after size": CHUNKED + b"2\nhi\r\n0\r\n\r\n",
    "bare lf after data": CHUNKED + b"2\r\nhi\n0\r\n\r\n",
    "size in 0x": CHUNKED + b"0x2\r\nhi\r\n0\r\n\r\n",
    "space after size": CHUNKED + b"2 \r\nhi\r\n0\r\n\r\n",
    "negative size": CHUNKED + b"-2\r\nhi\r\n0\r\n\r\n",
    "no size": CHUNKED + b"\r\nhi\r\n0\r\n\r\n",
    "huge size": CHUNKED + b"fffffffffffffffff\r\nhi",
    "chunk longer than its size": CHUNKED + b"2\r\nhiho\r\n0\r\n\r\n",
    "length among trailers": CHUNKED + b"2\r\nhi\r\n0\r\nContent-Length: 9\r\n\r\n",
    "bad trailer": CHUNKED + b"2\r\nhi\r\n0\r\nX y\r\n\r\n",
    "trailers without end": CHUNKED + b"2\r\nhi\r\n0\r\nX: " + b"y" * 200_000,
    "extension without end": CHUNKED + b"2;" + b"y" * 200_000,
}

COMPLETE = {
    "length": (H + b"Content-Length: 2\r\n\r\nhi", b"hi"),
    "length with blanks": (H + b"Content-Length: \t2 \r\n\r\nhi", b"hi"),
    "length with zeros": (H + b"Content-Length: 0002\r\n\r\nhi", b"hi"),
    "nothing": (H + b"Content-Length: 0\r\n\r\n", b""),
    "chunks": (CHUNKED + b"2\r\nhi\r\n3\r\n ho\r\n0\r\n\r\n", b"hi ho"),
    "one chunk": (CHUNKED + b"0002\r\nhi\r\n0\r\n\r\n", b"hi"),
    "mixed case coding": (H + b"TRANSFER-ENCODING: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi"),
    "chunk extension": (CHUNKED + b"2;a=b\r\nhi\r\n0\r\n\r\n", b"hi"),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "upgrade offered": (H + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "a body of line breaks": (H + b"Content-Length: 6\r\n\r\n\r\n\r\n\r\n", b"\r\n\r\n\r\n"),
    "keep-alive said": (H + b"Connection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
}

COMPLETE_BUT_LAST = {
    "connection close": (H + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "close among others": (H + b"Connection: foo, Close\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "close said later": (H + b"Connection: keep-alive\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "http 1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "http 1.0 keep-alive": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "extra byte": (H + b"Content-Length: 2\r\n\r\nhi!", b"hi"),
    "extra line break": (H + b"Content-Length: 2\r\n\r\nhi\r\n", b"hi"),
    "extra lf after lf": (H + b"Content-Length: 2\r\n\r\n\n\n\n", b"\n\n"),
    "extra answer": (OK + response(b"another customer's"), b"fine"),
    "extra after chunks": (CHUNKED + b"2\r\nhi\r\n0\r\n\r\nx", b"hi"),
    "extra line break after chunks": (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n\r\n", b"hi"),
    "extra answer after chunks": (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n" + OK, b"hi"),
    "trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: y\r\n\r\n", b"hi"),
    "204 with a length": (b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n", b""),
    "204 with a body": (b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nhi", b""),
    "204 with chunks": (b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
    "304 with a length": (b"HTTP/1.1 304 Not\r\nContent-Length: 2\r\n\r\n", b""),
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
async def test_an_unsafe_head_is_garbage_and_its_connection_is_dropped(provider, client, raw) -> None:
    provider.script(raw)
    with pytest.raises(UpstreamGarbage) as caught:
        await client.send()
    assert caught.value.sent
    await provider.until(lambda: provider.open_connections == 0)
    provider.script(OK)
    assert await client.answer() == (200, b"fine")
    assert provider.connections == 2


@pytest.mark.parametrize("raw", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_an_unsafe_body_that_comes_with_its_head_is_garbage(provider, client, raw) -> None:
    provider.script(raw)
    with pytest.raises(UpstreamGarbage):
        await read_to_end(await client.send())
    await provider.until(lambda: provider.open_connections == 0)


@pytest.mark.parametrize("raw", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_an_unsafe_body_ends_in_garbage_after_what_was_whole(provider, client, raw) -> None:
    head_read = asyncio.Event()
    provider.script(CHUNKED + chunk(b"good "), head_read, raw.removeprefix(CHUNKED))
    answer = await client.send()
    assert await answer.read() == b"good "
    head_read.set()
    got: list[bytes] = []
    with pytest.raises(UpstreamGarbage):
        await read_to_end(answer, got)
    assert b"hi".startswith(b"".join(got))
    assert not answer.ended
    await provider.until(lambda: provider.open_connections == 0)


async def read_to_end(answer, got: list[bytes] | None = None) -> None:
    while piece := await answer.read():
        if got is not None:
            got.append(piece)


@pytest.mark.parametrize("raw, body", COMPLETE.values(), ids=COMPLETE)
async def test_a_complete_answer_frees_its_connection(provider, client, raw, body) -> None:
    for _ in range(3):
        provider.script(raw)
        assert await client.answer() == (200, body)
        assert client.pool.idle == 1
    assert provider.connections == 1


@pytest.mark.parametrize("raw, body", COMPLETE_BUT_LAST.values(), ids=COMPLETE_BUT_LAST)
async def test_an_answer_that_leaves_doubt_is_the_last_of_its_connection(provider, client, raw, body) -> None:
    provider.script(raw)
    assert (await client.answer())[1] == body
    await provider.until(lambda: provider.open_connections == 0)
    assert client.pool.live == 0
    provider.script(OK)
    assert await client.answer() == (200, b"fine")


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: <x>\r\n\r\n"])
async def test_interim_answers_are_skipped(provider, client, interim) -> None:
    go_on = asyncio.Event()
    provider.script(interim, go_on, OK)
    sending = asyncio.ensure_future(client.send())
    await provider.until(lambda: provider.requests and provider.requests[0].complete)
    go_on.set()
    answer = await sending
    assert (answer.status, answer.headers, await answer.read()) == (200, [(b"content-length", b"4")], b"fine")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsent!",
    ],
)
async def test_head_has_no_body_whatever_its_answer_says(provider, client, raw) -> None:
    provider.script(raw)
    answer = await client.send(b"", method=b"HEAD")
    assert await answer.read() == b"" and answer.ended
    provider.script(OK)
    assert await client.answer() == (200, b"fine")


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_body_free_their_connection(provider, client, status) -> None:
    for _ in range(2):
        provider.script(response(status=status, framing="close"))
        assert await client.answer() == (status, b"")
    assert provider.connections == 1


async def test_a_body_may_end_with_its_connection(provider, client) -> None:
    provider.script(response(b"until ", framing="close"), b"the end", CLOSE)
    assert await client.answer() == (200, b"until the end")
    provider.script(response(b"until ", framing="close"), b"the end", EOF)
    assert await client.answer() == (200, b"until the end")
    assert client.pool.live == 0


@pytest.mark.parametrize(
    "steps",
    [
        (H + b"Content-Length: 5\r\n\r\nhi", CLOSE),
        (H + b"Content-Length: 5\r\n\r\nhi", RESET),
        (H + b"Content-Length: 5\r\n\r\nhi", EOF),
        (stream_head(), chunk(b"hi"), CLOSE),
        (stream_head(), chunk(b"hi"), RESET),
        (stream_head(), b"5\r\nhi", CLOSE),
        (stream_head(), chunk(b"hi"), b"0\r\n", CLOSE),
    ],
    ids=str,
)
async def test_a_body_that_ends_early_is_cut_after_what_came(provider, client, steps) -> None:
    come = asyncio.Event()
    provider.script(*steps[:-1], come, steps[-1])
    answer = await client.send()
    assert await answer.read() == b"hi"
    come.set()
    with pytest.raises(UpstreamCut) as caught:
        await answer.read()
    assert caught.value.sent
    assert not answer.ended
    assert client.pool.live == 0


async def test_a_reset_of_a_body_without_length_is_a_cut_not_an_end(provider, client) -> None:
    come = asyncio.Event()
    provider.script(response(b"hi", framing="close"), come, RESET)
    answer = await client.send()
    assert await answer.read() == b"hi"
    come.set()
    with pytest.raises(UpstreamCut):
        await answer.read()


@pytest.mark.parametrize(
    "steps",
    [(CLOSE,), (RESET,), (EOF,), (b"HTTP/1.1 200", CLOSE), (b"HTTP/1.1 100 Continue\r\n\r\n", CLOSE)],
    ids=str,
)
async def test_no_head_is_unreachable_and_never_sent_again(provider, client, steps) -> None:
    provider.script(*steps)
    with pytest.raises(UpstreamUnreachable) as caught:
        await client.send()
    assert caught.value.sent
    assert len(provider.requests) == 1


async def test_headers_are_ready_to_be_relayed(provider, client) -> None:
    fields = [
        ("Content-Type", "text/plain"),
        ("Connection", "keep-alive, X-Private"),
        ("Keep-Alive", "timeout=5"),
        ("X-Private", "hop"),
        ("Trailer", "x"),
        ("Proxy-Authenticate", "Basic"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-Latin", "caf\xe9"),
        ("Content-Length", "0002"),
    ]
    raw = H + "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1") + b"\r\nhi"
    provider.script(raw)
    answer = await client.send()
    assert answer.headers == [
        (b"content-type", b"text/plain"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"x-latin", b"caf\xe9"),
        (b"content-length", b"2"),
    ]
    assert await answer.read() == b"hi"


async def test_redirects_are_passed_on(provider, client) -> None:
    provider.script(response(b"", 307, [("location", "http://elsewhere/")]))
    answer = await client.send()
    assert (answer.status, answer.headers[0]) == (307, (b"location", b"http://elsewhere/"))
    assert len(provider.requests) == 1


async def test_a_unary_answer_costs_one_suspension(provider, client) -> None:
    """Head and body that arrive together: the task sleeps once, for the head."""
    await client.answer()  # the connection stands
    provider.script(OK)
    call = client.upstream.send(b"POST", b"/v1/x", [], b"{}")
    steps = call.__await__()
    waits_for = steps.send(None)
    await asyncio.wait_for(asyncio.shield(waits_for), HANG_S)
    with pytest.raises(StopIteration) as returned:
        steps.send(None)
    answer = returned.value.value
    with pytest.raises(StopIteration) as read:
        answer.read().send(None)
    assert read.value.value == b"fine"
    assert answer.ended


async def test_all_that_has_arrived_is_read_at_once(provider, client) -> None:
    provider.script(stream_head() + chunk(b"a") + chunk(b"b") + chunk(b"c") + LAST_CHUNK)
    answer = await client.send()
    assert await answer.read() == b"abc"
    assert answer.ended
    assert await answer.read() == b""


async def test_trailers_never_become_headers(provider, client) -> None:
    provider.script(CHUNKED + b"2\r\nhi\r\n0\r\nSet-Cookie: a=1\r\nConnection: close\r\n\r\n")
    answer = await client.send()
    assert (answer.headers, await answer.read(), answer.ended) == ([], b"hi", True)
