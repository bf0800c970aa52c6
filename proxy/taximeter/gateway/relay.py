"""A call's bytes from its upstream request to the end of its answer; how it can end is `ends`.

send upstream → head → each part: meter, pass on → close line → what ends the answer → (count what nobody reported)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING

from taximeter.core import errors
from taximeter.core.record import BUDGETS, Outcome
from taximeter.flavors.meter import Answer
from taximeter.gateway.ends import (
    ASKING,
    DELIVERED,
    ENDED,
    ENDS,
    HELD,
    PASSING,
    UPLOADING,
    WAITING,
    By,
    Shown,
    Told,
    Use,
)  # fmt: skip
from taximeter.server.exchange import ClientLeft, Exchange
from taximeter.server.inline import in_task

if TYPE_CHECKING:
    from taximeter.gateway.admission.admission import Admission
    from taximeter.gateway.metering.call import Call, Metering
    from taximeter.gateway.upstream.response import Response
    from taximeter.gateway.upstream.upstreams import Upstream

log = logging.getLogger("taximeter.gateway")

USAGE_HEADERS_BYTES = 64 * 1024
"""A unary answer up to this is held until whole where `usage_headers` is on."""
USAGE_EVENT_WAIT_S = 2.0
"""A client that leaves after the finish reason: how long the usage event, which follows at once, is awaited."""
ANSWER_WAIT_S = 600.0
"""A client that leaves a unary call (or a drained stream): the provider bills it anyway, so its answer is awaited."""
REFUSAL_BODY_BYTES = 64 * 1024
"""Of an answer that may be about `stream_options`, so much is read to find out."""
REFUSALS = (400, 422)
"""What servers answer to a member they do not know: 422 where they check bodies against a schema (Mistral, FastAPI)."""

_JSON = (b"application/json", b"application/json; charset=utf-8")
"""Says nothing about how the answer comes."""
_EVENTS = (b"event-stream", b"ndjson", b"jsonl", b"json-seq", b"stream+json", b"eventstream")


class Relay:
    """One call in progress. Whatever happens in `run`, the call is settled once, and its connection given back."""

    __slots__ = (
        "_admission", "_bound", "_call", "_exchange", "_metering", "_pending", "_response", "_state", "_streams",
        "_upstream",
    )  # fmt: skip

    def __init__(
        self, metering: Metering, admission: Admission, exchange: Exchange, call: Call, upstream: Upstream
    ) -> None:
        self._metering = metering
        self._admission = admission
        self._exchange = exchange
        self._call = call
        self._upstream = upstream
        self._state = ASKING
        self._response: Response | None = None
        self._streams = call.prepared.stream
        """It is generated while it is read: as the answer's head says, before it comes as the request asks."""
        self._pending = b""
        """Metered, and not yet with the client."""
        self._bound: asyncio.TimerHandle | None = None
        """When an answer that nobody waits for any more is given up."""

    async def run(self, path: bytes, body: bytes, *, whole: bool) -> None:
        """Send upstream, pass the answer back, settle. Raises AnswerCut where the client must see a cut."""
        try:
            if self._metering.durable:
                await self._metering.journal.durable()
            if BUDGETS in self._call.record.tags:
                await self._hold()
            call, begun = self._call, b""
            if whole:
                if len(body) > self._metering.count_prompt_bytes:
                    call.shorten_prompt()
                response = self._response = await self._sending(path, call.prepared.body)
                call.record.status = response.status
                if response.status in REFUSALS and call.prepared.injected:
                    response, begun = await self._again_without_usage(response, path, body)
            else:
                response = self._response = await self._sending(path, self._upload(body))
                call.record.status = response.status
            await self._pass_on(response, begun)
        except errors.UpstreamError as error:
            await self._end(By.FAILED, error)
        except errors.RequestError as error:
            await self._end(By.REFUSED, error)
        except errors.JournalError as error:
            log.error("%s refused: %s", self._call.record.request_id, error)
            await self._end(By.UNWRITTEN, errors.JournalUnavailable())
        except ClientLeft:
            await self._end(By.LEFT)
        except asyncio.CancelledError:
            run = self._exchange.run
            if run is None or not self._exchange.left:
                await self._end(By.STOPPED)
                raise
            run.uncancel()
            await self._end(By.LEFT)
        finally:
            self._exchange.on_left = None
            if self._bound is not None:
                self._bound.cancel()
            if self._response is not None and not self._response.ended:
                self._response.abort()
            if not self._call.closed:
                self._call.settle_now(Outcome.INTERRUPTED)
            if BUDGETS in self._call.record.tags:
                self._admission.let_go(self._call.record)

    # ── the request ──────────────────────────────────────────────────────────────────────────────────────────

    async def _hold(self) -> None:
        """Hold a part of the call's budgets; its record lets it go. Raises RequestError where there is not enough."""
        call, metering = self._call, self._metering
        demand = call.prepared.demand
        if demand is not None:
            await in_task()
            tokenizer = self._upstream.settings.tokenizer
            held = await self._admission.hold(call.record, call.flavor, demand, tokenizer)
            if held is not None:
                if not call.hold(held) and metering.refuses:
                    raise errors.JournalError("what is held of its budgets cannot be written down")
                if metering.durable:
                    await metering.journal.durable()
        if self._exchange.left:
            raise ClientLeft

    def _sending(self, path: bytes, body: bytes | AsyncIterator[bytes]) -> Awaitable[Response]:
        """From now on, or from the end of its upload, a client that leaves ends the call."""
        call, exchange = self._call, self._exchange
        if isinstance(body, bytes):
            self._state = WAITING
            exchange.on_left = self._on_left
            if exchange.left:
                self._on_left()
        else:
            self._state = UPLOADING
        call.overhead_ns = time.perf_counter_ns() - call.started_ns
        if call.held is not None:
            call.held.sent = True
        return self._upstream.send(exchange.method, path, exchange.headers, body)

    async def _upload(self, begun: bytes) -> AsyncIterator[bytes]:
        """The request body as the client sends it."""
        call, part = self._call, begun
        call.record.request_bytes = 0
        while part or (part := await self._exchange.part()):
            call.record.request_bytes += len(part)
            yield part
            part = b""
        if self._state is UPLOADING:  # else its answer has overtaken it
            self._state = WAITING
        self._exchange.on_left = self._on_left
        if self._exchange.left:
            self._on_left()

    async def _again_without_usage(self, response: Response, path: bytes, body: bytes) -> tuple[Response, bytes]:
        """An upstream that does not know `stream_options` refuses it: send the client's own bytes, and remember.

        Returns the response to pass on and what was read of it already. The refusal was an attempt of its own and gets
        its own record (old Azure api-versions and some local servers answer so).
        """
        refusal = b""
        while len(refusal) < REFUSAL_BODY_BYTES and (part := await response.read()):
            refusal += part
        if b"stream_options" not in refusal and b"include_usage" not in refusal:
            return response, refusal
        first = self._call
        first.record.response_bytes = len(refusal)
        first.settle(Outcome.UPSTREAM_ERROR, time.perf_counter_ns())
        if BUDGETS in first.record.tags:
            self._admission.let_go(first.record)
        response.abort()
        self._upstream.takes_stream_options = False
        log.warning("upstream %s refuses stream_options: its streams are counted here", self._upstream.name)
        self._unwatch()
        self._state = ASKING
        self._call = first.again(body)
        if BUDGETS in self._call.record.tags:
            await self._hold()
        response = self._response = await self._sending(path, body)
        self._call.record.status = response.status
        return response, b""

    # ── the answer ───────────────────────────────────────────────────────────────────────────────────────────

    async def _pass_on(self, response: Response, begun: bytes) -> None:
        """Pass the answer on as it comes (after what was read before); only what ends it waits for the journal line."""
        call, exchange = self._call, self._exchange
        head = dict(response.headers)
        kind = head.get(b"content-type", b"")
        answer = Answer(status=response.status, content_type=kind, headers=response.headers)
        headers = [*response.headers, (b"x-taximeter-request-id", call.record.request_id.encode())]
        if call.prepared.injected:  # the answer will be shorter than the upstream's by the usage event
            headers = [field for field in headers if field[0] != b"content-length"]
        if self._streams or kind not in _JSON:
            self._streams = streams(head, asked=self._streams)
        arrived = begun or response.take()
        whole = bool(arrived) and response.ended  # the usual unary answer: all of it came with its head
        usage_headers = self._metering.usage_headers and not self._streams and _length(head) <= USAGE_HEADERS_BYTES
        reading = None
        if whole or usage_headers:
            self._state = HELD
            reading = call.read_whole(answer, arrived) if whole else None
        else:
            self._state = PASSING
            exchange.start(response.status, headers)
            if exchange.left:
                self._on_left()  # it may be another kind of answer than was asked for
        if reading is not None:
            self._pending = arrived
        else:
            meter = call.begin_answer(answer)
            await self._pump(response, arrived)
            self._pending += meter.finish()
        delivered = self._state is DELIVERED
        if not call.closed:
            call.settle_if_known(reading, left=exchange.left and not delivered)
            if self._metering.durable:
                await self._metering.journal.durable()
        if self._bound is not None:
            self._bound.cancel()
        if self._state is not HELD:
            exchange.end(self._pending)
        else:
            exchange.answer(
                response.status, headers + call.usage_headers() if usage_headers else headers, self._pending
            )
        self._state = ENDED
        if not call.closed:
            await call.count_and_settle(call.outcome(left=exchange.left and not delivered))

    async def _pump(self, response: Response, arrived: bytes) -> None:
        """Have all of the answer passed on, beginning with what has arrived."""
        goes_on = not arrived or self._pass(arrived)
        while not (goes_on and await response.pipe(self._pass)):
            goes_on = True
            if self._metering.durable and self._call.closed:
                await self._metering.journal.durable()
                self._exchange.write(self._pending)
                self._pending = b""
            if self._exchange.paused:
                await self._exchange.drain()

    def _pass(self, chunk: bytes) -> bool:
        """Meter a part and pass it on. False: wait until the client has read, or the journal is on stable storage."""
        call, exchange = self._call, self._exchange
        now_ns = time.perf_counter_ns()
        out = call.feed(chunk, now_ns)
        if self._state is HELD or self._response.ended:  # type: ignore[union-attr]  # it is what feeds this
            self._pending += out
            return True
        if call.meter.terminal and self._state is PASSING:  # type: ignore[union-attr]  # begun before
            if not call.closed:
                call.settle_if_known(None, left=exchange.left)
            if not exchange.left:
                self._state = DELIVERED
            if self._metering.durable:
                self._pending = out
                return False
        elif now_ns > call.tick_at_ns:
            call.tick(now_ns)
        return exchange.write(out)

    # ── ends that are not the usual one ──────────────────────────────────────────────────────────────────────

    def _unwatch(self) -> None:
        self._exchange.on_left = None
        if self._bound is not None:
            self._bound.cancel()
            self._bound = None

    def _on_left(self) -> None:
        """Cancel the upstream of a stream, as it would be without us; await what the provider bills anyway."""
        run, meter = self._exchange.run, self._call.meter
        assert run is not None  # noqa: S101
        if self._bound is not None:
            self._bound.cancel()
        if not self._streams or self._upstream.settings.on_client_left == "drain":
            wait_s = ANSWER_WAIT_S
        elif meter is not None and meter.reading().finished:
            wait_s = USAGE_EVENT_WAIT_S
        else:
            run.cancel()
            return
        self._bound = asyncio.get_running_loop().call_later(wait_s, run.cancel)

    async def _end(self, by: By, error: errors.RequestError | None = None) -> None:
        """End the call as its row in `ENDS` says. Raises AnswerCut."""
        self._unwatch()
        call, exchange, left = self._call, self._exchange, self._exchange.left
        end = ENDS[self._state, by]
        if self._response is not None:
            self._response.abort()
        outcome = end.outcome
        if outcome is Told.BY_ERROR:
            outcome = Outcome.CLIENT_LEFT if left else _outcome_of(error)
        elif outcome is Told.BY_STATUS:
            outcome = call.outcome(left=False)
        if isinstance(error, errors.UpstreamError):
            unsent = call.meter is None and not error.sent
        else:
            unsent = by is By.LEFT and self._state in (ASKING, UPLOADING)
        if unsent:
            call.never_sent()
        code = None if error is None else error.code
        if end.use is Use.COUNTED:
            rest = call.finish()
            if end.shown is Shown.CUT:
                exchange.write(rest)
            await call.count_and_settle(outcome, code)
        else:
            call.settle_now(outcome, code)
        if error is not None and end.shown is Shown.ERROR:
            refuse(exchange, error, call.record.request_id)
        elif error is not None and end.shown is Shown.CUT and not left:
            raise errors.AnswerCut(f"{call.record.request_id}: {error.message}") from error


