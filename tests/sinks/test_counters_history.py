"""The Redis counters and the real SQL history: either can be checked against, and rebuilt from, the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ledger_fake import NOON_US, batch, folded, traffic
from taximeter.sinks.history.sink import History
from taximeter.sinks.redis.audit import GONE_S
from taximeter.sinks.redis.counters import Counters
from taximeter.sinks.redis.rebuild import CountersMoved
from valkeys import kept_totals


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    sink = History(f"sqlite:///{tmp_path / 'history.db'}")
    yield sink
    await sink.close()


@pytest.fixture
async def counters(redis: Redis, history: History, valkey_url: str) -> AsyncIterator[Counters]:
    sink = Counters(valkey_url, history=history, now_us=lambda: NOON_US)
    yield sink
    await sink.close()


async def hashes(redis: Redis) -> dict[str, dict[str, str]]:
    """Every counter hash, without zeros; and its expiry."""
    found: dict[str, dict[str, str]] = {}
    for key in map(str, await redis.keys("tm:{*")):
        ours = key.endswith(":cursor") or key.startswith("tm:{tm:workspaces}")
        if not ours and await redis.type(key) == "hash":
            values = {str(field): str(value) for field, value in (await redis.hgetall(key)).items() if value != "0"}
            found[key] = values | {"expires": str(await redis.expiretime(key))}
    return found


async def test_rebuilt_from_sql_every_hash_is_as_it_was_counted(
    redis: Redis, history: History, counters: Counters
) -> None:
    first, second = traffic(31, 300, hours=60), traffic(32, 200, journal_id="j2", hours=2)
    for sink in (history, counters):
        await sink.cursors(["j1", "j2"])
        await sink.deliver([batch(first), batch(second)])
    counted = await hashes(redis)
    assert len(counted) > 50
    await redis.flushall()
    assert (await counters.auditor.audit()).rebuilt == ["acme", "globex", "initech"]
    assert await hashes(redis) == counted
    assert (await counters.auditor.audit()).rebuilt == []


async def test_audit_agrees_while_one_is_ahead_of_the_other(redis: Redis, history: History, counters: Counters) -> None:
    records = traffic(33, 400)
    behind: list[int] = []
    for start in range(0, 400, 40):
        part = batch(records[start : start + 40])
        ahead, late = (history, counters) if start % 80 else (counters, history)
        await ahead.deliver([part])
        audit = await counters.auditor.audit()
        behind.append(3 - audit.checked)
        assert (audit.rebuilt, counters.auditor.drift) == ([], 0)
        await late.deliver([part])
        audit = await counters.auditor.audit()
        assert (audit.checked, audit.rebuilt) == (3, [])
    assert set(behind[1::2]) == {0}, "history ahead: can be judged"
    for workspace in ("acme", "globex", "initech"):
        assert await kept_totals(counters, workspace) == folded(r for r in records if r.workspace == workspace)


async def test_drift_is_found_by_sql_and_repaired(redis: Redis, history: History, counters: Counters) -> None:
    records = traffic(34, 100)
    for sink in (history, counters):
        await sink.deliver([batch(records)])
    await redis.hincrby("tm:{globex}:total", "cost_nusd", -1)
    assert (await counters.auditor.audit()).rebuilt == ["globex"]
    assert await kept_totals(counters, "globex") == folded(r for r in records if r.workspace == "globex")
    assert counters.auditor.drift == 1


async def test_what_another_node_wrote_anew_from_a_history_that_was_behind_is_noticed_whatever_is_asked(
    redis: Redis, history: History, counters: Counters, valkey_url: str
) -> None:
    records = traffic(35, 60)
    await counters.deliver([batch(records)])
    other = Counters(valkey_url, history=history, now_us=lambda: NOON_US)
    await other.rebuild("acme")
    await other.close()
    with pytest.raises(CountersMoved):
        await counters.cursors(["another"])
    assert await counters.cursors(["j1", "another"]) == {"j1": 0, "another": 0}
    await counters.deliver([batch(records)])
    for workspace in ("acme", "globex", "initech"):
        assert await kept_totals(counters, workspace) == folded(r for r in records if r.workspace == workspace)


async def test_who_begins_where_history_was_does_so_however_late_it_asks(history: History, tmp_path: Path) -> None:
    """It cannot ask while history is away, and history may be back and have new records before it asks again."""
    assert await history.cursors(["j1"]) == {"j1": 0}
    await history.deliver([batch(traffic(40, 10))])
    assert (await history.begun(["j1", "j2"]), await history.cursors(["j1"])) == ({"j1": 0, "j2": 0}, {"j1": 10})
    started_anew = History(f"sqlite:///{tmp_path / 'history.db'}")
    assert await started_anew.begun(["j1"]) == {"j1": 10}
    await started_anew.close()


async def test_nobody_says_where_it_is_while_another_rebuilds(redis: Redis, counters: Counters) -> None:
    await counters.deliver([batch(traffic(36, 5))])
    await redis.set("tm:{tm:workspaces}:rebuilding", "somebody", px=10_000)
    with pytest.raises(CountersMoved, match="another process is rebuilding"):
        await counters.cursors(["j1"])


async def test_a_journal_that_nobody_has_any_more_is_not_waited_for(
    redis: Redis, history: History, valkey_url: str
) -> None:
    """A power loss took it before history had its records, and Redis had them already."""
    now_us = NOON_US
    counters = Counters(valkey_url, history=history, now_us=lambda: now_us)
    gone, kept = traffic(37, 30), traffic(38, 30, journal_id="j2")
    await history.deliver([batch(kept)])
    await counters.deliver([batch(gone), batch(kept)])
    await redis.hdel("tm:{tm:workspaces}:moved", "j1")  # as if its node had ended when it had just counted
    assert (await counters.auditor.audit()).rebuilt == []
    now_us += GONE_S * 1_000_000 + 1_000_000
    await counters.cursors(["j1"])  # who has it, says so
    now_us += GONE_S * 1_000_000 - 1_000_000
    assert (await counters.auditor.audit()).rebuilt == []
    now_us += 2_000_000
    assert (await counters.auditor.audit()).rebuilt == ["acme", "globex", "initech"]
    for workspace in ("acme", "globex", "initech"):
        assert await kept_totals(counters, workspace) == folded(r for r in kept if r.workspace == workspace)
    await counters.close()
