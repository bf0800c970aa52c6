"""Budgets over HTTP on a real Valkey: made, shown, ended; told when spent; let go by a sweep."""

import asyncio
import secrets
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

import control_plane
from ledger import batch
from ledger_fake import NOON_US
from taximeter.budgets.reservations import Reservations
from taximeter.budgets.rule import Budget
from taximeter.budgets.service import BudgetService
from taximeter.budgets.store import BudgetStore
from taximeter.budgets.watching import Watching
from taximeter.control.process.sync import exchange
from taximeter.core.errors import DataDirError, NotFound
from taximeter.sinks.history.failures import HistoryUnavailable
from taximeter.sinks.history.told import CLAIM_US
from taximeter.sinks.redis.client import RedisServer
from taximeter.sinks.redis.counters import Counters


async def drained(sink):
    return True


def record(number, **given):
    """A call just after noon of a day whose counters a real Redis keeps."""
    return control_plane.record(number, **{"ended_at": NOON_US + number * 10**6, **given})


def ring(path):
    return BudgetStore(path, now_us=lambda: NOON_US, random=secrets.token_bytes)


def watching(counters, budgets, history, tell):
    return Watching(
        budgets, Reservations(counters.server), history, touched=counters.positions.take_touched,
        thresholds=lambda: [50, 80, 100], tell=tell, now_us=lambda: NOON_US,
    )  # fmt: skip


@pytest.fixture
async def desk(tmp_path, valkey_url, redis, start):
    """(control, desk, words told)"""
    first = await start()
    budgets, told = ring(tmp_path), []
    counters = Counters(
        valkey_url, history=first.history, tallies=lambda name: budgets.in_force().tallies(name), now_us=lambda: NOON_US
    )

    async def tell(each):
        told.append((each.allowance.budget.id, each.allowance.own, each.percent, each.spent, each.period))

    made: Any = BudgetService(
        budgets, Reservations(counters.server), first.history, rebuild=counters.rebuild, counted=lambda: True,
        drained=drained, now_us=lambda: NOON_US,
    )  # fmt: skip
    made.counters = counters
    made.watching = watching(counters, budgets, first.history, tell)
    control = await start(budgets=made)
    yield control, made, told
    await counters.close()


async def test_a_budget_is_made_shown_and_ended(desk, redis):
    control, _, _ = desk
    answer = await control.client.post("/budgets", json={"workspace": "acme", "limit": 12.5})
    made = answer.json()
    assert answer.status_code == 201 and made == {
        "id": made["id"], "workspace": "acme", "key_id": None, "task": None, "unit": "usd", "period": "month",
        "tz": "UTC", "track": None, "document": None, "end_user": None, "model": None, "upstream": None,
        "mode": "hard", "limit": 12.5, "spent": 0, "held": 0, "charged": 0,
        "resets_at": "2076-12-01T00:00:00Z",
        "created_at": "2076-11-22T12:00:00Z",
    }  # fmt: skip
    november = "tm:{acme}:tally:usd:month:3371414400"
    await redis.hset(november, "used", 2_000_000_001)
    await redis.hset("tm:{acme}:held", made["id"], 5 * 10**8)
    await redis.hset(november, "charged", 3 * 10**8)
    (shown,) = (await control.get("/budgets"))["data"]
    assert (shown["spent"], shown["held"], shown["charged"]) == (2.000000001, 0.5, 0.3)
    assert (await control.get("/budgets", workspace="beta"))["data"] == []
    page = (await control.client.get("/dashboard/health")).text
    assert all(word in page for word in ("Charged, not known", made["id"], "$12.50", "$0.30", "$0.50"))
    assert (await control.client.delete(f"/budgets/{made['id']}")).status_code == 200
    assert (await control.get("/budgets"))["data"] == []
    assert (await control.client.delete("/budgets/bud_none")).status_code == 404


