"""The owed ledger in the control process: settled once, taken over, written off, shown."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from control_plane import DAY_US, NOON_US, bearing, record
from journals import journal
from journals import records as written
from taximeter.cli import main
from taximeter.config import AuthSettings, JournalSettings, Settings
from taximeter.control.services.corrections import Corrections
from taximeter.control.services.owed import LOOK_S, OwedLedger
from taximeter.core.correction import correction
from taximeter.core.deferred import TOLD
from taximeter.core.errors import JournalError, NotReady
from taximeter.core.holds import BUDGETS
from taximeter.core.record import Source
from taximeter.delivery import Delivery
from taximeter.journal import Journal, adopt, gone
from taximeter.keys.rule import digest
from taximeter.node.audit import AuditLog
from taximeter.sinks.history.sink import History

NOTHING = {
    "input_tokens": None, "output_tokens": None, "total_tokens": None, "cached_input_tokens": None,
    "reasoning_output_tokens": None, "cost_nusd": None, "price_ref": None, "input_source": Source.DEFERRED,
}  # fmt: skip


def promised(number, name, **more):
    return record(number, deferred=name, **NOTHING | more)


def told(number, name, line="", **more):
    return record(number, kind=TOLD, deferred=name, line=line, track="poller", **{"cost_nusd": None} | more)


class Prices:
    def cost(self, one):
        return (7, "list") if one.total_tokens else (None, None)

    def why(self, one):
        return "usage_unknown"


class Books:
    """A node's control process, but for its loops."""

    def __init__(self, folder, history, name="n"):
        self.folder, self.history, self.now_s = folder, history, 0.0
        self.delivery = Delivery(folder, [history], settings=JournalSettings(), node=name, now_us=lambda: NOON_US)
        settings = JournalSettings()
        self.corrections = Corrections(
            history, self.delivery, prices=Prices,
            journal=lambda: Journal(folder, node=name, worker="control", settings=settings, now_us=lambda: NOON_US),
        )  # fmt: skip
        self.audit = AuditLog(folder, node=name)
        self.owed = OwedLedger(
            history, self.corrections, Prices(), journals=folder, audit=self.audit,
            now_us=lambda: NOON_US + 40 * DAY_US, monotonic_s=lambda: self.now_s,
        )  # fmt: skip
        self.worker = journal(folder, node=name)
        self.running = asyncio.ensure_future(self.delivery.run())

    async def add(self, *records):
        for each in records:
            self.worker.append(each)
        assert (await self.delivery.drain(10.0, ("history",))).complete

    def settled(self):
        """Settlements and corrections its control process wrote."""
        return [each for each in written(self.folder) if each.kind != TOLD and each.line is not None]

    async def close(self):
        self.worker.shutdown()
        self.corrections.close()
        self.running.cancel()
        await asyncio.wait([self.running])


@pytest.fixture
async def history(tmp_path):
    made = History(f"sqlite:///{tmp_path / 'history.db'}", "n")
    await made.prepare()
    yield made
    await made.close()


@pytest.fixture
async def books(tmp_path, history):
    made = Books(tmp_path / "journal", history)
    yield made
    await made.close()


async def test_what_was_told_is_settled_once_at_its_price_and_looked_for_when_something_came(books, history):
    await books.add(promised(1, "b1", charged_tokens=900), told(2, "b1", "a"), told(3, "b1"))
    assert [await books.owed.settle() for _ in range(3)] == [2, 0, 0]
    assert sorted((each.line, each.cost_nusd, each.charged_tokens) for each in books.settled()) == [
        ("", 7, -900), ("a", 7, None)
    ]  # fmt: skip
    assert await history.charges() == []
    assert books.owed.figures() == (0, 0.0, 0)
    asked: list[int] = []
    history.unsettled = asked.append
    assert await books.owed.settle() == 0 and asked == []  # nothing came: nothing is asked
    books.now_s += LOOK_S
    with pytest.raises(TypeError):
        await books.owed.settle()
    assert asked == [1]


async def test_what_an_operator_said_meanwhile_is_taken_back(books, history):
    call = promised(1, "b1", charged_tokens=900, charged_cost_nusd=50, tags={BUDGETS: "bud_1"})
    said = correction(call, 30, None)
    said.charged_tokens, said.charged_cost_nusd = -200, -50
    await books.add(call, said, told(2, "b1"))
    assert await books.owed.settle() == 1
    await books.add()
    records = await history.record("req-1")
    assert (sum(each.cost_nusd or 0 for each in records), sum(each.charged_tokens or 0 for each in records)) == (7, 0)
    assert await history.charges() == []


async def test_a_journal_that_cannot_be_written_leaves_the_rest_for_the_next_time(books, monkeypatch):
    await books.add(promised(1, "b1"), told(2, "b1", "a"), told(3, "b1", "b"))
    writer = books.corrections._opened()
    append = writer.append

    def once(each):
        if books.settled():
            raise JournalError("cannot write the journal")
        append(each)

    monkeypatch.setattr(writer, "append", once)
    with pytest.raises(NotReady, match="is written then"):
        await books.owed.settle()
    monkeypatch.undo()
    assert await books.owed.settle() == 1
    assert sorted(each.line for each in books.settled()) == ["a", "b"]


