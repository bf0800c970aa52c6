"""What is hashed of a record is the same wherever it was read; and it stays what it is."""

from hashlib import sha256
from types import NoneType
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evidence_ledger import ONE
from ledger import T0, batch, call, calls
from taximeter.core.bounds import types_of
from taximeter.core.record import Operation, Outcome, Record, Source
from taximeter.evidence.chain import begin, content, follow
from taximeter.journal.format import close_line
from taximeter.journal.tail import decode_record
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.read.evidence import HistoryEvidence
from taximeter.sinks.history.schema import LEVELS, SUMMARY_LEVELS, events, evidence_pieces, journals
from taximeter.sinks.history.write.writer import Writer

NOT_STORED = {"object_state", "files"}
"""Of records that tell of other calls: history has no rows of those."""


def filled() -> Record:
    """A record with something in every field."""
    made: dict[type, Any] = {
        int: 3, float: 2.5, str: "word", bool: True, dict: {"b": "1", "a": "2"}, Operation: Operation.LLM,
        Outcome: Outcome.OK, Source: Source.REPORTED, msgspec.Raw: msgspec.Raw(b'{"a": 1,"b":"\\u00e9"}'),
    }  # fmt: skip
    fields = {}
    for field in msgspec.structs.fields(Record):
        if field.name in NOT_STORED:
            continue
        kinds = [getattr(kind, "__origin__", kind) for kind in types_of(field.type) if kind is not NoneType]
        fields[field.name] = made[kinds[0]]
    return Record(**fields | {"event_id": f"{ONE}:1", "kind": "usage", "started_at": T0, "ended_at": T0 + 1})


def delivered(records: list[Record]) -> list[Record]:
    """The records as they are read from their lines."""
    return [decode_record(close_line(record).rstrip(b"\n")) for record in records]


def of_history(database: Database, records: list[Record]) -> list[bytes]:
    """The contents of these records after they were delivered."""
    sent = batch(records, ONE)
    sent.records = delivered(sent.records)
    sent.__post_init__()
    wanted = [content(record) for record in sent.records]
    Writer(database).apply([sent])
    with HistoryEvidence.of(database) as source:
        assert [found.content for found in source.records(ONE, 0, len(records))] == wanted
        assert [found.problem for found in source.records(ONE, 0, len(records))] == [""] * len(records)
    return wanted


def test_every_field_is_hashed_and_comes_back(url):
    with Database(url) as database:
        (found,) = of_history(database, [filled()])
    told = set(msgspec.json.decode(found))
    assert told == {field.encode_name for field in msgspec.structs.fields(Record)} - NOT_STORED - {"kind"}


def test_odd_names_and_bytes_are_hashed_as_history_has_them(url):
    with Database(url) as database:
        odd = [
            call(request_model="m" * 500, service_tier="", price_ref="é" * 300),
            call(usage=msgspec.Raw(b'{"x": "\xff\xfe", "y":  1}'), response_model="ü"),
            call(usage=msgspec.Raw(b"null"), kind="correction"),
            call(duration_ms=0.0015, seconds=0.1, ttft_ms=1e-7, end_user="é"),
        ]
        of_history(database, odd)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(calls(), min_size=1, max_size=20))
def test_any_record_comes_back_as_it_was_hashed(records, database):
    with database.writing() as connection:
        for table in (journals, events, evidence_pieces, *LEVELS, *SUMMARY_LEVELS):
            connection.execute(table.delete())
    of_history(database, records)


def test_what_is_hashed_stays_what_it_is():
    """Receipts and roots are older than the Taximeter that checks them: fields may be added, none may move."""
    assert content(decode_first()) == (
        b'{"event_id":"' + ONE.encode() + b':1","request_id":"req-1","started_at":1763799999750000,'
        b'"ended_at":1763800000000000,"duration_ms":250.0,"workspace":"acme","upstream":"openai","provider":"openai",'
        b'"api":"chat","operation":"llm","request_model":"gpt-4o-mini","response_model":"gpt-4o-mini","status":200,'
        b'"outcome":"ok","input_source":"reported","output_source":"reported","input_tokens":100,"output_tokens":20,'
        b'"total_tokens":120,"cost_nusd":27000,"price_ref":"test",'
        b'"usage":{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120}}'
    )
    names = [field.name for field in msgspec.structs.fields(Record) if field.name not in NOT_STORED]
    assert names[:9] == [
        "event_id", "kind", "request_id", "attempt", "started_at", "ended_at", "duration_ms", "ttft_ms", "overhead_us",
    ]  # fmt: skip
    assert names[-1] == "usage"


def decode_first() -> Record:
    return delivered([msgspec.structs.replace(call(), event_id=f"{ONE}:1")])[0]


def test_what_is_hashed_begins_with_what_it_is():
    """As docs/evidence.md has it: whoever checks with another program computes just this."""
    first = sha256(b"\x02" + b"journal").digest()
    assert begin("journal") == first
    assert follow(first, b"{}") == sha256(b"\x00" + first + b"{}").digest()
