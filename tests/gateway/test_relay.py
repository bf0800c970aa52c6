"""What a client sees and what is written down, for each way a call can go; real sockets on both sides."""

import asyncio
import json
import socket

import httpx2
import pytest

from taximeter.core.errors import JournalError
from taximeter.gateway import places
from taximeter.keys.rule import ProxyKey, digest
from upstream import CLOSE, LAST_CHUNK, RESET, STALL, Script, chunk, response, stream_head
from waits import HANG_S, happens

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "one two three"}]}
STREAM = {**CHAT, "stream": True}
JSON = [("content-type", "application/json")]


@pytest.fixture(params=[False, True], ids=["new connection", "kept connection"])
def warm(request):
    return request.param


@pytest.fixture
async def client():
    async with httpx2.AsyncClient(timeout=HANG_S) as session:
        yield session


def figures(record):
    names = ("workspace", "track", "api", "operation", "outcome", "status", "input_source", "output_source")
    return {name: record.get(name) for name in names} | {
        "input": record.get("input_tokens"),
        "output": record.get("output_tokens"),
    }


async def test_a_chat_call_is_relayed_byte_for_byte_and_written_down_before_its_last_byte(serve, provider, client):
    async with serve(provider) as running:
        direct = await client.post(provider.base_url + "/chat/completions", json=CHAT)
        headers = {"X-Workspace": "acme", "X-Track-Id": "t1", "X-Task": "query", "Authorization": "Bearer sk-own"}
        answer = await client.post(running.url + "/v1/chat/completions", json=CHAT, headers=headers)
        (record,) = running.records  # no wait: it is there when the client has its answer
    bill = provider.ledger[-1]
    assert answer.json()["choices"] == direct.json()["choices"]
    assert answer.status_code == 200
    assert record["request_id"] == answer.headers["x-taximeter-request-id"]
    assert record["upstream_request_id"]
    assert figures(record) == {
        "workspace": "acme",
        "track": "t1",
        "api": "chat",
        "operation": "llm",
        "outcome": "ok",
        "status": 200,
        "input_source": "reported",
        "output_source": "reported",
        "input": bill.usage["prompt_tokens"],
        "output": bill.usage["completion_tokens"],
    }
    assert record["task"] == "query"
    assert record.get("ttft_ms") is None  # it came as a whole
    assert record["cost_nusd"] == record["input_tokens"] * 1_000 + record["output_tokens"] * 2_000
    seen = provider.requests[-1]
    assert seen.header("authorization") == "Bearer sk-own"
    assert not {"x-workspace", "x-track-id", "x-task"} & {name for name, _ in seen.headers}
    assert json.loads(seen.body) == CHAT


async def read_raw(client, url, body):
    async with client.stream("POST", url, json=body) as answer:
        return b"".join([part async for part in answer.aiter_raw()])


