"""config/prometheus and config/grafana against the real Prometheus: rules hold, every panel has data."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import yaml

from ledger_fake import batch, record, traffic
from taximeter.journal.status import Status
from taximeter.reconcile.rule import Measured
from taximeter.sinks.health import DeliveryHealth, SinkHealth
from taximeter.sinks.prometheus.cells import Metrics
from taximeter.sinks.prometheus.families import Exposition
from waits import CAP_S, HANG_S, happens

ROOT = Path(__file__).parent.parent
RULES = [ROOT / "config/prometheus" / name for name in ("recording.yml", "alerts.yml")]
DASHBOARDS = sorted((ROOT / "config/grafana/dashboards").glob("*.json"))
RECONCILED = Measured(
    name="openai", done_s=1, tolerance=0.005, apart={"output_tokens": 0.0}, passed={"output_tokens": 1.0}, failures=0
)
UNITS = {"short", "currencyUSD", "percentunit", "reqps", "s", "bytes"}
"""Of the ids in Grafana's packages/grafana-data/src/valueFormats/categories.ts, those used here."""
VARIABLES = {"$__rate_interval": "3s", "$__range": "1m", "$workspace": "acme", "$instance": ".*"}

with_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt install prometheus)"
)
with_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: apt install prometheus)"
)


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@with_promtool
def test_promtool_accepts_configuration_and_rules() -> None:
    promtool("check", "config", ROOT / "config/prometheus/prometheus.yml")
    promtool("check", "rules", *RULES)


@with_promtool
@pytest.mark.parametrize("file", sorted((ROOT / "tests/prometheus").glob("*_test.yml")), ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(file: Path) -> None:
    promtool("test", "rules", file)


def panels(*, healthy: bool = False) -> Iterator[tuple[str, str, str]]:
    """(dashboard, panel, query) of every query there is; `healthy`: but those whose panel says what no data means."""
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            if healthy and "noValue" in panel.get("fieldConfig", {}).get("defaults", {}):
                continue
            for target in panel.get("targets", []):
                yield file.stem, panel["title"], target["expr"]


def test_there_is_an_alert_for_each_thing_that_can_go_wrong() -> None:
    alerts = set(re.findall(r"alert: Taximeter(\w+)", RULES[1].read_text()))
    assert alerts >= {
        "JournalTakenAway", "UnreadableLines", "WebhookDeadLetters", "WebhookWaiting", "Absent",
        "RecordsSetAside",
        "CostSpike", "UsageMissing", "SinkLagging", "JournalErrors", "ErrorRate", "SlowFirstToken", "RecordsLost",
        "RedisDrift", "SinkFailing", "JournalHalted", "BudgetNearlySpent", "Unpriced", "Down", "LabelOverflow",
    }  # fmt: skip


def alerts() -> dict[str, dict[str, Any]]:
    """Name -> rule."""
    groups = yaml.safe_load(RULES[1].read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_each_alert_leads_to_what_to_do() -> None:
    """A section of its own in the guide, which says how urgent it is; and no section is left over."""
    page = (ROOT / "docs/monitoring.md").read_text()
    sections = dict(re.findall(r"^### (Taximeter\w+)\n\n(\w+)[.,:]", page, re.MULTILINE))
    assert sections == {name: rule["labels"]["severity"] for name, rule in alerts().items()}
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook_url"] == f"docs/monitoring.md#{name.lower()}"


def test_what_cannot_wait_is_paged() -> None:
    paged = {name.removeprefix("Taximeter") for name, rule in alerts().items() if rule["labels"]["severity"] == "page"}
    assert paged == {
        "Down", "Absent", "RecordsLost", "JournalErrors", "JournalHalted", "JournalTakenAway", "UnreadableLines",
        "RecordsSetAside", "WebhookDeadLetters",
    }  # fmt: skip


def test_the_guide_says_what_each_metric_is_for() -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    table = page.partition("## What each metric is for")[2].partition("## Alerts")[0]
    listed = re.findall(r"^\| `(taximeter_\w+)`", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE)
    assert len(listed) > 30
    assert set(listed) == set(re.findall(r"`(taximeter_\w+)`", table))


async def test_rules_and_panels_ask_only_for_what_is_exposed() -> None:
    metrics = await metered(500)
    exposed = {sample.name for family in exposition(metrics).collect() for sample in family.samples}
    recorded = set(re.findall(r"record: (\S+)", RULES[0].read_text()))
    asked = "\n".join([file.read_text() for file in RULES] + [query for _, _, query in panels()])
    asked = re.sub(r"(description|summary): .*", "", asked)
    assert recorded <= set(re.findall(r"[a-z_]*:taximeter[\w:]+|taximeter:[\w:]+", asked))
    names = set(re.findall(r"(?<![\w:])taximeter_\w+(?!:)\b", asked)) - {"taximeter_usage"}
    assert names - exposed == set()


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_are_whole(file: Path) -> None:
    board = json.loads(file.read_text())
    assert board["uid"] == file.stem
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(board["panels"])))
    assert used <= variables
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells), "panels lie on each other"
    assert max(x for x, _ in cells) < 24