async def test_openais_spend_limit_of_a_project_is_a_budget_of_its_workspace(desk, redis):
    control, _, _ = desk
    async with AsyncOpenAI(base_url=f"{control.url}/v1", api_key="unused", admin_api_key="local") as client:
        organization = client.admin.organization
        limits = organization.projects.spend_limit
        month: Any = {"currency": "USD", "interval": "month"}
        with pytest.raises(openai.NotFoundError, match="no spend limit"):
            await limits.retrieve("acme")
        await control.client.post("/budgets", json={"workspace": "acme", "limit": 1, "task": "query"})
        told = await limits.update("acme", threshold_amount=1_250, **month)
        assert told.model_dump() == {
            "object": "project.spend_limit", "threshold_amount": 1_250, "enforcement": {"status": "inactive"}, **month
        }  # fmt: skip
        (first,) = [each for each in (await control.get("/budgets"))["data"] if each["task"] is None]
        assert (first["limit"], first["mode"], first["period"]) == (12.5, "hard", "month")
        assert (await limits.update("acme", threshold_amount=1_250, **month)).threshold_amount == 1_250
        await redis.hset("tm:{acme}:tally:usd:month:3371414400", "used", 5 * 10**9)
        assert (await limits.update("acme", threshold_amount=500, **month)).enforcement.status == "enforcing"
        assert [each["limit"] for each in (await control.get("/budgets"))["data"] if each["task"] is None] == [5]
        assert (await limits.retrieve("acme")).enforcement.status == "enforcing"
        with pytest.raises(openai.BadRequestError, match="at least 1"):
            await limits.update("acme", threshold_amount=0, **month)
        assert (await limits.delete("acme")).model_dump() == {"object": "project.spend_limit.deleted", "deleted": True}
        assert [each["task"] for each in (await control.get("/budgets"))["data"]] == ["query"]
        with pytest.raises(openai.NotFoundError):
            await limits.delete("acme")
        with pytest.raises(openai.NotFoundError, match="over all workspaces"):
            await organization.spend_limit.retrieve()
        with pytest.raises(openai.BadRequestError, match="of each"):
            await organization.spend_limit.update(threshold_amount=1, **month)
        with pytest.raises(openai.NotFoundError, match="over all workspaces"):
            await organization.spend_limit.delete()


async def test_a_budget_about_another_workspaces_key_is_refused_as_it_would_bound_nothing(desk):
    control, _, _ = desk
    key = (await control.client.post("/keys", json={"workspace": "globex"})).json()["id"]
    asked = {"key_id": key, "limit": 1}
    answer = await control.client.post("/budgets", json=asked | {"workspace": "acme"})
    told = answer.json()["error"]
    assert (answer.status_code, told["param"]) == (400, "key_id") and "opens workspace 'globex'" in told["message"]
    for fine in ({"workspace": "globex"}, {"workspace": "*"}, {"workspace": "acme", "key_id": "key_of_another_node"}):
        assert (await control.client.post("/budgets", json=asked | fine)).status_code == 201


async def test_the_first_hard_budget_of_a_workspace_is_enforced_at_once(desk, redis):
    control, made, _ = desk
    asked = {"workspace": "acme", "limit": 100, "unit": "tokens"}
    await control.client.post("/budgets", json={**asked, "mode": "soft"})
    assert not await redis.exists("tm:{acme}:held")
    await control.client.post("/budgets", json=asked)
    epoch = int(await redis.hget("tm:{acme}:held", ":epoch"))
    assert epoch > 0 and await redis.get("tm:{acme}:gen")
    await redis.flushall()
    await control.client.post("/budgets", json=asked)  # calls may be in flight: what they hold is gathered first
    await made.secure()
    assert int(await redis.hget("tm:{acme}:held", ":epoch")) < 0


async def test_of_many_nodes_each_looks_at_its_turn_and_again_while_something_is_not_in_order(desk, redis):
    control, made, told = desk
    turns: list[bool] = []
    made._turn = made.watching._turn = turns.pop
    asked = {"limit": 100, "unit": "tokens", "period": "day"}
    for workspace in ("acme", "globex"):
        await control.client.post("/budgets", json=asked | {"workspace": workspace})
    await redis.delete("tm:{acme}:held", "tm:{acme}:tallies")
    turns += [False] * 3
    await made.secure()
    await made.sweep()
    await made.look_after()
    assert not await redis.exists("tm:{acme}:held", "tm:{acme}:tallies")
    turns += [True] * 3
    await made.look_after()
    assert await redis.exists("tm:{acme}:tallies")
    await made.secure()
    await made.secure()  # and sees what it began
    turns.clear()
    await made.secure()  # asks nobody whose turn it is
    assert int(await redis.hget("tm:{acme}:held", ":epoch")) < 0
    at_noon = {"workspace": "acme", "total_tokens": 60, "input_tokens": 60, "output_tokens": 0}
    await made.counters.deliver([batch([record(1, **at_noon)])])
    await redis.hset(await the_day(redis, "globex"), "used", 99)
    turns.append(False)
    await made.watching.look()  # what was counted here
    assert {each[2] for each in told} == {50} and made.watching.ratios["acme"] == 0.6
    turns.append(True)
    await made.watching.look()
    assert {each[2] for each in told} == {50, 80} and made.watching.ratios["globex"] == 0.99


