"""Breakers over a real history: what trips, what does not, on one node and on two that share a Valkey."""

from typing import Any

import pytest

from control_plane import HOUR_US, NOON_US, record
from taximeter.breaker.pace import Paces
from taximeter.breaker.service import BreakerService
from taximeter.breaker.store import TripStore
from taximeter.config.settings import BreakerSettings
from taximeter.control.process.sync import exchange
from taximeter.core.errors import NotFound
from taximeter.sinks.batch import Batch
from taximeter.sinks.redis.client import RedisServer

NOW_US = NOON_US + 10 * HOUR_US
SECOND_US = 1_000_000
CENT = 10_000_000


class Made:
    """A node's breakers, a clock, and what was told."""

    def __init__(self, folder, history, server=None, node="n1", **settings):
        self.now_us = NOW_US
        self.told: list[tuple[str, str]] = []
        told: dict[str, Any] = {"name": "runaway", "scope": "track", "floor": "0.10", "times": 10.0, **settings}
        self.store = TripStore(folder)

        async def share():
            if server is not None:
                await exchange(server, self.store)

        async def tell(trip):
            self.told.append(("armed" if trip.ended_at else "tripped", trip.track or trip.key_id or trip.workspace))

        self.service = BreakerService(
            [BreakerSettings(**told)], self.store, history, server=server, node=node, share=share, tell=tell,
            now_us=lambda: self.now_us,
        )  # fmt: skip
        self.sink = Paces([each.pace for each in self.service.breakers])
        self._seq = 0

    async def use(self, cents, **more):
        """A call that ended just now and cost so much."""
        self._seq += 1
        more = {"track": "run", "ended_at": self.now_us - SECOND_US, **more}
        batch = Batch(
            journal_id="j", after=self._seq - 1, upto=self._seq,
            records=[record(self._seq, cost_nusd=cents if cents is None else cents * CENT, **more)],
        )  # fmt: skip
        assert await self.sink.deliver([batch]) == {"j": self._seq}

    async def look(self):
        await self.service.look()
        return [(trip.track or trip.key_id or trip.workspace) for trip in self.store.open()]


@pytest.fixture
async def history(control):
    """In which track `run` used 60 cents an hour for four hours, and `calm` a tenth of that; a cent a minute."""
    for hour in range(4):
        at = NOON_US + hour * HOUR_US
        await control.add(
            record(1_000 + hour, track="run", cost_nusd=60 * CENT, ended_at=at, key_id="k1", total_tokens=6_000),
            record(2_000 + hour, track="calm", cost_nusd=6 * CENT, ended_at=at + 1, key_id="k2"),
        )
    return control.history


async def test_it_trips_at_so_many_times_the_usual_and_says_so(tmp_path, history):
    node = Made(tmp_path, history)
    await node.use(10)
    assert await node.look() == []
    await node.use(1)  # 11 cents in a minute, a cent is usual
    assert await node.look() == ["run"]
    (trip,) = node.store.open()
    assert (trip.rate, trip.usual, trip.limit) == (11 * CENT, CENT, 10 * CENT)
    assert (trip.created_at, trip.until) == (NOW_US, NOW_US + 600 * SECOND_US)
    assert node.told == [("tripped", "run")] and node.service.tripped == {"runaway": 1}
    assert await node.look() == ["run"] and len(node.told) == 1
    assert node.service.open() == {"runaway": 1}


async def test_what_is_usual_for_one_is_not_for_another(tmp_path, history):
    node = Made(tmp_path, history, scope="key", times=30)
    await node.use(29, key_id="k1")
    await node.use(29, key_id="k2")  # usually a tenth of a cent
    assert await node.look() == ["k2"]


async def test_quiet_places_do_not_trip_on_their_first_call(tmp_path, history):
    node = Made(tmp_path, history, floor="1")
    await node.use(100, track="calm")  # a thousand times the usual, and no more than the floor
    await node.use(1, workspace="other")
    assert await node.look() == []


async def test_a_new_track_is_compared_with_others_of_its_workspace(tmp_path, history):
    node = Made(tmp_path, history)
    await node.use(9, track="new")
    assert await node.look() == []
    await node.use(2, track="new")
    assert await node.look() == ["new"]


async def test_where_nothing_is_usual_yet_only_the_ceiling_stops(tmp_path, control):
    node = Made(tmp_path, control.history, scope="workspace")
    await node.use(10_000)
    assert await node.look() == []
    bounded = Made(tmp_path, control.history, scope="workspace", ceiling="5")
    await bounded.use(500)
    assert await bounded.look() == []
    await bounded.use(1)
    assert await bounded.look() == ["acme"] and bounded.store.open()[0].usual is None