def streams(head: dict[bytes, bytes], *, asked: bool) -> bool:
    """Whether an answer is generated while it is read: as its own head says; what says nothing is as it was asked for.

    JSON of unknown length is both: an answer sent in chunks, and what Gemini streams as an array. Anything else of
    unknown length (speech, text) is worth no more than what its reader takes of it.
    """
    kind = head.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind.endswith(_EVENTS):
        return True
    if b"content-length" in head:
        return False
    return asked if not kind or kind.endswith((b"/json", b"+json")) else True


def refuse(exchange: Exchange, error: errors.RequestError, request_id: str) -> None:
    """Our own error, in OpenAI's shape, where no upstream gave an answer."""
    headers = [*error.headers(), (b"x-taximeter-request-id", request_id.encode())]
    exchange.answer(error.status, headers, error.body())


def _outcome_of(error: errors.RequestError | None) -> Outcome:
    """An error before or in the middle of an answer as an outcome. What was sent may have been billed."""
    if isinstance(error, errors.UpstreamTimeout):
        return Outcome.TIMEOUT
    if isinstance(error, errors.UpstreamUnreachable) and not error.sent:
        return Outcome.UPSTREAM_UNREACHABLE
    return Outcome.UPSTREAM_CUT


def _length(head: dict[bytes, bytes]) -> int:
    """The content-length, or a number over every bound where there is none."""
    value = head.get(b"content-length")
    return int(value) if value else 1 << 62
