"""The same question gets the same number everywhere: the provider's own bill, Redis, Prometheus, SQL, HTTP, OpenAI's
API, the command line, the dashboard and OpenTelemetry, over a whole node with traffic."""

import asyncio
import contextlib
import re
import sqlite3
from decimal import Decimal
from html import unescape
from itertools import chain

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from collector import Collector, plain
from faults.load import WORKSPACES
from faults.running import Node
from present import present
from taximeter.cli import main
from taximeter.core.figures import count, money
from taximeter.core.views import usd

pytestmark = pytest.mark.xdist_group("processes")

NAMES = ("requests", "llm_input", "llm_output", "embedding", "cost_nusd")


@pytest.fixture
def collector():
    with Collector() as running:
        yield running


@pytest.fixture
async def node(tmp_path, collector):
    """A node that has had some traffic, every record of it in every sink."""
    config = f'[otel]\nendpoint = "{collector.url}"\ninterval_s = 0.2\n'
    async with Node(tmp_path, config=config) as running:
        async with running.load(clients=4, seed=3):
            await running.answered(120)
        await running.settle()
        yield running


def from_redis(node):
    with contextlib.closing(node.redis()) as client:
        totals = {name: client.hgetall(f"tm:{{{name}}}:total") for name in WORKSPACES}
    fields = ("requests", "llm_input_tokens", "llm_output_tokens", "embedding_tokens", "cost_nusd")
    return {name: tuple(int(total[field]) for field in fields) for name, total in totals.items()}


async def from_prometheus(node):
    found = {name: dict.fromkeys(NAMES, 0) for name in WORKSPACES}
    wanted = {
        ("taximeter_requests_total", None): "requests",
        ("taximeter_input_tokens_total", "llm"): "llm_input",
        ("taximeter_output_tokens_total", "llm"): "llm_output",
        ("taximeter_input_tokens_total", "embedding"): "embedding",
        ("taximeter_cost_usd_total", None): "cost_nusd",
    }
    for family in text_string_to_metric_families(await node.get("/metrics")):
        for sample in family.samples:
            for (name, operation), figure in wanted.items():
                if sample.name == name and operation in (None, sample.labels["operation"]):
                    unit = 10**9 if figure == "cost_nusd" else 1
                    found[sample.labels["workspace"]][figure] += round(sample.value * unit)
    return {name: tuple(figures.values()) for name, figures in found.items()}


def from_sql(node):
    question = """
        select workspace, count(*),
               sum(case operation when 'llm' then input_tokens else 0 end), sum(coalesce(output_tokens, 0)),
               sum(case operation when 'embedding' then input_tokens else 0 end), sum(coalesce(cost_nusd, 0))
        from usage_events join usage_series using (series_no) group by workspace"""
    with contextlib.closing(sqlite3.connect(node.data / "history.db")) as database:
        return {name: tuple(figures) for name, *figures in database.execute(question)}


async def from_http(node):
    found = {}
    for name in WORKSPACES:
        answer = await node.get(f"/usage?workspace={name}")
        usage, cost = answer["usage"], nusd(answer["estimated_cost_usd"])
        llm, embedding = usage["llm"], usage["embedding"]["input_tokens"]
        found[name] = (usage["requests"], llm["input_tokens"], llm["output_tokens"], embedding, cost)
    return found


async def from_openais_api(node):
    """Without the requests, which it tells by kind only."""
    found, start_s = {}, min(record.ended_at for record in node.records()) // 1_000_000 - 33 * 86_400  # two pages
    for name in WORKSPACES:
        asked = f"start_time={start_s}&bucket_width=1d&limit=31&project_ids={name}"
        sums = dict.fromkeys(("input", "output", "embedding", "cost"), 0)
        for path, pick in (
            ("usage/completions", lambda each: {"input": each["input_tokens"], "output": each["output_tokens"]}),
            ("usage/embeddings", lambda each: {"embedding": each["input_tokens"]}),
            ("costs", lambda each: {"cost": nusd(each["amount"]["value"])}),
        ):
            async for result in buckets(node, f"/v1/organization/{path}?{asked}"):
                for figure, amount in pick(result).items():
                    sums[figure] += amount
        found[name] = tuple(sums.values())
    return found


