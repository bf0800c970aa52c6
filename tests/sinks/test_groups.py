"""Records summed by group: the same sums as one by one, whatever they are."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.sinks.batch import QUARTER_US, Batch, Group, add, grouped
from taximeter.sinks.cells import audio_ms, duration_us, empty, merge
from taximeter.sinks.history import sums
from taximeter.sinks.history.rows import class_key
from taximeter.sinks.history.schema import events
from taximeter.sinks.history.write.statements import NULLABLE, known_of
from taximeter.sinks.redis.cells import Sums

_figures = st.none() | st.integers(0, 2**40)
_FIGURES = [
    field.name for field in msgspec.structs.fields(Record) if field.type == int | None and field.name != "status"
]

alike = st.builds(
    Record,
    kind=st.sampled_from(["usage", "correction"]),
    request_id=st.just("r"),
    attempt=st.integers(1, 2),
    started_at=st.just(0),
    ended_at=st.integers(0, 3 * QUARTER_US),
    duration_ms=st.none() | st.floats(0, 1e6),
    seconds=st.none() | st.floats(0, 1e4),
    video_seconds=st.none() | st.floats(0, 1e4),
    workspace=st.sampled_from(["acme", "other"]),
    track=st.none() | st.just("t"),
    upstream=st.just("u"),
    provider=st.just("p"),
    api=st.just("chat"),
    operation=st.sampled_from(Operation),
    outcome=st.sampled_from(Outcome),
    input_source=st.sampled_from(Source),
    output_source=st.sampled_from(Source),
    **dict.fromkeys(_FIGURES, _figures),
)
"""Any record; what follows makes many of each."""


def summed(records: Iterable[Record]) -> list[int]:
    cell = empty()
    for record in records:
        add(cell, record)
    return cell


@given(alike)
def test_a_record_counts_in_sql_as_it_does_by_itself(record: Record) -> None:
    """Sums straight from records know of each only its class."""
    known = {name: getattr(record, name) for name in sums._SUMS if name not in ("audio_ms", "duration_us")}
    known |= {"audio_ms": audio_ms(record), "duration_us": duration_us(record)}
    cell = sums._cell(record.operation.value, *class_key(record), 1, *(known[name] or 0 for name in sums._SUMS))
    assert cell == summed([record])


ONE = Record(
    request_id="r", started_at=0, ended_at=1, workspace="w", upstream="u", provider="p", api="chat", outcome=Outcome.OK
)


def varied(record: Record, by: int) -> Record:
    """Another that counts alike: other figures, where there are any."""
    changes = {name: value + by for name in _FIGURES if (value := getattr(record, name)) is not None}
    for name in ("duration_ms", "seconds"):
        if (value := getattr(record, name)) is not None:
            changes[name] = value + by / 7
    return msgspec.structs.replace(record, **changes)


@given(st.lists(st.tuples(alike, st.integers(1, 20)), max_size=5))
def test_groups_hold_every_record_once_and_sum_what_the_records_do(kinds: list[tuple[Record, int]]) -> None:
    records = [varied(record, n) for record, times in kinds for n in range(times)]
    groups = grouped(records)
    assert sorted(id(record) for group in groups for record in group.records) == sorted(map(id, records))
    for group in groups:
        assert group.cell == summed(group.records)
        assert {record.ended_at // QUARTER_US * 900 for record in group.records} == {group.quarter_s}
        for record in group.records:
            assert shared(record) == shared(group.record)
    total = empty()
    for group in groups:
        merge(total, group.cell)
    assert total == summed(records)


def shared(record: Record) -> tuple[object, ...]:
    return (
        record.workspace, record.operation, record.outcome, record.input_source, record.output_source, record.attempt,
        record.kind, *(getattr(record, name) is None for name in NULLABLE),
    )  # fmt: skip


def test_calls_of_one_kind_are_one_group() -> None:
    assert len(grouped([varied(ONE, n) for n in range(50)])) == 1


def test_what_a_record_may_not_know_are_the_columns_that_may_be_null() -> None:
    columns = [column.name for column in events.columns if column.nullable]
    assert [{"duration_ms": "duration_us", "seconds": "audio_ms"}.get(name, name) for name in NULLABLE] == columns


@pytest.mark.parametrize("name", NULLABLE)
def test_records_that_know_different_things_are_apart(name: str) -> None:
    groups = grouped([ONE, msgspec.structs.replace(ONE, **{name: 1})])
    assert [known_of(group.record) for group in groups] == [
        (False,) * len(NULLABLE),
        tuple(each == name for each in NULLABLE),
    ]


NAMES = ("kind", "workspace", "task", "key_id", "upstream", "provider", "api", "request_model", "response_model",
         "service_tier", "tokenizer", "price_ref")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [*((name, "x") for name in NAMES), ("attempt", 2), ("operation", Operation.LLM), ("outcome", Outcome.TIMEOUT),
     ("input_source", Source.COUNTED), ("output_source", Source.COUNTED), ("ended_at", QUARTER_US)],
)  # fmt: skip
def test_records_that_are_counted_under_different_names_are_apart(name: str, value: object) -> None:
    assert len(grouped([ONE, msgspec.structs.replace(ONE, **{name: value})])) == 2


def test_a_batch_has_the_groups_of_its_records() -> None:
    records = [msgspec.structs.replace(ONE, workspace=name) for name in ("a", "b", "a")]
    groups: list[Group] = Batch(journal_id="j", after=0, upto=3, records=records).groups
    assert [(group.record.workspace, len(group.records)) for group in groups] == [("a", 2), ("b", 1)]


def test_a_key_that_nothing_was_added_to_is_not_taken_for_one_that_expires():
    """It may not be there: its expiry is set when something is added to it."""
    told = Record(
        kind="correction", request_id="r", attempt=1, started_at=0, ended_at=0, workspace="acme", track="t",
        upstream="u", provider="p", api="batch", outcome=Outcome.OK,
    )  # fmt: skip
    sums = Sums("tm:{acme}:", {})
    sums.add(grouped([told]))
    assert (sums.keys, sums.expiries) == ([], {})
    sums.add(grouped([msgspec.structs.replace(told, kind="usage")]))
    assert sums.expiries.keys() == {
        f"tm:{{acme}}:{name}" for name in ("day:1970-01-01", "hour:1970-01-01T00", "track:t")
    }
