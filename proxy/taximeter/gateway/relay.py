"""A call's bytes from its upstream request to the end of its answer.

What it needs now and then is `asking`; how it can end otherwise, `ends` and `ending`.

send upstream → head → each part: meter, pass on → close line → what ends the answer → (count what nobody reported)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING

from taximeter.core import errors
from taximeter.core.holds import LIMITED
from taximeter.core.record import Outcome, outcome_of
from taximeter.flavors.meter import Answer
from taximeter.gateway.admission.telling import told
from taximeter.gateway.again import without_usage
from taximeter.gateway.answered import JSON, length_of, streams
from taximeter.gateway.asking import hold, upload
from taximeter.gateway.ending import end, left
from taximeter.gateway.ends import ASKING, DELIVERED, ENDED, HELD, PASSING, UPLOADING, WAITING, By
from taximeter.gateway.hops import passed_on
from taximeter.gateway.metering.counted import count_and_settle, settle_now, shorten_prompt
from taximeter.gateway.metering.headers import usage_headers
from taximeter.gateway.metering.progress import tick
from taximeter.gateway.upstream.answers import OF_ONE_HOP
from taximeter.server.exchange import ClientLeft, Exchange

if TYPE_CHECKING:
    from taximeter.gateway.admission.admission import Admission
    from taximeter.gateway.metering.call import Call
    from taximeter.gateway.metering.metering import Metering
    from taximeter.gateway.upstream.response import Response
    from taximeter.gateway.upstream.upstreams import Upstream

log = logging.getLogger("taximeter.gateway")

USAGE_HEADERS_BYTES = 64 * 1024
"""A unary answer up to this is held until whole where `usage_headers` is on."""


class Relay:
    """One call in progress. Whatever happens in `run`, the call is settled once, and its connection given back."""

    __slots__ = (
        "admission", "bound", "call", "exchange", "metering", "pending", "response", "state", "streams", "upstream",
    )  # fmt: skip

    def __init__(
        self, metering: Metering, admission: Admission, exchange: Exchange, call: Call, upstream: Upstream
    ) -> None:
        self.metering = metering
        self.admission = admission
        self.exchange = exchange
        self.call = call
        self.upstream = upstream
        self.state = ASKING
        self.response: Response | None = None
        self.streams = call.prepared.stream
        """It is generated while it is read: as the answer's head says, before it comes as the request asks."""
        self.pending = b""
        """Metered, and not yet with the client."""
        self.bound: asyncio.TimerHandle | None = None
        """When an answer that nobody waits for any more is given up."""

    async def run(self, path: bytes, body: bytes, *, whole: bool) -> None:
        """Send upstream, pass the answer back, settle. Raises AnswerCut where the client must see a cut."""
        try:
            if self.metering.durable:
                await self.metering.journal.durable()
            if not LIMITED.isdisjoint(self.call.record.tags):
                await hold(self)
            call, begun = self.call, b""
            if whole:
                if len(body) > self.metering.count_prompt_bytes:
                    shorten_prompt(call)
                response = self.response = await self.sending(path, call.prepared.body)
                call.record.status = response.status
                if call.prepared.injected and (
                    response.status != 200
                    or (call.record.api, call.record.request_model) not in self.upstream.usage.taken
                ):
                    response, begun = await without_usage(self, response, path, body)
            else:
                response = self.response = await self.sending(path, upload(self, body))
                call.record.status = response.status
            await self._pass_on(response, begun)
        except errors.UpstreamError as error:
            await end(self, By.FAILED, error)
        except errors.RequestTimeout as error:
            await end(self, By.IDLE, error)
        except errors.RequestError as error:
            await end(self, By.REFUSED, error)
        except errors.JournalError as error:
            log.error("%s refused: %s", self.call.record.request_id, error)
            await end(self, By.UNWRITTEN, errors.JournalUnavailable())
        except ClientLeft:
            await end(self, By.LEFT)
        except asyncio.CancelledError:
            run = self.exchange.run
            if run is None or not self.exchange.left:
                await end(self, By.STOPPED)
                raise
            run.uncancel()
            await end(self, By.LEFT)
        finally:
            self.exchange.on_left = None
            if self.bound is not None:
                self.bound.cancel()
            if self.response is not None and not self.response.ended:
                self.response.abort()
            if not self.call.closed:
                settle_now(self.call, Outcome.INTERRUPTED)
            if not LIMITED.isdisjoint(self.call.record.tags):
                self.admission.let_go(self.call.record)

    # ── the request ──────────────────────────────────────────────────────────────────────────────────────────

    def sending(self, path: bytes, body: bytes | AsyncIterator[bytes]) -> Awaitable[Response]:
        """From now on, or from the end of its upload, a client that leaves ends the call."""
        call, exchange = self.call, self.exchange
        if isinstance(body, bytes):
            self.state = WAITING
            exchange.on_left = self.on_left
            if exchange.left:
                self.on_left()
        else:
            self.state = UPLOADING
        call.overhead_ns = time.perf_counter_ns() - call.started_ns
        if call.held is not None:
            call.held.sent = True
        return self.upstream.send(exchange.method, path, exchange.headers, body, exchange.memo)

    # ── the answer ───────────────────────────────────────────────────────────────────────────────────────────

    async def _pass_on(self, response: Response, begun: bytes) -> None:
        """Pass the answer on as it comes (after what was read before); only what ends it waits for the journal line."""
        call, exchange = self.call, self.exchange
        head = dict(response.headers)
        kind = head.get(b"content-type", b"")
        answer = Answer(status=response.status, content_type=kind, headers=response.headers, head=head)
        theirs = response.headers if OF_ONE_HOP.isdisjoint(head) else passed_on(self, response)
        headers = [*theirs, (b"x-taximeter-request-id", call.record.request_id.encode())]
        if call.held is not None:
            headers += told(call.held.told, response.headers)
        if call.prepared.injected:  # the answer will be shorter than the upstream's by the usage event
            headers = [field for field in headers if field[0] != b"content-length"]
        if self.streams or kind not in JSON:
            self.streams = streams(head, asked=self.streams)
        arrived = begun or response.take()
        whole = bool(arrived) and response.ended  # the usual unary answer: all of it came with its head
        tells_usage = self.metering.usage_headers and not self.streams and length_of(head) <= USAGE_HEADERS_BYTES
        reading = None
        if whole or tells_usage:
            self.state = HELD
            reading = call.read_whole(answer, arrived) if whole else None
        else:
            self.state = PASSING
            exchange.start(response.status, headers)
            if exchange.left:
                self.on_left()  # it may be another kind of answer than was asked for
        if reading is not None:
            self.pending = arrived
        else:
            call.begin_answer(answer)
            await self._pump(response, arrived)
            self.pending += call.finish()
        delivered = self.state is DELIVERED
        if not call.closed:
            call.settle_if_known(reading, left=exchange.left and not delivered)
            if self.metering.durable:
                await self.metering.journal.durable()
        if self.bound is not None:
            self.bound.cancel()
        if self.state is not HELD:
            exchange.end(self.pending)
        else:
            if tells_usage:
                headers += usage_headers(call.record)
            exchange.answer(response.status, headers, self.pending)
        self.state = ENDED
        if not call.closed:
            await count_and_settle(call, outcome_of(call.record.status, left=exchange.left and not delivered))

    async def _pump(self, response: Response, arrived: bytes) -> None:
        """Have all of the answer passed on, beginning with what has arrived."""
        goes_on = not arrived or self._pass(arrived)
        while not (goes_on and await response.pipe(self._pass)):
            goes_on = True
            if self.metering.durable and self.call.closed:
                await self.metering.journal.durable()
                self.exchange.write(self.pending)
                self.pending = b""
            if self.exchange.paused:
                await self.exchange.drain()

    def _pass(self, chunk: bytes) -> bool:
        """Meter a part and pass it on. False: wait until the client has read, or the journal is on stable storage."""
        call, exchange = self.call, self.exchange
        now_ns = time.perf_counter_ns()
        out = call.feed(chunk, now_ns)
        if self.state is HELD or self.response.ended:  # type: ignore[union-attr]  # it is what feeds this
            self.pending += out
            return True
        if call.meter.terminal and self.state is PASSING:  # type: ignore[union-attr]  # begun before
            if not call.closed:
                call.settle_if_known(None, left=exchange.left)
            if not exchange.left:
                self.state = DELIVERED
            if self.metering.durable:
                self.pending = out
                return False
        elif now_ns > call.tick_at_ns:
            tick(call, now_ns)
        return exchange.write(out)

    def on_left(self) -> None:
        """The client has gone."""
        left(self)