async def the_day(redis, workspace):
    """The key of what a workspace used of its tokens a day."""
    return f"tm:{{{workspace}}}:tally:tokens:day:{NOON_US // 10**6 // 86_400 * 86_400}"


async def test_a_task_budget_begins_with_what_history_knows(desk):
    control, _, _ = desk
    await control.add(record(1, task="query"), record(2, task="other"))
    asked = {"workspace": "acme", "task": "query", "limit": 1000, "unit": "tokens", "period": "day"}
    assert (await control.client.post("/budgets", json=asked)).json()["spent"] == 130


@pytest.mark.parametrize(
    "bad",
    [
        {}, {"workspace": "acme"}, {"workspace": "a b", "limit": 1}, {"workspace": "a", "limit": 0},
        {"workspace": "a", "limit": "NaN"}, {"workspace": "a", "limit": 1.5, "unit": "tokens"},
        {"workspace": "a", "limit": "0.0000000001"}, {"workspace": "a", "limit": 1, "period": "year"},
        {"workspace": "a", "limit": 1, "period": "rolling 1h", "tz": "Europe/Berlin"},
        {"workspace": "a", "limit": 1, "tz": "Mars/Base"}, {"workspace": "**", "limit": 1},
        {"workspace": "a", "limit": 1, "end_user": "a b"}, {"workspace": "a", "limit": 1, "x": 1},
    ],
)  # fmt: skip
async def test_a_budget_that_cannot_be_meant_is_refused(desk, bad):
    control, _, _ = desk
    assert (await control.client.post("/budgets", json=bad)).status_code == 400
    assert (await control.get("/budgets"))["data"] == []


@pytest.mark.parametrize("mode", ["soft", "hard"])
async def test_a_threshold_is_told_once_a_period_over_restarts_and_by_one_of_two_nodes(desk, redis, caplog, mode):
    control, made, told = desk
    asked = {"workspace": "acme", "limit": 100, "unit": "tokens", "period": "day", "mode": mode}
    budget = (await control.client.post("/budgets", json=asked)).json()
    look = made.watching.look
    await look()
    assert told == [] and made.watching.ratios == {"acme": 0.0}
    today = "tm:{acme}:tally:tokens:day:3373228800"
    await redis.hset(today, mapping={"used": 40, "charged": 15})
    await look()
    await redis.hset(today, "used", 130)
    again = watching(made.counters, made.store, control.history, made.watching._tell)  # another node, or a restart
    await asyncio.gather(look(), again.look())
    await again.look()
    assert sorted(told) == sorted((budget["id"], (), percent, spent, "day:2076-11-22")
                                  for percent, spent in ((50, 40), (80, 130), (100, 130)))  # fmt: skip
    assert made.watching.ratios == {"acme": 1.45}
    reached = {place: made.watching.reached.get(place, 0) + again.reached.get(place, 0)
               for place in made.watching.reached | again.reached}  # fmt: skip
    assert reached == {("acme", 50): 1, ("acme", 80): 1, ("acme", 100): 1}
    assert f"budget {budget['id']}: 80 % of what workspace 'acme' may use is used (day:2076-11-22)" in caplog.text


async def test_word_that_could_not_be_sent_is_sent_half_a_minute_later_by_any_node(desk, redis):
    control, made, told = desk
    asked = {"workspace": "acme", "end_user": "*", "limit": 100, "unit": "tokens", "period": "day"}
    await control.client.post("/budgets", json=asked)
    await made.counters.cursors(["j1"])
    step = batch([record(1, end_user="alice")])
    await control.history.deliver([step])
    await made.counters.deliver([step])

    async def dies(_):
        raise HistoryUnavailable("away")

    with pytest.raises(HistoryUnavailable):
        await watching(made.counters, made.store, control.history, dies).look()
    again = watching(made.counters, made.store, control.history, made.watching._tell)
    await again.look()
    assert [percent for _, _, percent, *_ in told] == [80, 100]  # of 50 the other one may be about to tell
    again._now_us = lambda: NOON_US + CLAIM_US
    await again.look()
    await again.look()
    assert [(values, percent) for _, values, percent, *_ in told] == [(("alice",), each) for each in (80, 100, 50)]


