"""Files by month: whole or not there, made anew only where history has changed, in a folder and in a bucket."""

import asyncio
import csv
import json
import os
import shutil
import tempfile
import threading
from decimal import Decimal
from typing import Any

import pytest
from click.testing import CliRunner

from bucket import Bucket
from control_plane import DAY_US, NOON_US, record
from ledger import batch
from taximeter.cli import main
from taximeter.config.settings import ExportSettings
from taximeter.control.services import exporting
from taximeter.control.services.exporting import Exporter, writers
from taximeter.core.correction import correction
from taximeter.core.errors import ConfigError
from taximeter.core.prices import Card, Rates
from taximeter.exports import monthly, places
from taximeter.exports.places import CannotExport, Folder, place
from taximeter.sinks.history.sink import History
from taximeter.sinks.query import Filters
from waits import HANG_S, happens

CARD = Card(ref="r", rates=Rates(input=150_000, cached_input=75_000, output=600_000))
OCTOBER_US = NOON_US - 10 * DAY_US
NOW_US = NOON_US + 9 * 1_000_000
SPAN = (OCTOBER_US, NOON_US + 1)


@pytest.fixture
async def history(tmp_path):
    made = History(f"sqlite:///{tmp_path}/history.db")
    calls = [record(n, cost_nusd=31_500, ended_at=NOON_US + n) for n in range(3)]
    await made.deliver([batch([record(9, cost_nusd=31_500, ended_at=OCTOBER_US), *calls], "j1", 0)])
    yield made
    await made.close()


def bring(history, where, *kinds, card=lambda _: CARD):
    reader = history.reader
    return list(monthly.export(reader, where, writers(reader, card), kinds, Filters(), *SPAN, now_us=NOW_US))


async def test_a_month_is_made_anew_only_where_history_has_changed(history, tmp_path):
    where = Folder(tmp_path / "to")
    assert [(each.name, each.what, each.records) for each in bring(history, where, "csv", "focus")] == [
        ("2026-10/usage.csv", "written", 1), ("2026-10/usage.focus.csv", "written", 1),
        ("2026-11/usage.csv", "written", 3), ("2026-11/usage.focus.csv", "written", 3),
    ]  # fmt: skip
    told = json.loads((tmp_path / "to/2026-11/usage.csv.json").read_bytes())
    assert (told["records"], told["cost_nusd"], told["total_tokens"]) == (3, 94_500, 390)
    assert told["bytes"] == (tmp_path / "to/2026-11/usage.csv").stat().st_size
    assert [each.what for each in bring(history, where, "csv", "focus")] == ["kept"] * 4
    later = correction(record(9, ended_at=OCTOBER_US), 500, None)
    await history.deliver([batch([later], "j1", 4)])
    assert [each.what for each in bring(history, where, "csv", "focus")] == ["written", "written", "kept", "kept"]
    rows = list(csv.DictReader((tmp_path / "to/2026-10/usage.focus.csv").read_text().splitlines()))
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal("0.000032")
    assert sorted(path.suffix for path in (tmp_path / "to/2026-10").iterdir()) == [".csv", ".csv", ".json", ".json"]


async def test_a_file_holds_what_is_told_of_it_whatever_comes_while_it_is_made(history, tmp_path):
    where, told, reader = Folder(tmp_path / "to"), tmp_path / "to/2026-11/usage.focus.csv.json", history.reader
    await history.deliver([batch([record(40, cost_nusd=5, ended_at=NOW_US)], "j1", 4)])  # as a clock ahead has it
    came = [record(50, cost_nusd=7, ended_at=NOON_US + 50), correction(record(1, ended_at=NOON_US + 1), 11, None)]
    coming = iter([None, batch(came[:1], "j1", 5), batch(came[1:], "j1", 6)])

    class Busy:
        """Of the sums and of the records there are, before what comes between."""

        usage = staticmethod(reader.usage)

        def export(self, filters):
            if filters.kind == "correction" and (more := next(coming, None)) is not None:
                asyncio.run_coroutine_threadsafe(history.deliver([more]), loop).result()
            return reader.export(filters)

    loop = asyncio.get_running_loop()
    busy = Busy()
    made = await asyncio.to_thread(
        lambda: list(
            monthly.export(busy, where, writers(busy, lambda _: CARD), ["focus"], Filters(), *SPAN, now_us=NOW_US)
        )
    )
    assert [(each.what, each.records) for each in made] == [("written", 1), ("written", 5)]
    manifest = json.loads(told.read_bytes())
    rows = list(csv.DictReader(told.with_suffix("").read_text().splitlines()))
    assert sum(Decimal(row["BilledCost"]) for row in rows) * 10**9 == manifest["cost_nusd"] == 94_500 + 7 + 11


