"""A workspace's counters split over several slots: the same sums, each record once, whatever becomes of the parts."""

from __future__ import annotations

import random
import runpy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from closing import Closing, closed
from ledger_fake import NOON_US, FakeHistory, batch, folded, traffic
from taximeter.budgets.rule import CAPS
from taximeter.core.errors import TaximeterError
from taximeter.core.record import Record
from taximeter.core.totals import FIELDS, Totals
from taximeter.sinks.redis import keys
from taximeter.sinks.redis.client import ERRORS
from taximeter.sinks.redis.counters import Counters
from taximeter.sinks.redis.rebuild import CountersMoved
from taximeter.sinks.redis.split import split

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "redis_totals.py")
documented = runpy.run_path(EXAMPLE)["used"]
JOURNALS = [f"journal-{n}" for n in range(6)]


class Fleet:
    """A history and nodes on one Redis, all told to split `acme` into `parts`."""

    def __init__(self, url: str) -> None:
        self.url, self.history = url, FakeHistory()
        self.parts = 1
        self.sent = {journal_id: traffic(n, 60, journal_id=journal_id) for n, journal_id in enumerate(JOURNALS)}
        self.at = dict.fromkeys(JOURNALS, 0)

    def node(self, *, tallied: bool = False) -> Counters:
        return Counters(
            self.url,
            history=self.history,
            now_us=lambda: NOON_US,
            split=lambda: {"acme": self.parts} if self.parts > 1 else {},
            tallies=lambda workspace: CAPS if tallied else (),
        )

    async def deliver(self, node: Counters, journal_id: str, count: int = 60) -> None:
        """The next records of a journal, asked for again as delivery does wherever the counters have moved."""
        upto = min(self.at[journal_id] + count, 60)
        records = self.sent[journal_id]
        self.history.take(batch(records[:upto]))
        for _ in range(4):
            try:
                at = (await node.cursors([journal_id]))[journal_id]
                if at < upto:
                    await node.deliver([batch(records[at:upto])])
                break
            except CountersMoved:
                continue
        self.at[journal_id] = max(upto, self.at[journal_id])

    def counted(self) -> list[Record]:
        return [each for journal_id, at in self.at.items() for each in self.sent[journal_id][:at]]


@pytest.fixture
def fleet(valkey_url: str) -> Fleet:
    return Fleet(valkey_url)


async def generation(redis: Redis) -> str:
    return str(await redis.get("tm:{acme}:gen"))


async def used(redis: Redis, workspace: str = "acme", scope: str = "total") -> Totals:
    """What the documented reader finds."""
    found = await documented(redis, workspace, scope)
    return Totals(**{field: found.get(field, 0) for field in FIELDS})


async def assert_exact(redis: Redis, records: list[Record]) -> None:
    mine = [each for each in records if each.workspace == "acme"]
    assert await used(redis) == folded(mine)
    assert await used(redis, scope="day:2076-11-22") == folded(mine)
    for model in {(each.provider, each.model) for each in mine}:
        its = [each for each in mine if (each.provider, each.model) == model]
        assert await used(redis, scope=keys.model(*model)) == folded(its)
    for track in ("upload-1", "upload-2"):
        its = [each for each in mine if each.track == track]
        assert await used(redis, scope=keys.track(track)) == folded(its)
    assert await used(redis, "globex") == folded(each for each in records if each.workspace == "globex")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), splits=st.lists(st.sampled_from([1, 2, 3, 8, 64]), min_size=1, max_size=4))
async def test_whatever_the_split_the_sums_are_the_same_and_each_record_is_in_once(
    valkey_url: str, redis: Redis, seed: int, splits: list[int]
) -> None:
    await redis.flushall()
    dice, fleet = random.Random(seed), Fleet(valkey_url)
    async with closed(fleet.node()) as one, closed(fleet.node()) as two:
        for fleet.parts in splits:
            for node in (one, two):
                for journal_id in dice.sample(JOURNALS, 3):
                    await fleet.deliver(node, journal_id, dice.randint(1, 30))
            await assert_exact(redis, fleet.counted())
            await (dice.choice([one, two]).rebuild("acme") if dice.random() < 0.3 else split(one))
            await assert_exact(redis, fleet.counted())
        for journal_id in JOURNALS:
            await fleet.deliver(dice.choice([one, two]), journal_id)
        await assert_exact(redis, fleet.counted())
        assert (await one.auditor.audit()).rebuilt == []