def without_ids(stream):
    """A stream's events without what differs from call to call, and without the `usage: null` of asking for usage."""
    events = [json.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: {")]
    return [{k: v for k, v in e.items() if k != "id" and (k, v) != ("usage", None)} for e in events]


async def test_an_injected_usage_event_is_metered_and_taken_out_again(serve, provider, client):
    async with serve(provider) as running:
        direct = await read_raw(client, provider.base_url + "/chat/completions", STREAM)
        relayed = await read_raw(client, running.url + "/v1/chat/completions", STREAM)
        record = await running.record()
    assert without_ids(relayed) == without_ids(direct)
    assert relayed.endswith(b"data: [DONE]\n\n")
    assert json.loads(provider.requests[-1].body)["stream_options"] == {"include_usage": True}
    assert record["input_source"] == record["output_source"] == "reported"
    assert record["output_tokens"] == provider.ledger[-1].usage["completion_tokens"]
    assert record["stream"] is True
    assert 0 < record["ttft_ms"] <= record["duration_ms"]


@pytest.mark.parametrize("wanted", [True, False])
async def test_include_usage_is_honoured_toward_the_client_and_metered_either_way(serve, provider, client, wanted):
    body = {**STREAM, "stream_options": {"include_usage": wanted}}
    async with serve(provider) as running:
        relayed = await read_raw(client, running.url + "/v1/chat/completions", body)
        record = await running.record()
    assert bool(without_ids(relayed)[-1].get("usage")) is wanted
    assert record["output_source"] == "reported"


async def test_an_upstream_that_refuses_stream_options_is_asked_without_and_remembered(serve, provider, client):
    provider.reject_stream_options = True
    async with serve(provider) as running:
        first = await read_raw(client, running.url + "/v1/chat/completions", STREAM)
        second = await read_raw(client, running.url + "/v1/chat/completions", STREAM)
        await running.record(2)
        records = running.records
    assert first.endswith(b"data: [DONE]\n\n")
    assert second.endswith(b"data: [DONE]\n\n")
    assert [(r["outcome"], r.get("attempt", 1), r["status"]) for r in records] == [
        ("upstream_error", 1, 400),
        ("ok", 2, 200),
        ("ok", 1, 200),
    ]
    assert records[0]["request_id"] == records[1]["request_id"]
    assert records[1]["output_source"] == "counted"
    assert records[1]["output_tokens"] > 0
    assert len(provider.requests) == 3


async def test_a_400_about_something_else_is_passed_on_once(serve, provider, client):
    provider.script(response(b'{"error": {"message": "too long"}}', 400, JSON))
    async with serve(provider) as running:
        answer = await client.post(running.url + "/v1/chat/completions", json=STREAM)
        record = await running.record()
    assert (answer.status_code, answer.json()) == (400, {"error": {"message": "too long"}})
    assert (record["outcome"], record["status"]) == ("upstream_error", 400)
    assert "input_tokens" not in record
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("path", "body", "operation"),
    [
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["a b", "c"]}, "embedding"),
        ("/v1/responses", {"model": "gpt-4.1", "input": "one two"}, "llm"),
        ("/v1/rerank", {"model": "rerank-v3.5", "query": "q", "documents": ["a", "b"]}, "rerank"),
        ("/w/beta/v1/completions", {"model": "gpt-4o-mini", "prompt": "one two"}, "llm"),
    ],
)
async def test_other_apis(serve, provider, client, path, body, operation):
    async with serve(provider) as running:
        answer = await client.post(running.url + path, json=body)
        record = await running.record()
    assert answer.status_code == 200
    assert (record["operation"], record["outcome"]) == (operation, "ok")
    usage = provider.ledger[-1].usage
    billed = usage.get("prompt_tokens", usage.get("input_tokens", usage.get("total_tokens")))
    assert record.get("input_tokens") == billed or record.get("search_units") == usage.get("search_units")


async def test_any_other_path_is_relayed_and_recorded_as_other(serve, provider, client):
    async with serve(provider) as running:
        answer = await client.get(running.url + "/v1/models")
        record = await running.record()
    assert answer.json()["object"] == "list"
    assert (record["api"], record.get("operation", "other"), record["outcome"]) == ("other", "other", "ok")


async def test_a_body_that_is_not_json_goes_through_untouched(serve, provider, client):
    async with serve(provider) as running:
        answer = await client.post(
            running.url + "/v1/chat/completions",
            content=b'{"model": "x", ',
            headers={"content-type": "application/json"},
        )
        record = await running.record()
    assert answer.status_code == 400
    assert provider.requests[-1].body == b'{"model": "x", '
    assert record["outcome"] == "upstream_error"


async def test_a_long_upload_streams_through(serve, provider, client):
    async def parts():
        for _ in range(64):
            yield b"x" * 65536

    async with serve(provider) as running:
        answer = await client.post(
            running.url + "/v1/files", content=parts(), headers={"content-type": "multipart/form-data; boundary=b"}
        )
        record = await running.record()
    assert answer.json()["bytes"] == 64 * 65536
    assert record["request_bytes"] == 64 * 65536
    assert record.get("request_model") is None


