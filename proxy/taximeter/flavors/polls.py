"""Requests that give back what was promised, as a flavor: bytes pass as they came, what they tell is handed over."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec.structs import replace

from taximeter.core.usage import Reading
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.dialects import UNMETERED
from taximeter.flavors.framing.body import HeadMeter
from taximeter.flavors.framing.bounded import Bounded
from taximeter.flavors.framing.elements import Elements
from taximeter.flavors.meter import Answer, Countable, Meter, Prepared
from taximeter.flavors.responses import RESPONSES, ResponsesReader
from taximeter.flavors.results import LineNames, LinesTeller, inlined_told
from taximeter.flavors.told import Place, Tell, Told, What, object_told, results_of
from taximeter.flavors.usage.reader import UsageReader

_name = re.compile(rb'"name"\s*:\s*"([^"\\]+)"').search
_RESPONSE_ENDED = frozenset(("completed", "incomplete", "failed", "cancelled"))
_GEMINIS = "inlinedResponses", 3
_MISTRALS = "outputs", 1
"""Where answers stand in an object: `response.inlinedResponses.inlinedResponses`; `outputs`, if `?inline=true`
(https://docs.mistral.ai/api/endpoint/batch)."""
_LISTED = ("data", "operations", "embed_jobs", "batchPredictionJobs")


class Poll(Dialect, frozen=True, kw_only=True, eq=False):
    """One GET of something that may have been promised."""

    place: Place
    response: bool = False
    """It is a response's, which may be streamed."""
    inlined: tuple[str, int] = _GEMINIS
    """Under which name answers stand in an object, and how deep."""
    tell: Tell
    came_whole: Callable[[str], None]
    """Told the file of results that has been read to the end of the answer: whole, if that came to its end."""

    def meter(self, prepared: Prepared, answer: Answer, provider: str) -> Meter:
        """See `Flavor.meter`. Only a whole answer tells: no error, no part of a file."""
        return (
            super().meter(prepared, answer, provider)
            if answer.status == 200
            else HeadMeter(UsageReader(self, prepared, answer, provider))
        )

    def _framing(self, reader: UsageReader, prepared: Prepared, answer: Answer, *, strip: bool) -> Meter:
        if self.response:
            inner = ResponsesReader(RESPONSES, prepared, answer, reader.provider)
            streamed = answer.content_type.partition(b";")[0].strip().lower() == b"text/event-stream"
            asked = replace(prepared, stream=streamed)
            return ResponseMeter(RESPONSES._framing(inner, asked, answer, strip=False), inner, self, reader)
        if self.place.what is What.OBJECT:
            return ObjectMeter(self, reader)
        if self.place.what is What.LIST:
            return ListMeter(self, reader)
        return LinesMeter(self, reader)


class ObjectMeter(HeadMeter):
    """Passes an object, and tells what it says of itself when it is whole."""

    __slots__ = ("_elements", "_ended", "_lined", "_names", "_poll")

    def __init__(self, poll: Poll, reader: UsageReader) -> None:
        super().__init__(reader)
        self._poll = poll
        self._ended = False
        key, level = poll.inlined
        self._elements = Elements((key,), level, self._inlined)
        self._names = LineNames()
        self._lined = False
        """Answers stood in it."""

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`. Answers that stand in it are told as they pass: there may be many."""
        self._elements.feed(chunk)
        return chunk

    def finish(self) -> bytes:
        """See `Meter.finish`."""
        whole = None if self._ended else self._elements.rest.whole()
        self._ended = True
        poll = self._poll
        for told in object_told(whole, poll.place, self._reader.provider, lined=self._lined) if whole else ():
            if told.id:  # in a list there may be anything
                poll.tell(told)
            for file in told.files if self._lined else ():  # it holds what stood here
                poll.came_whole(file)
        return b""

    def _inlined(self, element: Bounded) -> None:
        told = inlined_told(element, self._reader.provider)
        line = self._names.next(None if told is None else told.line)
        self._lined = True
        if told is None or told.reading is None:
            return
        # Google's name comes before what the object holds
        named = _name(self._elements.rest.ends()[0]) if self._poll.inlined is _GEMINIS else None
        told.id = named[1].decode("utf-8", "replace") if named else self._poll.place.id
        told.line = line
        if told.id:
            self._poll.tell(told)


class ListMeter(HeadMeter):
    """Passes a list of objects, and tells what each of them says of itself."""

    __slots__ = ("_elements", "_poll")

    def __init__(self, poll: Poll, reader: UsageReader) -> None:
        super().__init__(reader)
        self._poll = poll
        self._elements = Elements(_LISTED, 1, self._object)

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`."""
        self._elements.feed(chunk)
        return chunk

    def _object(self, element: Bounded) -> None:
        whole = element.whole()
        if whole is not None:  # one that is too long is told when it is fetched by itself
            passed = ObjectMeter(self._poll, self._reader)
            passed.feed(whole)
            passed.finish()


class LinesMeter(HeadMeter):
    """Passes a file of results, and tells each line as it passes; at the end, that there is no more of it."""

    __slots__ = ("_ended", "_poll", "_teller")

    def __init__(self, poll: Poll, reader: UsageReader) -> None:
        super().__init__(reader)
        self._poll = poll
        self._ended = False
        self._teller = LinesTeller(poll.place, reader.provider, poll.tell)

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`."""
        self._teller.feed(chunk)
        return chunk

    def finish(self) -> bytes:
        """See `Meter.finish`."""
        if not self._ended:
            self._ended = True
            self._teller.finish()
            if self._teller.results:
                self._end(self._poll.place)
        return b""

    def _end(self, place: Place) -> None:
        file = place.id
        if place.what is What.LINES:  # a batch has results once it has ended
            file = results_of(place.id)
            self._poll.tell(Told(id=place.id, state="ended", files=(file,)))
        self._poll.came_whole(file)


class ResponseMeter(HeadMeter):
    """Passes a response, whole or streamed, and tells what it used once it has ended."""

    __slots__ = ("_inner", "_poll", "_response", "_told")

    def __init__(self, inner: Meter, response: ResponsesReader, poll: Poll, reader: UsageReader) -> None:
        super().__init__(reader)
        self._inner, self._response, self._poll = inner, response, poll
        self._told = False

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`. What ends it is told before it leaves."""
        passed = self._inner.feed(chunk)
        if self._inner.terminal:
            self._tell()
            self.terminal = True
        return passed

    def finish(self) -> bytes:
        """See `Meter.finish`."""
        held = self._inner.finish()
        self._tell()
        return held

    def _tell(self) -> None:
        reading: Reading = self._inner.reading()
        if self._told or self._response.id is None or self._response.status not in _RESPONSE_ENDED:
            return
        if self._response.background is False:  # it was billed by its call
            return
        self._told = True
        # one that is cancelled may have used something by then, and tells nothing of it
        used = None if self._response.status == "failed" and not reading.reported else reading
        self._poll.tell(
            Told(
                id=self._response.id,
                api=RESPONSES.api,
                operation=RESPONSES.operation,
                reading=used,
                state=self._response.status,
            )
        )

    def output(self) -> Countable:
        """See `Meter.output`: a poll is never counted."""
        return Countable(truncated=True)


def poll(place: Place, path: bytes, tell: Tell, came_whole: Callable[[str], None]) -> Poll:
    """The flavor of a request of this path, see `told.place_of`."""
    lower = path.lower()
    return Poll(
        metered=True,
        api=UNMETERED.api,
        operation=UNMETERED.operation,
        usage=(),
        place=place,
        response=b"/responses/" in lower,
        inlined=_MISTRALS if b"/batch/jobs" in lower else _GEMINIS,
        tell=tell,
        came_whole=came_whole,
    )