async def test_parts_are_in_slots_of_their_own_and_hold_what_their_journals_say(
    fleet: Fleet, redis: Redis, closing: Closing
) -> None:
    node = closing(fleet.node())
    await fleet.deliver(node, JOURNALS[0])
    fleet.parts = 8
    assert await redis.keys("tm:{acme|*") == []  # a workspace begins whole
    assert await split(node) == ["acme"]
    assert await split(node) == []
    said = await generation(redis)
    assert said.endswith("/8") and keys.parts_in(said) == 8
    assert [await redis.get(f"{prefix}gen") for prefix in keys.prefixes("acme", 8)] == [said] * 8
    for journal_id in JOURNALS[1:]:
        await fleet.deliver(node, journal_id)
    await assert_exact(redis, fleet.counted())
    for number, prefix in enumerate(keys.prefixes("acme", 8)):
        mine = {journal_id for journal_id in JOURNALS if keys.part_of(journal_id, 8) == number}
        assert set(await redis.hkeys(f"{prefix}cursor")) == mine
        if number:
            its = [each for journal_id in mine - {JOURNALS[0]} for each in fleet.sent[journal_id]]
            mine_used = await redis.hget(f"{prefix}total", "requests")
            assert int(mine_used or 0) == folded(r for r in its if r.workspace == "acme").requests
            assert all([await redis.ttl(key) > 0 for key in await redis.keys(f"{prefix}hour:*")])
    assert len({await redis.execute_command("CLUSTER", "KEYSLOT", p) for p in keys.prefixes("acme", 8)}) == 8


async def test_back_to_one_it_is_whole_again_and_a_late_process_counts_nothing(
    fleet: Fleet, redis: Redis, closing: Closing
) -> None:
    late, node, fleet.parts = closing(fleet.node()), closing(fleet.node()), 4
    for journal_id in JOURNALS:
        await fleet.deliver(node, journal_id, 20)
    await split(node)
    for journal_id in JOURNALS:
        await fleet.deliver(late, journal_id, 20)
    fleet.parts = 1
    assert await split(node) == []  # never by itself: another node may have been told otherwise
    await node.rebuild("acme")
    assert await redis.hget("tm:{acme}:total", "requests") == str((await used(redis)).requests)
    left = await redis.keys("tm:{acme|*")
    assert sorted(left) == [f"tm:{{acme|{n}}}:gen" for n in (1, 2, 3)]
    assert all([0 < await redis.ttl(key) <= keys.CURSOR_LIVES_S for key in left])
    assert len(await redis.hkeys("tm:{acme}:cursor")) == 6
    apart = next(journal_id for journal_id in JOURNALS if keys.part_of(journal_id, 4))
    with pytest.raises(CountersMoved):
        await late.deliver([batch(fleet.sent[apart][40:])])
    assert await redis.keys("tm:{acme|*:total") == []
    for journal_id in JOURNALS:
        await fleet.deliver(late, journal_id)
    await assert_exact(redis, fleet.counted())


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_a_part_that_is_lost_is_noticed_by_who_counts_and_by_who_only_looks(
    fleet: Fleet, redis: Redis, closing: Closing, lost: int
) -> None:
    node, fleet.parts = closing(fleet.node()), 3
    for journal_id in JOURNALS:
        await fleet.deliver(node, journal_id, 20)
    await split(node)
    for journal_id in JOURNALS:
        await fleet.deliver(node, journal_id, 20)
    async with closed(fleet.node()) as another:
        await redis.delete(*await redis.keys(f"{keys.prefix('acme', lost)}*"))
        assert (await another.auditor.audit()).rebuilt == ["acme"]
        await assert_exact(redis, fleet.counted())
        await redis.delete(f"{keys.prefix('acme', lost)}gen")  # its sums are right, and nobody could count there
        assert (await another.auditor.audit()).rebuilt == (["acme"] if lost else [])  # the first: whoever counts does
    await assert_exact(redis, fleet.counted())
    await redis.delete(*await redis.keys(f"{keys.prefix('acme', lost)}*"))
    for journal_id in JOURNALS:
        await fleet.deliver(node, journal_id)
    assert keys.parts_in(await generation(redis)) == 3
    await assert_exact(redis, fleet.counted())