async def test_a_json_body_over_the_limit_streams_through(serve, provider, client):
    body = json.dumps({**CHAT, "pad": "x" * 200_000}).encode()
    async with serve(provider, limits={"json_body_bytes": 100_000}) as running:
        for content in (body, _in_parts(body)):
            answer = await client.post(
                running.url + "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 200
        await running.record(1)
        assert [r["request_bytes"] for r in running.records] == [len(body), len(body)]
    assert [r.body for r in provider.requests] == [body, body]


async def _in_parts(body):
    for at in range(0, len(body), 50_000):
        yield body[at : at + 50_000]


# ── refused here ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/v1/chat/completions", {"X-Workspace": "a b"}, 400, "bad_tag"),
        ("/w/a%20b/v1/chat/completions", {}, 400, "bad_tag"),
        ("/u/nobody/v1/chat/completions", {}, 404, "not_found"),
        ("/v1/chat/completions", {"Host": "evil.example"}, 403, "forbidden"),
        ("/v1/chat/completions", {"Origin": "https://evil.example"}, 403, "forbidden"),
    ],
)
async def test_what_is_refused_is_explained_recorded_and_never_sent(
    serve, provider, client, path, headers, status, code
):
    async with serve(provider) as running:
        answer = await client.post(running.url + path, json=CHAT, headers=headers)
        (record,) = running.records
    assert (answer.status_code, answer.headers["x-taximeter-error"]) == (status, code)
    assert answer.json()["error"]["code"] == code
    assert (record["outcome"], record["error_code"]) == ("refused", code)
    assert "input_tokens" not in record
    assert not provider.requests


async def test_an_empty_tag_header_says_nothing_and_goes_nowhere(serve, provider, client):
    """As a chat server's template leaves it where it has no value."""
    async with serve(provider) as running:
        empty = {"X-Workspace": "", "X-Track-Id": "", "X-End-User": "", "LightRAG-Workspace": "acme"}
        answer = await client.post(running.url + "/t/track-1/v1/chat/completions", json=CHAT, headers=empty)
        record = await running.record()
    assert answer.status_code == 200
    assert (record["workspace"], record["track"], record.get("end_user")) == ("acme", "track-1", None)
    assert not provider.requests[0].x_headers.keys() & {"x-workspace", "x-track-id", "x-end-user"}


async def test_a_request_that_cannot_be_sent_as_it_is_has_one_record(serve, provider, client, monkeypatch):
    async with serve(provider) as running:
        monkeypatch.setattr("taximeter.gateway.upstream.targets.may_be_target", lambda _: None)
        answer = await client.get(running.url + "/v1/models")
        (record,) = running.records
        (opening,) = running.lines("open")
    assert (answer.status_code, record["outcome"], record["error_code"]) == (400, "refused", "bad_request")
    assert opening["request_id"] == record["request_id"]
    assert not provider.requests


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_every_line_on_disk_first_where_told_to(serve, provider, client, body):
    async with serve(provider, journal={"fsync": "always"}) as running:
        answer = await client.post(running.url + "/v1/chat/completions", json=body)
        record = await running.record()
    assert answer.status_code == 200
    assert (record["outcome"], record["output_source"]) == ("ok", "reported")


SECRET = "tm-" + "a" * 64


async def test_a_proxy_key_binds_its_workspace_and_never_reaches_the_upstream(serve, provider, client):
    key = ProxyKey(id="k1", sha256=digest(SECRET), workspace="acme")
    async with serve(provider, keys=[key], auth={"mode": "keys"}) as running:
        url = running.url + "/v1/chat/completions"
        bearer = {"Authorization": f"Bearer {SECRET}"}
        assert (await client.post(url, json=CHAT)).status_code == 401
        assert (await client.post(url, json=CHAT, headers={**bearer, "X-Workspace": "other"})).status_code == 403
        assert (await client.post(url, json=CHAT, headers=bearer)).status_code == 200
        assert [(r["outcome"], r["workspace"], r.get("key_id")) for r in running.records] == [
            ("refused", "default", None),
            ("refused", "acme", "k1"),
            ("ok", "acme", "k1"),
        ]
    (seen,) = provider.requests
    assert SECRET.encode() not in seen.raw_head


