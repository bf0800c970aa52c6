"""Taking what was set aside: into the books as if it had come in turn, and once, however often it is offered."""

import pytest

from ledger import T0, batch, call
from taximeter.core.totals import FIELDS, add, empty
from taximeter.sinks.batch import Batch
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.failures import HistoryRefused, HistoryUnavailable, SumTooLarge
from taximeter.sinks.history.sink import History
from taximeter.sinks.query import Filters
from taximeter.sinks.sink import Retaker
from taximeter.sinks.unfit import is_unfit
from taximeter.sinks.webhook.store import Store


def three():
    return batch([call(request_id=f"r{n}", track="t1", ended_at=T0 + n, cost_nusd=n) for n in (1, 2, 3)])


def without_the_second(sent):
    return Batch(journal_id="j1", after=0, upto=3, records=[sent.records[0], sent.records[2]], digest=sent.digest)


@pytest.fixture
async def history(new_url):
    made = History(new_url())
    yield made
    await made.close()


@pytest.mark.parametrize("rolled_up", [False, True], ids=["before", "after"])
async def test_history_takes_a_record_it_has_passed_once(history, rolled_up):
    sent = three()
    assert issubclass(History, Retaker)
    await history.deliver([without_the_second(sent)])
    if rolled_up:
        await history.roll_up_tags()
    for _ in range(3):
        await history.retake([sent.records[1]])
    await history.roll_up_tags()
    expected = empty()
    for record in sent.records:
        add(expected, record)
    for group_by in ([], ["track"], ["model"], ["workspace", "track"]):
        (group,) = await history.usage(Filters(), group_by)
        assert [getattr(group.totals, name) for name in FIELDS] == expected
    assert [each.request_id for each in (await history.events(Filters()))[0]] == ["r3", "r2", "r1"]
    assert (await history.standing("acme", {"j1": 3})).total == expected
    assert await history.cursors(["j1"]) == {"j1": 3}


async def test_history_takes_no_record_that_is_still_to_come(history):
    sent = three()
    with pytest.raises(ValueError, match="not passed"):
        await history.retake([sent.records[0]])
    await history.deliver([sent])
    assert (await history.usage(Filters()))[0].totals.requests == 3


@pytest.mark.parametrize("events", [False, True], ids=["segments", "events"])
def test_the_webhook_takes_a_record_it_has_passed_once(new_url, events):
    sent = three()
    with Database(new_url()) as database:
        store = Store(database, "n1", events=events, now_us=lambda: T0)
        store.prepare()
        with pytest.raises(ValueError, match="not passed"):
            store.retake([sent.records[1]])
        store.apply([without_the_second(sent)])
        for _ in range(3):
            store.retake([sent.records[1]])
        store.cut("acme", "t1")
        bodies = [letter.body for letter in store.letters()]
        assert len(bodies) == (3 if events else 1)
        assert events or '"call_count":3' in bodies[0]


async def test_what_a_database_refuses_is_told_from_one_that_is_away(history, new_url, tmp_path, closing):
    """A value that got past every bound: the sink says so, and nothing of the batch is written."""
    sent = three()
    sent.records[1].input_tokens = 2**63
    with pytest.raises(HistoryRefused) as refused:
        await history.deliver([sent])
    assert is_unfit(refused.value)
    assert await history.cursors(["j1"]) == {"j1": 0}
    away = closing(History(f"sqlite:///{tmp_path / 'no' / 'such' / 'directory.db'}"))
    with pytest.raises(HistoryUnavailable) as unavailable:
        await away.deliver([three()])
    assert not is_unfit(unavailable.value)
    assert not isinstance(unavailable.value, SumTooLarge)


async def test_a_text_no_database_holds_is_refused_and_not_an_outage(history):
    sent = three()
    sent.records[1].track = "a\ud800"
    with pytest.raises(Exception) as refused:
        await history.deliver([sent])
    assert is_unfit(refused.value)
    await history.deliver([three()])
    assert (await history.usage(Filters()))[0].totals.requests == 3
