"""The webhook's books on SQLite and PostgreSQL: exactly once in, every segment under a key of its own out."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import batch, call, calls
from taximeter.core import views
from taximeter.core.record import Operation
from taximeter.core.views import Metrics, ModelSums
from taximeter.sinks.batch import add
from taximeter.sinks.cells import empty, split
from taximeter.sinks.history.database import Database
from taximeter.sinks.webhook.letters import CONTENT_TYPES
from taximeter.sinks.webhook.store import LetterResult, Store

NOW = 1_795_348_800_000_000
SECOND = 1_000_000
FEW = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SUMMED = [name for name in Metrics.__struct_fields__ if name != "model"]


class Clock:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(new_url, clock):
    opened = []

    def begin(url=None, node="n1", events=False):
        database = Database(url or new_url())
        opened.append(database)
        store = Store(database, node, events=events, now_us=clock)
        store.prepare()
        return store

    yield begin
    for database in opened:
        database.dispose()


@pytest.fixture
def store(make):
    return make()


def bodies(store):
    return {letter.key: msgspec.json.decode(letter.body) for letter in store.letters()}


def expected(records):
    """What `metrics` shows of these records, summed in one go."""
    cell, models = empty(), []
    for record in records:
        if record.operation is Operation.LLM and record.kind == "usage":
            one = empty()
            add(one, record)
            add(cell, record)
            models.append(ModelSums("llm", record.model, split(one)[0]))
    shown = views.metrics(*split(cell), views.main_model(models, "llm"))
    return {name: getattr(shown, name) for name in SUMMED}


@FEW
@given(data=st.data())
def test_the_segments_of_a_track_add_up_to_its_usage(make, clock, data):
    store, journal, sent, after = make(), "j1", [], 0
    for _ in range(data.draw(st.integers(1, 6))):
        records = data.draw(st.lists(calls(), max_size=8))
        step = batch(records, journal, after)
        for _ in range(data.draw(st.integers(1, 2))):  # the second time it is known already
            assert store.apply([step]) == {journal: after + len(records)}
        after += len(records)
        sent += records
        clock.now += SECOND
        if data.draw(st.booleans()):
            store.cut("acme", data.draw(st.sampled_from(["t1", "t2"])))
        if data.draw(st.booleans()):
            store.cut_idle(clock.now)
    store.cut_idle(clock.now + 1)
    assert store.cut_idle(clock.now + 1) == 0
    segments = defaultdict(list)
    for letter in store.letters(limit=10_000):
        body = msgspec.json.decode(letter.body)
        assert letter.key == f"n1:{body['workspace']}:{body['track_id']}:{body['segment']}"
        segments[body["workspace"], body["track_id"]].append(body)
    tracks = {(r.workspace, r.track) for r in sent if r.track is not None and r.kind == "usage"}
    assert set(segments) == tracks
    for (workspace, track), found in segments.items():
        assert sorted(body["segment"] for body in found) == list(range(1, len(found) + 1))
        added = {name: sum(body["metrics"][name] for body in found) for name in SUMMED}
        assert added == expected([r for r in sent if (r.workspace, r.track) == (workspace, track)])


def test_a_batch_for_another_cursor_changes_nothing(store):
    assert store.cursors(["j1", "j2"]) == {"j1": 0, "j2": 0}
    assert store.apply([batch([call(track="t")], "j1")]) == {"j1": 1}
    assert store.apply([batch([call(track="t")], "j1", after=4)]) == {"j1": 1}
    assert store.cursors(["j1"]) == {"j1": 1}
    assert store.cut("acme", "t") == 1
    assert bodies(store)["n1:acme:t:1"]["metrics"]["call_count"] == 1


def test_only_tracks_idle_long_enough_are_cut(store, clock):
    store.apply([batch([call(track="old")], "j1")])
    clock.now += 10 * SECOND
    store.apply([batch([call(track="young")], "j1", after=1)])
    standing = store.standing(clock.now, NOW + SECOND)
    assert (standing.idle, standing.due, standing.waiting) == (True, False, 0)
    assert store.cut_idle(NOW + SECOND) == 1
    assert list(bodies(store)) == ["n1:acme:old:1"]
    assert store.standing(clock.now, NOW + SECOND).idle is False
    assert store.standing(clock.now, NOW + SECOND).due is True


def test_calls_without_a_track_and_corrections_make_no_segment(store):
    store.apply([batch([call(), call(track="t", kind="correction")], "j1")])
    assert store.cut("acme", "t") == 0 and store.letters() == []


def test_a_letter_is_claimed_by_one_sender_and_comes_back_when_that_one_died(store, clock):
    store.apply([batch([call(track="t")], "j1")])
    store.cut("acme", "t")
    (letter,) = store.claim(clock.now, 15 * SECOND, 8)
    assert letter.attempts == 1 and store.claim(clock.now, 15 * SECOND, 8) == []
    clock.now += 15 * SECOND
    (again,) = store.claim(clock.now, 15 * SECOND, 8)
    assert (again.key, again.body, again.attempts) == (letter.key, letter.body, 2)
    store.finish([LetterResult(key=letter.key)])
    assert store.letters() == []


def test_a_letter_given_up_stays_until_it_is_resent_under_its_key(store, clock):
    store.apply([batch([call(track="t")], "j1")])
    store.cut("acme", "t")
    (letter,) = store.claim(clock.now, SECOND, 8)
    store.finish([LetterResult(key=letter.key, problem="answered 500", dead=True)])
    clock.now += 10**12
    assert store.claim(clock.now, SECOND, 8) == []
    (dead,) = store.letters(dead=True)
    assert (dead.problem, dead.attempts, store.letters(dead=False)) == ("answered 500", 1, [])
    assert store.resend(["no:such:key:1"]) == 0 and store.resend([dead.key]) == 1
    (again,) = store.claim(clock.now, SECOND, 8)
    assert (again.key, again.body, again.attempts) == (letter.key, letter.body, 1)


def test_every_record_is_an_event_where_events_are_asked_for(make):
    store = make(events=True)
    step = batch([call(), call(track="t", kind="correction")], "j1")
    store.apply([step])
    store.apply([step])
    assert [(letter.key, CONTENT_TYPES[letter.kind]) for letter in store.letters()] == [
        ("j1:1", "application/cloudevents+json"),
        ("j1:2", "application/cloudevents+json"),
    ]


def test_what_a_lost_node_left_behind_is_cut_and_sent_by_another(make, new_url, clock):
    url = new_url()
    lost, other = make(url, "lost"), make(url, "other")
    lost.apply([batch([call(track="t")], "j1")])
    other.apply([batch([call(track="t"), call(track="t")], "j2")])
    assert other.cut("acme", "t") == 2
    found = bodies(other)
    assert {key: body["metrics"]["call_count"] for key, body in found.items()} == {
        "lost:acme:t:1": 1,
        "other:acme:t:1": 2,
    }


def test_two_nodes_never_claim_one_letter_together(make, new_url, clock):
    url = new_url()
    one, two = make(url, "one"), make(url, "two")
    one.apply([batch([call(track=f"t{n}") for n in range(40)], "j1")])
    clock.now += SECOND
    with ThreadPoolExecutor(2) as pool:
        cut = list(pool.map(lambda store: store.cut_idle(clock.now), (one, two)))
        assert sum(cut) == 40
        taken = list(pool.map(lambda store: store.claim(clock.now, SECOND, 40), (one, two)))
    keys = [letter.key for letters in taken for letter in letters]
    rest = [letter.key for letter in one.claim(clock.now, SECOND, 40)]
    assert sorted(keys + rest) == sorted(f"one:acme:t{n}:1" for n in range(40))


def test_tracks_long_idle_are_forgotten_but_nothing_pending(store, clock):
    store.apply([batch([call(track="sent"), call(track="pending")], "j1")])
    store.cut("acme", "sent")
    clock.now += 10 * SECOND
    assert store.prune(clock.now) == 1
    assert store.cut("acme", "pending") == 1