async def test_what_the_last_calls_of_a_period_reach_is_told_in_the_next_one(desk, redis):
    control, made, told = desk
    asked = {"workspace": "acme", "limit": 100, "unit": "tokens", "period": "day"}
    await control.client.post("/budgets", json=asked)
    yesterday = 3373228800 - 86_400
    await redis.hset(f"tm:{{acme}}:tally:tokens:day:{yesterday}", "used", 60)
    look = made.watching.look
    await look()
    made.watching._now_us = lambda: (yesterday + 86_400 + 1) * 10**6
    await look()
    assert told == []  # it was made at noon of today
    before = Budget(id="bud_000000000001", workspace="acme", unit="tokens", period="day", limit=100, created_at=1)
    made.store.absorb([before])
    await look()
    await look()
    assert [(percent, name) for *_, percent, _, name in told] == [(50, "day:2076-11-21")]


async def test_a_soft_budget_of_each_workspace_counts_in_all_though_no_call_asks_for_it(desk):
    control, made, told = desk
    await made.counters.cursors(["j1"])
    step = batch([record(1), record(2, workspace="globex")])
    await control.history.deliver([step])
    await made.counters.deliver([step])
    asked = {"workspace": "*", "limit": 200, "unit": "tokens", "period": "day", "mode": "soft"}
    budget = (await control.client.post("/budgets", json=asked)).json()
    found = (await control.get(f"/budgets/{budget['id']}/allowances"))["data"]
    assert sorted((each["workspace"], each["spent"]) for each in found) == [("acme", 130), ("globex", 130)]
    step = batch([record(3), record(4, workspace="globex")], after=2)
    await control.history.deliver([step])
    await made.counters.cursors(["j1"])
    await made.counters.deliver([step])
    await made.watching.look()
    assert sorted(each[1:4] for each in told) == sorted([((), percent, 260) for percent in (50, 80, 100)] * 2)


async def test_of_each_value_a_threshold_is_told_and_of_those_before_a_restart(desk):
    control, made, told = desk
    asked = {"workspace": "acme", "end_user": "*", "limit": 200, "unit": "tokens", "period": "day"}
    await control.client.post("/budgets", json=asked)
    step = batch([record(1, end_user="alice"), record(2, end_user="bob"), record(3, end_user="alice"), record(4)])
    await made.counters.cursors(["j1"])
    await control.history.deliver([step])
    await made.counters.deliver([step])
    again = watching(made.counters, made.store, control.history, made.watching._tell)
    await made.watching.look()
    alice = [(("alice",), percent, 260) for percent in (50, 80, 100)]
    assert sorted(each[1:4] for each in told) == sorted([*alice, (("bob",), 50, 130)])
    assert made.watching.ratios == {"acme": 1.3}
    await again.look()  # it has to look back, and finds that all of it was told
    assert len(told) == 4 and again.ratios == {"acme": 1.3}


async def test_how_what_each_value_may_use_stands_is_listed_the_fullest_first(desk, redis):
    control, made, _ = desk
    asked = {"workspace": "acme", "end_user": "*", "task": "query", "limit": 200, "unit": "tokens", "period": "week"}
    budget = (await control.client.post("/budgets", json=asked)).json()
    assert (await control.get(f"/budgets/{budget['id']}/allowances"))["data"] == []
    names = ["alice", "bob", "alice", None]
    step = batch([record(n, end_user=name, task="query") for n, name in enumerate(names, 1)])
    await made.counters.cursors(["j1"])
    await control.history.deliver([step])
    await made.counters.deliver([step])
    await redis.hset("tm:{acme}:held", f"{budget['id']}/bob", 7)
    found = (await control.get(f"/budgets/{budget['id']}/allowances"))["data"]
    assert [(each["id"], each["task"], each["end_user"], each["spent"], each["held"]) for each in found] == [
        (f"{budget['id']}/alice", "query", "alice", 260, 0), (f"{budget['id']}/bob", "query", "bob", 130, 7),
    ]  # fmt: skip
    assert len((await control.get(f"/budgets/{budget['id']}/allowances", limit=1))["data"]) == 1
    assert (await control.client.get("/budgets/bud_none/allowances")).status_code == 404
    await control.client.post("/budgets", json={"workspace": "*", "limit": 5})
    each = next(each for each in (await control.get("/budgets"))["data"] if each["workspace"] == "*")
    await redis.sadd("tm:asked", "acme")
    [acme] = (await control.get(f"/budgets/{each['id']}/allowances"))["data"]
    assert (acme["workspace"], acme["limit"]) == ("acme", 5) and each["spent"] is None