async def test_a_journal_that_cannot_be_written_refuses_where_told_to(serve, provider, client, tmp_path):
    async with serve(provider, journal={"on_error": "refuse"}) as running:
        assert (await client.post(running.url + "/v1/chat/completions", json=CHAT)).status_code == 200
        running.break_journal()
        answer = await client.post(running.url + "/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "journal_unavailable")
    assert len(provider.requests) == 1


# ── upstreams that misbehave ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("steps", "outcome", "status", "code"),
    [
        ((RESET,), "upstream_cut", 502, "upstream_unreachable"),
        ((CLOSE,), "upstream_cut", 502, "upstream_unreachable"),
        ((b"SSH-2.0-OpenSSH\r\n\r\n",), "upstream_cut", 502, "upstream_bad_response"),
        ((b"HTTP/1.1 200 OK\r\ncontent-len", RESET), "upstream_cut", 502, None),
    ],
)
async def test_no_answer_is_a_502_and_what_was_sent_may_be_billed(
    serve, provider, client, steps, outcome, status, code
):
    provider.script(*steps)
    async with serve(provider) as running:
        answer = await client.post(running.url + "/v1/chat/completions", json=CHAT)
        (record,) = running.records
    assert answer.status_code == status
    assert answer.headers["x-taximeter-error"] == answer.json()["error"]["code"] == record["error_code"]
    if code:
        assert record["error_code"] == code
    assert record["outcome"] == outcome
    assert "input_tokens" not in record
    assert "status" not in record
    assert len(provider.requests) == 1  # no silent second bill


async def test_an_upstream_that_is_not_there(serve, provider, client):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        async with serve(provider, upstream={"base_url": base}) as running:
            answer = await client.post(running.url + "/v1/chat/completions", json=CHAT)
            (record,) = running.records
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert record["outcome"] == "upstream_unreachable"


async def test_an_upstream_that_never_answers(serve, provider, client):
    provider.script(STALL)
    async with serve(provider, upstream={"first_byte_timeout_s": 0.2}) as running:
        answer = await client.post(running.url + "/v1/chat/completions", json=CHAT)
        (record,) = running.records
    assert (answer.status_code, record["outcome"]) == (504, "timeout")
    assert record["error_code"] == "upstream_timeout"


def delta(text):
    return b'data: {"id":"c","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"' + text + b'"}}]}\n\n'


async def test_a_stream_cut_by_the_upstream_is_cut_for_the_client_and_counted(serve, provider, client):
    provider.script(stream_head(), chunk(delta(b"hello ")), chunk(delta(b"world")), RESET)
    async with serve(provider) as running:
        received = b""
        with pytest.raises(httpx2.RemoteProtocolError):
            async with client.stream("POST", running.url + "/v1/chat/completions", json=STREAM) as answer:
                async for part in answer.aiter_raw():
                    received += part
        record = await running.record()
    assert received == delta(b"hello ") + delta(b"world")
    assert record["outcome"] == "upstream_cut"
    assert record["partial"] is True
    assert (record["input_source"], record["output_source"], record["output_tokens"]) == ("counted", "counted", 2)
    assert record["tokenizer"]


async def test_a_truncated_unary_answer_is_never_shown_as_complete(serve, provider, client):
    provider.script(
        response(b'{"usage": {"prompt_tokens": 1', headers=JSON).replace(b"length: 29", b"length: 99"), CLOSE
    )
    async with serve(provider) as running:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post(running.url + "/v1/chat/completions", json=CHAT)
        record = await running.record()
    assert record["outcome"] == "upstream_cut"