async def buckets(node, path):
    """The results of every bucket, page by page."""
    page = ""
    while True:
        answer = await node.get(path + page)
        for result in chain.from_iterable(bucket["results"] for bucket in answer["data"]):
            yield result
        if not answer["has_more"]:
            return
        page = f"&page={answer['next_page']}"


def from_cli(node):
    """The table a person reads: calls, input and output of all operations, cost as shown."""
    result = CliRunner(env={"COLUMNS": "140"}).invoke(main, ["by-workspace", "--url", f"http://127.0.0.1:{node.admin}"])
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    return {row[0]: (row[1], row[3], row[5]) for row in rows if row and row[0] in WORKSPACES}


async def from_the_page(node):
    """The same from the dashboard: calls, cost as shown; and each workspace's own page: output and embedding tokens."""
    html = await node.get("/")
    head, table = present(
        re.search(r'id="by-workspace".*?<thead>(.*?)</thead>.*?<tbody>(.*?)</tbody>', html, re.S)
    ).groups()
    columns = [text(cell) for cell in re.findall(r"<th.*?>(.*?)</th>", head, re.S)]
    calls_at, cost_at = (
        next(n for n, said in enumerate(columns) if said.startswith(name)) for name in ("Calls", "Cost")
    )
    rows = [re.findall(r"<td.*?>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)]
    cells = [[text(cell) for cell in row] for row in rows]
    found = {}
    for name, *shown in cells:
        calls, cost = ([name, *shown][at] for at in (calls_at, cost_at))
        own = await node.get(f"/dashboard/workspaces/{name}")
        facts = dict(re.findall(r"<div><dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", own, re.S))
        output, embedding = text(facts["LLM output"]), text(facts["Embedding"])
        llm_input = text(facts["LLM input"]).split()[0]
        found[name] = (calls, llm_input, output, embedding, cost)
    return found


def text(html):
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def from_spans(collector):
    found = {name: dict.fromkeys(NAMES, 0) for name in WORKSPACES}
    for span in collector.spans:
        told = plain(span.attributes)
        sums = found[told["taximeter.workspace"]]
        sums["requests"] += 1
        sums["cost_nusd"] += told.get("taximeter.cost_nusd", 0)
        if told["gen_ai.operation.name"] == "chat":
            sums["llm_input"] += told.get("gen_ai.usage.input_tokens", 0)
            sums["llm_output"] += told.get("gen_ai.usage.output_tokens", 0)
        elif told["gen_ai.operation.name"] == "embeddings":
            sums["embedding"] += told.get("gen_ai.usage.input_tokens", 0)
    return {name: tuple(figures.values()) for name, figures in found.items()}


def nusd(cost):
    return int((Decimal(str(cost or 0)) * 10**9).to_integral_exact())


async def test_the_same_question_gets_the_same_number_everywhere(node, collector):
    node.compare()  # the provider's own ledger, call by call
    expected = await from_http(node)
    assert all(min(figures) > 0 for figures in expected.values()), expected
    assert from_redis(node) == expected
    assert await from_prometheus(node) == expected
    assert from_sql(node) == expected
    assert await from_openais_api(node) == {name: figures[1:] for name, figures in expected.items()}
    shown = {
        name: (count(calls), count(llm_in), count(llm_out), count(embedding), money(usd(cost)))
        for name, (calls, llm_in, llm_out, embedding, cost) in expected.items()
    }
    assert await from_the_page(node) == shown
    told = await asyncio.to_thread(from_cli, node)
    assert told == {name: (calls, out, cost) for name, (calls, _, out, _, cost) in shown.items()}
    await node.until(lambda: len(collector.spans) >= sum(calls for calls, *_ in expected.values()), "exported")
    assert from_spans(collector) == expected
