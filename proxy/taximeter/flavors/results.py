"""A batch's results, whether they stand in a file of their own or in its object: what each answer used, line by line.

Reads what passes by and hands over each thing it tells: a file of any length takes bounded memory.
"""

from __future__ import annotations

import re

import msgspec

from taximeter.flavors.chat import CHAT, COMPLETIONS
from taximeter.flavors.cohere import COHERE_EMBED
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.dialects import EMBEDDINGS, UNKNOWN
from taximeter.flavors.framing.bounded import Bounded
from taximeter.flavors.generate import EMBED_CONTENT, GENERATE
from taximeter.flavors.messages import MESSAGES
from taximeter.flavors.meter import Prepared
from taximeter.flavors.responses import RESPONSES
from taximeter.flavors.told import ANSWER, Place, Tell, Told, What
from taximeter.flavors.usage.counts import Members, decode, members, raw_text, short_text

_line_name = re.compile(rb'"(?:custom_id|key)"\s*:\s*("(?:[^"\\]|\\.)*")').search
NAMES_MAX = 50_000
"""Names of lines remembered while a file passes: as many as a batch of OpenAI's has lines at most, in 4 MB."""


class LineNames:
    """What lines are called: by their own names, and where they have none, or one that was there before, by their
    numbers too. The same in the same file, each time."""

    __slots__ = ("_number", "_seen")

    def __init__(self) -> None:
        self._number = 0
        self._seen: set[int] = set()
        """Of names, at most `NAMES_MAX`."""

    def next(self, name: str | None) -> str:
        """Of the next line."""
        number, self._number = self._number, self._number + 1
        if name is None:
            return f"#{number}"
        mark = hash(name)
        if mark in self._seen:
            return f"{name}#{number}"
        if len(self._seen) < NAMES_MAX:
            self._seen.add(mark)
        return name


class LinesTeller:
    """Reads a file of results, one JSON object a line, in whatever pieces it comes."""

    __slots__ = ("_line", "_names", "_place", "_provider", "_tell", "results")

    def __init__(self, place: Place, provider: str, tell: Tell) -> None:
        self._place, self._provider, self._tell = place, provider, tell
        self.results = False
        """It is a file of results: one line, or more, was a call's answer or told that there is none."""
        self._line = Bounded()
        self._names = LineNames()

    def feed(self, piece: bytes) -> None:
        """The next piece of the file."""
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            self._line.add(piece[start:end])
            self._take()
            start = end + 1
        self._line.add(piece[start:])

    def finish(self) -> None:
        """There is no more of it. A last line that was cut short tells nothing."""
        if self._line.size and (not self._line.overflowed or self._line.ends()[1].rstrip().endswith(b"}")):
            self._take()

    def _take(self) -> None:
        whole = self._line.whole()
        head, tail = self._line.ends()
        self._line.clear()
        if whole is not None and not whole.strip():
            return
        told = line_told(whole, self._provider) if whole is not None else long_line_told(head, tail, self._provider)
        self.results = self.results or told is not None
        name = self._names.next(None if told is None else told.line)
        if told is not None and told.reading is not None:  # a line that failed is billed nothing: nothing to tell
            told.id, told.in_file = self._place.id, self._place.what is What.FILE
            told.line = name
            self._tell(told)


def line_told(line: bytes, provider: str) -> Told | None:
    """What a line of results tells; None where it is no such line. The caller names the object."""
    found = members(line)
    if found is None:
        return None
    name = short_text(found.get("custom_id")) or short_text(found.get("key"))
    body = _body_of(found)
    if body is None:
        # Named, and without an answer: it failed or expired, and nothing of it is billed.
        failed = name is not None and ("error" in found or "result" in found)
        return Told(id="", line=name) if failed else None
    inner = members(body)
    if inner is None:
        return None
    flavor = _flavor_of(inner)
    reader = flavor.reader(flavor, Prepared(body=b""), ANSWER, provider)
    reader.whole(bytes(body))
    return Told(id="", line=name, api=flavor.api, operation=flavor.operation, reading=reader.reading())


def long_line_told(head: bytes, tail: bytes, provider: str) -> Told | None:
    """The same of a line of which only the ends were kept."""
    if b'"response"' not in head and b'"message"' not in head:
        return None
    flavor = next((one for mark, one in _MARKS if mark in head or mark in tail), UNKNOWN)
    reader = flavor.reader(flavor, Prepared(body=b""), ANSWER, provider)
    reader.event_in_part(head, tail)
    named = _line_name(head) or _line_name(tail)
    name = decode(named.group(1)) if named else None
    return Told(
        id="",
        line=name[:256] if isinstance(name, str) and name else None,
        api=flavor.api,
        operation=flavor.operation,
        reading=reader.reading(),
    )


def inlined_told(element: Bounded, provider: str) -> Told | None:
    """What an answer tells that stands in the object itself (Gemini's, Mistral's)."""
    whole = element.whole()
    if whole is None:
        told = long_line_told(*element.ends(), provider)
    else:
        told = line_told(whole, provider)
        inside = members(whole) or {}
        meta = members(inside["metadata"]) if "metadata" in inside else None
        if told is not None and meta is not None:
            told.line = short_text(meta.get("key")) or told.line
    return told


def _body_of(found: Members) -> msgspec.Raw | None:
    """The answer in a line: OpenAI's and Mistral's `response.body`, Anthropic's `result.message`, Gemini's
    `response`."""
    response = members(found["response"]) if "response" in found else None
    if response is not None:
        if "body" in response:
            status = decode(response.get("status_code", msgspec.Raw(b"200")))
            return response["body"] if isinstance(status, int) and status < 400 else None
        return found["response"]
    result = members(found["result"]) if "result" in found else None
    return None if result is None else result.get("message")


_MARKS: tuple[tuple[bytes, Dialect], ...] = (
    (b'"usageMetadata"', GENERATE),
    (b'"chat.completion"', CHAT),
    (b'"text_completion"', COMPLETIONS),
    (b'"object":"response"', RESPONSES),  # before those whose mark it may hold: an image it made is a "result"
    (b'"object": "response"', RESPONSES),
    (b'"result"', MESSAGES),
    (b'"embedding"', EMBEDDINGS),
)


def _flavor_of(body: Members) -> Dialect:
    """By what an answer calls itself."""
    kind = raw_text(body.get("object"))
    if kind == "response":
        return RESPONSES
    if kind == "list":
        return EMBEDDINGS
    if kind == "text_completion":
        return COMPLETIONS
    if "choices" in body:
        return CHAT
    if raw_text(body.get("type")) == "message":
        return MESSAGES
    if "embedding" in body or "embeddings" in body:
        return COHERE_EMBED if "meta" in body else EMBED_CONTENT
    return GENERATE if "usageMetadata" in body else UNKNOWN