async def test_a_stream_without_usage_is_counted(serve, provider, client):
    provider.script(stream_head(), chunk(delta(b"hello world")), chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
    async with serve(provider) as running:
        received = await read_raw(client, running.url + "/v1/chat/completions", STREAM)
        record = await running.record()
    assert received == delta(b"hello world") + b"data: [DONE]\n\n"
    assert (record["outcome"], record["output_source"], record["output_tokens"]) == ("ok", "counted", 2)
    assert record.get("partial", False) is False


PARTS = [delta(b"%06d" % number + b"x" * 50_000) for number in range(400)]
"""20 MB: more than fits between the upstream and a client that stopped reading."""
DONE = b"data: [DONE]\n\n"


async def slow_client(slow, running, path="/v1/chat/completions"):
    """Ask for a stream and read only the first of it."""
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    slow.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(slow, ("127.0.0.1", running.port))
    body = json.dumps(STREAM).encode()
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
    await loop.sock_sendall(slow, head % path.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    received = bytearray()
    while len(received) < 200_000:
        received += await loop.sock_recv(slow, 4096)
    return received


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
@pytest.mark.parametrize(
    "end", [[chunk(DONE), LAST_CHUNK], [chunk(DONE) + LAST_CHUNK], [CLOSE]], ids=["ends", "ends at once", "cut"]
)
async def test_a_slow_reader_gets_every_byte_and_holds_the_upstream_back(serve, provider, path, end):
    written = []
    steps = [step for part in PARTS for step in (lambda _, part=part: written.append(1), chunk(part))]
    provider.script(stream_head(), *steps, *end)
    async with serve(provider) as running:
        with socket.socket() as slow:
            received = await slow_client(slow, running, path)
            assert len(written) < len(PARTS)
            while data := await asyncio.get_running_loop().sock_recv(slow, 1 << 20):
                received += data
        record = await running.record()
        assert len(running.records) == 1
    _, _, framed = bytes(received).partition(b"\r\n\r\n")
    cut = end == [CLOSE]
    assert framed.endswith(LAST_CHUNK) is not cut
    assert dechunked(framed) == b"".join(PARTS) + (b"" if cut else DONE)
    assert (record["outcome"], record["response_bytes"]) == ("upstream_cut" if cut else "ok", len(dechunked(framed)))


@pytest.mark.parametrize("policy", ["cancel", "drain"])
async def test_a_slow_reader_that_leaves_lets_the_upstream_go_on_or_hang_up(serve, provider, policy):
    provider.script(stream_head(), *map(chunk, PARTS), chunk(DONE), LAST_CHUNK)
    async with serve(provider, upstream={"on_client_left": policy}) as running:
        with socket.socket() as slow:
            await slow_client(slow, running)
            await happens(lambda: running.exchanges[0].paused)
            assert not running.records
        record = await running.record()
        assert len(running.records) == 1
    (request,) = provider.requests
    assert record["outcome"] == "client_left"
    assert (request.client_left, request.answered) == ((False, True) if policy == "drain" else (True, False))


async def test_a_stop_settles_a_stream_that_waits_for_its_reader(serve, provider):
    provider.script(stream_head(), *map(chunk, PARTS), chunk(DONE), LAST_CHUNK)
    with socket.socket() as slow:
        async with serve(provider, limits={"shutdown_s": 0.2}) as running:
            await slow_client(slow, running)
            await happens(lambda: running.exchanges[0].paused)
            slow.settimeout(10)
    (record,) = running.records
    assert record["outcome"] == "interrupted"


async def test_a_journal_that_fails_in_mid_stream_cuts_it_and_adds_no_second_answer(
    serve, provider, client, monkeypatch
):
    go_on = asyncio.Event()
    provider.script(stream_head(), chunk(delta(b"hello ")), go_on, chunk(DONE), LAST_CHUNK)
    async with serve(provider, journal={"fsync": "always", "on_error": "refuse"}) as running:
        received = b""
        with pytest.raises(httpx2.RemoteProtocolError):
            async with client.stream("POST", running.url + "/v1/chat/completions", json=STREAM) as answer:
                async for part in answer.aiter_raw():
                    received += part
                    monkeypatch.setattr(running.gate.metering.journal, "durable", _full_disk)
                    go_on.set()
        assert len(running.records) == 1
    assert delta(b"hello ").startswith(received)


async def test_a_process_whose_journal_has_ended_relays_nothing(serve, provider, client):
    async with serve(provider) as running:
        running.gate.metering.journal.shutdown()
        answer = await client.post(running.url + "/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "journal_unavailable")
    assert provider.requests == []


async def _full_disk():
    raise JournalError("no space left")


def dechunked(framed):
    out = bytearray()
    while framed:
        size, _, rest = framed.partition(b"\r\n")
        length = int(size, 16)
        out += rest[:length]
        framed = rest[length + 2 :]
        if not length:
            break
    return bytes(out)


async def test_an_answer_of_which_nothing_can_be_read_is_unknown_and_never_zero(serve, provider, client):
    provider.script(response(b"\x8b\x00\x00\x80garbled", headers=[*JSON, ("content-encoding", "br")]))
    async with serve(provider) as running:
        async with client.stream("POST", running.url + "/v1/chat/completions", json=CHAT) as answer:
            received = b"".join([part async for part in answer.aiter_raw()])
        record = await running.record()
    assert received == b"\x8b\x00\x00\x80garbled"
    assert (record.get("output_tokens"), record.get("output_source", "none")) == (None, "none")
    assert (record["input_tokens"], record["input_source"]) == (3 + 3 + 3 + 1, "counted")


# ── clients that leave ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_client_that_leaves_a_silent_stream_is_noticed_and_the_upstream_cancelled(serve, provider, client):
    provider.script(stream_head(), chunk(delta(b"hello")), STALL)
    async with serve(provider) as running:
        async with client.stream("POST", running.url + "/v1/chat/completions", json=STREAM) as answer:
            async for _ in answer.aiter_raw():
                break
        await provider.until(lambda: provider.requests[0].client_left)
        record = await running.record()
    assert (record["outcome"], record["partial"], record["output_tokens"]) == ("client_left", True, 1)
    assert record["output_source"] == "counted"


async def test_a_client_that_leaves_before_the_first_byte(serve, provider, client):
    provider.script(STALL)
    async with serve(provider) as running:
        call = asyncio.create_task(read_raw(client, running.url + "/v1/chat/completions", STREAM))
        await provider.until(lambda: provider.requests and provider.requests[0].complete)
        call.cancel()
        await provider.until(lambda: provider.requests[0].client_left)
        record = await running.record()
    assert record["outcome"] == "client_left"
    assert "output_tokens" not in record
    assert "input_tokens" not in record


async def test_a_client_that_leaves_a_unary_call_is_billed_what_the_provider_bills(serve, provider, client):
    gate = asyncio.Event()
    usage = b'{"model": "gpt-4o-mini", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}'
    provider.script(gate, response(usage, headers=JSON))
    async with serve(provider) as running:
        call = asyncio.create_task(client.post(running.url + "/v1/chat/completions", json=CHAT))
        await provider.until(lambda: provider.requests and provider.requests[0].complete)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await happens(running.watched_left)
        gate.set()
        record = await running.record()
    assert (record["outcome"], record["input_tokens"], record["output_tokens"]) == ("client_left", 3, 5)
    assert record["output_source"] == "reported"
    assert record.get("partial", False) is False


async def test_a_stream_is_drained_where_told_to(serve, provider, client):
    gate = asyncio.Event()
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}}\n\n'
    provider.script(stream_head(), chunk(delta(b"hi")), gate, chunk(usage), chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
    async with serve(provider, upstream={"on_client_left": "drain"}) as running:
        async with client.stream("POST", running.url + "/v1/chat/completions", json=STREAM) as answer:
            async for _ in answer.aiter_raw():
                break
        await happens(running.watched_left)
        gate.set()
        record = await running.record()
    assert (record["outcome"], record["output_tokens"], record["output_source"]) == ("client_left", 9, "reported")


async def test_a_stream_still_open_at_shutdown_is_settled(serve, provider, client):
    provider.script(stream_head(), chunk(delta(b"hello")), STALL)
    async with serve(provider, limits={"shutdown_s": 0.2}) as running:
        reading = asyncio.create_task(read_raw(client, running.url + "/v1/chat/completions", STREAM))
        await provider.until(lambda: provider.requests and provider.requests[0].complete)
        await happens(lambda: running.lines("open"))
    record = await running.record()
    assert (record["outcome"], record["partial"]) == ("interrupted", True)
    assert (record["output_tokens"], record["output_source"]) == (1, "estimated")
    with pytest.raises(httpx2.HTTPError):
        await reading


# ── headers of ours ──────────────────────────────────────────────────────────────────────────────────────────


async def test_usage_headers_where_asked_for(serve, provider, client):
    async with serve(provider, usage_headers=True) as running:
        answer = await client.post(running.url + "/v1/chat/completions", json=CHAT)
        (record,) = running.records
    assert answer.headers["x-taximeter-input-tokens"] == str(record["input_tokens"])
    assert answer.headers["x-taximeter-output-tokens"] == str(record["output_tokens"])
    assert float(answer.headers["x-taximeter-cost-usd"]) == record["cost_nusd"] / 1e9


async def test_an_answer_held_for_its_headers_and_cut_is_a_502(serve, provider, client):
    provider.script(
        response(b'{"usage": {"prompt_tokens": 1', headers=JSON).replace(b"length: 29", b"length: 99"), CLOSE
    )
    async with serve(provider, usage_headers=True) as running:
        answer = await client.post(running.url + "/v1/chat/completions", json=CHAT)
        record = await running.record()
        assert len(running.records) == 1
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, record["error_code"])
    assert record["outcome"] == "upstream_cut"


async def test_many_paths_and_long_ones_do_not_fill_the_memory(serve, provider):
    async with serve(provider) as running:
        for number in range(places.REMEMBERED_PATHS + 10):
            route, flavor = running.gate._heads._places[b"/w/w%d/v1/chat/completions" % number]
        assert (route.tags, route.path, flavor.api) == ({"workspace": f"w{number}"}, b"/v1/chat/completions", "chat")
        assert running.gate._heads._places[b"/v1/chat/completions" + b"x" * places.REMEMBERED_BYTES]
        assert len(running.gate._heads._places) == 10


async def test_weak_tags_only_where_switched_on(serve, provider, client):
    body = {**CHAT, "metadata": {"workspace": "from-body"}, "user": "u1"}
    headers = {"baggage": "taximeter.track=b-track,other=1"}
    async with serve(provider, tags={"body": True, "baggage": True}) as running:
        await client.post(running.url + "/v1/chat/completions", json=body, headers=headers)
        (record,) = running.records
    assert (record["workspace"], record["track"], record["end_user"]) == ("from-body", "b-track", "u1")


@pytest.mark.parametrize("policy", ["cancel", "drain"])
async def test_a_client_that_reads_nothing_is_cut_off_and_lets_its_upstream_go(serve, provider, policy):
    provider.script(stream_head(), *map(chunk, PARTS), chunk(DONE), LAST_CHUNK)
    async with serve(provider, upstream={"on_client_left": policy}, limits={"client_idle_s": 0.2}) as running:
        with socket.socket() as slow:
            await slow_client(slow, running)
            record = await running.record()
            assert len(running.records) == 1
    (request,) = provider.requests
    assert record["outcome"] == "client_left"
    assert (request.client_left, request.answered) == ((False, True) if policy == "drain" else (True, False))


async def test_a_target_goes_on_as_it_came(serve, provider):
    targets = [
        b"/v1/models", b"/v1/models?", b"/v1/models", b"/v1/models?a\\b=%5c&&c?", b"/v1\\models", b"/v1/a\\b%5cc/",
        b"/w/acme/v1/models?",
    ]  # fmt: skip
    async with serve(provider) as running:
        for target in targets:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            await asyncio.wait_for(reader.read(), HANG_S)
            writer.close()
    assert [request.target.encode() for request in provider.requests] == [*targets[:-1], b"/v1/models?"]


@pytest.mark.parametrize(
    ("raw", "encoded"),
    [(b"/v1/caf\xc3\xa9", "/v1/caf%C3%A9"), (b"/v1/models?q=\xe2\x82\xac%20a", "/v1/models?q=%E2%82%AC%20a"),
     (b"/v1/x\xff", "/v1/x%FF"), (b"/w/acme/v1/\xc3\xa9?", "/v1/%C3%A9?")],
)  # fmt: skip
async def test_a_target_in_utf_8_goes_on_percent_encoded(serve, provider, raw, encoded):
    async with serve(provider) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        body = json.dumps(CHAT).encode()
        head = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(b"POST " + raw + head + body)
        await asyncio.wait_for(reader.read(), HANG_S)
        writer.close()
    (request,) = provider.requests
    assert (request.target, request.json()) == (encoded, CHAT)


async def test_a_path_with_backslashes_is_metered_as_servers_that_take_them_for_slashes_read_it(serve, provider):
    provider.handler = lambda _: Script(
        (response(b'{"usage":{"prompt_tokens":3,"completion_tokens":5}}', headers=JSON),)
    )
    async with serve(provider) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        head = (
            b"POST /v1\\chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
        )
        writer.write(head + b"{}")
        await asyncio.wait_for(reader.read(), HANG_S)
        writer.close()
        (record,) = running.records
    assert (record["api"], record["output_tokens"]) == ("chat", 5)
