"""Where an upstream's redirects lead: to the meter where they stay in its base URL, else as they came, and counted."""

import asyncio

import httpx2
import pytest

from taximeter.delivery.health import Writers
from taximeter.gateway.upstream.answers import passed_on
from taximeter.gateway.upstream.targets import Base
from taximeter.journal import write
from upstream import Script, response
from waits import HANG_S, happens

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "one two three"}]}
AZURE = Base(("https", "r.openai.azure.com", 443), b"/openai/v1", ("https", "r.openai.azure.com", 443), b"")
PLAIN = Base(("http", "gpu", 8000), b"/v1", ("http", "gpu", 8000), b"")
DEEP = Base(("https", "h.test", 8443), b"/a/api/v3", ("https", "h.test", 8443), b"/a/api/v3")
COHERE = Base(("https", "api.cohere.ai", 443), b"/compatibility/v1", ("https", "api.cohere.com", 443), b"")
SOCKET = Base(("unix", "/run/gpu.sock", 0), b"/v1", ("unix", "/run/gpu.sock", 0), b"")
V6 = Base(("http", "::1", 9000), b"/v1", ("http", "::1", 9000), b"")


@pytest.fixture
async def client():
    async with httpx2.AsyncClient(timeout=HANG_S) as session:
        yield session


def located(base, location, asked=b"/v1/files", name=""):
    ((_, value),), away = passed_on([(b"location", location)], base, asked, name)
    return value, away


@pytest.mark.parametrize(
    ("base", "asked", "location", "ours"),
    [
        (PLAIN, b"/v1/files", b"http://gpu:8000/v1/files/", b"/v1/files/"),
        (PLAIN, b"/v1/files", b"http://GPU:8000/v1/files/?a=b%20c#d", b"/v1/files/?a=b%20c#d"),
        (PLAIN, b"/v1/files", b"//gpu:8000/v1/x", b"/v1/x"),
        (PLAIN, b"/v1/files", b"/v1/x?y", b"/v1/x?y"),
        (PLAIN, b"/v1/files", b"x", b"/v1/x"),
        (PLAIN, b"/v1/files/a", b"../models", b"/v1/models"),
        (PLAIN, b"/v1/files", b"/api/show", b"/api/show"),
        (PLAIN, b"/v1/files", b"http://gpu:8000", b"/"),
        (PLAIN, b"/w/acme/t/t-1/u/gpu/v1/files", b"http://gpu:8000/v1/x", b"/w/acme/t/t-1/u/gpu/v1/x"),
        (AZURE, b"/v1/files", b"https://r.openai.azure.com/openai/v1/files/1", b"/v1/files/1"),
        (
            AZURE,
            b"/v1/files",
            b"https://R.openai.azure.com:443/openai/deployments/d/chat",
            b"/openai/deployments/d/chat",
        ),
        (DEEP, b"/v1/files", b"https://h.test:8443/a/api/v3/x", b"/v1/x"),
        (DEEP, b"/v1/files", b"/a/api/v3", b"/v1"),
        (COHERE, b"/v2/chat", b"https://api.cohere.ai/compatibility/v1/models", b"/v1/models"),
        (COHERE, b"/v2/chat", b"/v2/chat/", b"/v2/chat/"),
        (COHERE, b"/v1/chat", b"https://api.cohere.com/v2/chat", b"/v2/chat"),
        (V6, b"/v1/x", b"http://[::1]:9000/v1/y", b"/v1/y"),
        (PLAIN, b"/v1/files", b"?page=2", b"?page=2"),
        (PLAIN, b"/v1/files", b"#x", b"#x"),
        (PLAIN, b"/v1/files", b"", b""),
        (PLAIN, b"/v1/files", b"/v1/caf\xc3\xa9", b"/v1/caf\xc3\xa9"),
    ],
)
def test_what_stays_with_the_upstream_leads_to_the_meter(base, asked, location, ours):
    assert located(base, location, asked) == (ours, False)


