"""What a call's request needs now and then: a hold of its budgets, an upload as it comes, a second attempt."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from taximeter.core import errors
from taximeter.core.record import BUDGETS, Outcome
from taximeter.gateway.ending import UnderWay, unwatch
from taximeter.gateway.ends import ASKING, UPLOADING, WAITING
from taximeter.gateway.metering import progress
from taximeter.gateway.metering.call import Call
from taximeter.server.exchange import ClientLeft
from taximeter.server.inline import in_task

if TYPE_CHECKING:
    from taximeter.gateway.upstream.response import Response

log = logging.getLogger("taximeter.gateway")

REFUSAL_BODY_BYTES = 64 * 1024
"""Of an answer that may be about `stream_options`, so much is read to find out."""


async def hold(relay: UnderWay) -> None:
    """Hold a part of the call's budgets; its record lets it go. Raises RequestError where there is not enough."""
    call, metering = relay.call, relay.metering
    if call.prepared.demand is not None:
        await in_task()
        tokenizer = relay.upstream.settings.tokenizer
        held = await relay.admission.hold(call.record, call.flavor, call.prepared, tokenizer, relay.exchange.headers)
        if held is not None:
            if not progress.hold(call, held) and metering.refuses:
                raise errors.JournalError("what is held of its budgets cannot be written down")
            if metering.durable:
                await metering.journal.durable()
    if relay.exchange.left:
        raise ClientLeft


async def upload(relay: UnderWay, begun: bytes) -> AsyncIterator[bytes]:
    """The request body as the client sends it."""
    call, part = relay.call, begun
    call.record.request_bytes = 0
    while part or (part := await relay.exchange.part()):
        call.record.request_bytes += len(part)
        yield part
        part = b""
    if relay.state is UPLOADING:  # else its answer has overtaken it
        relay.state = WAITING
    relay.exchange.on_left = relay.on_left
    if relay.exchange.left:
        relay.on_left()


async def again_without_usage(relay: UnderWay, response: Response, path: bytes, body: bytes) -> tuple[Response, bytes]:
    """An upstream that does not know `stream_options` refuses it: send the client's own bytes, and remember.

    Returns the response to pass on and what was read of it already. The refusal was an attempt of its own and gets
    its own record (old Azure api-versions and some local servers answer so).
    """
    refusal = b""
    while len(refusal) < REFUSAL_BODY_BYTES and (part := await response.read()):
        refusal += part
    if b"stream_options" not in refusal and b"include_usage" not in refusal:
        return response, refusal
    first = relay.call
    first.record.response_bytes = len(refusal)
    first.settle(Outcome.UPSTREAM_ERROR, time.perf_counter_ns())
    if BUDGETS in first.record.tags:
        relay.admission.let_go(first.record)
    response.abort()
    relay.upstream.takes_stream_options = False
    log.warning("upstream %s refuses stream_options: its streams are counted here", relay.upstream.name)
    unwatch(relay)
    relay.state = ASKING
    relay.call = _next(first, body)
    if BUDGETS in relay.call.record.tags:
        await hold(relay)
    response = relay.response = await relay.sending(path, relay.call.prepared.body)
    relay.call.record.status = response.status
    return response, b""


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