def unknown(given: Any, understood: Any, place: str = "") -> Iterator[str]:
    """Where something given is not among what was understood of it."""
    if isinstance(given, dict) and isinstance(understood, dict):
        for name, value in given.items():
            yield from unknown(value, understood.get(name), f"{place}.{name}")
    elif isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        for at, (one, other) in enumerate(zip(given, understood, strict=True)):
            yield from unknown(one, other, f"{place}[{at}]")
    elif given != understood:
        yield f"{place}: {given!r} became {understood!r}"


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda path: path.stem)
def test_grafana_s_schema_knows_every_field_of_a_dashboard(file: Path) -> None:
    """Grafana's own SDK, generated from its schema, reads the file and writes it again: what it drops is no field."""
    sdk = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="pip install grafana-foundation-sdk")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins")
    plugins.register_default_plugins()  # else panels' options and Prometheus' queries are passed on unread
    board = json.loads(file.read_text())
    again = json.loads(encoder.JSONEncoder().encode(sdk.Dashboard.from_json(board)))
    assert list(unknown(board, again)) == []


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_keep_to_the_bounds_grafana_s_schema_sets(file: Path) -> None:
    board = json.loads(file.read_text())
    assert 8 <= len(board["uid"]) <= 40
    assert 36 <= board["schemaVersion"] <= 42  # 36 begins the classic model with DataSourceRef, 42 is Grafana 12's
    assert re.fullmatch(r"\d+[smhd]", board["refresh"]) and re.fullmatch(r"now-\d+[hd]", board["time"]["from"])
    assert [v["type"] for v in board["templating"]["list"] if v["name"] == "datasource"] == ["datasource"]
    for panel in board["panels"]:
        position = panel["gridPos"]
        assert position["h"] > 0 and 0 < position["w"] <= 24 - position["x"] <= 24, panel["title"]
        assert panel["type"] in {"row", "stat", "timeseries", "table", "gauge", "bargauge", "text"}, panel["title"]
        assert {each["id"] for each in panel.get("transformations", [])} <= {"merge", "organize"}
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        assert defaults.get("unit", "short") in UNITS, panel["title"]
        values = [step["value"] for step in defaults.get("thresholds", {}).get("steps", [])]
        assert values[:1] in ([], [None]) and values[1:] == sorted(values[1:]), panel["title"]
        targets = panel.get("targets", [])
        assert len({target["refId"] for target in targets}) == len(targets), panel["title"]
        for asking in [panel, *targets] if targets else []:
            assert asking["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


# --- the real Prometheus, scraping ----------------------------------------------------------------------------------


async def at_zero(journal_ids: Iterable[str]) -> dict[str, int]:
    return dict.fromkeys(journal_ids, 0)


async def metered(count: int, *, healthy: bool = False) -> Metrics:
    metrics = Metrics(at_zero)
    await metrics.cursors(["j1"])
    await deliver(metrics, 1, count, healthy=healthy)
    return metrics


async def deliver(metrics: Metrics, first: int, count: int, *, healthy: bool = False) -> None:
    """Varied calls; `healthy`: of LLMs alone, all well, none streamed or cached, priced and reported."""
    now_us = time.time_ns() // 1_000
    records = [record(first + i) for i in range(count)] if healthy else traffic(first, count, first=first)
    records = [msgspec.structs.replace(r, cached_input_tokens=None) for r in records] if healthy else records
    await metrics.deliver([batch([msgspec.structs.replace(r, ended_at=now_us) for r in records])])


def exposition(metrics: Metrics, *, healthy: bool = False) -> Exposition:
    """`healthy`: without a budget or a webhook, too."""
    sink = SinkHealth(lag_records=3, lag_seconds=0.1, errors=1, duplicates_skipped=2, failing=None)
    health = DeliveryHealth(
        sinks={"redis": sink, "history": sink},
        in_flight=2,
        journal_files=1,
        journal_bytes=1_155,
        lag_seconds=0.1,
        journal_healthy=True,
        journal_errors=0,
        records_lost=0,
        journal_repairs=0,
        unreadable_lines=0,
        settled=0,
        halted={},
        writers=[Status(node="n1", worker="1", pid=1, open_files=20, open_files_limit=1024)],
    )
    if healthy:
        return Exposition(metrics, health=lambda: health, node="n1")
    return Exposition(
        metrics,
        health=lambda: health,
        budget_spent_ratio=lambda: {"acme": 0.3},
        alerts=lambda: (0, 1),
        breakers=lambda: ({"runaway": 0}, {"runaway": 1}),
        owed=lambda: (2, 90.0, 1),
        letters=lambda: (1, 0),
        reconcile=lambda: [RECONCILED],
        node="n1",
    )


class Scraped:
    """/metrics on loopback; tells when it was read."""

    def __init__(self, exposed: Exposition) -> None:
        self.times = asyncio.Semaphore(0)
        loop = asyncio.get_running_loop()
        scraped = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body, content_type = exposed.render(self.headers.get("accept", ""))
                self.send_response(200)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(scraped.times.release)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.port = self._server.server_address[1]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.asynccontextmanager
async def prometheus(directory: Path, target_port: int) -> AsyncIterator[httpx2.AsyncClient]:
    """The repository's configuration, with this target and short intervals."""
    for file in RULES:
        shutil.copy(file, directory)
    config = (ROOT / "config/prometheus/prometheus.yml").read_text()
    config = config.replace("127.0.0.1:8001", f"127.0.0.1:{target_port}").replace("15s", "250ms")
    (directory / "prometheus.yml").write_text(config)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
                "--web.listen-address=127.0.0.1:0", "--enable-feature=exemplar-storage", "--log.format=json",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:

        def listening() -> re.Match[str] | None:
            said = (directory / "log").read_text()
            assert process.poll() is None, said
            return re.search(r'"address":"(127\.0\.0\.1:[1-9]\d+)"', said)

        found = await happens(listening, "Prometheus", process.pid)
        async with httpx2.AsyncClient(base_url=f"http://{found[1]}", timeout=HANG_S) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


async def values(client: httpx2.AsyncClient, query: str) -> list[float]:
    """What a query finds now, NaN apart."""
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    answer: dict[str, Any] = (await client.get("/api/v1/query", params={"query": query})).json()
    assert answer["status"] == "success", (query, answer)
    found = [float(one["value"][1]) for one in answer["data"]["result"]]
    return [value for value in found if value == value]


@with_prometheus
@pytest.mark.parametrize("healthy", [False, True], ids=["troubled", "healthy"])
async def test_every_panel_and_recording_rule_has_data(healthy: bool, tmp_path: Path) -> None:
    """Where all is well, too: an empty panel would say neither that there was nothing nor that it is broken."""
    metrics = await metered(100, healthy=healthy)
    scraped = Scraped(exposition(metrics, healthy=healthy))
    recorded = set() if healthy else set(re.findall(r"record: (\S+)", RULES[0].read_text()))
    waiting = [*panels(healthy=healthy), *(("recording.yml", name, name) for name in sorted(recorded))]
    assert len(waiting) > 40
    try:
        async with prometheus(tmp_path, scraped.port) as client, asyncio.timeout(CAP_S):
            first = 101
            while waiting:
                for _ in range(6):
                    await scraped.times.acquire()
                    await deliver(metrics, first, 100, healthy=healthy)
                    first += 100
                waiting = [one for one in waiting if not await values(client, one[2])]
            # A scrape that a busy machine failed leaves nothing until the next.
            while not (tokens := await values(client, "sum(taximeter_input_tokens_total)")):
                await scraped.times.acquire()
            assert 0 < tokens[0] <= sum(sum(cell[8:11]) for cell in metrics.series.values())
            await exemplars(client)
    except TimeoutError:
        pytest.fail(f"no data for {waiting}")
    finally:
        scraped.close()


async def exemplars(client: httpx2.AsyncClient) -> None:
    """Prometheus reads OpenMetrics from us, so a bucket leads to a request."""
    query: dict[str, Any] = {
        "query": "taximeter_request_duration_seconds_bucket",
        "start": time.time() - 300,
        "end": time.time() + 60,
    }
    answer = (await client.get("/api/v1/query_exemplars", params=query)).json()
    found = {e["labels"]["request_id"] for series in answer["data"] for e in series["exemplars"]}
    assert any(request_id.startswith("req-j1-") for request_id in found)
