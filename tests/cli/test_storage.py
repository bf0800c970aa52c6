"""`database`, `backup`, `restore` on real files and a real PostgreSQL."""

import asyncio
import sqlite3

import pytest
from click.testing import CliRunner

from closing import closed
from control_plane import DAY_US, NOON_US, embedding, record
from ledger import batch
from taximeter.cli import main
from taximeter.config import JournalSettings
from taximeter.core.audit import AuditEntry, AuditFilters
from taximeter.core.errors import ConfigError
from taximeter.journal import Journal
from taximeter.reconcile.rule import Cell, Figures
from taximeter.reconcile.store import ReconcileStore, Run
from taximeter.sinks.history.sink import History
from taximeter.sinks.query import Filters, Window


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()

    async def run(*args, **env):
        return await asyncio.to_thread(CliRunner(env={"TAXIMETER_DATA_DIR": str(data), **env}).invoke, main, [*args])

    return run


def history_url(tmp_path):
    return f"sqlite:///{tmp_path}/data/history.db"


async def filled(url, *, records=40, days=1):
    """A history of some workspaces, tracks and months, with a correction and an entry of the audit log."""
    async with closed(History(url)) as history:
        told = []
        for number in range(records):
            made = embedding if number % 5 == 0 else record
            ended_at = NOON_US - (number % days) * DAY_US
            told.append(
                made(number, workspace=f"w{number % 3}", track=f"t{number % 7}", end_user="ann", ended_at=ended_at)
            )
        told.append(record(1, kind="correction", cost_nusd=5, ended_at=NOON_US, input_tokens=None, output_tokens=None))
        await history.deliver([batch(told)])
        await history.roll_up_tags()
        await history.add_audit([AuditEntry(id="1", at=5, node="n", actor="command", action="sign_in", after={"a": 1})])
        assert await history.claim("budget:told", 7)
        compared = ReconcileStore(history)
        assert await compared.claim("bill", "n", 2, 1, 1, forced=True)
        cell = Cell("2026-11-03", "m", "", None, Figures(5))
        await compared.keep(Run(name="bill", done_at=3, from_day="2026-11-01", to_day="2026-11-05"), [cell])


async def everything(url):
    async with closed(History(url)) as history:
        records, _ = await history.events(Filters(), 1_000)
        asked: list[tuple[tuple[str, ...], Window | None]] = [
            ((), None), (("workspace", "model"), "day"), (("track",), None), (("end_user",), "month"),
        ]  # fmt: skip
        sums = [await history.usage(Filters(), names, window) for names, window in asked]
        compared = ReconcileStore(history)
        cells = await compared.cells("bill", "2026-11-01", "2026-11-05")
        kept = [cells, await compared.runs(), await history.claim("budget:told", 8)]
        return records, sums, kept, (await history.audit(AuditFilters()))[0], await history.identity()


async def test_a_history_is_moved_whole_and_goes_on(command, tmp_path, url):
    """To SQLite, and to PostgreSQL; months are partitions there, and numbers go on."""
    await filled(history_url(tmp_path), records=120, days=100)
    moved = await command("database", "move", "--to", url)
    assert moved.exit_code == 0, moved.output
    assert "its sums are the same" in moved.stdout
    assert await everything(url) == await everything(history_url(tmp_path))
    async with closed(History(url)) as history:
        assert await history.cursors(["j1"]) == {"j1": 121}
        more = batch([record(500, workspace="new", task="never-seen")], journal_id="j2")
        assert await history.deliver([more]) == {"j2": 1}  # numbers of series, journals, origins are free ones
        assert (await history.usage(Filters(workspace="new")))[0].totals.requests == 1
    again = await command("database", "move", "--to", url)
    assert again.exit_code == 1 and "holds a history already" in again.stderr


async def test_nothing_is_moved_from_where_there_is_nothing_or_somebody_runs(command, tmp_path, url):
    nothing = await command("database", "move", "--to", url)
    assert nothing.exit_code == 2 and "There is no history database" in nothing.stderr
    from taximeter.node.datadir import DataDir

    held = DataDir(tmp_path / "data")
    busy = await command("database", "move", "--to", url)
    held.release()
    assert busy.exit_code == 1 and "in use by another Taximeter" in busy.stderr


