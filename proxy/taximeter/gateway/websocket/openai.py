"""What the events of OpenAI's Realtime and Responses APIs mean, and of those who speak them (Azure, xAI).

A response is asked for by the client (`response.create`), or begun by the server when somebody has stopped speaking.
https://platform.openai.com/docs/api-reference/realtime-server-events and
https://developers.openai.com/api/docs/guides/websocket-mode
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import msgspec

from taximeter.core import errors
from taximeter.core.record import Outcome
from taximeter.flavors.dialects import AUDIO
from taximeter.flavors.meter import Prepared
from taximeter.flavors.responses import REALTIME, RESPONSES
from taximeter.flavors.usage.counts import Fields, decode, encode, fields, items
from taximeter.gateway.metering.call import Call
from taximeter.gateway.websocket.books import Books
from taximeter.gateway.websocket.messages import Event, response_of
from taximeter.gateway.websocket.under_way import AS_EVENTS, UnderWay, Whose, in_a_line

if TYPE_CHECKING:
    from collections.abc import Iterable

_ASKS = "response.create"
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
_UPDATES = ("session.update", "transcription_session.update")
_SESSIONS = ("session.", "transcription_session.")
_ALREADY_ACTIVE = "conversation_already_has_active_response"
_BEGINS = ("response.created", "response.queued", "response.in_progress")
_ENDS = REALTIME.ends | RESPONSES.ends
_LENGTHS = ("max_output_tokens", "max_response_output_tokens")
"""How long an answer may be: since the API is out of beta, and in it; "inf": as long as the model can."""


class OpenAIBooks(Books):
    """Of a connection on which OpenAI's events are spoken."""

    __slots__ = ("_default", "_transcription_model")

    def __init__(self, whose: Whose) -> None:
        super().__init__(whose)
        self._transcription_model: str | None = None
        self._default: Fields = {}
        """What bounds the session's responses where they do not say themselves."""

    @property
    def keeps(self) -> bool:
        return self.flavor is REALTIME

    # ── what the client asks for ─────────────────────────────────────────────────────────────────────────────

    def asks(self, event: Event, *, whole: bool) -> bool | None:
        if event.type in _UPDATES and event.session:
            self.check_models(bytes(event.session))
            self._widen(fields(decode(event.session)))
        return event.type == _ASKS if event.known or whole else None

    def asks_at_its_end(self, event: Event, tail: bytes) -> bool:
        return event.type == _ASKS

    def matters(self, event: Event) -> bool:
        return not event.type or event.type == _ASKS or event.type in _UPDATES

    def asked(self, event: Event, body: bytes) -> bytes:
        if self.flavor is not REALTIME:
            self.model = event.model or self.model  # what is steered goes on with it
            return body
        told = response_of(event)
        if not self._default and told.keys().isdisjoint(_LENGTHS):
            return bytes(event.response) or b"{}"
        asked = {**({} if any(name in told for name in _LENGTHS) else _lengths(self._default)), **told}
        if "tools" not in told and "tools" in self._default:
            asked["tools"] = self._default["tools"]
        if "prompt" not in told and "prompt" in self._default:
            asked["prompt"] = self._default["prompt"]
        return encode({name: value for name, value in asked.items() if name not in _LENGTHS or value != "inf"})

    def refusal(self, event: Event, error: errors.RequestError) -> bytes:
        told = msgspec.json.decode(error.body())["error"]
        answer: Fields = {"type": "error"}
        if self.flavor is REALTIME:
            return encode(answer | {"event_id": "event_taximeter", "error": {**told, "event_id": event.event_id}})
        answer |= {"status": error.status, "error": told}
        if event.stream_id is not None:
            answer["stream_id"] = event.stream_id
        return encode(answer)

    # ── what the server says ─────────────────────────────────────────────────────────────────────────────────

    def server_says(self, event: Event, payload: bytes, *, whole: bool) -> UnderWay | None:
        kind, fresh = event.type, None
        self._owner = None
        if kind == _TRANSCRIBED:
            self._transcribed(payload)
        elif kind.startswith(_SESSIONS):
            self._learn(fields(decode(event.session)) if event.session else {})
        elif kind == "error":
            self._failed(event, payload)
        elif kind.startswith("response."):
            found = self._of(event)
            if found is None and (kind == "response.created" or kind in _ENDS):
                found = fresh = self._begun(event)
            if found is not None:
                self.feed(found, payload, whole=whole)
                if whole:
                    self._look(found)
        return fresh if fresh is not None and not fresh.call.closed and self.limited(fresh) else None

    def goes_on(self, payload: bytes, *, last: bool) -> None:
        owner = self.feed_more(payload, last=last)
        if owner is not None:
            self._look(owner)

    def _look(self, found: UnderWay) -> None:
        """If that was its last event, it is settled."""
        meter = found.call.meter
        if meter is not None and meter.terminal:
            self.settle(found, Outcome.OK)

    def _of(self, event: Event) -> UnderWay | None:
        """Whose an event is: by the response's id, else the one on its stream begun last, or asked for first."""
        told = response_of(event).get("id") or event.response_id
        if isinstance(told, str):
            for each in self.under_way:
                if each.id == told:
                    return each
            if event.type not in _BEGINS and event.type not in _ENDS:
                return None
            asked = [each for each in self.under_way if each.id is None and each.stream_id == event.stream_id]
            found = _meant(asked, fields(response_of(event).get("metadata")))
            if found is not None:
                found.id = told
            return found
        here = [each for each in self.under_way if each.stream_id == event.stream_id]
        return next((each for each in reversed(here) if each.id is not None), here[0] if here else None)

    def _begun(self, event: Event) -> UnderWay | None:
        """The server has begun a response by itself: somebody has stopped speaking, or steered the last one. Or it
        tells the end of one whose beginning it has not told, which is billed as well."""
        told = response_of(event).get("id") or event.response_id
        fresh = self.begun_by_server(Event(stream_id=event.stream_id))
        if fresh is not None:
            fresh.id = told if isinstance(told, str) else None
        return fresh

    def _failed(self, event: Event, payload: bytes) -> None:
        """An error: it settles the response it is about, if it is about one."""
        told = fields(decode(event.error)) if event.error else {}
        found = self._realtime_failed(told) if self.flavor is REALTIME else self._stream_failed(event.stream_id)
        if found is not None:
            found.call.feed(b"data: " + in_a_line(payload) + b"\n\n", time.perf_counter_ns())
            self.settle(found, Outcome.UPSTREAM_ERROR)

    def _realtime_failed(self, told: Fields) -> UnderWay | None:
        """Errors are about any message of the client: by its `event_id`, or where their code can mean nothing else."""
        about, asked = told.get("event_id"), [each for each in self.under_way if each.id is None]
        if about is not None:
            return next((each for each in asked if each.event_id == about), None)
        if str(told.get("param")).startswith("response."):  # a bad member of one that has no id
            return next((each for each in asked if each.event_id is None), None)
        return asked[-1] if asked and told.get("code") == _ALREADY_ACTIVE else None

    def _stream_failed(self, stream_id: str | None) -> UnderWay | None:
        """An error is about what was asked for on its stream: what has not begun, else what has."""
        here = [each for each in self.under_way if each.stream_id == stream_id]
        return next((each for each in here if each.id is None), here[-1] if here else None)

    # ── the session ──────────────────────────────────────────────────────────────────────────────────────────

    def _learn(self, session: Fields) -> None:
        """Which models the session uses, and what bounds its responses."""
        model = session.get("model")
        if isinstance(model, str):
            self.model = model
        heard = fields(fields(fields(session.get("audio")).get("input")).get("transcription"))
        heard = heard or fields(session.get("input_audio_transcription"))
        if isinstance(heard.get("model"), str):
            self._transcription_model = str(heard["model"])
        if session and self.flavor is REALTIME:
            self._default = {**_lengths(session), **_served(session)}

    def _widen(self, session: Fields) -> None:
        """What the client wants of its session holds when the server says so; what makes its responses dearer is taken
        for true at once."""
        for name, value in _lengths(session).items():
            known = self._default.get(name)
            if not isinstance(value, int) or (isinstance(known, int) and value > known):
                self._default[name] = value
        self._default |= _served(session)

    def _transcribed(self, payload: bytes) -> None:
        """What hearing the user has used, of which the transcription model is paid: a record of its own."""
        with contextlib.suppress(errors.Unauthorized):  # it is counted; then the connection ends
            self.look_up_key()
        record, now_ns = self.record(AUDIO), time.perf_counter_ns()
        record.request_model = self._transcription_model
        prepared = Prepared(body=b"", model=self._transcription_model)
        self.mark(record, prepared)
        try:
            call = Call(self.whose.metering, record, now_ns, AUDIO, prepared)
        except errors.JournalError:
            return
        meter = call.begin_answer(AS_EVENTS)
        call.feed(b"data: " + in_a_line(payload) + b"\n\n", now_ns)
        call.settle(Outcome.OK, time.perf_counter_ns(), meter.reading())
        self.settled += 1


def _meant(asked: list[UnderWay], metadata: Fields) -> UnderWay | None:
    """Which one of those asked for a response is: servers repeat its metadata, by which clients tell several apart
    (https://platform.openai.com/docs/guides/realtime-conversations#create-responses-outside-the-default-conversation).
    Else the first, rather one that has none."""
    for each in asked:
        if metadata and metadata.items() <= each.call.prepared.metadata.items():
            return each
    return min(asked, key=lambda each: bool(each.call.prepared.metadata), default=None)


def _lengths(said: Fields) -> Fields:
    return {name: said[name] for name in _LENGTHS if said.get(name) is not None}


def _served(session: Fields) -> Fields:
    """What lets the provider run tools: those of its own, and a stored prompt, which may bring some."""
    found: Fields = {"prompt": session["prompt"]} if session.get("prompt") else {}
    tools = list(_own_tools(items(session.get("tools"))))
    return {**found, "tools": tools} if tools else found


def _own_tools(tools: Iterable[object]) -> Iterable[object]:
    return (tool for tool in tools if fields(tool).get("type") != "function")
