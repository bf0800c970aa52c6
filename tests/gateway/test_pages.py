"""Pages in browsers: preflights, who may call, whose CORS headers an answer has; over sockets, then in Chromium."""

import http.server
import threading
from contextlib import contextmanager
from functools import partial

import httpx2
import pytest

from browser import browsing
from taximeter.keys.rule import ProxyKey, digest
from upstream import LAST_CHUNK, Script, chunk, response, stream_head
from waits import HANG_S

SECRET = b"tm-" + b"5" * 64
KEY = ProxyKey(id="k1", sha256=digest(SECRET), workspace="acme")
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "one two three"}]}
UI = "https://ui.example.org"
ANSWER = b'{"id":"c","object":"chat.completion","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}'
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-workspace",
}
UPSTREAMS = [
    ("access-control-allow-origin", "*"),
    ("access-control-allow-headers", "authorization, content-type"),
    ("access-control-allow-methods", "POST"),
    ("x-other", "1"),
]
JSON = ("content-type", "application/json")


@pytest.fixture
async def client():
    async with httpx2.AsyncClient(timeout=HANG_S) as session:
        yield session


@pytest.fixture
def locked(serve, provider, monkeypatch):
    """A gateway that wants a proxy key and sends the operator's own upstream."""
    monkeypatch.setenv("PAGES_KEY", "sk-operator")
    upstream = {"api_key_env": "PAGES_KEY", "forward_credentials": False}
    return partial(serve, provider, upstream=upstream, keys=[KEY], auth={"mode": "keys"})


def cors(answer):
    return sorted((name, value) for name, value in answer.headers.multi_items() if name.startswith("access-control-"))


async def test_a_preflight_passes_without_a_key_and_gets_what_a_direct_one_gets(locked, provider, client):
    provider.handler = lambda _: Script((response(status=204, headers=UPSTREAMS),))
    asked = {"origin": "http://localhost:5173", **PREFLIGHT}
    async with locked() as running:
        direct = await client.options(provider.base_url + "/chat/completions", headers=asked)
        through = await client.options(running.url + "/u/openai/v1/chat/completions", headers=asked)
        (record,) = running.records
    assert (through.status_code, cors(through), through.headers["x-other"]) == (204, cors(direct), "1")
    first, second = provider.requests
    assert (second.method, second.target) == ("OPTIONS", first.target)
    for name in (*asked, "authorization"):
        assert second.header(name) == first.header(name)  # a browser sends none, so no credential of ours goes either
    assert (record["outcome"], record.get("key_id"), record.get("output_tokens")) == ("ok", None, None)


@pytest.mark.parametrize(
    ("method", "headers"),
    [("OPTIONS", {"origin": "http://localhost:5173"}), ("OPTIONS", PREFLIGHT),
     ("POST", {"origin": "http://localhost:5173", **PREFLIGHT})],
    ids=["no method asked for", "no origin", "not an OPTIONS"],
)  # fmt: skip
async def test_what_is_no_preflight_needs_a_key(locked, provider, client, method, headers):
    async with locked() as running:
        answer = await client.request(method, running.url + "/v1/chat/completions", headers=headers)
    assert (answer.status_code, provider.requests) == (401, [])


@pytest.mark.parametrize("origin", ["null", "file://", "https://evil.example"])
@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
async def test_an_origin_nobody_allowed_is_refused_and_told_where_to_allow_it(serve, provider, client, origin, method):
    async with serve(provider) as running:
        url = running.url + "/v1/chat/completions"
        answer = await client.request(method, url, headers={"origin": origin, **PREFLIGHT})
    assert (answer.status_code, answer.headers["x-taximeter-error"], cors(answer)) == (403, "forbidden", [])
    assert "cors.allowed_origins" in answer.json()["error"]["message"]
    assert provider.requests == []


@pytest.mark.parametrize("origin", ["null", "file://", UI])
async def test_a_listed_origin_is_answered_here(locked, provider, client, origin):
    provider.handler = lambda _: Script((response(ANSWER, headers=[JSON, *UPSTREAMS]),))
    asked = {"origin": origin, **PREFLIGHT, "access-control-request-private-network": "true"}
    async with locked(cors={"allowed_origins": ["null", "file://", "https://*.example.org"]}) as running:
        url = running.url + "/v1/chat/completions"
        preflight = await client.options(url, headers=asked)
        assert (preflight.status_code, provider.requests, running.records) == (204, [], [])
        headers = {"origin": origin, "authorization": f"Bearer {SECRET.decode()}"}
        answer = await client.post(url, json=CHAT, headers=headers)
        refused = await client.post(url, json=CHAT, headers={"origin": origin})
    assert cors(preflight) == [
        ("access-control-allow-headers", PREFLIGHT["access-control-request-headers"]),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-origin", origin),
        ("access-control-allow-private-network", "true"),
        ("access-control-max-age", "600"),
    ]
    ours = [("access-control-allow-origin", origin), ("access-control-expose-headers", "*")]
    assert (answer.content, cors(answer), answer.headers["vary"], answer.headers["x-other"]) == (
        ANSWER, ours, "Origin", "1",
    )  # fmt: skip
    (request,) = provider.requests
    assert request.header("origin") is None  # it does not concern the upstream: Anthropic's and Ollama's refuse it
    assert (refused.status_code, cors(refused)) == (401, ours)