@pytest.mark.parametrize(
    ("base", "location"),
    [
        (PLAIN, b"https://gpu:8000/v1/x"),  # another scheme
        (PLAIN, b"http://gpu/v1/x"),
        (PLAIN, b"http://gpu:8001/v1/x"),
        (PLAIN, b"http://other:8000/v1/x"),
        (PLAIN, b"http://me:pass@gpu:8000/v1/x"),
        (PLAIN, b"http://gpu:8000/v1/../admin"),
        (PLAIN, b"http://gpu:8000//elsewhere.test/x"),  # as a path alone it would be another host's
        (PLAIN, b"http://gpu:8000/\\elsewhere.test/x"),
        (SOCKET, b"/.//elsewhere.test/x"),
        (PLAIN, b"app://callback"),
        (PLAIN, b"http://gpu:80000000/v1"),
        (PLAIN, b"http://gpu:/v1\\x"),
        (PLAIN, b"http://gpu:8000/w/acme/v1/x"),  # here that names a workspace
        (DEEP, b"https://h.test:8443/a/api/v30/x"),
        (COHERE, b"https://api.cohere.com/v1/models"),  # our /v1 stands for the other host
    ],
)
def test_any_other_one_stays_as_it_is_and_counts(base, location):
    assert located(base, location) == (location, True)


def test_a_path_outside_the_base_means_what_it_meant():
    assert located(DEEP, b"/login?next=/") == (b"https://h.test:8443/login?next=/", True)


def test_a_redirect_names_the_upstream_where_a_call_without_a_model_would_go_to_another():
    assert located(PLAIN, b"/v1/x", name="gpu") == (b"/u/gpu/v1/x", False)
    assert located(PLAIN, b"/v1/x", b"/w/acme/v1/files", "gpu") == (b"/w/acme/u/gpu/v1/x", False)
    assert located(PLAIN, b"/v1/x", b"/u/gpu/v1/files", "gpu") == (b"/u/gpu/v1/x", False)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_who_follows_a_redirect_of_the_upstream_to_itself_stays_with_the_meter(serve, provider, client, status):
    def answering(request):
        if request.target == "/v1/chat/completions":
            return Script((response(status=status, headers=[("location", f"{provider.base_url}/chat/completions/")]),))
        return Script((response(b'{"usage": {"prompt_tokens": 3, "completion_tokens": 5}}'),))

    provider.answering = answering
    async with serve(provider) as running:
        url = running.url + "/w/acme/v1/chat/completions"
        answer = await client.post(url, json=CHAT, follow_redirects=True)
        records = [(record["workspace"], record["status"]) for record in running.records]
        assert running.journal.status.redirects_away == 0
    assert str(answer.url) == running.url + "/w/acme/v1/chat/completions/"
    assert records == [("acme", status), ("acme", 200)]


async def test_a_redirect_to_elsewhere_passes_as_it_is_and_is_counted(serve, provider, client, monkeypatch):
    monkeypatch.setattr(write, "ATTEND_S", 0.01)
    there = "https://elsewhere.example/v1/x?a=1"
    provider.handler = lambda _: Script((response(status=307, headers=[("location", there)]),))
    async with serve(provider) as running:
        answer = await client.post(running.url + "/v1/chat/completions", json=CHAT)
        telling = asyncio.create_task(running.journal.attend())
        writers = Writers(running.directory)

        def counted():
            writers.refresh()
            return writers.redirects_away == 1

        await happens(counted, "the control process to see it")
        telling.cancel()
    assert counted()  # also when that worker has ended
    assert (answer.status_code, answer.headers["location"]) == (307, there)


async def test_a_created_things_place_is_ours_too_and_counts_nowhere(serve, provider, client):
    answers = [f"{provider.base_url}/batches/b-1", "https://elsewhere.example/b-1"]
    provider.handler = lambda _: Script((response(status=201, headers=[("location", answers.pop(0))]),))
    async with serve(provider) as running:
        first = await client.post(running.url + "/v1/batches", json={})
        second = await client.post(running.url + "/v1/batches", json={})
        assert running.journal.status.redirects_away == 0
    assert [answer.headers["location"] for answer in (first, second)] == [
        "/v1/batches/b-1", "https://elsewhere.example/b-1",
    ]  # fmt: skip
