"""A call from its upstream request to its settled record: `Relay.run`, and each way it can end.

send upstream → head → each chunk: meter, pass on → close line → last bytes → (count what nobody reported)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any

from taximeter.core import errors
from taximeter.core.record import Open, Operation, Outcome, Source
from taximeter.core.usage import NOTHING
from taximeter.flavors.meter import Answer, Flavor, Meter, Prepared
from taximeter.gateway.call import Call
from taximeter.gateway.client import ClientLeft, Receive, Send, Watch, stream_body
from taximeter.gateway.counting import Prompt
from taximeter.gateway.streaming import Stream

if TYPE_CHECKING:
    from taximeter.gateway.asgi import Gateway
    from taximeter.gateway.upstream import Response, Upstream

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


class Relay:
    """One call in progress. Whatever happens in `run`, the call is settled once, and its connection given back."""

    __slots__ = (
        "_bound",
        "_call",
        "_flavor",
        "_gate",
        "_meter",
        "_prepared",
        "_prompt",
        "_receive",
        "_response",
        "_send",
        "_task",
        "_upstream",
        "_watch",
    )

    def __init__(
        self,
        gate: Gateway,
        call: Call,
        flavor: Flavor,
        prepared: Prepared,
        upstream: Upstream,
        receive: Receive,
        send: Send,
    ) -> None:
        self._gate = gate
        self._call = call
        self._flavor = flavor
        self._prepared = prepared
        self._upstream = upstream
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()
        self._prompt: Prompt | None = None
        self._response: Response | None = None
        self._meter: Meter | None = None
        self._watch: Watch | None = None
        self._bound: asyncio.TimerHandle | None = None

    async def run(self, method: bytes, path: bytes, headers: Headers, body: bytes, whole: bool) -> None:
        """Send upstream, pass the answer back, settle. Raises AnswerCut where the client must see a cut."""
        try:
            if self._gate.durable:
                await self._gate.journal.durable()
            if whole:
                self._start_watch()
                self._keep_prompt(body)
                response, begun = self._took(await self._sending(method, path, headers, self._prepared.body)), b""
                if response.status in REFUSALS and self._prepared.injected:
                    response, begun = await self._again_without_usage(response, method, path, headers, body)
            else:
                response, begun = self._took(await self._sending(method, path, headers, self._upload(body))), b""
            await self._pass_on(response, begun)
        except errors.UpstreamError as error:
            await self._upstream_failed(error)
        except errors.RequestError as error:  # cannot be sent as it is
            await self._refuse(error)
        except errors.JournalError as error:
            log.error("%s refused: %s", self._call.opening.request_id, error)
            await self._refuse(errors.JournalUnavailable())
        except asyncio.CancelledError:
            if self._task is None or self._watch is None or not self._watch.left:
                self._settle_now(Outcome.INTERRUPTED)  # the server is stopping: nothing more can be awaited
                raise
            self._task.uncancel()
            await self._client_has_left()
        except ClientLeft:  # in the middle of its upload
            self._settle_now(Outcome.CLIENT_LEFT)
        finally:
            self._stop_watch()
            if self._response is not None:
                self._response.abort()
            self._settle_now(Outcome.INTERRUPTED)

    # ── the request ──────────────────────────────────────────────────────────────────────────────────────────

    def _sending(
        self, method: bytes, path: bytes, headers: Headers, body: bytes | AsyncIterator[bytes]
    ) -> Awaitable[Response]:
        call = self._call
        call.overhead_ns = time.perf_counter_ns() - call.started_ns
        return self._upstream.send(method, path, headers, body)

    def _took(self, response: Response) -> Response:
        self._response = response
        self._call.status = response.status
        return response

    def _upload(self, begun: bytes) -> AsyncIterator[bytes]:
        """The request body as the client sends it; the watch begins when it is through."""
        call = self._call
        call.request_bytes = 0

        def passed(size_bytes: int) -> None:
            call.request_bytes += size_bytes

        async def parts() -> AsyncIterator[bytes]:
            async for part in stream_body(self._receive, begun, passed):
                yield part
            self._start_watch()

        return parts()

    def _keep_prompt(self, body: bytes) -> None:
        """Keep the text that may have to be counted; a long one is counted at once, in the pool, and dropped."""
        flavor, prepared, upstream, gate = self._flavor, self._prepared, self._upstream, self._gate
        if flavor.operation is Operation.OTHER:
            return
        self._prompt = Prompt(flavor, body, prepared.model, upstream.provider, upstream.settings.tokenizer)
        if len(body) > gate.settings.limits.count_prompt_bytes:
            needed = prepared.stream or (upstream.name, flavor.api) in gate.silent
            self._prompt.shorten(gate.tokenizers if needed else None)

    async def _again_without_usage(
        self, response: Response, method: bytes, path: bytes, headers: Headers, body: bytes
    ) -> tuple[Response, bytes]:
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
        response.abort()
        gate.no_stream_usage.add(self._upstream.name)
        log.warning("upstream %s refuses stream_options: its streams are counted here", self._upstream.name)
        prepared.body, prepared.injected = body, False
        opening = Open(**{name: getattr(first.opening, name) for name in Open.__struct_fields__})
        opening.attempt, opening.started_at = first.opening.attempt + 1, gate.now_us()
        self._call = Call(gate.journal, gate.prices, opening, time.perf_counter_ns())
        return self._took(await self._sending(method, path, headers, body)), b""

    # ── the answer ───────────────────────────────────────────────────────────────────────────────────────────

    async def _pass_on(self, response: Response, begun: bytes) -> None:
        """Pass the answer on as it comes (after what was read before); only what ends it waits for the journal line."""
        call, prepared, send = self._call, self._prepared, self._send
        kind = header(response.headers, b"content-type")
        answer = Answer(status=response.status, content_type=kind, headers=response.headers)
        self._meter = meter = self._flavor.meter(prepared, answer, self._upstream.provider)
        streamed = prepared.stream or b"event-stream" in kind or b"ndjson" in kind
        start = self._start(response)
        held = not streamed and self._gate.settings.usage_headers and _length(response) <= USAGE_HEADERS_BYTES
        if not held:
            await send(start)
        arrived = begun or (b"" if streamed else response.take())
        if arrived and response.at_end():  # the usual unary answer: all of it came with its head
            call.read(len(arrived), time.perf_counter_ns())
            pending = self._feed(meter, arrived)
        elif streamed and not (begun or self._gate.durable):
            pending = await Stream(response, meter, call, send, self._feed, self._settle_if_known).run()
        else:
            pending = await self._pull(response, arrived, streamed=streamed, held=held)
        rest = meter.finish()
        if rest:
            pending += rest
        if not call.closed:
            self._settle_if_known()
            if self._gate.durable:
                await self._gate.journal.durable()
        self._stop_watch()
        if held:
            start["headers"] += call.usage_headers()
            await send(start)
        await send({"type": "http.response.body", "body": pending, "more_body": False})
        if not call.closed:
            await self._count_and_settle(self._outcome())

    async def _pull(self, response: Response, begun: bytes, *, streamed: bool, held: bool) -> bytes:
        """Read until the end; of a unary answer one read is always kept back. Answers what is not yet passed on."""
        call, meter, send = self._call, self._meter, self._send
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
                    await self._gate.journal.durable()
                elif call.tick_due(now_ns):
                    call.tick(now_ns, meter.progress_tokens())
            else:
                pending, out = out, pending
            if out:
                await send({"type": "http.response.body", "body": out, "more_body": True})
        return pending

    def _start(self, response: Response) -> dict[str, Any]:
        headers = [*response.headers, (b"x-taximeter-request-id", self._call.opening.request_id.encode())]
        if self._prepared.injected:  # the answer will be shorter than the upstream's by the usage event
            headers = [item for item in headers if item[0] != b"content-length"]
        return {"type": "http.response.start", "status": response.status, "headers": headers}

    def _feed(self, meter: Meter, chunk: bytes) -> bytes:
        try:
            return meter.feed(chunk)
        except Exception:  # metering never breaks the relay
            log.exception("%s: a meter failed; the answer goes on, its usage is unknown", self._call.opening.request_id)
            return chunk

    def _settle_if_known(self) -> None:
        """Write the record, unless something still has to be counted: that comes after the answer's end."""
        call, meter, prompt = self._call, self._meter, self._prompt
        assert meter is not None  # noqa: S101
        reading = meter.reading()
        outcome = self._outcome()
        if prompt is not None and outcome is not Outcome.UPSTREAM_ERROR:
            lacking = prompt.lacks(reading)
            place = (self._upstream.name, self._flavor.api)
            if lacking:
                self._gate.silent.add(place)
                return
            if place in self._gate.silent:
                self._gate.silent.discard(place)
        settled_ns = time.perf_counter_ns()
        call.overhead_ns = (call.overhead_ns or 0) + settled_ns - (call.read_ns or settled_ns)
        call.settle(outcome, settled_ns, reading, prepared=self._prepared)

    def _outcome(self) -> Outcome:
        """How an answer that came to its end ended."""
        status = self._call.status
        if status is not None and status >= 400:
            return Outcome.UPSTREAM_ERROR
        if self._watch is not None and self._watch.left:
            return Outcome.CLIENT_LEFT
        return Outcome.OK

    # ── ends that are not the usual one ──────────────────────────────────────────────────────────────────────

    def _start_watch(self) -> None:
        self._watch = Watch(self._receive, self._on_left)
        self._gate.watches.add(self._watch)

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._gate.watches.end(self._watch)
        if self._bound is not None:
            self._bound.cancel()

    def _on_left(self) -> None:
        """Cancel the upstream of a stream, as it would be without us; await what the provider bills anyway."""
        task = self._task
        assert task is not None  # noqa: S101
        if not self._prepared.stream or self._upstream.settings.on_client_left == "drain":
            wait_s = ANSWER_WAIT_S
        elif self._meter is not None and self._meter.reading().finished:
            wait_s = USAGE_EVENT_WAIT_S
        else:
            task.cancel()
            return
        self._bound = asyncio.get_running_loop().call_later(wait_s, task.cancel)

    async def _refuse(self, error: errors.RequestError) -> None:
        """Nothing, or no whole request, was sent."""
        self._stop_watch()
        self._call.settle(Outcome.REFUSED, time.perf_counter_ns(), prepared=self._prepared, error_code=error.code)
        await self._answer(error)

    async def _client_has_left(self) -> None:
        """The upstream was cancelled: what was received is counted; where nothing had come, nothing is known."""
        self._stop_watch()
        if self._response is not None:
            self._response.abort()
        if self._meter is None:
            self._settle_now(Outcome.CLIENT_LEFT)
        else:
            self._meter.finish()
            await self._count_and_settle(Outcome.CLIENT_LEFT)

    async def _upstream_failed(self, error: errors.UpstreamError) -> None:
        """No answer, or one that ended early: what came is passed on and counted, and the client sees the cut."""
        self._stop_watch()
        left = self._watch is not None and self._watch.left
        outcome = Outcome.CLIENT_LEFT if left else _outcome_of(error)
        meter = self._meter
        if meter is None:
            self._call.settle(outcome, time.perf_counter_ns(), prepared=self._prepared, error_code=error.code)
            await self._answer(error)
            return
        rest = meter.finish()
        if rest:
            await self._send({"type": "http.response.body", "body": rest, "more_body": True})
        await self._count_and_settle(outcome, error.code)
        if not left:
            raise errors.AnswerCut(f"{self._call.opening.request_id}: {error.message}") from error

    async def _count_and_settle(self, outcome: Outcome, error_code: str | None = None) -> None:
        """Tokenize, off the loop, what no figure was reported for; then settle."""
        call, meter, prompt = self._call, self._meter, self._prompt
        if call.closed or meter is None:
            return
        ended_ns = time.perf_counter_ns()
        reading = meter.reading()
        if prompt is None or call.status is None or call.status >= 400:
            call.settle(outcome, ended_ns, reading, prepared=self._prepared, error_code=error_code)
            return
        counted = await prompt.complete(self._gate.tokenizers, reading, meter)
        call.settle(
            outcome,
            ended_ns,
            counted.reading,
            prepared=self._prepared,
            error_code=error_code,
            partial=outcome is not Outcome.OK and not reading.finished,
            input_source=counted.input_source,
            output_source=counted.output_source,
            tokenizer=counted.tokenizer,
        )

    def _settle_now(self, outcome: Outcome) -> None:
        """Settle with what is known this instant, where nothing can be awaited. Does nothing if settled already."""
        call, meter = self._call, self._meter
        if call.closed:
            return
        now_ns = time.perf_counter_ns()
        if meter is None:
            call.settle(outcome, now_ns, NOTHING, prepared=self._prepared)
            return
        meter.finish()
        reading, output_source = meter.reading(), None
        if reading.output_tokens is None and self._prompt is not None and call.status == 200:
            reading.output_tokens = meter.progress_tokens()
            output_source = None if reading.output_tokens is None else Source.ESTIMATED
        partial = not reading.finished
        call.settle(outcome, now_ns, reading, prepared=self._prepared, partial=partial, output_source=output_source)

    async def _answer(self, error: errors.RequestError) -> None:
        """Our own error, in OpenAI's shape, where the upstream gave no answer."""
        headers = [*error.headers(), (b"x-taximeter-request-id", self._call.opening.request_id.encode())]
        await self._send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": error.body(), "more_body": False})


def _outcome_of(error: errors.UpstreamError) -> Outcome:
    """An error before or in the middle of an answer as an outcome. What was sent may have been billed."""
    if isinstance(error, errors.UpstreamTimeout):
        return Outcome.TIMEOUT
    if isinstance(error, errors.UpstreamUnreachable) and not error.sent:
        return Outcome.UPSTREAM_UNREACHABLE
    return Outcome.UPSTREAM_CUT


def header(headers: Headers, name: bytes) -> bytes:
    """The value of a header by its lower-case name, b"" where it is missing."""
    for key, value in headers:
        if key == name:
            return value
    return b""


def _length(response: Response) -> int:
    """The content-length, or a number over every bound where there is none."""
    value = header(response.headers, b"content-length")
    return int(value) if value else 1 << 62