async def test_what_counted_calls_still_hold_is_swept_and_nothing_else(desk, redis):
    control, made, _ = desk
    await control.client.post("/budgets", json={"workspace": "acme", "limit": 100, "unit": "tokens"})
    (budget,) = made.store.listing()
    long_ago = NOON_US // 10**6 - 3_600
    for name in ("req-1#1", "req-2#1", "req-3#1"):
        await redis.hset("tm:{acme}:reserved", name, f"{budget.id} 10")
        await redis.zadd("tm:{acme}:reserved_at", {name: long_ago})
    await redis.hset("tm:{acme}:held", budget.id, 30)
    await control.add(record(1, ended_at=NOON_US - 10**9), record(2, ended_at=NOON_US - 10**9, attempt=2))
    await made.sweep()
    assert await redis.hkeys("tm:{acme}:reserved") == ["req-2#1", "req-3#1"]
    assert await redis.hget("tm:{acme}:held", budget.id) == "20"


async def test_what_a_redis_that_went_back_holds_of_ended_calls_is_let_go_before_calls_are_decided(desk, redis):
    control, made, _ = desk
    await control.client.post("/budgets", json={"workspace": "acme", "limit": 100, "unit": "tokens"})
    (budget,) = made.store.listing()
    for name in ("req-1#1", "req-3#1"):
        await redis.hset("tm:{acme}:reserved", name, f"{budget.id} 10")
        await redis.zadd("tm:{acme}:reserved_at", {name: NOON_US // 10**6 - 5})
    await control.add(record(1, ended_at=NOON_US - 10**6))
    await made._sweep_ended("acme")
    assert await redis.hkeys("tm:{acme}:reserved") == ["req-3#1"]


async def test_without_redis_budgets_are_listed_without_figures(tmp_path, start):
    made = ring(tmp_path)
    made.create("acme", 5, unit="tokens", period="total", mode="hard")
    lost = RedisServer("redis://127.0.0.1:1/0")
    unasked: Any = None
    control = await start(
        budgets=BudgetService(
            made, Reservations(lost), unasked, rebuild=unasked, counted=unasked, drained=unasked,
            now_us=lambda: NOON_US,
        )
    )  # fmt: skip
    (shown,) = (await control.get("/budgets"))["data"]
    assert (shown["limit"], shown["spent"], shown["held"]) == (5, None, None)


async def test_nodes_share_budgets_and_an_end_wins(tmp_path, valkey_url, redis, closing):
    server = closing(RedisServer(valkey_url))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = ring(tmp_path / "a"), ring(tmp_path / "b")
    made = one.create("acme", 5, unit="usd", period="day", mode="hard")
    await redis.hset("tm:budgets", "bud_bad", "{}")
    for each in (one, other, one):
        await exchange(server, each)
    assert other.listing() == [made]
    other.end(made.id)
    for each in (other, one):
        await exchange(server, each)
    assert one.listing() == [] and one.in_force().workspaces == {}


def test_the_file_is_followed_and_a_broken_one_changes_nothing(tmp_path, caplog):
    one, other = ring(tmp_path), ring(tmp_path)
    made = other.create("acme", 5, unit="usd", period="day", mode="hard")
    assert one.in_force().workspaces == {"acme": (made,)}
    (tmp_path / "budgets.json").write_text("{ broken")
    assert one.in_force().workspaces == {"acme": (made,)} and "budgets.json: cannot be read" in caplog.text
    with pytest.raises(DataDirError):
        one.create("beta", 5, unit="usd", period="day", mode="hard")
    with pytest.raises(NotFound):
        one.end("bud_none")