async def test_a_rebuild_that_dies_half_way_is_done_again_and_forgets_no_part(
    fleet: Fleet, redis: Redis, closing: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, fleet.parts = closing(fleet.node()), 5
    for journal_id in JOURNALS:
        await fleet.deliver(node, journal_id, 20)
    await split(node)
    for journal_id in JOURNALS:
        await fleet.deliver(node, journal_id, 20)
    fleet.parts = 2

    async def dies(*_: object, **__: object) -> None:
        raise TaximeterError("away")

    with monkeypatch.context() as patch:
        patch.setattr(fleet.history, "ledger", dies)
        with pytest.raises(TaximeterError, match="away"):
            await node.rebuild("acme")
    assert (await generation(redis)).endswith("/5")
    for journal_id in JOURNALS:
        await fleet.deliver(node, journal_id)
    assert keys.parts_in(await generation(redis)) == 2
    assert await redis.keys("tm:{acme|[2345]}:total") == []
    await assert_exact(redis, fleet.counted())


async def test_what_budgets_are_about_stays_whole(fleet: Fleet, redis: Redis, closing: Closing) -> None:
    plain, node, fleet.parts = closing(fleet.node()), closing(fleet.node(tallied=True)), 4
    await fleet.deliver(plain, JOURNALS[0], 20)
    assert await split(node) == []
    await split(plain)
    await fleet.deliver(plain, JOURNALS[1], 20)
    await node.rebuild("acme")  # what happens once there is a budget
    assert keys.parts_in(await generation(redis)) == 1
    assert await redis.hget("tm:{acme}:total", "requests") == str((await used(redis)).requests)
    assert await split(plain) == []  # a node that has not heard of it yet
    for journal_id in JOURNALS:
        await fleet.deliver(plain, journal_id)
    await assert_exact(redis, fleet.counted())


async def test_nothing_is_asked_where_nothing_is_to_be_split(fleet: Fleet) -> None:
    async with closed(Counters("redis://127.0.0.1:1/0")) as away:
        assert await split(away) == []
    fleet.parts = 2
    async with closed(Counters("redis://127.0.0.1:1/0", split=lambda: {"acme": 2})) as away:
        with pytest.raises(ERRORS):
            await split(away)


def test_a_part_has_a_place_no_workspace_has() -> None:
    assert keys.prefix("acme", 3) == "tm:{acme|3}:"
    assert keys.prefix("acme|3") == "tm:{acme%7C3}:"
    assert keys.whole("tm:{acme|3}:") == keys.whole("tm:{acme}:") == "tm:{acme}:"
    assert [keys.parts_in(said) for said in ("", "f00", "f00/8", "rebuild:f00/8", "f00/x", "f00/999")] == [
        1, 1, 8, 8, 1, 64,
    ]  # fmt: skip


def test_the_example_without_its_arguments_says_which_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [EXAMPLE])
    with pytest.raises(SystemExit, match=r"python examples/redis_totals\.py redis://\S+ acme"):
        runpy.run_path(EXAMPLE, run_name="__main__")


async def test_of_nodes_that_say_different_numbers_the_highest_holds_and_they_come_to_rest(
    fleet: Fleet, redis: Redis, closing: Closing
) -> None:
    def node(parts: int) -> Counters:
        split_ = {"acme": parts}
        return Counters(fleet.url, history=fleet.history, now_us=lambda: NOON_US, split=lambda: split_)

    eight, three = closing(node(8)), closing(node(3))
    for journal_id in JOURNALS:
        await fleet.deliver(eight, journal_id, 20)
    assert keys.parts_in(await generation(redis)) == 8  # an empty Redis is filled as its first node says
    assert (await split(three), await split(eight)) == ([], [])
    await three.rebuild("acme")  # as few as it was told
    assert keys.parts_in(await generation(redis)) == 3
    for journal_id in JOURNALS:
        await fleet.deliver(three, journal_id, 20)
    assert (await split(three), await split(eight)) == ([], ["acme"])
    for journal_id in JOURNALS:
        await fleet.deliver(three, journal_id, 20)
    assert (await split(three), await split(eight)) == ([], [])
    assert (await three.auditor.audit()).rebuilt == []
    assert keys.parts_in(await generation(redis)) == 8
    await assert_exact(redis, fleet.counted())
