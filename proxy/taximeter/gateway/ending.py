"""How a call ends that does not end as usual, and a client that has gone: by the rows of `ends`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from taximeter.core import errors
from taximeter.core.record import Outcome, outcome_of
from taximeter.gateway.ends import ASKING, ENDS, UPLOADING, By, Shown, Told, Use
from taximeter.gateway.metering.call import Call
from taximeter.gateway.metering.counted import count_and_settle, settle_now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from taximeter.core.record import Open
    from taximeter.gateway.admission.admission import Admission
    from taximeter.gateway.ends import State
    from taximeter.gateway.metering.metering import Metering
    from taximeter.gateway.upstream.response import Response
    from taximeter.gateway.upstream.upstreams import Upstream
    from taximeter.server.exchange import Exchange

USAGE_EVENT_WAIT_S = 2.0
"""A client that leaves after the finish reason: how long the usage event, which follows at once, is awaited."""
ANSWER_WAIT_S = 600.0
"""A client that leaves a unary call (or a drained stream): the provider bills it anyway, so its answer is awaited."""


class UnderWay(Protocol):
    """A call being relayed, as what happens to it now and then sees it (see `relay.Relay`)."""

    admission: Admission
    bound: asyncio.TimerHandle | None
    call: Call
    exchange: Exchange
    metering: Metering
    response: Response | None
    state: State
    streams: bool
    upstream: Upstream

    def sending(self, path: bytes, body: bytes | AsyncIterator[bytes]) -> Awaitable[Response]: ...

    def on_left(self) -> None: ...


def unwatch(relay: UnderWay) -> None:
    """From now on it changes nothing that the client leaves."""
    relay.exchange.on_left = None
    if relay.bound is not None:
        relay.bound.cancel()
        relay.bound = None


def left(relay: UnderWay) -> None:
    """Cancel the upstream of a stream, as it would be without us; await what the provider bills anyway."""
    run, meter = relay.exchange.run, relay.call.meter
    assert run is not None  # noqa: S101
    if relay.exchange.idle:
        relay.call.record.error_code = ENDS[relay.state, By.IDLE].code
    if relay.bound is not None:
        relay.bound.cancel()
    if not relay.streams or relay.upstream.settings.on_client_left == "drain":
        wait_s = ANSWER_WAIT_S
    elif meter is not None and meter.reading().finished:
        wait_s = USAGE_EVENT_WAIT_S
    else:
        run.cancel()
        return
    relay.bound = asyncio.get_running_loop().call_later(wait_s, run.cancel)


async def end(relay: UnderWay, by: By, error: errors.RequestError | None = None) -> None:
    """End the call as its row in `ENDS` says. Raises AnswerCut."""
    unwatch(relay)
    call, exchange, left = relay.call, relay.exchange, relay.exchange.left
    if by is By.LEFT and exchange.idle:
        by = By.IDLE
    row = ENDS[relay.state, by]
    if relay.response is not None:
        relay.response.abort()
    outcome = row.outcome
    if outcome is Told.BY_ERROR:
        outcome = Outcome.CLIENT_LEFT if left else _outcome_of(error)
    elif outcome is Told.BY_STATUS:
        outcome = outcome_of(call.record.status, left=False)
    if isinstance(error, errors.UpstreamError):
        unsent = call.meter is None and not error.sent
    else:
        unsent = by in (By.LEFT, By.IDLE) and relay.state in (ASKING, UPLOADING)
    if unsent and call.held is not None:
        call.held.sent = False  # no whole request left: nothing of it can be billed
    code = row.code if error is None else error.code
    if row.use is Use.COUNTED:
        rest = call.finish()
        if row.shown is Shown.CUT:
            exchange.write(rest)
        await count_and_settle(call, outcome, code)
    else:
        settle_now(call, outcome, code)
    if error is not None and row.shown is Shown.ERROR:
        refuse(exchange, error, call.record.request_id)
    elif error is not None and row.shown is Shown.CUT and not left:
        raise errors.AnswerCut(f"{call.record.request_id}: {error.message}") from error


def refuse(exchange: Exchange, error: errors.RequestError, request_id: str) -> None:
    """Our own error, in OpenAI's shape, where no upstream gave an answer."""
    headers = [*error.headers(), (b"x-taximeter-request-id", request_id.encode())]
    exchange.answer(error.status, headers, error.body())


def record_unsent(metering: Metering, record: Open, started_ns: int, outcome: Outcome, code: str | None) -> None:
    """A record of a request that never left, with what is known of it."""
    try:
        call = Call(metering, record, started_ns)
    except errors.JournalError:
        return  # it was refused for another reason already; nothing was used
    call.settle(outcome, time.perf_counter_ns(), error_code=code)


def _outcome_of(error: errors.RequestError | None) -> Outcome:
    """An error before or in the middle of an answer as an outcome. What was sent may have been billed."""
    if isinstance(error, errors.UpstreamTimeout):
        return Outcome.TIMEOUT
    if isinstance(error, errors.UpstreamUnreachable) and not error.sent:
        return Outcome.UPSTREAM_UNREACHABLE
    return Outcome.UPSTREAM_CUT
