"""Feeding one answer to a flavor in a line."""

from __future__ import annotations

import json
from typing import Any

from taximeter.core.usage import Reading
from taximeter.flavors import find
from taximeter.flavors.meter import Answer, Meter


def metered(
    path: str, body: object, *, provider: str = "openai", asked: object = None, cut: int = 0, **answer: Any
) -> Meter:
    """The meter after one whole answer. `body` and `asked` are JSON values, or bytes as they are; `cut`: fed in pieces
    of so many bytes."""
    sent = b"" if asked is None else json.dumps(asked).encode()
    flavor = find(b"POST", path.encode())
    answer = {"status": 200, "content_type": b"application/json", **answer}
    meter = flavor.meter(flavor.prepare(sent, path.encode(), inject=False), Answer(**answer), provider)
    whole = body if isinstance(body, bytes) else json.dumps(body).encode()
    for piece in [whole[at : at + cut] for at in range(0, len(whole), cut)] if cut else [whole]:
        assert meter.feed(piece) is piece
    assert meter.finish() == b""
    return meter


def read(path: str, body: object, **kwargs: Any) -> Reading:
    """The reading of one whole answer."""
    return metered(path, body, **kwargs).reading()


def sse(*events: object) -> bytes:
    """JSON values (or bytes) as Server-Sent Events."""
    return b"".join(
        b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n" for event in events
    )


def known(reading: Reading) -> dict[str, object]:
    """What a reading says of figures: no nulls, no notes."""
    notes = (
        "response_model", "upstream_request_id", "service_tier", "failed", "finished", "usage", "inconsistent",
        "impossible", "bare", "deferred", "plain",
        "priced_in_part",
    )  # fmt: skip
    fields = {name: getattr(reading, name) for name in reading.__struct_fields__ if name not in notes}
    return {name: value for name, value in fields.items() if value is not None}
