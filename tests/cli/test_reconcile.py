import asyncio
import json

import msgspec
import pytest
from click.testing import CliRunner

from control_plane import DAY_US, NOON_US, embedding, record
from taximeter.cli import main

MIDNIGHT = 1_793_664_000


@pytest.fixture
async def reconcile(control, tmp_path):
    await control.add(
        record(1), record(2, request_model="o3", ended_at=NOON_US + DAY_US), embedding(3),
        record(4, provider="anthropic", request_model="claude"), record(5, workspace="beta"),
    )  # fmt: skip

    async def run(content, *args):
        file = tmp_path / "export"
        file.write_bytes(content if isinstance(content, bytes) else msgspec.json.encode(content))
        argv = ["reconcile", str(file), *args, "--url", control.url]
        return await asyncio.to_thread(CliRunner(env={"COLUMNS": "120"}).invoke, main, argv)

    return run


def export(mini_input=200, **more):
    def result(model, **figures):
        told = {"input_tokens": 100, "input_cached_tokens": 20, "output_tokens": 30, "num_model_requests": 1}
        return {"object": "organization.usage.completions.result", "model": model} | told | figures

    mini = result("gpt-4o-mini", input_tokens=mini_input, input_cached_tokens=40, output_tokens=60, **more)
    return {
        "object": "page",
        "data": [
            {"start_time": MIDNIGHT, "end_time": MIDNIGHT + 86_400, "results": [mini]},
            {"start_time": MIDNIGHT + 86_400, "end_time": MIDNIGHT + 172_800, "results": [result("o3")]},
        ],
    }


async def test_an_equal_export_agrees(reconcile):
    done = await reconcile(export())
    assert done.exit_code == 0, done.output
    assert done.output.endswith("2 of 2 days and models agree\n")


async def test_a_difference_is_shown_and_the_exit_code_says_so(reconcile):
    done = await reconcile(export(mini_input=207))
    assert done.exit_code == 1
    assert ["2026-11-03", "gpt-4o-mini", "input_tokens", "200", "207", "-7"] in [
        line.split() for line in done.output.splitlines()
    ]
    told = json.loads((await reconcile(export(mini_input=207), "--json")).stdout)
    assert told["differences"] == [
        {"day": "2026-11-03", "model": "gpt-4o-mini", "figure": "input_tokens", "ours": 200, "theirs": 207,
         "difference": -7}
    ]  # fmt: skip


async def test_one_workspace_can_be_compared_with_one_project(reconcile):
    assert (await reconcile(export(), "--workspace", "acme")).exit_code == 1
    csv = b"date,model,input_tokens\n2026-11-03,gpt-4o-mini,100\n2026-11-03,text-embedding-3-small,16\n"
    assert (await reconcile(csv, "--workspace", "acme")).exit_code == 0


async def test_an_export_without_models_is_compared_by_day(reconcile):
    rows = b"date,input_tokens,output_tokens\n2026-11-03,216,60\n2026-11-04,100,30\n"
    assert (await reconcile(rows)).exit_code == 0
    assert (await reconcile(rows, "--operation", "llm")).exit_code == 1


async def test_a_file_that_is_no_export_is_wrong_usage(reconcile):
    done = await reconcile(b"nothing of the kind")
    assert done.exit_code == 2 and "needs a column" in done.stderr
