"""Every recorded exchange, fed whole, byte by byte and at random cuts, against an oracle that never saw the body.

The table of what is read where is `docs/metering.md`; it is written by this test with TAXIMETER_WRITE_DOCS=1 and
checked without.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recordings import REPOSITORY, Expected, body, corpus, expected, headers
from taximeter.core.usage import Reading
from taximeter.flavors import find
from taximeter.flavors.meter import Answer, Meter

pytestmark = pytest.mark.skipif(not corpus(), reason="no corpus: set TAXIMETER_CORPUS to the directory that holds it")

EXCEPTIONS: dict[str, str] = {}
"""Records whose reading may differ from the oracle, each with the reason; at most ten."""


def meter(record: dict[str, Any]) -> Meter:
    method, path = record["method"].encode(), record["path"].encode()
    flavor = find(method, path)
    prepared = flavor.prepare(record["request_body"].encode(), path, inject=False)
    answer = Answer(
        status=record["status"], content_type=record["response_content_type"].encode(), headers=headers(record)
    )
    return flavor.meter(prepared, answer, record["provider"])


def fed(record: dict[str, Any], pieces: Iterator[bytes] | list[bytes]) -> tuple[Reading, list[str]]:
    """The reading and the text after feeding `pieces`, which must come out as they went in."""
    metering = meter(record)
    for piece in pieces:
        assert metering.feed(piece) is piece
    assert metering.finish() == b""
    progress_tokens = metering.progress_tokens()
    assert progress_tokens is None or progress_tokens >= 0
    return metering.reading(), metering.output().texts


def cuts(whole: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(place for place in set(at) if 0 < place < len(whole)), len(whole)]
    return [whole[start:end] for start, end in pairwise(places)]


def used(reading: Reading) -> Expected:
    return Expected(*(getattr(reading, name) for name in Expected._fields))


def test_every_recording_gives_the_count_the_rules_demand() -> None:
    assert len(EXCEPTIONS) <= 10
    wrong = []
    for record in corpus():
        reading, _ = fed(record, [body(record)])
        if used(reading) != expected(record) and record["id"] not in EXCEPTIONS:
            wrong.append(f"{record['id']} {record['provider']} {record['flavour']}: {expected(record)} {used(reading)}")
    assert not wrong, "\n".join(wrong)


def test_the_short_cut_for_whole_answers_reads_what_the_meter_reads() -> None:
    taken = 0
    for record in corpus():
        flavor = find(record["method"].encode(), record["path"].encode())
        prepared = flavor.prepare(record["request_body"].encode(), record["path"].encode(), inject=False)
        kind = record["response_content_type"].encode()
        answer = Answer(status=record["status"], content_type=kind, headers=headers(record))
        quick = flavor.whole(prepared, answer, record["provider"], body(record))
        if quick is not None:
            reading, _ = fed(record, [body(record)])
            notes = {"bare": False, "plain": False, "embedding_inputs": reading.embedding_inputs}
            assert msgspec.structs.replace(quick, **notes) == reading, record["id"]
            taken += 1
    assert taken > 50


def test_recordings_without_usage_never_become_zero() -> None:
    for record in corpus():
        if any(entry["role"] == "main" for entry in record["reported_usage"]) or record.get("response_usage_headers"):
            continue
        reading, _ = fed(record, [body(record)])
        assert not reading.reported, record["id"]
        assert used(reading) == Expected(), record["id"]


def test_a_reading_does_not_depend_on_how_the_bytes_are_cut() -> None:
    chance = random.Random(20260)
    for record in corpus():
        whole = body(record)
        want = fed(record, [whole])
        ways = [[whole[at : at + 1] for at in range(len(whole))]]
        ways += [
            cuts(whole, [chance.randrange(len(whole) + 1) for _ in range(chance.choice((1, 3, 20)))]) for _ in "ab"
        ]
        for pieces in ways:
            got = fed(record, pieces)
            assert msgspec.json.encode(got[0]) == msgspec.json.encode(want[0]), record["id"]
            assert "".join(got[1]) == "".join(want[1]), record["id"]


def test_successful_inference_without_usage_leaves_text_to_count() -> None:
    for record in corpus():
        if record["flavour"] not in ("openai.chat", "openai.completions") or not record["features"]:
            continue
        if "stream-without-usage" in record["features"] and record["status"] == 200 and len(body(record)) > 1000:
            assert "".join(fed(record, [body(record)])[1]).strip(), record["id"]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_recordings_never_raise_and_never_change_the_bytes(data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(corpus()))
    whole = bytearray(body(record)[:100_000])
    for _ in range(data.draw(st.integers(1, 6))):
        at, end = sorted(data.draw(st.integers(0, len(whole))) for _ in "ab")
        whole[at : min(end, at + 200)] = data.draw(
            st.one_of(st.binary(max_size=8), st.sampled_from(_SPLINTERS), st.just(bytes(whole[at:end][:200])))
        )
    pieces = cuts(bytes(whole), data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    reading, _ = fed(record, pieces)
    for name in Expected._fields:
        value = getattr(reading, name)
        assert value is None or value >= 0


_SPLINTERS = (
    b"null", b"-1", b"1e999", b"18446744073709551616", b"[[[[[[[[", b'{"usage":', b'"usage":{}', b'"usage":"x"',
    b"\n\n",
    b"\r", b"data: ", b"data: [DONE]\n\n", b"event: error\n", b"\xff\xfe", b"\xef\xbb\xbf", b"true", b"0.5", b"{}",
)  # fmt: skip


def test_the_documented_table_is_what_the_recordings_show() -> None:
    page = REPOSITORY / "docs" / "metering.md"
    before, begin, rest = page.read_text(encoding="utf-8").partition("<!-- recordings: begin -->\n")
    shown, end, after = rest.partition("<!-- recordings: end -->")
    table = _table()
    print(table)
    if os.environ.get("TAXIMETER_WRITE_DOCS") == "1":
        page.write_text(before + begin + table + end + after, encoding="utf-8")
        return
    assert shown == table, "docs/metering.md is stale: run this test with TAXIMETER_WRITE_DOCS=1"


_READ = {
    "input_tokens": "input",
    "cached_input_tokens": "cached",
    "cache_write_input_tokens": "cache write",
    "audio_input_tokens": "audio in",
    "image_input_tokens": "image in",
    "output_tokens": "output",
    "reasoning_output_tokens": "reasoning",
    "audio_output_tokens": "audio out",
    "search_units": "search units",
    "web_search_requests": "web searches",
    "seconds": "seconds",
    "images": "images",
    "input_characters": "characters",
    "image_output_tokens": "image out",
    "video_input_tokens": "video in",
    "upstream_cost_nusd": "cost",
}


def _table() -> str:
    rows: dict[tuple[str, str], tuple[set[str], list[int]]] = defaultdict(lambda: (set(), [0, 0, 0]))
    for record in corpus():
        flavor = find(record["method"].encode(), record["path"].encode())
        if flavor.api == "other" and flavor.operation == "other":
            continue
        reading, _ = fed(record, [body(record)])
        read, tested = rows[record["provider"], f"{flavor.api} ({record['flavour']})"]
        read.update(shown for name, shown in _READ.items() if getattr(reading, name) is not None)
        tested[0] += reading.reported
        tested[1] += not reading.reported
        tested[2] += reading.inconsistent
    lines = [
        "| provider | API (dialect) | what is read | with usage | without | inconsistent |",
        "|---|---|---|---|---|---|",
    ]
    for (provider, api), (read, tested) in sorted(rows.items()):
        shown = ", ".join(word for word in _READ.values() if word in read) or "nothing is reported"
        lines.append(f"| {provider} | {api} | {shown} | {tested[0]} | {tested[1]} | {tested[2]} |")
    return "\n".join(lines) + "\n"
