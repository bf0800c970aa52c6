"""Answers of scripted providers as steps on the wire: whole bodies, and streams cut where no event ends."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from upstream import LAST_CHUNK, Script, chunk, response

JSON = dict[str, Any]

PIECE_BYTES = 61
"""Streams arrive in pieces of this many bytes, so that no test passes because events and chunks coincide."""


def compact(value: object) -> bytes:
    """JSON as most providers write it: no blanks."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def whole(body: object, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Script:
    """A unary answer; `body` is a JSON value, or bytes as they are."""
    raw = body if isinstance(body, bytes) else compact(body)
    return Script((response(raw, status, [("content-type", "application/json"), *headers]),))


def streamed(
    body: bytes, content_type: str = "text/event-stream", headers: Iterable[tuple[str, str]] = (), *, cut_at: int = 0
) -> Script:
    """A streamed answer. With `cut_at` the connection is reset after that many bytes of the body."""
    fields = [("content-type", content_type), ("transfer-encoding", "chunked"), *headers]
    sent = body[:cut_at] if cut_at else body
    pieces = [chunk(sent[at : at + PIECE_BYTES]) for at in range(0, len(sent), PIECE_BYTES)]
    return Script((response(headers=fields, framing="close"), *pieces, *(() if cut_at else (LAST_CHUNK,))))


def named(*events: JSON, key: str = "type") -> bytes:
    """Server-sent events named by a member of theirs, as Anthropic and Cohere send them."""
    return b"".join(b"event: %s\ndata: %s\n\n" % (event[key].encode(), compact(event)) for event in events)


def data(*events: object, end: bytes = b"\n") -> bytes:
    """Server-sent events without names; bytes go as they are."""
    lines = (event if isinstance(event, bytes) else compact(event) for event in events)
    return b"".join(b"data: " + line + end * 2 for line in lines)


def ndjson(*events: object) -> bytes:
    """One JSON value a line."""
    return b"".join(compact(event) + b"\n" for event in events)
