"""A stream that was asked for its usage, and an upstream that does not know how: it is asked again without.

Such servers say so in many ways: each with another status (400, 422 where bodies are checked against a schema, 404,
403, 500, 501), with a status of 200 and an error for an answer, or in the first event of a stream. What they have in
common is that they name what they do not know; an error that does not is passed on as it came.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import TYPE_CHECKING

import msgspec

from taximeter.core.errors import UpstreamError
from taximeter.core.holds import LIMITED
from taximeter.core.record import Outcome
from taximeter.flavors.framing.encodings import encoding
from taximeter.gateway.asking import hold
from taximeter.gateway.ending import UnderWay, unwatch
from taximeter.gateway.ends import ASKING
from taximeter.gateway.metering.call import Call
from taximeter.server.inline import in_task

if TYPE_CHECKING:
    from taximeter.gateway.upstream.response import Response

log = logging.getLogger("taximeter.gateway")

REFUSAL_BYTES = 64 * 1024
"""Of an answer that may be such a refusal, so much is read to find out; a longer one is none."""
SAID_WITHIN_S = 0.5
"""An answer with status 200 is looked at for so long: requests are checked before anything is generated."""
OTHER_REASONS = frozenset((401, 402, 407, 408, 409, 413, 423, 425, 429, 502, 503, 504, 529))
"""About the caller, or about now: nothing is asked again for these, whatever they name."""

_between = rb"(?:[\W_]|\\u005f|&#95;){0,8}"
_names_it = re.compile(rb"(?i)stream%b?options|include%b?usage" % (_between, _between)).search
_ends_event = re.compile(rb"\r\n\r\n|\n\n|\r\r").search
_comments = re.compile(rb"(?:(?::[^\r\n]*)?(?:\r\n|\n|\r))*").match
"""What comes before an event and is none."""
_data_lines = re.compile(rb"(?m)^data: ?([^\r\n]*)").findall
_says_error = re.compile(rb"(?mi)^event: ?\w*error").search


async def without_usage(relay: UnderWay, response: Response, path: bytes, body: bytes) -> tuple[Response, bytes]:
    """The answer to pass on, and what was read of it already: this one, or that to the client's own bytes.

    A refusal was an attempt of its own and gets its own record. What an upstream knows is remembered, by API and model.
    """
    begun, refused = await _look(response)
    first, upstream = relay.call, relay.upstream
    api, model = first.record.api, first.record.request_model
    if not refused:
        if refused is False and response.status < 300:
            upstream.usage.learn(api, model, taken=True)
        return response, begun
    first.record.response_bytes = len(begun)
    first.settle(Outcome.UPSTREAM_ERROR, time.perf_counter_ns())
    if not LIMITED.isdisjoint(first.record.tags):
        relay.admission.let_go(first.record)
    response.abort()
    unwatch(relay)
    relay.state = ASKING
    relay.call = _next(first, body)
    if not LIMITED.isdisjoint(relay.call.record.tags):
        await hold(relay)
    response = relay.response = await relay.sending(path, relay.call.prepared.body)
    relay.call.record.status = response.status
    if response.status < 300:  # else it is refused for another reason, by an error that repeats the whole request
        upstream.usage.learn(api, model, taken=False)
        log.warning("upstream %s refuses stream_options: streams of %s are counted here", upstream.name, model)
    return response, b""


async def _look(response: Response) -> tuple[bytes, bool | None]:
    """What of an answer had to be read to find out whether it refuses `stream_options`, and whether it does.

    None: it does not tell, or not yet (a comment comes first, or nothing for a while).
    """
    status, head = response.status, dict(response.headers)
    events = b"event-stream" in head.get(b"content-type", b"").lower()
    if status in OTHER_REASONS or 300 <= status < 400:
        return b"", None
    if status < 300 and not events and b"json" not in head.get(b"content-type", b"json").lower():
        return b"", None
    await in_task()
    read = text = b""
    try:
        async with asyncio.timeout(None if status >= 400 else SAID_WITHIN_S):
            while len(read) < REFUSAL_BYTES and not (events and _ends_event(text)) and (part := await response.read()):
                read += part
                text = _plain(head, read)[:REFUSAL_BYTES]
                if events and (begin := _comments(text)) and begin.end() < len(text):
                    text = text[begin.end() :]
    except (TimeoutError, UpstreamError):  # whoever reads on has the error again
        return read, None
    if not _names_it(text):
        return read, None if events and not _data_lines(text) else False
    return read, status >= 400 or (_event_is_error(text) if events else _is_error(text))


def _event_is_error(text: bytes) -> bool:
    """Whether the first event of a stream is an error."""
    end = _ends_event(text)
    event = text[: end.start()] if end else text
    return _is_error(b"\n".join(_data_lines(event))) or _says_error(event) is not None


def _is_error(text: bytes) -> bool:
    """Whether a JSON body or event is about an error: it gives no choice, and generated text is not taken for one.

    Google's errors are in a list.
    """
    try:
        body = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    first = body[0] if isinstance(body, list) and body else body
    return isinstance(first, dict) and not first.get("choices")


def _plain(head: dict[bytes, bytes], data: bytes) -> bytes:
    """What an encoded body says, as far as it can be read and within bounds."""
    reader = encoding(head.get(b"content-encoding", b"").strip().lower())
    if reader is None:
        return data
    text = b""
    try:
        for piece in reader.unfold(data):
            text += piece
            if len(text) > REFUSAL_BYTES:
                break
    except reader.unreadable:
        pass
    return text


def _next(first: Call, body: bytes) -> Call:
    """The next attempt of the same request, with another body."""
    first.prepared.body, first.prepared.injected = body, False
    return Call(
        first.metering,
        first.record.again(time.time_ns() // 1000),
        time.perf_counter_ns(),
        first.flavor,
        first.prepared,
        text=first.text,
        tokenizer=first.tokenizer,
    )
