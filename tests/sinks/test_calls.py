"""The access log: an entry a call, with what its record says and nothing of what was sent."""

import logging

from closing import closed
from control_plane import embedding, record
from taximeter.core.record import Outcome
from taximeter.node.logs import FIELDS
from taximeter.sinks.batch import Batch
from taximeter.sinks.calls.sink import NAMES, Calls


async def nothing_before(journal_ids):
    return dict.fromkeys(journal_ids, 0)


async def deliver(sink, *records, after=0):
    for seq, each in enumerate(records, start=after + 1):
        each.event_id = f"j1:{seq}"
    batch = Batch(journal_id="j1", after=after, upto=after + len(records), records=list(records))
    return await sink.deliver([batch])


async def test_a_call_is_an_entry_and_what_is_not_known_is_null(caplog):
    caplog.set_level(logging.INFO)
    refused = record(
        2, outcome=Outcome.REFUSED, status=401, error_code="unauthorized", input_tokens=None, output_tokens=None,
        cost_nusd=None, duration_ms=None, request_model=None, usage=None,
    )  # fmt: skip
    async with closed(Calls(nothing_before)) as sink:
        assert await deliver(sink, record(1, key_id="key_1", track="t"), refused) == {"j1": 2}
    first, second = caplog.records
    assert first.getMessage().startswith(
        "call req-1 ok workspace=acme key=key_1 track=t upstream=openai model=gpt-4o-mini"
    )
    call = getattr(first, FIELDS)["call"]
    assert set(call) == {*NAMES, "started_at", "ended_at", "cost_usd"}
    assert (call["input_tokens"], call["output_tokens"], call["cost_usd"]) == (100, 30, "0.000033")
    assert "input=" not in second.getMessage() and "error=unauthorized" in second.getMessage()
    assert getattr(second, FIELDS)["call"]["input_tokens"] is None


async def test_each_call_is_written_once_and_corrections_are_none(caplog):
    caplog.set_level(logging.INFO)
    async with closed(Calls(nothing_before)) as sink:
        await deliver(sink, embedding(1))
        await deliver(sink, embedding(1))  # offered again: it is past it
        await deliver(sink, record(2, kind="correction"), after=1)
    assert len(caplog.records) == 1