async def test_deleting_old_records_gives_their_room_back(command, tmp_path):
    await filled(history_url(tmp_path), records=6_000, days=2)
    before = (tmp_path / "data/history.db").stat().st_size
    pruned = await command("database", "prune", "--keep", "1d")
    assert pruned.exit_code == 0 and "6,0" in pruned.stdout, pruned.output
    async with closed(History(history_url(tmp_path))) as history:
        assert (await history.usage(Filters()))[0].totals.requests == 6_000  # sums stay
    with sqlite3.connect(tmp_path / "data/history.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    assert (tmp_path / "data/history.db").stat().st_size < before / 2


async def test_a_file_of_an_earlier_version_is_compacted_once(command, tmp_path):
    path = tmp_path / "data/history.db"
    with sqlite3.connect(path) as old:  # made before free pages were given back
        old.execute("PRAGMA auto_vacuum = NONE")
        old.execute("CREATE TABLE one (a)")
        old.execute("DROP TABLE one")
    old.close()
    await filled(history_url(tmp_path), records=6_000, days=2)
    assert "stays with the file" in (await command("database", "size")).stdout
    await command("database", "prune", "--keep", "1d")
    before = path.stat().st_size
    done = await command("database", "compact")
    assert done.exit_code == 0, done.output
    assert path.stat().st_size < before / 2
    assert "stays with the file" not in (await command("database", "size")).stdout
    assert (await everything(history_url(tmp_path)))[1][0][0].totals.requests == 6_000


async def test_postgresql_has_nothing_to_compact(command, new_url):
    url = new_url()
    if url.startswith("sqlite"):
        pytest.skip("of PostgreSQL")
    await filled(url)
    done = await command("database", "compact", TAXIMETER_HISTORY__URL=url)
    assert (done.exit_code, "nothing to do" in done.stdout) == (0, True)
    assert "41 records since 2026-11-03T12:00:00Z" in (
        (await command("database", "size", TAXIMETER_HISTORY__URL=url)).stdout
    )


async def test_a_back_up_is_put_back_and_what_history_had_not_is_delivered(command, tmp_path):
    url = history_url(tmp_path)
    await filled(url)
    created = await command("keys", "create", "--workspace", "acme")
    assert created.exit_code == 0, created.output
    journal = Journal(
        tmp_path / "data/journal", node="n1", worker="1", settings=JournalSettings(), now_us=lambda: NOON_US
    )
    made = await command("backup", str(tmp_path / "copy"))
    assert made.exit_code == 0, made.output
    assert "files" in made.stdout and (tmp_path / "copy/journal").is_dir()
    journal.shutdown()
    again = await command("backup", str(tmp_path / "copy"))
    assert again.exit_code == 1 and "is not empty" in again.stderr
    assert "Whole: " in (await command("restore", "--check", str(tmp_path / "copy"))).stdout
    before = await everything(url)
    keys = (tmp_path / "data/keys.json").read_bytes()
    busy = await command("restore", str(tmp_path / "copy"))
    assert busy.exit_code == 1 and "is there already" in busy.stderr
    (tmp_path / "data").rename(tmp_path / "lost")
    done = await command("restore", str(tmp_path / "copy"))
    assert done.exit_code == 0, done.output
    assert await everything(url) == before and (tmp_path / "data/keys.json").read_bytes() == keys
    assert not list(tmp_path.glob("data/**/redis.url"))


async def test_a_back_up_that_is_not_whole_is_not_put_back(command, tmp_path):
    await filled(history_url(tmp_path))
    await command("backup", str(tmp_path / "copy"))
    with (tmp_path / "copy/history.db").open("r+b") as file:
        file.seek(5_000)
        file.write(b"x")
    (tmp_path / "data").rename(tmp_path / "lost")
    for args in (("restore", "--check"), ("restore",)):
        result = await command(*args, str(tmp_path / "copy"))
        assert result.exit_code == 1 and "history.db is not as it was" in result.stderr
    (tmp_path / "empty").mkdir()
    other = await command("restore", str(tmp_path / "empty"))
    assert other.exit_code == 1 and "is no back-up" in other.stderr
    with pytest.raises(ConfigError):
        History("sqlite://")


async def test_where_no_taximeter_has_run_there_is_no_empty_back_up_that_looks_whole(command, tmp_path):
    """As in cron, whose working directory is another: no settings file, and another data directory."""
    told = await command("backup", str(tmp_path / "copy"))
    assert told.exit_code == 1 and "Nothing to back up: no Taximeter has run on" in told.stderr
    assert not (tmp_path / "copy").exists()
