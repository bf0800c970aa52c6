"""Whatever comes on a connection, in whatever order and pieces: with remembered heads and without, upstreams get the
same bytes, clients the same answers, and the same is written down."""

from __future__ import annotations

import asyncio
import gzip
import random
import re
from typing import Any

from gateway.test_cost import ANSWER, JSON, script
from gateway.test_known import KEYS
from taximeter.breaker.rule import Trip, Trips
from taximeter.keys.rule import Keys
from taximeter.server.framing import RequestFraming
from upstream import LAST_CHUNK, chunk, response, stream_head
from waits import HANG_S

SSE = (
    b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n', b'data: {"choices":[],"usage":{"prompt_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
)  # fmt: skip
ASKED = b'{"model":"gpt-4o","messages":[]%b}'
METHODS = (b"POST", b"POST", b"POST", b"POST", b"PUT", b"GET", b"DELETE", b"OPTIONS")
TARGETS = (
    b"/v1/chat/completions", b"/v1/chat/completions", b"/v1/chat/completions?a=tm-b&key=k", b"/v1/embeddings?",
    b"/v1/batches", b"/nowhere", b"/t/acme/v1/chat/completions", b"/v1/models",
)  # fmt: skip
FIELDS = (
    b"X-Taximeter-Key: tm-one", b"x-taximeter-key: tm-two", b"Authorization: Bearer tm-two", b"origin: http://localhost",
    b"authorization: Bearer sk", b"x-workspace: acme", b"X-Track-Id: t", b"connection: x-extra", b"x-extra: 1",
    b"Connection: keep-alive, te", b"te: trailers", b"expect: 100-continue", b"origin: https://evil.example",
    b"origin: https://app.example", b"content-type: text/plain", b"content-encoding: gzip", b"upgrade: h2c",
    b"cookie: a=b; taximeter_session=s", b"connection: close", b"Accept-Encoding: gzip", b"keep-alive: 5",
)  # fmt: skip
ZIPPED = [gzip.compress(ASKED % more, mtime=0) for more in (b',"stream":true', b"")]
BODIES = (
    *ZIPPED, *ZIPPED,
    b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}', b'{"model":"gpt-4o","messages":[],"n":2}',
    b'{"model":"other-1","messages":[]}', ASKED % b',"stream":true', b"{}", b"no json", b"",
    b'{"model":"other-2","input":"%b"}' % (b"x" * 700),
)  # fmt: skip
WHERE = (("one", ""), ("default", ""), ("acme", "t"))
STOPPED = [
    Trip(id="t", breaker="b", rate=1, limit=1, created_at=0, until=2**60, workspace=workspace, track=track)
    for workspace, track in WHERE
]
BEHIND = (b"", b"", b"", b"\r\n")
_OWN = re.compile(rb"(?:req_|tm[-_])?[0-9a-f]{8}-?[0-9a-f-]{8,}|in force|\d{4}-\d\d-\d\dT[0-9:.]+Z")
_VARIES = re.compile(r"(_ms|_at|_ns|_us|^request_id|^event_id)$")


def one(pick: random.Random, lines: list[bytes]) -> bytes:
    """A request."""
    body = pick.choice(BODIES)
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"x-last: 1", b"", body]) + pick.choice(BEHIND)


def sequence(seed: int, length: int) -> list[tuple[str, Any]]:
    pick = random.Random(seed)
    plain = b"POST /v1/chat/completions HTTP/1.1"
    heads = [[plain, b"host: localhost", field] for field in (FIELDS * 4)[4 * seed : 4 * seed + 4]]
    line = b"%b %b HTTP/1.1" % (pick.choice(METHODS), pick.choice(TARGETS))
    heads.append([line, b"host: localhost", *pick.sample(FIELDS, pick.choice((0, 1, 2, 3)))])
    steps: list[tuple[str, Any]] = []
    lines = heads[0]
    for _ in range(length):
        lines = lines if pick.random() < 0.7 else pick.choice(heads)
        kind = pick.choice(("call",) * 8 + ("pieces", "pipelined", "keys", "stopped"))
        if kind in ("keys", "stopped"):
            steps.append((kind, pick.randrange(4)))
        else:
            sent = [one(pick, lines) for _ in range(2 if kind == "pipelined" else 1)]
            steps.append((kind, (sent, pick.randrange(1, 300))))
    return steps


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The next one, head and body, without interim ones; b"": the connection has ended."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            return await answer(reader)
        length = re.search(rb"content-length: (\d+)", head)
        if length is not None:
            return head + await reader.readexactly(int(length[1]))
        return head + (await reader.readuntil(LAST_CHUNK) if b"chunked" in head else b"")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def run(running: Any, provider: Any, steps: list[tuple[str, Any]]) -> list[Any]:
    """The answers, what the upstream got, and what was written."""
    told: list[Any] = []
    known, written = len(provider.requests), len(running.records)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for kind, what in steps:
        if kind == "keys":
            running.gate.admission.keys = Keys(KEYS[:what])
            continue
        if kind == "stopped":
            running.gate.admission.use_trips(Trips(STOPPED[:what]))
            continue
        sent, cut = what
        data = b"".join(sent)
        writer.write(data[:cut] if kind == "pieces" else data)
        if kind == "pieces":
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(data[cut:])
        for _ in sent:
            got = await answer(reader)
            told.append(_OWN.sub(b"", got))
            if not got or b"\r\nconnection: close" in got:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
                break
    writer.close()
    await writer.wait_closed()
    asked = [(each.method, each.target, each.headers, each.body) for each in provider.requests[known:]]
    records = [{k: v for k, v in each.items() if not _VARIES.search(k)} for each in running.records[written:]]
    return [told, asked, records]


def handler(request):
    if b'"stream":true' in request.body or request.body == ZIPPED[0]:
        return script(stream_head(), *[chunk(event) for event in SSE], LAST_CHUNK)
    return script(response(ANSWER, headers=JSON))


async def test_any_sequence_is_the_same_with_remembered_heads_and_without(serve, provider, monkeypatch):
    provider.handler = handler
    other = {"name": "other", "base_url": provider.base_url + "/x", "models": ["other-*"]}
    compared, again = [0], RequestFraming.again

    def counted(self: RequestFraming, data: bytes) -> Any:
        found = again(self, data)
        compared[0] += found is not None
        return found

    more = {"limits": {"json_body_bytes": 400}, "cors": {"allowed_origins": ["https://app.example"]}}
    async with serve(provider, upstream={"models": ["gpt-*"]}, upstreams=[other], keys=KEYS, **more) as running:
        async with asyncio.timeout(HANG_S):
            for seed in range(10):
                steps, ways = sequence(seed, 30), []
                for way in (counted, lambda self, data: None):
                    monkeypatch.setattr(RequestFraming, "again", way)
                    running.gate.admission.keys = Keys(KEYS)
                    running.gate.admission.use_trips(Trips())
                    ways.append(await run(running, provider, steps))
                for remembered, parsed in zip(*ways, strict=True):
                    assert remembered == parsed, seed
    assert compared[0] > 60  # else it shows nothing
