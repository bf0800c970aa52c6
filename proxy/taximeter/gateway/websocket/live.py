"""What the messages of Gemini's Live API mean (https://ai.google.dev/api/live), on Google AI and Vertex.

Its turns have no ids. What is billed is told by `usageMetadata`, once for each time that the model generates, with all
that was said before as its prompt: the sum of all of them is the bill (https://discuss.ai.google.dev/t/173248 checked
it against an invoice; https://ai.google.dev/gemini-api/docs/live-api/best-practices#pricing-billing;
https://github.com/pydantic/pydantic-ai/pull/7269 shows the figures of three turns). It stands beside any content: with
`turnComplete`, or with a `toolCall`. So each of them settles a response.
"""

from __future__ import annotations

import re

import msgspec

from taximeter.core import errors
from taximeter.core.record import Outcome
from taximeter.core.routes import region_in
from taximeter.flavors.framing.scan import TopMembers
from taximeter.flavors.usage.counts import Fields, count, decode, encode, fields
from taximeter.gateway.websocket.books import Books
from taximeter.gateway.websocket.messages import Event, said, scanning
from taximeter.gateway.websocket.under_way import UnderWay, Whose

_complete = re.compile(rb'"turn_?[cC]omplete"\s*:\s*true').search
_TAIL_BYTES = 1024
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


class LiveBooks(Books):
    """Of a connection on which the Live API is spoken."""

    __slots__ = ("_long", "_setup", "_tail", "_told")

    def __init__(self, whose: Whose) -> None:
        super().__init__(whose)
        self._setup: Fields = {}
        """Of the session: what bounds its responses."""
        self._told = False
        """What this turn has used is told: what comes still of it needs no record."""
        self._long: TopMembers | None = None
        """What the long message says of itself that is coming in pieces."""
        self._tail = b""

    # ── what the client asks for ─────────────────────────────────────────────────────────────────────────────

    def asks(self, event: Event, *, whole: bool) -> bool | None:
        if event.setup:
            self._set_up(fields(decode(event.setup)) if whole else {"model": event.model})
        if event.results:
            return self._asks_anew()
        if not event.content:
            return False
        if not whole:
            return None
        told = fields(decode(event.content))
        return told.get("turnComplete", told.get("turn_complete")) is True and self._asks_anew()

    def asks_at_its_end(self, event: Event, tail: bytes) -> bool:
        return bool(event.results) or (bool(event.content) and _complete(tail) is not None and self._asks_anew())

    def matters(self, event: Event) -> bool:
        return not event.spoken

    def asked(self, event: Event, body: bytes) -> bytes:
        return encode({**self._setup, "model": self.model} if self.model else self._setup)

    def refusal(self, event: Event, error: errors.RequestError) -> bytes:
        """The API has no message for it; this is Google's usual form, which its SDKs raise as an APIError."""
        told = msgspec.json.decode(error.body())["error"]
        status = _STATUS.get(error.status, "FAILED_PRECONDITION")
        return encode({"code": error.status, "message": told["message"], "status": status, "error": told})

    def _asks_anew(self) -> bool:
        """Whether it is one more; results of several tools, say, are waited for by one response."""
        return not any(not each.begun and not each.over for each in self.under_way)

    def _set_up(self, setup: Fields) -> None:
        """The session's first message. Raises Forbidden where its model may not be called."""
        self.look_up_key()
        model, key = setup.get("model"), self.key
        if isinstance(model, str):
            self.model = model.rpartition("models/")[2]
            self.region = region_in(b"/" + model.encode()) or self.region
        kept = ("generationConfig", "generation_config", "tools")
        self._setup = {name: setup[name] for name in kept if name in setup}
        if key is not None and key.models and not key.allows(self.model):
            self.spent = errors.Forbidden(f"This key may not call the model {self.model!r}.", param="model")
            raise self.spent

    # ── what the server says ─────────────────────────────────────────────────────────────────────────────────

    def server_says(self, event: Event, payload: bytes, *, whole: bool) -> UnderWay | None:
        self._owner, fresh = None, None
        told = fields(decode(event.generated)) if whole and event.generated else {}
        speaks, complete = _speaks(event, told, whole=whole), told.get("turnComplete") is True
        used = _counts(event.usage) if whole else bool(event.usage)
        found = self._whose(speaks=speaks, used=used)
        if speaks:
            self._settle_over()
        if found is None and (used or (speaks and not self._told)):
            found = fresh = self.begun_by_server(Event())
        if found is not None:
            found.begun = found.begun or found is fresh or speaks
            self.feed(found, payload, whole=whole)
        if not whole:
            self._long, self._tail = scanning(), b""
            self._long.feed(payload)
        else:
            self._look(found, used=used, complete=complete)
        return fresh if fresh is not None and not fresh.call.closed and self.limited(fresh) else None

    def goes_on(self, payload: bytes, *, last: bool) -> None:
        scan, owner = self._long, self._owner
        self.feed_more(payload, last=last)
        if scan is None:
            return
        scan.feed(payload)
        self._tail = (self._tail + payload)[-_TAIL_BYTES:]
        if last:
            self._long, tail = None, self._tail
            self._look(owner, used=bool(said(scan).usage), complete=_complete(tail) is not None)

    def _whose(self, *, speaks: bool, used: bool) -> UnderWay | None:
        """Whose a message is: the oldest's of which more is to come; or, where nothing is told but what was used, that
        one's of which all else was said."""
        over = next((each for each in self.under_way if each.over), None)
        found = next((each for each in self.under_way if not each.over), None)
        if over is not None and used and not speaks and (found is None or not found.begun):
            return over
        return found

    def _look(self, found: UnderWay | None, *, used: bool, complete: bool) -> None:
        """What it used is told, so it is settled; or all else is."""
        if found is not None and used:
            self.settle(found, Outcome.OK)
            self._told = not complete and not found.over
        elif complete:
            if found is not None and (found.begun or not self._told):
                found.over = True
            self._told = False

    def _settle_over(self) -> None:
        """What is over and has not told what it used will not any more."""
        for each in tuple(self.under_way):
            if each.over:
                self.settle(each, Outcome.OK)


def _speaks(event: Event, told: Fields, *, whole: bool) -> bool:
    """Whether the model has said something: its content, a call of a tool. Not the words of what it speaks, which come
    when they are ready, also behind its turn (`outputTranscription`: "there is no guaranteed ordering")."""
    return bool(event.calls) or (bool(event.generated) and not whole) or "modelTurn" in told


def _counts(usage: msgspec.Raw) -> bool:
    """Whether a usage object counts anything."""
    return any(count(figure) is not None for figure in fields(decode(usage)).values()) if usage else False
