"""The responses of one connection: each has its open line when it is asked for, its close line before its end leaves.

A response is asked for by the client (`response.create`), or begun by the server when somebody has stopped speaking.
Moves no bytes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from taximeter.core import errors
from taximeter.core.record import LIMITED, Open, Outcome
from taximeter.core.tags import DEFAULT_WORKSPACE
from taximeter.flavors.dialects import AUDIO
from taximeter.flavors.meter import Answer, Flavor, Prepared
from taximeter.flavors.responses import REALTIME
from taximeter.flavors.usage.counts import decode, fields
from taximeter.gateway.ending import record_unsent
from taximeter.gateway.metering import progress
from taximeter.gateway.metering.call import Call, new_request_id
from taximeter.gateway.metering.counted import settle_now
from taximeter.gateway.websocket.messages import Event, response_of

if TYPE_CHECKING:
    from taximeter.core.routes import Route
    from taximeter.gateway.admission.admission import Admission
    from taximeter.gateway.metering.metering import Metering
    from taximeter.gateway.restricted import Restrictions
    from taximeter.gateway.tagging import Tagging
    from taximeter.gateway.upstream.upstreams import Upstream
    from taximeter.keys.rule import ProxyKey
    from taximeter.server.exchange import Exchange

ASKS = "response.create"
MAX_UNDER_WAY = 64
"""Responses asked for on one connection and not ended; one more is refused."""
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
_ALREADY_ACTIVE = "conversation_already_has_active_response"
_AS_EVENTS = Answer(status=200, content_type=b"text/event-stream")


class Whose(NamedTuple):
    """What all responses of a connection have in common."""

    metering: Metering
    admission: Admission
    restrictions: Restrictions
    tagging: Tagging
    exchange: Exchange
    head: dict[bytes, bytes]
    named: dict[str, str]
    route: Route
    key: ProxyKey | None
    upstream: Upstream
    flavor: Flavor
    model: str | None
    """As the query names it."""


class UnderWay:
    """A response from its open line to its close line."""

    __slots__ = ("call", "event_id", "id", "stream_id")

    def __init__(self, call: Call, event: Event) -> None:
        self.call = call
        self.id: str | None = None
        """None: asked for, and not begun."""
        self.event_id = event.event_id
        self.stream_id = event.stream_id

    def learn(self, event: Event) -> None:
        """What the end of a long message has told."""
        self.event_id, self.stream_id = event.event_id, event.stream_id
        if event.model is not None:
            self.call.record.request_model = self.call.prepared.model = event.model


class Books:
    """Of one connection."""

    __slots__ = ("_model", "_owner", "_transcription_model", "_whose", "settled", "under_way")

    def __init__(self, whose: Whose) -> None:
        self._whose = whose
        self.under_way: list[UnderWay] = []
        """In the order in which they were asked for."""
        self.settled = 0
        """How many records have been written."""
        self._model = whose.model
        self._transcription_model: str | None = None
        self._owner: UnderWay | None = None
        """Whose the long message is that is coming in pieces."""

    @property
    def must_read(self) -> bool:
        """Whether what is asked for has to be read whole: there is a limit, or an allow-list."""
        whose = self._whose
        return bool(whose.admission.watched) or (whose.key is not None and bool(whose.key.models))

    # ── what the client asks for ─────────────────────────────────────────────────────────────────────────────

    def open(self, event: Event, body: bytes, *, whole: bool) -> UnderWay:
        """Write the open line of a response. `body`: the message, or its beginning; b"" where the server began by
        itself. Raises RequestError where it may not go on; that is recorded."""
        whose, started_us, started_ns = self._whose, time.time_ns() // 1000, time.perf_counter_ns()
        flavor, upstream, key = whose.flavor, whose.upstream, whose.key
        asked = body
        if flavor is REALTIME:
            asked = bytes(event.response) or b"{}"
        record = Open(
            request_id=new_request_id(started_us),
            started_at=started_us,
            workspace=DEFAULT_WORKSPACE if key is None else key.workspace,
            upstream=upstream.name,
            provider=upstream.provider,
            api=flavor.api,
        )
        record.operation, record.stream = flavor.operation, True
        record.key_id = None if key is None else key.id
        record.region = whose.route.region or upstream.region
        record.request_bytes = len(body)
        prepared = flavor.prepare(asked if whole else b"", whose.route.path, inject=False)
        prepared.model = record.request_model = prepared.model or event.model or self._model
        prepared.stream, prepared.injected, prepared.body = True, False, asked
        prepared.reading = asked  # it goes on as it came: nothing is shortened
        try:
            whose.tagging.of(whose.head, whose.named, whose.route, key, upstream, prepared).mark(record)
            if len(self.under_way) >= MAX_UNDER_WAY:
                raise errors.Overloaded(f"{MAX_UNDER_WAY} responses are under way on this connection.", retry_after_s=1)
            if record.workspace in whose.admission.watched or (key is not None and key.models):
                self._check(record, prepared, asked if whole else None)
            call = Call(whose.metering, record, started_ns, flavor, prepared)
        except errors.RequestError as error:
            record_unsent(whose.metering, record, started_ns, Outcome.REFUSED, error.code)
            raise
        except errors.JournalError:
            raise errors.JournalUnavailable from None
        call.begin_answer(_AS_EVENTS)
        under_way = UnderWay(call, event)
        self.under_way.append(under_way)
        return under_way

    def _check(self, record: Open, prepared: Prepared, asked: bytes | None) -> None:
        whose = self._whose
        whose.restrictions.check(whose.key, record, whose.exchange, whose.flavor, whose.route.path, prepared, asked)
        if whose.flavor is REALTIME and prepared.demand is not None:  # all that was said before is read again
            prepared.demand = msgspec.structs.replace(prepared.demand, kept=True)

    @staticmethod
    def limited(under_way: UnderWay) -> bool:
        """Whether it has budgets or rates, which `hold` asks."""
        return not LIMITED.isdisjoint(under_way.call.record.tags)

    async def hold(self, under_way: UnderWay, *, begun: bool = False) -> None:
        """Hold what it may use at most. Raises RequestError where there is not enough: then it is settled, unless the
        server has `begun` it already."""
        whose, call = self._whose, under_way.call
        try:
            held = await whose.admission.hold(
                call.record, call.flavor, call.prepared, whose.upstream.settings.tokenizer, whose.exchange.headers
            )
            call.held = held
            if held is not None and held.budgets and not progress.hold(call) and whose.metering.refuses:
                raise errors.JournalUnavailable
        except errors.RequestError as error:
            if not begun:
                self.settle(under_way, Outcome.REFUSED, error.code)
            raise
        if call.closed:
            whose.admission.let_go(call.record)
        elif held is not None:
            held.sent = True

    # ── what the server says ─────────────────────────────────────────────────────────────────────────────────

    def server_says(self, event: Event, payload: bytes, *, whole: bool) -> UnderWay | None:
        """The beginning of a message of the server, or all of it. Returns a response that the server began by itself,
        which has limits."""
        kind, fresh = event.type, None
        self._owner = None
        if kind == _TRANSCRIBED:
            self._transcribed(event, payload)
        elif kind.startswith("session."):
            self._learn(fields(decode(event.session)) if event.session else {})
        elif kind == "error":
            self._failed(event, payload)
        elif kind.startswith("response."):
            found = self._of(event)
            if found is None and kind == "response.created":
                found = fresh = self._begun(event)
            if found is not None:
                self._feed(found, payload, whole=whole)
        return fresh if fresh is not None and self.limited(fresh) else None

    def goes_on(self, payload: bytes, *, last: bool) -> None:
        """The next piece of a long message, or its last."""
        owner = self._owner
        if owner is None:
            return
        owner.call.feed(_in_a_line(payload) + (b"\n\n" if last else b""), time.perf_counter_ns())
        if last:
            self._owner = None
            self._look(owner)

    def _feed(self, found: UnderWay, payload: bytes, *, whole: bool) -> None:
        now_ns, call = time.perf_counter_ns(), found.call
        call.feed(b"data: " + _in_a_line(payload) + (b"\n\n" if whole else b""), now_ns)
        if not whole:
            self._owner = found
        elif not self._look(found) and now_ns > call.tick_at_ns:
            progress.tick(call, now_ns)

    def _look(self, found: UnderWay) -> bool:
        """Whether that was its last event: then it is settled."""
        meter = found.call.meter
        if meter is None or not meter.terminal:
            return False
        self.settle(found, Outcome.OK)
        return True

    def _of(self, event: Event) -> UnderWay | None:
        """Whose an event is: by the response's id, else the one on its stream that was begun last."""
        told = response_of(event).get("id") or event.response_id
        if isinstance(told, str):
            for each in self.under_way:
                if each.id == told:
                    return each
            if event.type in ("response.created", "response.queued", "response.in_progress", "response.done"):
                for each in self.under_way:
                    if each.id is None and each.stream_id == event.stream_id:
                        each.id = told
                        return each
            return None
        begun = [each for each in self.under_way if each.stream_id == event.stream_id and each.id is not None]
        return begun[-1] if begun else None

    def _begun(self, event: Event) -> UnderWay | None:
        """The server has begun a response by itself."""
        told = response_of(event).get("id") or event.response_id
        try:
            fresh = self.open(Event(stream_id=event.stream_id), b"{}", whole=True)
        except errors.RequestError:
            return None  # it is recorded as refused; what it uses cannot be hindered by not looking
        fresh.id = told if isinstance(told, str) else None
        return fresh

    def _failed(self, event: Event, payload: bytes) -> None:
        """An error: it settles the response it is about, if it is about one."""
        told = fields(decode(event.error)) if event.error else {}
        found = self._realtime_failed(told) if self._whose.flavor is REALTIME else self._stream_failed(event.stream_id)
        if found is not None:
            found.call.feed(b"data: " + _in_a_line(payload) + b"\n\n", time.perf_counter_ns())
            self.settle(found, Outcome.UPSTREAM_ERROR)

    def _realtime_failed(self, told: dict[str, object]) -> UnderWay | None:
        """Errors are about any message of the client: by its `event_id`, or where their code can mean nothing else."""
        about, asked = told.get("event_id"), [each for each in self.under_way if each.id is None]
        if about is not None:
            return next((each for each in asked if each.event_id == about), None)
        return asked[-1] if asked and told.get("code") == _ALREADY_ACTIVE else None

    def _stream_failed(self, stream_id: str | None) -> UnderWay | None:
        """An error is about what was asked for on its stream: what has not begun, else what has."""
        here = [each for each in self.under_way if each.stream_id == stream_id]
        return next((each for each in here if each.id is None), here[-1] if here else None)

    def _learn(self, session: dict[str, object]) -> None:
        """Which models the session uses."""
        model = session.get("model")
        if isinstance(model, str):
            self._model = model
        heard = fields(fields(fields(session.get("audio")).get("input")).get("transcription"))
        heard = heard or fields(session.get("input_audio_transcription"))
        if isinstance(heard.get("model"), str):
            self._transcription_model = str(heard["model"])

    def _transcribed(self, event: Event, payload: bytes) -> None:
        """What hearing the user has used, of which the transcription model is paid: a record of its own."""
        whose, now_ns = self._whose, time.perf_counter_ns()
        key, upstream = whose.key, whose.upstream
        started_us = time.time_ns() // 1000
        record = Open(
            request_id=new_request_id(started_us),
            started_at=started_us,
            workspace=DEFAULT_WORKSPACE if key is None else key.workspace,
            upstream=upstream.name,
            provider=upstream.provider,
            api=AUDIO.api,
        )
        record.operation, record.request_model = AUDIO.operation, self._transcription_model
        record.key_id = None if key is None else key.id
        prepared = Prepared(body=b"", model=self._transcription_model)
        whose.tagging.of(whose.head, whose.named, whose.route, key, upstream, prepared).mark(record)
        try:
            call = Call(whose.metering, record, now_ns, AUDIO, prepared)
        except errors.JournalError:
            return
        meter = call.begin_answer(_AS_EVENTS)
        call.feed(b"data: " + _in_a_line(payload) + b"\n\n", now_ns)
        call.settle(Outcome.OK, time.perf_counter_ns(), meter.reading())
        self.settled += 1

    # ── how they end ─────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, under_way: UnderWay, outcome: Outcome, code: str | None = None) -> None:
        """Write its close line."""
        call = under_way.call
        self.settled += 1
        if under_way in self.under_way:
            self.under_way.remove(under_way)
        if outcome is Outcome.OK and call.meter is not None:
            call.settle(outcome, time.perf_counter_ns(), call.meter.reading())
        else:
            settle_now(call, outcome, code)
        if self.limited(under_way):
            self._whose.admission.let_go(call.record)

    def end(self, outcome: Outcome) -> None:
        """The connection has ended: so has all that was under way."""
        for each in tuple(self.under_way):
            self.settle(each, outcome)


def _in_a_line(payload: bytes) -> bytes:
    """JSON without its line breaks, which mean nothing."""
    if b"\n" in payload or b"\r" in payload:
        payload = payload.replace(b"\n", b" ").replace(b"\r", b" ")
    return payload
