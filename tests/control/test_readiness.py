"""When a node is ready: as long as calls are relayed and written down, whatever becomes of what stands behind."""

from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from dashboards import told
from faults.running import Node
from taximeter.config import Settings
from taximeter.config.settings import BudgetSettings
from taximeter.control.process.state import ASKING_BUDGETS, State
from taximeter.journal.status import Status
from taximeter.sinks.health import SinkHealth
from waits import HANG_S

WORKER = Status(node="n1", worker="1", pid=1)
FAILING = SinkHealth(lag_records=9, lag_seconds=0.1, errors=2, duplicates_skipped=0, failing="it does not answer")


def state(settings=None, **differs):
    """The state of a node of two workers that is well, but for what differs."""
    health = replace(told(), **{"writers": [WORKER, replace(WORKER, worker="2")], **differs})
    boot: Any = SimpleNamespace(settings=settings or Settings(workers=2))
    delivery: Any = SimpleNamespace(health=lambda: health)
    return State(boot, delivery)


@pytest.mark.parametrize(
    ("differs", "problems", "warnings"),
    [
        ({}, [], []),
        ({"writers": []}, ["0 of 2 workers are running"], []),
        ({"writers": [WORKER]}, [], ["1 of 2 workers are running"]),
        ({"journal_healthy": False}, ["the journal cannot be written: records wait in memory"], []),
        ({"sinks": {"redis": FAILING}}, [], ["sink redis: it does not answer"]),
        ({"sinks": {"history": replace(FAILING, failing=None, lag_seconds=31.0)}}, [], ["sink history is 31 s behind"]),
        ({"halted": {"a.jsonl": "restored from a copy"}}, [], ["journal file a.jsonl: restored from a copy"]),
    ],
)
def test_only_what_keeps_calls_from_being_relayed_and_written_down_is_a_problem(differs, problems, warnings):
    found = state(**differs).readiness()
    assert (found.problems, found.warnings) == (problems, warnings)


@pytest.mark.parametrize("strict", [False, True])
def test_a_setting_that_refuses_calls_without_redis_keeps_them_from_this_node(strict):
    settings = Settings(workers=2, budget=BudgetSettings(on_unavailable="refuse" if strict else "allow"))
    node = state(settings)
    node.notes[ASKING_BUDGETS] = "Redis does not answer"
    found = node.readiness()
    assert found.problems == (["calls under hard budgets are refused (budget.on_unavailable)"] if strict else [])
    assert found.warnings == [f"{ASKING_BUDGETS}: Redis does not answer"]


@pytest.mark.xdist_group("processes")
async def test_a_node_without_its_redis_is_ready_relays_and_says_what_is_wrong(tmp_path):
    async with Node(tmp_path, config='[redis]\nurl = "redis://127.0.0.1:1/0"\n') as node:  # started: /readyz was 200
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.port}", timeout=HANG_S) as client:
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        await node.until(node.problems, "a word of it")
        assert await node.get("/readyz") is not None
        assert any("redis" in problem.lower() for problem in await node.problems())
