import re
from pathlib import Path
from typing import Any

import msgspec

from ledger import T0, call
from present import present
from taximeter.core.record import Operation
from taximeter.sinks.batch import add
from taximeter.sinks.cells import empty
from taximeter.sinks.webhook.letters import LONGEST_WAIT_S, Part, event_body, segment_body, signature, wait_s


def part(*records):
    cell = empty()
    for record in records:
        add(cell, record)
    return Part(records[0].operation.value, records[0].model, cell)


def test_a_segment_has_the_payload_of_the_requirement_field_by_field():
    first = call(
        response_model="gpt-5-mini-2025-08-07", input_tokens=7_000, cached_input_tokens=5_632,
        output_tokens=7_000, reasoning_output_tokens=6_528,
    )  # fmt: skip
    second = call(response_model="gpt-5-mini-2025-08-07", input_tokens=648, output_tokens=831)
    body = msgspec.json.decode(segment_body("acme", "upload_1234567890_abc123", 1, [part(first, second)]))
    assert body == {
        "track_id": "upload_1234567890_abc123",
        "workspace": "acme",
        "segment": 1,
        "metrics": {
            "prompt_tokens": 7648,
            "completion_tokens": 7831,
            "total_tokens": 15479,
            "cached_tokens": 5632,
            "input_cached_tokens": 5632,
            "input_audio_tokens": 0,
            "output_reasoning_tokens": 6528,
            "output_audio_tokens": 0,
            "output_accepted_prediction_tokens": 0,
            "output_rejected_prediction_tokens": 0,
            "call_count": 2,
            "model": "gpt-5-mini-2025-08-07",
            "input_usage": 7648,
            "input": 2016,
            "output_usage": 7831,
            "output": 1303,
            "total_usage": 15479,
        },
    }


def test_a_track_of_embeddings_alone_has_no_llm_metrics_and_no_model():
    embedded = call(operation=Operation.EMBEDDING, response_model="e", input_tokens=16, output_tokens=None)
    metrics = msgspec.json.decode(segment_body("acme", "t", 3, [part(embedded)]))["metrics"]
    assert metrics["model"] is None
    assert {name: value for name, value in metrics.items() if value} == {}


def test_the_model_named_is_the_one_that_used_most_tokens():
    small, large = call(response_model="a"), call(response_model="b", input_tokens=9_000)
    assert msgspec.json.decode(segment_body("w", "t", 1, [part(small), part(large)]))["metrics"]["model"] == "b"


def test_a_record_becomes_a_cloudevent():
    event = msgspec.json.decode(event_body(call(event_id="j1:7"), "n1"))
    data = event.pop("data")
    assert event == {
        "specversion": "1.0", "id": "j1:7", "source": "urn:taximeter:n1", "type": "taximeter.usage.recorded",
        "subject": "acme", "time": "2025-11-22T08:26:40Z", "datacontenttype": "application/json",
    }  # fmt: skip
    assert (data["event_id"], data["ended_at"], data["input_tokens"], data["cached_input_tokens"]) == (
        "j1:7",
        T0,
        100,
        None,
    )
    assert data["usage"] == {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    corrected = msgspec.json.decode(event_body(call(event_id="j1:8", kind="correction"), "n1"))
    assert corrected["type"] == "taximeter.usage.corrected"


def test_a_signature_is_verified_by_the_documented_code():
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    documented: dict[str, Any] = {}
    exec(present(re.search(r"```python\n(import hashlib.*?)```", page, re.DOTALL))[1], documented)
    verify = documented["verify"]
    header = signature("s3cret", 1_795_348_800, b'{"a":1}')
    assert header.startswith("t=1795348800,v1=")
    assert verify("s3cret", header, b'{"a":1}', 1_795_348_900)
    assert not verify("s3cret", header, b'{"a":2}', 1_795_348_900)
    assert not verify("other", header, b'{"a":1}', 1_795_348_900)
    assert not verify("s3cret", header, b'{"a":1}', 1_795_349_200)  # replayed later


def test_waits_double_up_to_a_bound_and_are_never_shorter_than_asked_for():
    assert [wait_s(n, 1.0) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert wait_s(1, 0.0) == 0.5
    assert wait_s(40, 1.0) == LONGEST_WAIT_S
    assert wait_s(1, 1.0, retry_after_s=30) == 30
    assert wait_s(1, 1.0, retry_after_s=10**9) == LONGEST_WAIT_S
    assert sum(wait_s(n, 0.0) for n in range(1, 20)) > 3_600  # 20 attempts outlive an hour, however the dice fall
