"""The responses of one connection: each has its open line when it is asked for, its close line before its end leaves.

What the messages of an API mean is known by the subclasses; here is how a response is opened, held and settled. Moves
no bytes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from taximeter.core import errors
from taximeter.core.holds import LIMITED
from taximeter.core.record import Open, Outcome
from taximeter.core.tags import DEFAULT_WORKSPACE
from taximeter.flavors.meter import Flavor, Prepared
from taximeter.gateway.ending import record_unsent
from taximeter.gateway.metering import progress
from taximeter.gateway.metering.call import Call, new_request_id
from taximeter.gateway.metering.counted import settle_now
from taximeter.gateway.restricted import check_breakers
from taximeter.gateway.websocket.under_way import AS_EVENTS, UnderWay, in_a_line
from taximeter.server.inline import in_task

if TYPE_CHECKING:
    from taximeter.gateway.websocket.messages import Event
    from taximeter.gateway.websocket.under_way import Whose

MAX_UNDER_WAY = 64
"""Responses asked for on one connection and not ended; one more is refused."""


class Books:
    """Of one connection."""

    __slots__ = ("_owner", "flavor", "key", "model", "region", "settled", "spent", "under_way", "whose")

    def __init__(self, whose: Whose) -> None:
        self.whose = whose
        self.flavor = whose.flavor
        self.key = whose.key
        """As it was when it was last looked up."""
        self.under_way: list[UnderWay] = []
        """In the order in which they were asked for."""
        self.settled = 0
        """How many records have been written."""
        self.spent: errors.RequestError | None = None
        """Why nothing more may be asked for: a response that the server began by itself should not have begun, say, or
        the key has been revoked. The connection ends when nothing is under way."""
        self.model = whose.model
        self.region = whose.route.region or whose.upstream.region
        self._owner: UnderWay | None = None
        """Whose the long message is that is coming in pieces."""

    @property
    def must_read(self) -> bool:
        """Whether what is asked for has to be read whole: there is a limit, or an allow-list."""
        return bool(self.whose.admission.watched) or (self.key is not None and bool(self.key.models))

    @property
    def idle(self) -> bool:
        """Whether nothing is under way of which more is to come."""
        return all(each.over for each in self.under_way)

    # ── what an API's messages mean ──────────────────────────────────────────────────────────────────────────

    def asks(self, event: Event, *, whole: bool) -> bool | None:
        """Whether a message of the client asks for a response; None: its end tells. What else it says is learnt.

        Raises RequestError where it may not go on.
        """
        raise NotImplementedError

    def asks_at_its_end(self, event: Event, tail: bytes) -> bool:
        """Whether a long message asks for a response, of which `asks` could not tell; `tail`: its last bytes."""
        raise NotImplementedError

    def matters(self, event: Event) -> bool:
        """Whether a message may say something that limits or an allow-list are about."""
        raise NotImplementedError

    def asked(self, event: Event, body: bytes) -> bytes:
        """What a message asks for, as the body of a request (JSON)."""
        raise NotImplementedError

    def refusal(self, event: Event, error: errors.RequestError) -> bytes:
        """The message that tells the client, as the API itself does."""
        raise NotImplementedError

    def server_says(self, event: Event, payload: bytes, *, whole: bool) -> UnderWay | None:
        """The beginning of a message of the server, or all of it. Returns a response that the server began by itself,
        which has limits."""
        raise NotImplementedError

    def goes_on(self, payload: bytes, *, last: bool) -> None:
        """The next piece of a long message of the server, or its last."""
        raise NotImplementedError

    async def check_room(self) -> None:
        """Whether a connection may be opened on which the server may begin responses by itself. Raises BudgetExceeded,
        BudgetReserved or BreakerOpen where none would be let through; else each is held when it comes."""
        admission = self.whose.admission
        record = self.record(self.flavor)
        record.request_model = self.model
        self.mark(record, None)
        if not self.keeps or record.workspace not in admission.watched:
            return
        if record.workspace in admission.stopped.workspaces:
            check_breakers(admission, record)
        if admission.budgets is not None:
            await in_task()
            for allowance, stands in await admission.budgets.standing(record):
                refusal = None if stands is None else admission.budgets.refusal(allowance, stands, 1)
                if refusal is not None:
                    raise refusal

    # ── how a response begins ────────────────────────────────────────────────────────────────────────────────

    def open(self, event: Event, body: bytes, *, whole: bool, begun: bool = False) -> UnderWay:
        """Write the open line of a response. `body`: the message, or its beginning. `begun`: the server has begun it by
        itself, so it is counted like any other where it may not be (see `spent`).

        Raises RequestError where it may not go on; that is recorded.
        """
        whose, started_ns = self.whose, time.perf_counter_ns()
        asked = self.asked(event, body)
        record = self.record(self.flavor)
        record.stream, record.request_bytes = True, len(body)
        record.region = self.region
        prepared = self.flavor.prepare(asked if whole else b"", whose.route.path, inject=False)
        prepared.model = record.request_model = prepared.model or event.model or self.model
        prepared.stream, prepared.injected, prepared.body = True, False, asked
        prepared.reading = asked  # it goes on as it came: nothing is shortened
        try:
            self.mark(record, prepared)
            try:
                self._admit(record, prepared, asked if whole else None, kept=begun or self.keeps)
            except errors.RequestError as error:
                if not begun:
                    raise
                self.spent = error
            call = Call(whose.metering, record, started_ns, self.flavor, prepared)
        except errors.RequestError as error:
            record_unsent(whose.metering, record, started_ns, Outcome.REFUSED, error.code)
            raise
        except errors.JournalError:
            raise errors.JournalUnavailable from None
        call.begin_answer(AS_EVENTS)
        under_way = UnderWay(call, event)
        self.under_way.append(under_way)
        return under_way

    def record(self, flavor: Flavor) -> Open:
        """Of a call on this connection that begins now."""
        whose, started_us = self.whose, time.time_ns() // 1000
        record = Open(
            request_id=new_request_id(started_us),
            started_at=started_us,
            workspace=DEFAULT_WORKSPACE if self.key is None else self.key.workspace,
            upstream=whose.upstream.name,
            provider=whose.upstream.provider,
            api=flavor.api,
        )
        record.operation = flavor.operation
        record.key_id = None if self.key is None else self.key.id
        return record

    def mark(self, record: Open, prepared: Prepared | None) -> None:
        """Write its tags. Raises BadRequest."""
        whose = self.whose
        whose.tagging.of(whose.head, whose.named, whose.route, self.key, whose.upstream, prepared).mark(record)

    def look_up_key(self) -> None:
        """A connection lasts; its key may have been changed since, or revoked. Raises Unauthorized, which ends it."""
        try:
            self.key = self.whose.admission.key_of(self.whose.head)
        except errors.Unauthorized as error:
            self.spent = error
            raise

    def check_models(self, said: bytes) -> None:
        """Whether the key may call every model that a session is to use. `said`: JSON.

        Raises Unauthorized, Forbidden, BadRequest.
        """
        whose = self.whose
        self.look_up_key()
        if self.key is not None and self.key.models:
            whose.restrictions.check_models(self.key, whose.exchange, self.flavor, whose.route.path, said)

    def _admit(self, record: Open, prepared: Prepared, asked: bytes | None, *, kept: bool) -> None:
        """Whether a response may be asked for. Raises RequestError."""
        whose = self.whose
        self.look_up_key()
        if len(self.under_way) >= MAX_UNDER_WAY:
            raise errors.Overloaded(f"{MAX_UNDER_WAY} responses are under way on this connection.", retry_after_s=1)
        if record.workspace not in whose.admission.watched and not (self.key is not None and self.key.models):
            return
        whose.restrictions.check(self.key, record, whose.exchange, self.flavor, whose.route.path, prepared, asked)
        if kept and prepared.demand is not None:
            prepared.demand = msgspec.structs.replace(prepared.demand, kept=True)

    @property
    def keeps(self) -> bool:
        """Whether all that was said before on the connection is read again for each response."""
        return True

    @staticmethod
    def limited(under_way: UnderWay) -> bool:
        """Whether it has budgets or rates, which `hold` asks."""
        return not LIMITED.isdisjoint(under_way.call.record.tags)

    async def hold(self, under_way: UnderWay, *, begun: bool = False) -> None:
        """Hold what it may use at most. Raises RequestError where there is not enough: then it is settled, unless the
        server has `begun` it already."""
        whose, call = self.whose, under_way.call
        try:
            held = await whose.admission.hold(
                call.record, call.flavor, call.prepared, whose.upstream.settings.tokenizer, whose.exchange.headers
            )
            call.held = held
            if held is not None and held.budgets and not progress.hold(call) and whose.metering.refuses:
                raise errors.JournalUnavailable
        except errors.RequestError as error:
            if begun:
                self.spent = error
            else:
                self.settle(under_way, Outcome.REFUSED, error.code)
            raise
        if call.closed:
            whose.admission.let_go(call.record)
        elif held is not None:
            held.sent = True

    def begun_by_server(self, event: Event) -> UnderWay | None:
        """The server has begun a response by itself. None where it cannot be written down; then the connection ends."""
        try:
            return self.open(event, b"{}", whole=True, begun=True)
        except errors.RequestError as error:
            self.spent = error
            return None

    # ── what it says, and how it ends ────────────────────────────────────────────────────────────────────────

    def feed(self, found: UnderWay, payload: bytes, *, whole: bool) -> None:
        """Read an event of a response, or the beginning of one."""
        now_ns, call = time.perf_counter_ns(), found.call
        call.feed(b"data: " + in_a_line(payload) + (b"\n\n" if whole else b""), now_ns)
        if not whole:
            self._owner = found
        elif now_ns > call.tick_at_ns:
            progress.tick(call, now_ns)

    def feed_more(self, payload: bytes, *, last: bool) -> UnderWay | None:
        """Read the next piece of the long event; returns whose it was when that was its last."""
        owner = self._owner
        if owner is None:
            return None
        owner.call.feed(in_a_line(payload) + (b"\n\n" if last else b""), time.perf_counter_ns())
        if not last:
            return None
        self._owner = None
        return owner

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
            self.whose.admission.let_go(call.record)

    def end(self, outcome: Outcome) -> None:
        """The connection has ended: so has all that was under way."""
        for each in tuple(self.under_way):
            self.settle(each, Outcome.OK if each.over else outcome)