async def test_a_file_that_is_gone_or_cut_is_made_anew(history, tmp_path):
    where, path = Folder(tmp_path / "to"), tmp_path / "to/2026-11/usage.csv"
    bring(history, where, "csv")
    whole = path.read_bytes()
    for spoil in (path.unlink, lambda: path.write_bytes(whole[:100])):
        spoil()
        assert [each.what for each in bring(history, where, "csv")] == ["kept", "written"]
        assert path.read_bytes() == whole


def test_nodes_that_write_the_same_file_at_once_do_not_write_into_each_others(tmp_path):
    where, made = Folder(tmp_path / "to"), [tmp_path / "one", tmp_path / "two"]
    for each in made:
        each.write_text(each.name)
    left = tmp_path / "to/.usage.csv.1.part"
    copy, names = shutil.copyfileobj, []

    def slowly(source, file, *rest):
        names.append(file.name)
        if len(names) == 1:  # the other one, of the same process id in its container, in the midst of it
            where.put("usage.csv", made[1])
            left.touch()
            os.utime(left, (1, 1))
        copy(source, file, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", slowly)
        where.put("usage.csv", made[0])
        assert len(set(names)) == 2 and where.get("usage.csv") == b"one"
        where.put("usage.csv", made[1])
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["usage.csv"], "what a killed node left is let go"


async def test_a_machine_without_room_for_making_files_is_told_and_ends_nothing(history, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    with pytest.raises(CannotExport, match=r"2026-10/usage\.csv cannot be made: .*full"):
        bring(history, Folder(tmp_path / "to"), "csv")


async def test_one_that_broke_off_goes_on_and_shows_nothing_half(history, monkeypatch):
    with Bucket() as bucket:
        for name, value in bucket.environ.items():
            monkeypatch.setenv(name, value)
        where = place("s3://finance/taximeter/")
        bucket.refuse = [403]
        with pytest.raises(CannotExport, match=r"2026-10/usage\.jsonl cannot be written"):
            bring(history, where, "jsonl")
        assert bucket.objects == {}
        assert [each.what for each in bring(history, where, "jsonl")] == ["written", "written"]
        assert bucket.puts == [
            f"finance/taximeter/2026-{month}/usage.jsonl{more}" for month in (10, 11) for more in ("", ".json")
        ]
        lines = bucket.objects["finance/taximeter/2026-11/usage.jsonl"].splitlines()
        assert [json.loads(line)["request_id"] for line in lines] == ["req-0", "req-1", "req-2"]
        assert [each.what for each in bring(history, where, "jsonl")] == ["kept", "kept"]
        del bucket.objects["finance/taximeter/2026-10/usage.jsonl"]
        assert [each.what for each in bring(history, where, "jsonl")] == ["written", "kept"]


def test_a_large_object_is_sent_in_parts_and_there_at_the_end(monkeypatch, tmp_path):
    with Bucket() as bucket:
        for name, value in bucket.environ.items():
            monkeypatch.setenv(name, value)
        large = tmp_path / "large"
        large.write_bytes(bytes(range(256)) * 50_000)
        where = place("s3://finance")
        where.put("a", large)
        assert bucket.objects["finance/a"] == large.read_bytes() == where.get("a") and bucket.parts == {}
        assert where.get("b") is None


async def test_months_whose_records_are_forgotten_keep_their_files(history, tmp_path):
    where = Folder(tmp_path / "to")
    bring(history, where, "csv")
    before = (tmp_path / "to/2026-10/usage.csv").read_bytes()
    await history.prune(NOON_US - DAY_US)
    (tmp_path / "to/2026-10/usage.csv.json").write_bytes(b"{")  # as of a former layout: it would be made anew
    assert [each.what for each in bring(history, where, "csv")] == ["gone", "kept"]
    assert (tmp_path / "to/2026-10/usage.csv").read_bytes() == before


async def test_a_node_brings_its_exports_up_to_date_and_says_what_fails(history, tmp_path, caplog):
    (tmp_path / "file").touch()
    notes: dict[str, str] = {}
    asked = [ExportSettings(to=str(tmp_path / "to"), formats=["csv"]), ExportSettings(to=str(tmp_path / "file"))]
    exporter = Exporter(
        lambda: asked, history.reader, lambda: lambda _: CARD, notes, now_s=lambda: NOON_US // 10**6 + 9
    )
    assert not await exporter.look()
    assert (tmp_path / "to/2026-10/usage.csv").exists() and (tmp_path / "to/2026-11/usage.csv").exists()
    ((name, why),) = notes.items()
    assert name == f"exporting to {tmp_path / 'file'}" and "cannot be" in why
    (tmp_path / "file").unlink()
    assert await exporter.look() and notes == {}
    assert (tmp_path / "file/2026-11/usage.parquet").exists()
    assert caplog.text.count("cannot be") == 1


async def test_what_a_reload_changes_is_brought_at_once(history, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "CHANGED_S", 0.01)
    asked: list[ExportSettings] = []
    exporter = Exporter(lambda: [*asked], history.reader, lambda: lambda _: CARD, {}, now_s=lambda: NOW_US // 10**6)
    running = asyncio.create_task(exporter.run())
    await asyncio.sleep(0)  # it has looked, and waits for midnight
    asked.append(ExportSettings(to=str(tmp_path / "to"), formats=["csv"]))
    made = tmp_path / "to/2026-11/usage.csv.json"  # the last that is written
    await happens(made.exists)
    running.cancel()


async def test_a_fault_of_ours_is_told_and_tried_again(history, tmp_path, caplog):
    notes: dict[str, str] = {}
    asked = [ExportSettings(to=str(tmp_path / "to"), formats=["focus"])]
    prices: list[Any] = [lambda _: dict[int, Card]()[0], lambda _: CARD]
    exporter = Exporter(lambda: asked, history.reader, lambda: prices.pop(0), notes, now_s=lambda: NOW_US // 10**6)
    assert not await exporter.look()
    assert notes == {f"exporting to {tmp_path / 'to'}": "a fault of Taximeter's own: KeyError: 0"}
    assert "Traceback" in caplog.text and not list(tmp_path.glob("to/*/*"))
    assert await exporter.look() and notes == {}


async def test_after_midnight_every_node_writes_the_same(history, tmp_path):
    midnight_s = NOON_US // 10**6 // 86_400 * 86_400 + 86_400
    late = record(60, cost_nusd=9, ended_at=midnight_s * 10**6)
    await history.deliver([batch([late], "j1", 4)])
    asked = [ExportSettings(to=str(tmp_path / "to"), formats=["csv"])]
    clock = [0.0]
    exporter = Exporter(lambda: asked, history.reader, lambda: lambda _: CARD, {}, now_s=lambda: clock[0])
    for after_s, records in ((exporting.AFTER_MIDNIGHT_S, 3), (exporting.AFTER_MIDNIGHT_S + 7, 3), (3_600, 4)):
        clock[0] = midnight_s + after_s
        assert await exporter.look()
        assert json.loads((tmp_path / "to/2026-11/usage.csv.json").read_bytes())["records"] == records


async def test_a_node_that_ends_waits_for_no_file(history, tmp_path):
    begun, ended = threading.Event(), threading.Event()

    class Endless:
        usage = history.reader.usage

        def export(self, filters):
            try:
                while True:
                    begun.set()
                    yield [record(1)]
            finally:
                ended.set()

    asked = [ExportSettings(to=str(tmp_path / "to"), formats=["csv"])]
    exporter = Exporter(lambda: asked, Endless(), lambda: lambda _: CARD, {}, now_s=lambda: NOON_US // 10**6 + 9)
    running = asyncio.create_task(exporter.run())
    await asyncio.to_thread(begun.wait, HANG_S)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(ended.wait, HANG_S)
    assert not list(tmp_path.glob("to/*/*"))


async def test_the_command_brings_months_and_says_what_became_of_each(history, tmp_path):
    args = ["export", "--monthly", str(tmp_path / "to"), "--history", f"sqlite:///{tmp_path}/history.db"]
    ranged = [*args, "--from", "2026-10-01", "--to", "2026-12-01", "--format", "csv"]
    run = CliRunner().invoke
    assert run(main, ranged).stdout.splitlines() == [
        "2026-10/usage.csv: written, 1 record", "2026-11/usage.csv: written, 3 records",
    ]  # fmt: skip
    told = [json.loads(line) for line in run(main, [*ranged, "--json"]).stdout.splitlines()]
    assert told[0] == {"name": "2026-10/usage.csv", "what": "kept", "records": 1}
    assert "Say --output FILE, or --monthly" in run(main, ["export", *args[3:]]).stderr
    refused = run(main, [*ranged[:1], "--monthly", "s3://", *ranged[3:]])
    assert refused.exit_code == 2 and "names no bucket" in refused.stderr


def test_months_are_those_of_utc():
    year_end = 1_798_761_600 * monthly.US  # 2027-01-01
    names = [name for name, _, _ in monthly.months(monthly.months_before(year_end, 2), year_end)]
    assert names == ["2026-10", "2026-11", "2026-12"]
    with pytest.raises(ConfigError, match="no bucket"):
        places.place("s3:///x")