async def test_a_lost_nodes_claims_are_settled_where_its_journals_went_each_once(tmp_path, books):
    history = History(f"sqlite:///{tmp_path / 'history.db'}", "other")
    other = Books(tmp_path / "other", history, "other")
    await other.add(promised(1, "b1"), told(2, "b1", "a"), told(3, "b1", "b"))
    await other.close()  # it dies when it has written one settlement, which history has not seen
    await history.close()
    lost = journal(tmp_path / "other", node="other", worker="control")
    lost.append(promised(1, "b1", attempt=2, line="a", **{"input_tokens": 5, "total_tokens": 5}))
    lost.shutdown()
    assert await books.owed.settle() == 0
    adopt(tmp_path / "other", books.folder)
    assert gone.gone(books.folder) == ["other"]
    assert await books.owed.settle() == 1
    assert gone.gone(books.folder) == [] and await books.owed.settle() == 0
    assert sorted(each.line for each in books.settled()) == ["a", "b"]


def test_a_node_of_another_name_on_the_same_disk_answers_for_the_former(tmp_path):
    journal(tmp_path, node="before").shutdown()
    gone.announce(tmp_path, ["half-adopted"])
    journal(tmp_path, node="half-adopted").shutdown()
    (tmp_path / "odd.jsonl").write_bytes(b"{}\n")
    gone.declare_former(tmp_path, "now")
    assert gone.gone(tmp_path) == ["before"]
    gone.forget(tmp_path, ["before", "nobody"])
    gone.declare_former(tmp_path, "now")
    assert gone.gone(tmp_path) == []  # it was taken over once: another node may be called so now
    assert gone.declare(tmp_path, ["lost"]) == ["half-adopted", "lost"]


async def test_a_node_whose_disk_is_lost_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TAXIMETER_DATA_DIR", str(tmp_path))
    done = CliRunner().invoke(main, ["adopt", "--lost", "pod-7"])
    assert done.exit_code == 0 and gone.gone(tmp_path / "journal") == ["pod-7"]
    assert CliRunner().invoke(main, ["adopt"]).exit_code == 2
    assert CliRunner().invoke(main, ["adopt", "--lost", "../x"]).exit_code == 2
    assert gone.gone(tmp_path / "journal") == ["pod-7"]


async def test_what_nobody_tells_is_written_off_visibly_and_stays_charged(books, history):
    await books.add(promised(1, "b1", charged_tokens=900), promised(2, "b2", ended_at=NOON_US + 39 * DAY_US))
    assert [await books.owed.write_off(31) for _ in range(2)] == [1, 0]
    (entry,) = books.audit.taken()
    assert (entry.action, entry.target, entry.before["workspace"]) == ("owed.write_off", "b1", "acme")
    assert [each.tokens for each in await history.charges()] == [900]
    await books.owed.settle()
    assert books.owed.figures() == (1, 86_400.0, 1)
    await books.owed.forget(NOON_US + 35 * DAY_US, 39)
    shown = await books.owed.listed(None, ("expired",), 9)
    assert [each.object for each in shown] == ["b1"]  # for a while, however short records are kept
    await books.owed.forget(NOON_US + 35 * DAY_US, 31)
    assert [each.object for each in await books.owed.listed(None, ("outstanding", "expired"), 9)] == ["b2"]


async def test_who_is_owed_what_is_shown_to_whose_it_is(tmp_path, books, start):
    made = Settings(auth=AuthSettings(admin_token_sha256=digest("admin")))
    control = await start(made, owed=books.owed)
    _, key = control.keys.create("beta")
    await books.add(
        promised(1, "b1"), promised(2, "b2", workspace="beta"), told(3, "b1", files=("f1",)), promised(4, "b3"),
        told(5, "b3", files=("f3",)), record(6, files=("f3",)),
    )  # fmt: skip

    async def listed(token="admin", **params):
        answer = await control.client.get("/usage/owed", params=params, headers=bearing(token))
        if answer.status_code != 200:
            return answer.status_code
        return [(each["object"], each["state"], each["unread_files"]) for each in answer.json()["data"]]

    everything = [("b1", "unread", ["f1"]), ("b2", "outstanding", []), ("b3", "told", [])]
    assert await listed() == everything
    assert await listed(limit=1) == everything[:1]
    assert await listed(key) == await listed(workspace="beta") == everything[1:2]
    assert await listed(key, workspace="acme") == 404
    assert await listed(None) == 401
    assert (await listed(state="lost"), await listed(state="expired,ended")) == (400, [])
    env = {"TAXIMETER_ADMIN_TOKEN": "admin", "COLUMNS": "150"}
    argv = ["owed", "--url", control.url]
    shown = await asyncio.to_thread(CliRunner(env=env).invoke, main, [*argv, "--workspace", "acme"])
    assert "b1" in shown.output and "unread" in shown.output and "b2" not in shown.output
    assert "Request" in shown.output and "Track" not in shown.output  # none of these has one
    none = await asyncio.to_thread(CliRunner(env=env).invoke, main, [*argv, "--state", "expired", "--state", "ended"])
    assert none.output == "Nothing is expired or ended.\n"
    raw = await asyncio.to_thread(CliRunner(env=env).invoke, main, [*argv, "--json"])
    assert len(json.loads(raw.output)["data"]) == 3


async def test_without_a_ledger_there_is_nothing_to_show(control):
    assert (await control.client.get("/usage/owed")).status_code == 404
