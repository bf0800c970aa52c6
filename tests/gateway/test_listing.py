"""Lists of models, as a key with an allow-list sees them."""

import json

import httpx2
import msgspec
import pytest

from taximeter.gateway.listing import allowed_of, is_list
from taximeter.keys.rule import ProxyKey, digest
from upstream import CLOSE, LAST_CHUNK, Script, Step, chunk, response
from waits import HANG_S

SECRET = "tm-" + "9" * 64
KEY = ProxyKey(id="k1", sha256=digest(SECRET), workspace="acme", models=("gpt-4o*", "gemini-2.5-*", "claude-*"))
FREE = ProxyKey(id="k2", sha256=digest(SECRET[:-1] + "8"), workspace="acme")
JSON = ("content-type", "application/json")
OPENAI = {
    "object": "list",
    "data": [
        {"id": name, "object": "model", "created": 1, "owned_by": "x"} for name in ("gpt-4o", "o3", "gpt-4o-mini")
    ],
}


@pytest.fixture
async def client():
    async with httpx2.AsyncClient(timeout=HANG_S, headers={"authorization": f"Bearer {SECRET}"}) as session:
        yield session


@pytest.mark.parametrize(
    ("listed", "kept"),
    [
        (OPENAI, {**OPENAI, "data": [OPENAI["data"][0], OPENAI["data"][2]]}),
        (
            {"models": [{"name": "models/gemini-2.5-pro"}, {"name": "models/gemini-2.0"}], "nextPageToken": "t"},
            {"models": [{"name": "models/gemini-2.5-pro"}], "nextPageToken": "t"},
        ),
        ({"models": [{"name": "llama3:8b", "model": "llama3:8b"}]}, {"models": []}),
        (
            {
                "data": [
                    {"type": "model", "id": "a"},
                    {"type": "model", "id": "claude-x"},
                    {"type": "model", "id": "b"},
                ],
                "has_more": False,
                "first_id": "a",
                "last_id": "b",
            },
            {
                "data": [{"type": "model", "id": "claude-x"}],
                "has_more": False,
                "first_id": "claude-x",
                "last_id": "claude-x",
            },
        ),
        ({"data": [{"id": "o3"}], "first_id": "o3", "last_id": "o3"}, {"data": [], "first_id": None, "last_id": None}),
        ({"data": [1, {"no": "name"}]}, {"data": []}),
        ({"data": "odd"}, {"data": "odd"}),
        ([1], [1]),
    ],
)
def test_it_names_what_the_key_may_call(listed, kept):
    assert json.loads(allowed_of(msgspec.json.encode(listed), KEY.allows)) == kept


def test_what_is_no_json_stays():
    assert allowed_of(b"<html>", KEY.allows) == b"<html>"


@pytest.mark.parametrize(
    ("path", "is_one"),
    [(b"/v1/models", True), (b"/v1//Models/", True), (b"/v1beta/models", True), (b"/v1%2fmodels", True),
     (b"/v1beta/openai/models", True), (b"/api/tags", True), (b"/models", True), (b"/openai/models", True),
     (b"/v1/models/gpt-4o", False), (b"/v1/files", False), (b"/v1/chat/completions", False)],
)  # fmt: skip
def test_which_requests_ask_for_one(path, is_one):
    assert is_list(b"GET", path) is is_one
    assert not is_list(b"POST", path)


@pytest.mark.parametrize("framing", ["length", "chunked", "close", "in pieces"])
async def test_the_answer_is_whole_and_says_nothing_of_the_longer_one(serve, provider, client, framing):
    body = json.dumps(OPENAI).encode()
    etag = ("etag", '"of-the-whole"')
    whole: tuple[Step, ...] = (response(body, headers=[JSON, etag], framing=framing),)
    if framing == "in pieces":
        head = response(headers=[JSON, etag, ("transfer-encoding", "chunked")], framing="close")
        whole = (head, chunk(body[:20]), chunk(body[20:]), LAST_CHUNK)
    if framing == "close":
        whole = (*whole, CLOSE)
    provider.handler = lambda _: Script(whole)
    async with serve(provider, keys=[KEY, FREE]) as running:
        answer = await client.get(running.url + "/v1/models")
        every = await client.get(running.url + "/v1/models", headers={"authorization": f"Bearer {SECRET[:-1]}8"})
        (record, _) = running.records
    assert [model["id"] for model in answer.json()["data"]] == ["gpt-4o", "gpt-4o-mini"]
    assert "etag" not in answer.headers
    assert (every.content, every.headers["etag"]) == (body, '"of-the-whole"')
    assert (record["outcome"], record["status"], record["response_bytes"]) == ("ok", 200, len(answer.content))


@pytest.mark.parametrize(
    "steps",
    [(response(b'{"error": {"message": "no"}}', 401, [JSON]),),
     (response(b"[" * 100, headers=[JSON]),),
     (response(json.dumps(OPENAI).encode(), headers=[JSON, ("content-encoding", "odd")]),)],
    ids=["an error", "no list", "encoded"],
)  # fmt: skip
async def test_anything_else_is_passed_on_as_it_came(serve, provider, client, steps):
    provider.handler = lambda _: Script(steps)
    async with serve(provider, keys=[KEY]) as running:
        async with httpx2.AsyncClient() as direct, direct.stream("GET", provider.base_url + "/models") as one:
            there = [one.status_code, b"".join([part async for part in one.aiter_raw()])]
        async with client.stream("GET", running.url + "/v1/models") as two:
            assert [two.status_code, b"".join([part async for part in two.aiter_raw()])] == there


async def test_a_list_that_is_cut_is_cut(serve, provider, client):
    provider.script(response(headers=[JSON, ("content-length", "100")], framing="close") + b'{"data": [', CLOSE)
    async with serve(provider, keys=[KEY]) as running:
        answer = await client.get(running.url + "/v1/models")
        record = await running.record()
    assert (answer.status_code, record["outcome"]) == (502, "upstream_cut")