async def test_an_answer_to_another_accepted_origin_is_the_upstreams_and_an_error_of_ours_can_be_read(
    locked, provider, client
):
    provider.handler = lambda _: Script((response(ANSWER, headers=[JSON, *UPSTREAMS]),))
    origin = "http://localhost:5173"
    async with locked(cors={"allowed_origins": [UI]}) as running:
        url = running.url + "/v1/chat/completions"
        headers = {"origin": origin, "authorization": f"Bearer {SECRET.decode()}"}
        answer = await client.post(url, json=CHAT, headers=headers)
        refused = await client.post(url, json=CHAT, headers={"origin": origin})
    assert cors(answer) == sorted(field for field in UPSTREAMS if field[0] != "x-other")
    assert provider.requests[0].header("origin") == origin
    assert (refused.status_code, cors(refused)) == (
        401, [("access-control-allow-origin", origin), ("access-control-expose-headers", "*")],
    )  # fmt: skip


@pytest.mark.parametrize("origin", ["null", "file://", "https://any.example", "chrome-extension://abc"])
async def test_a_star_among_the_allowed_hosts_means_it(serve, provider, client, origin):
    async with serve(provider, control={"allowed_hosts": ["*"]}) as running:
        headers = {"origin": origin, "host": "some_where.example"}
        answer = await client.post(running.url + "/v1/chat/completions", json=CHAT, headers=headers)
    assert (answer.status_code, provider.requests[0].header("origin")) == (200, origin)


# In a browser.

PAGE = """<!doctype html><meta charset="utf-8"><title>page</title><script>
async function chat(url, key, body) {
  const headers = {"content-type": "application/json", "authorization": "Bearer " + key, "x-workspace": "acme"};
  const answer = await fetch(url, {method: "POST", headers, body: JSON.stringify(body)});
  return {status: answer.status, text: await answer.text(), id: answer.headers.get("x-taximeter-request-id")};
}
</script>"""
CALL = "([url, key, body]) => chat(url, key, body).catch(error => ({failed: String(error)}))"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def site(folder):
    """A web server of a folder: where its pages are."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def asked_for(allowed):
    """A provider that knows browsers, as OpenAI's does."""

    def handler(request):
        told = [("access-control-allow-origin", "*"), ("access-control-expose-headers", "*")] if allowed else []
        if request.method == "OPTIONS":
            return Script((response(status=204, headers=[*told, ("access-control-allow-headers", "authorization, "
                                                                 "content-type, x-workspace")]),))  # fmt: skip
        if b'"stream":true' in request.body:
            events = chunk(b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'), chunk(b"data: [DONE]\n\n")
            return Script((stream_head(headers=told), *events, LAST_CHUNK))
        return Script((response(ANSWER, headers=[JSON, *told]),))

    return handler


@pytest.mark.parametrize("allowed", [[], ["null", "http://localhost:*"]], ids=["the upstream answers", "we answer"])
@pytest.mark.parametrize("where", ["file", "localhost"])
async def test_a_page_in_chromium_calls_with_fetch_and_a_proxy_key(locked, provider, tmp_path, allowed, where):
    (tmp_path / "page.html").write_text(PAGE)
    provider.answering = asked_for(not allowed)
    key = SECRET.decode()
    with site(tmp_path) as origin:
        async with locked(cors={"allowed_origins": allowed}) as running, browsing(origin) as (page, _):
            await page.goto(f"file://{tmp_path}/page.html" if where == "file" else f"{origin}/page.html")
            url = running.url + "/v1/chat/completions"
            unary = await page.evaluate(CALL, [url, key, CHAT])
            streamed = await page.evaluate(CALL, [url, key, {**CHAT, "stream": True}])
            unknown = await page.evaluate(CALL, [url, "tm-unknown", CHAT])
            records = [record for record in running.records if record.get("key_id") == "k1"]
    if where == "file" and not allowed:
        assert "failed" in unary  # pages from files are refused until somebody allows them
        assert provider.requests == []
        return
    assert (unary["status"], unary["text"]) == (200, ANSWER.decode())
    assert (streamed["status"], streamed["text"].count("data: ")) == (200, 2)
    assert (unknown["status"], "invalid_api_key" in unknown["text"]) == (401, True)
    assert [unary["id"], streamed["id"]] == [record["request_id"] for record in records]
    assert [record["workspace"] for record in records] == ["acme", "acme"]
    assert {request.header("authorization") for request in provider.requests if request.method == "POST"} == {
        "Bearer sk-operator"
    }
