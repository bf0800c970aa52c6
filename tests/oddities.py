"""Close lines that a journal can hold though no gateway of today writes them: of older versions, of other writers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import strategies as st

from ledger import T0, call
from taximeter.core.record import Record

NUMBERS = (
    0, 1, -1, 2**15, 2**31, 10**9, 10**9 + 1, 2**40, 2**53, 10**13, 10**13 + 1, 2**62 - 1, 2**62, 2**63 - 1, 2**63,
    -(2**63), -(2**63) - 1, 2**64, 10**30, -(10**30), 10**400,
)  # fmt: skip
TEXTS = (
    "", "a", "a\0b", "\0", "é", "x" * 129, "x" * 5_000, "😀" * 300, "é" * 100, "😀" * 100, "%s'\"\\\n\u2028", "other",
    "\ud800", "~",
)  # fmt: skip
USAGES = (
    b"null", b"17", b'"text"', b"{}", b'{"a":"\\u0000","prompt_tokens":3}', b'{"a":"\xff\xfe"}',
    b'{"a":"\xed\xa0\x80"}', b"[" * 400 + b"]" * 400, b'{"n":' + b"9" * 4_000 + b"}", b'{"n":1e999}',
    b'{"a":"\\ud800"}', b'{"a":NaN}',
    b'{"completion_tokens_details":{"image_tokens":1e400}}',
)  # fmt: skip

numbers = st.sampled_from(NUMBERS) | st.integers()
oddly = (
    numbers
    | st.sampled_from((0.5, -0.5, 1e15, 1e300, -1e300))
    | st.sampled_from(TEXTS)
    | st.text(max_size=20)
    | st.none()
    | st.booleans()
    | st.sampled_from(([], {}, [1], {"a": "b"}, {"a": 1}, {"k\0": "v\0"}))
)
_NAMES = [name for name in Record.__struct_fields__ if name not in ("event_id", "usage")]
FIGURES = [
    name for name, kind in Record.__annotations__.items() if "Count" in str(kind) or name in ("cost_nusd", "seconds")
]
changes = st.dictionaries(st.sampled_from(_NAMES), oddly, max_size=6) | st.dictionaries(
    st.sampled_from([*FIGURES, "duration_ms", "ended_at", "started_at", "attempt", "total_tokens"]), numbers, max_size=6
)
oddities = st.tuples(changes, st.none() | st.sampled_from(USAGES), st.sets(st.sampled_from(_NAMES), max_size=2))
"""What is odd about a line: values, the usage object, members that are missing."""


def line(seq: int, odd: tuple[dict[str, Any], bytes | None, set[str]], journal_id: str = "j1") -> bytes:
    """A close line without its newline."""
    changed, usage, missing = odd
    plain = call(request_id=f"req-{seq}", ended_at=T0 + seq, workspace="acme" if seq % 2 else "beta", track="t1")
    values = msgspec.json.decode(msgspec.json.encode(plain))
    raw = usage if usage is not None else json.dumps(values["usage"]).encode()
    kept = {name: value for name, value in {**values, **changed}.items() if name not in {"usage", "event_id", *missing}}
    head = json.dumps({"event_id": f"{journal_id}:{seq}", **kept}).encode()
    return b'{"close":' + head[:-1] + b',"usage":' + raw + b"}}"


def lines(journal_id: str = "j1", most: int = 30) -> st.SearchStrategy[list[bytes]]:
    """Odd lines of one journal, seqs from 1 on."""
    return st.lists(oddities, min_size=1, max_size=most).map(
        lambda found: [line(seq, odd, journal_id) for seq, odd in enumerate(found, start=1)]
    )
