import pytest

from control_plane import record
from present import present
from taximeter.control.services.live import WAITING_RECORDS, Live, matches
from taximeter.sinks.batch import Batch
from taximeter.sinks.query import Filters


def batch(journal, after, *records):
    return Batch(journal_id=journal, after=after, upto=after + len(records), records=list(records))


async def test_a_batch_cut_for_another_cursor_is_not_shown_twice():
    live = Live()
    with live.watch(Filters()) as watch:
        assert await live.deliver([batch("j", 0, record(1))]) == {"j": 1}
        assert await live.deliver([batch("j", 0, record(1))]) == {"j": 1}
        assert await live.deliver([batch("j", 1, record(2))]) == {"j": 2}
        seen = [present(await watch.next(1)).request_id for _ in range(2)]
        assert seen == ["req-1", "req-2"]
        with pytest.raises(TimeoutError):
            await watch.next(0.01)


async def test_it_begins_where_history_was():
    async def history(ids):
        return dict.fromkeys(ids, 7)

    live = Live(history)
    assert await live.cursors(["a", "b"]) == {"a": 7, "b": 7}
    assert await live.deliver([batch("a", 0, record(1))]) == {"a": 7}


async def test_a_slow_watcher_misses_records_and_knows_how_many():
    live = Live()
    with live.watch(Filters()) as watch:
        await live.deliver([batch("j", 0, *(record(n) for n in range(WAITING_RECORDS + 5)))])
        assert watch.missed == 5
        await live.close()
        seen = 0
        while await watch.next(1) is not None:
            seen += 1
        assert seen == WAITING_RECORDS - 1 and watch.missed == 6


@pytest.mark.parametrize(
    ("filters", "matched"),
    [({}, True), ({"workspace": "acme"}, True), ({"workspace": ["beta", "acme"]}, True), ({"workspace": "beta"}, False),
     ({"task": ""}, True), ({"task": "x"}, False), ({"model": "served"}, True), ({"model": "gpt-4o-mini"}, False),
     ({"operation": "llm"}, True), ({"outcome": "ok"}, True), ({"outcome": "timeout"}, False), ({"track": "t"}, True)],
)  # fmt: skip
def test_filters_match_as_history_does(filters, matched):
    assert matches(record(1, response_model="served", track="t"), Filters(**filters)) is matched
