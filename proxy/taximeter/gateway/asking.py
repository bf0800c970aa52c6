"""What a call's request needs now and then: a hold of its budgets, an upload as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from taximeter.core import errors
from taximeter.gateway.ending import UnderWay
from taximeter.gateway.ends import UPLOADING, WAITING
from taximeter.gateway.metering import progress
from taximeter.server.exchange import ClientLeft
from taximeter.server.inline import in_task


async def hold(relay: UnderWay) -> None:
    """Hold a part of the call's budgets, which its record lets go, and count it in its rates.

    Raises RequestError where there is not enough.
    """
    call, metering = relay.call, relay.metering
    await in_task()
    tokenizer = relay.upstream.settings.tokenizer
    held = await relay.admission.hold(call.record, call.flavor, call.prepared, tokenizer, relay.exchange.headers)
    call.held = held
    if held is not None and held.budgets:
        if not progress.hold(call) and metering.refuses:
            raise errors.JournalError("what is held of its budgets cannot be written down")
        if metering.durable:
            await metering.journal.durable()
    if relay.exchange.left:
        raise ClientLeft


async def upload(relay: UnderWay, begun: bytes) -> AsyncIterator[bytes]:
    """The request body as the client sends it."""
    call, part, form = relay.call, begun, relay.call.prepared.form
    call.record.request_bytes = 0
    while part or (part := await relay.exchange.part()):
        call.record.request_bytes += len(part)
        if form is not None and part is not begun:  # what has begun was read before
            form.feed(part)
        yield part
        part = b""
    if form is not None and call.record.request_model is None:
        call.record.request_model = form.model  # it came after the file
    if relay.state is UPLOADING:  # else its answer has overtaken it
        relay.state = WAITING
    relay.exchange.on_left = relay.on_left
    if relay.exchange.left:
        relay.on_left()