async def test_only_the_window_counts_and_only_what_is_known(tmp_path, history):
    node = Made(tmp_path, history, window_s=60.0)
    await node.use(90, ended_at=NOW_US - 61 * SECOND_US)
    await node.use(None)
    await node.use(90, kind="correction")
    await node.use(90, track=None)
    await node.use(10)
    assert await node.look() == []
    tokens = Made(tmp_path, history, unit="tokens", floor=500, times=10.0)
    await tokens.use(None, total_tokens=1_001)
    assert await tokens.look() == ["run"]  # 6,000 an hour are usual


async def test_it_arms_itself_and_does_not_trip_by_what_was_used_before(tmp_path, history):
    node = Made(tmp_path, history, cooldown_s=5.0)
    await node.use(50)
    assert await node.look() == ["run"]
    node.now_us += 5 * SECOND_US
    assert await node.look() == [] and node.told[-1] == ("armed", "run")
    node.now_us += 60 * SECOND_US
    assert await node.look() == []
    await node.use(50)
    assert await node.look() == ["run"]  # it goes on as before


async def test_it_is_armed_by_hand(tmp_path, history):
    node = Made(tmp_path, history)
    await node.use(50)
    await node.look()
    (ended,) = await node.service.reset([node.store.open()[0].id])
    assert ended.ended_at == NOW_US and await node.look() == []
    assert node.told == [("tripped", "run"), ("armed", "run")]
    await node.service.reset([ended.id])  # a second time changes nothing
    assert len(node.told) == 2
    with pytest.raises(NotFound):
        await node.service.reset(["trip_none"])


async def test_a_trip_survives_a_restart(tmp_path, history):
    node = Made(tmp_path, history)
    await node.use(50)
    await node.look()
    again = Made(tmp_path, history)
    assert await again.look() == ["run"] and again.told == []


async def test_only_workspaces_that_match_are_watched(tmp_path, history):
    node = Made(tmp_path, history, workspace="beta*")
    await node.use(50)
    assert await node.look() == []


async def test_two_nodes_add_what_they_see_and_both_stop(tmp_path, history, valkey_url):
    server = RedisServer(valkey_url)
    await server.command("DEL", "tm:pace", "tm:trips")
    try:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        one = Made(tmp_path / "a", history, server, "one")
        two = Made(tmp_path / "b", history, server, "two")
        await one.use(6)
        await two.use(6)
        assert await one.look() == []  # the other has told nothing yet
        assert await two.look() == ["run"]
        await exchange(server, one.store)
        assert await one.look() == ["run"]
        assert two.told == [("tripped", "run")] and one.told == []
        await one.service.reset([one.store.open()[0].id])
        await exchange(server, two.store)
        assert await two.look() == [] == await one.look()
        one.now_us += 6 * SECOND_US  # what the other told is old by then
        await one.use(5)
        assert await one.look() == []
    finally:
        await server.command("DEL", "tm:pace", "tm:trips", f"tm:pace:{two.store.stored()[0].id}")
        await server.close()


async def test_of_many_nodes_one_whose_turn_it_is_adds_up_and_all_stop(tmp_path, history, valkey_url):
    server = RedisServer(valkey_url)
    await server.command("DEL", "tm:pace", "tm:trips")
    try:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        one = Made(tmp_path / "a", history, server, "one")
        two = Made(tmp_path / "b", history, server, "two")
        one.service._turn = two.service._turn = lambda: False
        await one.use(6)
        await two.use(6)
        assert await one.look() == [] == await two.look()  # each told, neither looked at the other
        one.service._turn = lambda: True
        assert await one.look() == ["run"]
        await exchange(server, two.store)
        assert await two.look() == ["run"]
    finally:
        await server.command("DEL", "tm:pace", "tm:trips", *[f"tm:pace:{each.id}" for each in one.store.stored()])
        await server.close()


async def test_a_history_that_does_not_answer_leaves_the_ceiling(tmp_path):
    from taximeter.sinks.history.database import HistoryUnavailable

    class Gone:
        async def usage(self, *args, **named):
            raise HistoryUnavailable("gone")

    node = Made(tmp_path, Gone(), ceiling="1")
    await node.use(50)
    assert await node.look() == []
    await node.use(51)
    assert await node.look() == ["run"]


async def test_other_settings_change_what_they_are_about_and_forget_nothing_else(history, tmp_path):
    """A reload: a breaker that is as it was goes on measuring, another begins anew."""
    made = Made(tmp_path, history, floor="0.50")
    (before,) = made.service.breakers
    await made.use(20)
    assert await made.look() == [], "under the floor"
    same = BreakerSettings(name="runaway", scope="track", floor="0.50", times=10.0)
    other = BreakerSettings(name="another", scope="workspace", floor="100", times=10.0)
    made.service.use([same, other])
    made.sink.measure([each.pace for each in made.service.breakers])
    assert made.service.breakers[0] is before
    await made.use(40)
    assert await made.look() == ["run"], "what was used before counts"
    made.service.use([])
    assert made.service.breakers == []
    assert await made.look() == ["run"], "what is stopped stays so until it has cooled down"
