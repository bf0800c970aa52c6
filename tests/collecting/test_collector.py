"""The collector over a real history, journal and connections, against the scripted provider."""

import asyncio
import gzip
import json
import logging
from typing import Any

import pytest

from gateway.test_cost import script
from journals import journal
from journals import records as written
from ledger import T0, batch, call
from taximeter.collecting.collector import LEASE_S, Collector, collector_of
from taximeter.config import Settings, UpstreamSettings
from taximeter.config.checks import before_serving
from taximeter.core.deferred import settlement
from taximeter.core.errors import ConfigError
from taximeter.core.record import Source
from taximeter.gateway.upstream.upstreams import Upstreams
from taximeter.sinks.history.sink import History
from upstream import Act, response

CHAT = {"object": "chat.completion", "model": "m", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
LINES = b"".join(
    json.dumps({"custom_id": name, "response": {"status_code": 200, "body": CHAT}}).encode() + b"\n" for name in "ab"
)
GOES_ON = {"id": "batch_1", "object": "batch", "status": "in_progress"}
ENDED = {"id": "batch_1", "object": "batch", "status": "completed", "output_file_id": "file-1"}
JSON = [("content-type", "application/json")]


def promised(number=1, name="batch_1", **more):
    nothing = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens", "cost_nusd", "price_ref"))
    return call(
        **nothing | {"request_id": f"req-{number}", "deferred": name, "api": "other", "input_source": Source.DEFERRED,
                     "upstream": "batches"} | more
    )  # fmt: skip


class Books:
    """A node's collector with its history and journal; delivers and settles when told to."""

    def __init__(self, folder, url, upstream, name="n"):
        self.history, self.folder, self.name = History(url, name), folder / name, name
        self.journal = journal(self.folder, worker="control")
        self.now_us, self.seq, self.taken, self.settlements = T0, 0, 0, []
        ups = Upstreams([upstream], environ={"KEY": "sk-ours"})
        self.collector = Collector(self.history, ups, self.journal.append, now_us=lambda: self.now_us)

    async def deliver(self, *more):
        records = [*written(self.folder)[self.taken :], *more]
        self.taken = len(written(self.folder))
        await self.history.deliver([batch(records, after=self.seq, journal_id=self.name * 4)])
        self.seq += len(records)

    async def look(self, later_s=0.0):
        self.now_us += round(later_s * 1e6)
        fetched = await self.collector.look()
        await self.deliver()
        settled = [settlement(each.asked, each.told) for each in await self.history.unsettled(99)]
        await self.deliver(*settled)
        self.settlements += settled
        return fetched

    async def close(self):
        await self.collector.close()
        self.journal.shutdown()
        await self.history.close()


@pytest.fixture
async def made(tmp_path, provider, url):
    books = []

    def make(name="n", **more):
        at = {"base_url": provider.base_url} | more
        settings = UpstreamSettings(name="batches", api_key_env="KEY", collect=True, **at)
        books.append(Books(tmp_path, url, settings, name))
        return books[-1]

    yield make
    for each in books:
        await each.close()


def lines(*books):
    return sorted(each.line for one in books for each in one.settlements)


async def test_what_nobody_fetches_is_fetched_with_our_credential_until_it_is_settled(made, provider):
    books = made()
    answers = [GOES_ON, ENDED]
    provider.handler = lambda request: script(
        response(LINES if request.target.endswith("/content") else json.dumps(answers.pop(0)).encode(), headers=JSON)
    )
    await books.deliver(promised(), promised(2, "resp_9", upstream="another", api="responses"))
    assert (await books.look(), await books.look(1.0), lines(books)) == (1, 0, [])
    assert (await books.look(15.0), lines(books)) == (1, [])
    (owed,) = (each for each in await books.history.owed(None, ("outstanding",), 9) if each.object == "batch_1")
    assert owed.unread == ["file-1"]
    assert (await books.look(), lines(books)) == (1, ["", "a", "b"])
    assert await books.look(9_999.0) == 0
    assert {each.header("authorization") for each in provider.requests} == {"Bearer sk-ours"}
    assert [each.target for each in provider.requests] == [
        "/v1/batches/batch_1", "/v1/batches/batch_1", "/v1/files/file-1/content"
    ]  # fmt: skip
    assert {each.request_id for each in books.settlements} == {"req-1"}


MESSAGE = {"type": "message", "model": "claude-haiku-4-5", "usage": {"input_tokens": 7, "output_tokens": 3}}
GEMINI = {"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3}, "modelVersion": "gemini-2.5-flash"}
SHAPES: dict[str, tuple[str, dict[str, str], dict[str, Any], tuple[str, str]]] = {
    "azure": (
        "batch_1", {}, {
            "/openai/v1/batches/batch_1": ENDED,
            "/openai/v1/files/file-1/content": {"custom_id": "a", "response": {"status_code": 200, "body": CHAT}},
        }, ("api-key", "sk-ours"),
    ),
    "groq": (
        "batch_1", {}, {
            "/openai/v1/batches/batch_1": ENDED,
            "/openai/v1/files/file-1/content": {"custom_id": "a", "response": {"status_code": 200, "body": CHAT}},
        }, ("authorization", "Bearer sk-ours"),
    ),
    "anthropic": (
        "msgbatch_1", {}, {
            "/v1/messages/batches/msgbatch_1": {
                "id": "msgbatch_1", "processing_status": "ended", "results_url": "https://elsewhere.example/results"
            },
            "/v1/messages/batches/msgbatch_1/results": {
                "custom_id": "a", "result": {"type": "succeeded", "message": MESSAGE}
            },
        }, ("x-api-key", "sk-ours"),
    ),
    "google": (
        "batches/1", {}, {
            "/v1beta/batches/1": {
                "name": "batches/1", "metadata": {"state": "BATCH_STATE_SUCCEEDED"}, "done": True,
                "response": {"responsesFile": "files/f1"},
            },
            "/download/v1beta/files/f1:download?alt=media": {"key": "a", "response": GEMINI},
        }, ("x-goog-api-key", "sk-ours"),
    ),
    "mistral": (
        "j1", {}, {
            "/v1/batch/jobs/j1": {"id": "j1", "object": "batch", "status": "SUCCESS", "output_file": "o"},
            "/v1/files/o/content": {"custom_id": "a", "response": {"status_code": 200, "body": CHAT}},
        }, ("authorization", "Bearer sk-ours"),
    ),
    "openai": (
        "resp_1", {"api": "responses"}, {
            "/v1/responses/resp_1": {
                "id": "resp_1", "object": "response", "status": "completed",
                "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10},
            },
        }, ("authorization", "Bearer sk-ours"),
    ),
}  # fmt: skip
BASES = {"azure": "/openai/v1", "groq": "/openai/v1"}  # as the guides have them; else /v1


@pytest.mark.parametrize("company", SHAPES)
async def test_each_providers_objects_are_fetched_as_it_wants_and_settled(made, provider, company):
    name, more, answers, (header, value) = SHAPES[company]
    base_url = provider.base_url.removesuffix("/v1") + BASES.get(company, "/v1")
    books = made("n", provider=company, base_url=base_url)
    packed = [*JSON, ("content-encoding", "gzip")]  # as some do unasked
    provider.handler = lambda request: script(
        response(gzip.compress(json.dumps(answers[request.target]).encode()), headers=packed)
    )
    await books.deliver(promised(name=name, provider=company, **more))
    assert [await books.look() for _ in answers] == [1] * len(answers)
    assert await books.look(9_999.0) == 0
    assert [each.target for each in provider.requests] == list(answers)
    assert {each.header(header) for each in provider.requests} == {value}
    used = [(each.line, each.input_tokens, each.output_tokens) for each in books.settlements if each.kind == "usage"]
    assert used == [("a" if len(answers) > 1 else "", 7, 3)]
    assert await books.history.owed(None, ("outstanding",), 9) == []


async def test_an_upstream_that_refuses_is_left_alone_and_a_cut_file_is_fetched_again(made, provider, caplog):
    books = made()
    cut = response(LINES, headers=JSON)[:-40]
    answers = [response(status=429, headers=[("retry-after", "300")]), response(json.dumps(ENDED).encode())]

    provider.handler = lambda request: script(answers.pop(0))
    await books.deliver(promised())
    caplog.set_level(logging.WARNING, "taximeter.collecting")
    assert [await books.look(), await books.look(299.0), await books.look(1.0)] == [1, 0, 1]
    assert "it answers 429" in caplog.text
    provider.handler = lambda request: script(cut, Act.CLOSE)
    assert (await books.look(), lines(books)) == (1, ["a"])  # the second line's end is missing, and maybe more
    provider.handler = lambda request: script(response(LINES, headers=JSON))
    assert (await books.look(120.0), lines(books)) == (1, ["", "a", "b"])
    assert "could not be fetched from batches: " in caplog.text


async def test_of_two_nodes_one_collects_and_both_settle_each_line_once(made, provider):
    one, other = made("a"), made("b")
    provider.handler = lambda request: script(
        response(LINES if request.target.endswith("/content") else json.dumps(ENDED).encode(), headers=JSON)
    )
    await one.deliver(promised())
    assert [await one.look(), await other.look()] == [1, 0]
    other.now_us += round(LEASE_S * 1e6) + 1  # the first stands still for so long, and goes on
    fetched = await asyncio.gather(other.collector.look(), with_lease(one).collector.look())
    assert sum(fetched) == 2
    for node in (one, other, one):
        await node.look()
    assert lines(one, other) == ["", "a", "b"]


def with_lease(books):
    async def has_it(name, now_us, until_us):
        return True

    books.history.lease = has_it
    return books


def test_nothing_is_collected_unless_asked_for_and_only_with_a_credential_of_its_own():
    nothing: Any = None
    assert collector_of(Settings(), {}, "n", nothing, nothing) is None
    with pytest.raises(ConfigError, match=r"upstream\[0\]\.collect"):
        before_serving(Settings(upstream=[UpstreamSettings(collect=True, forward_credentials=True)]), {})
