"""A call from its upstream request to its settled record: `Relay.run`, and each way it can end.

send upstream → head → each chunk: meter, pass on → close line → last bytes → (count what nobody reported)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING

from taximeter.core import errors
from taximeter.core.record import BUDGETS, Open, Outcome
from taximeter.flavors.meter import Answer, Flavor, Prepared
from taximeter.gateway.http.exchange import ClientLeft, Exchange
from taximeter.gateway.inline import in_task
from taximeter.gateway.metering.call import Call
from taximeter.gateway.metering.metered import Metered
from taximeter.gateway.streaming import Stream

if TYPE_CHECKING:
    from taximeter.gateway.gate import Gateway
    from taximeter.gateway.upstream.upstreams import Response, Upstream

log = logging.getLogger("taximeter.gateway")

Headers = list[tuple[bytes, bytes]]

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


class Relay(Metered):
    """One call in progress. Whatever happens in `run`, the call is settled once, and its connection given back."""

    __slots__ = ("_bound", "_exchange", "_response")

    def __init__(
        self, gate: Gateway, exchange: Exchange, call: Call, flavor: Flavor, prepared: Prepared, upstream: Upstream
    ) -> None:
        super().__init__(gate, call, flavor, prepared, upstream)
        self._exchange = exchange
        self._response: Response | None = None
        self._bound: asyncio.TimerHandle | None = None

    async def run(self, path: bytes, body: bytes, whole: bool) -> None:
        """Send upstream, pass the answer back, settle. Raises AnswerCut where the client must see a cut."""
        exchange = self._exchange
        try:
            if self._gate.durable:
                await self._gate.journal.durable()
            if BUDGETS in self._call.opening.tags:
                await self._hold()
                if exchange.left:
                    raise ClientLeft
            begun = b""
            if whole:
                self._watch()
                self._keep_prompt(self._prepared.reading or body)
                response = self._response = await self._sending(path, self._prepared.body)
                self._call.status = response.status
                if response.status in REFUSALS and self._prepared.injected:
                    response, begun = await self._again_without_usage(response, path, body)
            else:
                response = self._response = await self._sending(path, self._upload(body))
                self._call.status = response.status
            await self._pass_on(response, begun)
        except errors.UpstreamError as error:
            await self._upstream_failed(error)
        except errors.RequestError as error:  # cannot be sent as it is
            self._refuse(error)
        except errors.JournalError as error:
            log.error("%s refused: %s", self._call.opening.request_id, error)
            if self._response is not None:  # it was sent and is billed: only its answer is refused
                self._settle_now(Outcome.INTERRUPTED)
            self._refuse(errors.JournalUnavailable())
        except asyncio.CancelledError:
            run = exchange.run
            if run is None or not self._has_left():
                self._settle_now(Outcome.INTERRUPTED)  # the server is stopping: nothing more can be awaited
                raise
            run.uncancel()
            await self._client_has_left()
        except ClientLeft:  # in the middle of its upload, or while its budget was asked
            self._never_sent()
            self._settle_now(Outcome.CLIENT_LEFT)
        finally:
            if exchange.on_left is not None or self._bound is not None:
                self._unwatch()
            if self._response is not None and not self._response.at_end():
                self._response.abort()
            if not self._call.closed:
                self._settle_now(Outcome.INTERRUPTED)
            if BUDGETS in self._call.opening.tags:
                self._gate.admission.let_go(self._call.opening)

    # ── the request ──────────────────────────────────────────────────────────────────────────────────────────

    def _sending(self, path: bytes, body: bytes | AsyncIterator[bytes]) -> Awaitable[Response]:
        call, exchange = self._call, self._exchange
        call.overhead_ns = time.perf_counter_ns() - call.started_ns
        if call.held is not None:
            call.held.sent = True
        return self._upstream.send(exchange.method, path, exchange.headers, body)

    async def _upload(self, begun: bytes) -> AsyncIterator[bytes]:
        """The request body as the client sends it; the watch begins when it is through."""
        call, part = self._call, begun
        call.request_bytes = 0
        while part or (part := await self._exchange.part()):
            call.request_bytes += len(part)
            yield part
            part = b""
        self._watch()

    async def _again_without_usage(self, response: Response, path: bytes, body: bytes) -> tuple[Response, bytes]:
        """An upstream that does not know `stream_options` refuses it: send the client's own bytes, and remember.

        Answers the response to pass on and what was read of it already. The refusal was an attempt of its own and gets
        its own record (old Azure api-versions and some local servers answer so).
        """
        refusal = b""
        while len(refusal) < REFUSAL_BODY_BYTES:
            part = await response.read()
            if not part:
                break
            refusal += part
        if b"stream_options" not in refusal and b"include_usage" not in refusal:
            return response, refusal
        first, gate, prepared = self._call, self._gate, self._prepared
        first.response_bytes = len(refusal)
        first.settle(Outcome.UPSTREAM_ERROR, time.perf_counter_ns())
        if BUDGETS in first.opening.tags:
            gate.admission.let_go(first.opening)
        response.abort()
        gate.no_stream_usage.add(self._upstream.name)
        log.warning("upstream %s refuses stream_options: its streams are counted here", self._upstream.name)
        prepared.body, prepared.injected = body, False
        opening = Open(**{name: getattr(first.opening, name) for name in Open.__struct_fields__})
        opening.attempt, opening.started_at = first.opening.attempt + 1, gate.now_us()
        self._call = Call(gate.journal, gate.prices, opening, time.perf_counter_ns())
        if BUDGETS in opening.tags:
            await self._hold()
        response = self._response = await self._sending(path, body)
        self._call.status = response.status
        return response, b""

    # ── the answer ───────────────────────────────────────────────────────────────────────────────────────────

    async def _pass_on(self, response: Response, begun: bytes) -> None:
        """Pass the answer on as it comes (after what was read before); only what ends it waits for the journal line."""
        call, prepared, exchange = self._call, self._prepared, self._exchange
        head = dict(response.headers)
        kind = head.get(b"content-type", b"")
        answer = Answer(status=response.status, content_type=kind, headers=response.headers)
        headers = [*response.headers, (b"x-taximeter-request-id", call.opening.request_id.encode())]
        if prepared.injected:  # the answer will be shorter than the upstream's by the usage event
            headers = [field for field in headers if field[0] != b"content-length"]
        streamed = prepared.stream or b"event-stream" in kind or b"ndjson" in kind
        arrived = begun or (b"" if streamed else response.take())
        whole = bool(arrived) and response.at_end()  # the usual unary answer: all of it came with its head
        held = not streamed and self._gate.settings.usage_headers and _length(head) <= USAGE_HEADERS_BYTES
        if not (whole or held):
            exchange.start(response.status, headers)
        reading = None
        if whole:
            call.read(len(arrived), time.perf_counter_ns())
            reading, pending = self._read_whole(answer, arrived), arrived
        if reading is None:
            self._meter = meter = self._flavor.meter(prepared, answer, self._upstream.provider)
            if whole:
                pending = self._feed(meter, arrived)
            elif streamed and not (begun or self._gate.durable):
                pending = await Stream(response, meter, call, exchange, self._feed, self._settle_if_known).run()
            else:
                pending = await self._pull(response, arrived, streamed=streamed, held=held)
            pending += meter.finish()
        if not call.closed:
            self._settle_if_known(reading)
            if self._gate.durable:
                await self._gate.journal.durable()
        self._unwatch()
        if held:
            headers += call.usage_headers()
        if whole or held:
            exchange.answer(response.status, headers, pending)
        else:
            exchange.end(pending)
        if not call.closed:
            await self._count_and_settle(self._outcome(left=exchange.left))

    async def _pull(self, response: Response, begun: bytes, *, streamed: bool, held: bool) -> bytes:
        """Read until the end; of a unary answer one read is always kept back. Answers what is not yet passed on."""
        call, meter, exchange = self._call, self._meter, self._exchange
        assert meter is not None  # noqa: S101
        pending = b""
        while chunk := begun or await response.read():
            begun = b""
            now_ns = time.perf_counter_ns()
            call.read(len(chunk), now_ns)
            out = self._feed(meter, chunk)
            if response.at_end():
                return pending + out if pending else out
            if held:
                pending += out
                continue
            if streamed:
                if meter.terminal and not call.closed:
                    self._settle_if_known()
                    if self._gate.durable:
                        await self._gate.journal.durable()
                elif now_ns > call.tick_at_ns:
                    call.tick(now_ns, meter.progress_tokens())
            else:
                pending, out = out, pending
            exchange.write(out)
            if exchange.paused:
                await exchange.drain()
        return pending

    # ── ends that are not the usual one ──────────────────────────────────────────────────────────────────────

    def _watch(self) -> None:
        """The request is through: from now on a client that leaves ends the call."""
        self._exchange.on_left = self._on_left
        if self._exchange.left:
            self._on_left()

    def _unwatch(self) -> None:
        self._exchange.on_left = None
        if self._bound is not None:
            self._bound.cancel()

    def _has_left(self) -> bool:
        return self._exchange.left

    def _on_left(self) -> None:
        """Cancel the upstream of a stream, as it would be without us; await what the provider bills anyway."""
        run = self._exchange.run
        assert run is not None  # noqa: S101
        if not self._prepared.stream or self._upstream.settings.on_client_left == "drain":
            wait_s = ANSWER_WAIT_S
        elif self._meter is not None and self._meter.reading().finished:
            wait_s = USAGE_EVENT_WAIT_S
        else:
            run.cancel()
            return
        self._bound = asyncio.get_running_loop().call_later(wait_s, run.cancel)

    async def _hold(self) -> None:
        """Hold a part of the call's budgets; its record lets it go. Raises RequestError where there is not enough."""
        demand = self._prepared.demand
        if demand is None:
            return
        await in_task()
        tokenizer = self._upstream.settings.tokenizer
        held = await self._gate.admission.hold(self._call.opening, self._flavor, demand, tokenizer)
        if held is None:
            return
        if not self._call.hold(held, time.perf_counter_ns()) and self._gate.settings.journal.on_error == "refuse":
            raise errors.JournalError("what is held of its budgets cannot be written down")
        if self._gate.durable:
            await self._gate.journal.durable()

    def _never_sent(self) -> None:
        """No whole request left: nothing of it can be billed."""
        if self._call.held is not None:
            self._call.held.sent = False

    def _refuse(self, error: errors.RequestError) -> None:
        """Nothing, or no whole request, was sent."""
        self._unwatch()
        self._call.settle(Outcome.REFUSED, time.perf_counter_ns(), prepared=self._prepared, error_code=error.code)
        refuse(self._exchange, error, self._call.opening.request_id)

    async def _client_has_left(self) -> None:
        """The upstream was cancelled: what was received is counted; where nothing had come, nothing is known."""
        self._unwatch()
        if self._response is not None:
            self._response.abort()
        if self._meter is None:
            self._settle_now(Outcome.CLIENT_LEFT)
        else:
            self._meter.finish()
            await self._count_and_settle(Outcome.CLIENT_LEFT)

    async def _upstream_failed(self, error: errors.UpstreamError) -> None:
        """No answer, or one that ended early: what came is passed on and counted, and the client sees the cut."""
        self._unwatch()
        left = self._has_left()
        outcome = Outcome.CLIENT_LEFT if left else _outcome_of(error)
        meter = self._meter
        if meter is None:
            if not error.sent:
                self._never_sent()
            self._call.settle(outcome, time.perf_counter_ns(), prepared=self._prepared, error_code=error.code)
            refuse(self._exchange, error, self._call.opening.request_id)
            return
        started = self._exchange.response_started
        rest = meter.finish()
        if started:
            self._exchange.write(rest)
        await self._count_and_settle(outcome, error.code)
        if not started:  # held back for its `usage_headers`
            refuse(self._exchange, error, self._call.opening.request_id)
        elif not left:
            raise errors.AnswerCut(f"{self._call.opening.request_id}: {error.message}") from error


def refuse(exchange: Exchange, error: errors.RequestError, request_id: str) -> None:
    """Our own error, in OpenAI's shape, where no upstream gave an answer."""
    headers = [*error.headers(), (b"x-taximeter-request-id", request_id.encode())]
    exchange.answer(error.status, headers, error.body())


def _outcome_of(error: errors.UpstreamError) -> Outcome:
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
