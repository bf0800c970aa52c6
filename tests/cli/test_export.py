import asyncio
import csv
import importlib
import json
from contextlib import contextmanager
from decimal import Decimal

import pytest
from click.testing import CliRunner

from control_plane import record
from taximeter.cli import main

exporting = importlib.import_module("taximeter.cli.export")


@pytest.fixture
async def export(control):
    await control.add(*(record(n, workspace="acme" if n % 2 else "beta") for n in range(5)))

    async def run(where, *args):
        place = {"proxy": ("--url", control.url), "history": ("--history", str(control.history._database.url))}
        return await asyncio.to_thread(CliRunner().invoke, main, ["export", *args, *place[where]])

    return run


both = pytest.mark.parametrize("where", ["proxy", "history"])


@both
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
async def test_the_file_is_the_apis_own_export(export, where, kind, tmp_path, control):
    result = await export(where, "--output", str(tmp_path / f"usage.{kind}"), "--workspace", "acme")
    assert (result.exit_code, result.stderr) == (0, f"2 records written to {tmp_path / f'usage.{kind}'}\n")
    served = await control.client.get(f"/usage/export.{kind}", params={"workspace": "acme"})
    assert (tmp_path / f"usage.{kind}").read_bytes() == served.content


@both
async def test_parquet(export, where, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    result = await export(where, "--output", str(tmp_path / "usage.parquet"), "--json")
    assert json.loads(result.stdout) == {"records": 5}
    assert parquet.read_table(tmp_path / "usage.parquet").column("request_id").to_pylist() == [
        f"req-{n}" for n in range(5)
    ]


@both
async def test_progress_ends_at_all_of_it_and_never_beyond(export, where, tmp_path, monkeypatch):
    told = []

    @contextmanager
    def watched(total):
        yield lambda records: told.append((records, total))

    monkeypatch.setattr(exporting, "_progress", watched)
    for kind in ("csv", "jsonl"):
        told.clear()
        await export(where, "--output", str(tmp_path / f"usage.{kind}"))
        assert told and told[-1] == (5, 5) and all(records <= 5 for records, _ in told), told


@both
async def test_standard_output_is_json_lines(export, where):
    result = await export(where, "--output", "-")
    assert [json.loads(line)["request_id"] for line in result.stdout.splitlines()] == [f"req-{n}" for n in range(5)]


@both
async def test_what_cannot_be_written_says_so_and_leaves_nothing(export, where, tmp_path):
    result = await export(where, "--output", str(tmp_path / "absent" / "usage.csv"))
    assert result.exit_code == 1 and "cannot be written" in result.stderr
    result = await export(where, "--output", str(tmp_path / "usage.xlsx"))
    assert result.exit_code == 2 and ".parquet, .evidence or .focus.csv" in result.stderr
    result = await export(where, "--output", str(tmp_path / "usage.csv"), "--from", "bogus")
    assert result.exit_code == 2 and not list(tmp_path.glob("usage*"))


@both
async def test_focus_charges_are_those_of_the_proxy_and_what_has_no_price_is_said(export, where, tmp_path, control):
    await control.add(record(9, cost_nusd=None, unpriced_reason="model_without_price", request_model="m-1"))
    file = tmp_path / "november.focus.csv"
    result = await export(where, "--output", str(file), "--per", "workspace", "--workspace", "acme")
    assert result.exit_code == 0, result.stderr
    assert f"charges written to {file}\n1 call has no cost and no charge here: --unpriced lists" in result.stderr
    rows = list(csv.DictReader(file.read_text().splitlines()))
    ledger = (await control.get("/usage", workspace="acme"))["estimated_cost_usd"]
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal(str(ledger)) and rows
    assert {row["x_Workspace"] for row in rows} == {"acme"} and {row["x_Task"] for row in rows} == {""}
    told = json.loads((await export(where, "-o", str(file), "--unpriced", "--json")).stdout)
    assert told == {"charges": 3, "unpriced_calls": 1}
    listed = csv.DictReader(file.read_text().splitlines())
    assert {(row["x_Model"], row["BilledCost"]) for row in listed} == {("m-1", "")}
    refused = await export(where, "-o", str(file), "--per", "model")
    assert refused.exit_code == 2 and "told apart by workspace, key_id, task" in refused.stderr
    refused = await export(where, "-o", str(file), "--focus-version", "0.9")
    assert refused.exit_code == 2 and "one of 1.2, 1.4" in refused.stderr


@both
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
async def test_sums_by_any_names_are_the_apis_own_file(export, where, kind, tmp_path, control):
    file = tmp_path / f"sums.{kind}"
    result = await export(where, "-o", str(file), "--by", "workspace", "--by", "model", "--window", "day")
    assert (result.exit_code, result.stderr) == (0, f"2 rows written to {file}\n")
    served = await control.client.get(f"/usage/groups.{kind}?group_by=workspace,model&window=day")
    assert file.read_bytes() == served.content


async def test_what_is_no_file_of_sums_says_so(export, tmp_path):
    for args, told in (
        (("-o", "sums.parquet", "--by", "model"), "as json, csv, jsonl, and not as parquet"),
        (("-o", "records.json"), "Single records are written as lines"),
        (("-o", "sums.csv", "--window", "day"), "--window is for --by"),
        (("--monthly", str(tmp_path), "--by", "model"), "one --output"),
    ):
        result = await export("proxy", *args)
        assert result.exit_code == 2 and told in result.stderr, result.stderr
