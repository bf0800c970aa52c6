"""What was promised and is fetched now: finished responses, batches, their files of results, jobs, videos.

Reads what passes by and hands over each thing it tells, line by line: a file of any length takes bounded memory.
Which call an object belongs to, and whether it was told before, is for others to know: the same answer may pass a
hundred times.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from taximeter.core import routes
from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.chat import CHAT, COMPLETIONS
from taximeter.flavors.cohere import COHERE_EMBED
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.dialects import EMBEDDINGS, UNKNOWN
from taximeter.flavors.evals import EVALS, used_by_model
from taximeter.flavors.framing.bounded import Bounded
from taximeter.flavors.generate import EMBED_CONTENT, GENERATE
from taximeter.flavors.media import VIDEO
from taximeter.flavors.messages import MESSAGES
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.responses import RESPONSES
from taximeter.flavors.usage.counts import Members, decode, members, raw_text, short_text

_ANSWER = Answer(status=200, content_type=b"application/json")
_FAILED = frozenset(("failed", "cancelled", "canceled", "expired", "error", "rejected", "timeout_exceeded"))
_ENDED = _FAILED | {"completed", "complete", "ended", "success", "succeeded", "incomplete", "done"}
"""States in lower case, without Google's `JOB_STATE_` and `BATCH_STATE_`."""
_state_prefix = re.compile(r"^(job|batch)_state_")
_line_name = re.compile(rb'"(?:custom_id|key)"\s*:\s*("(?:[^"\\]|\\.)*")').search


class What(Enum):
    """What a path gives back."""

    OBJECT = "object"
    LINES = "lines"
    """A batch's results."""
    FILE = "file"
    """A file, which may be a batch's results."""


class Place(NamedTuple):
    """What a GET asks for."""

    what: What
    id: str
    """Of the object or the file, as the path has it."""


class Told(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One thing that was told of an object: what it used, what a line of it used, or how it ended."""

    id: str
    """The object's; a file's where `in_file`."""
    in_file: bool = False
    line: str | None = None
    """The line's own name (`custom_id`, `key`), else `#` and its number; None: the object itself is told of."""
    api: str = "other"
    operation: Operation = Operation.OTHER
    reading: Reading | None = None
    """What was used; None: nothing, it failed or expired, or its lines tell."""
    state: str = ""
    """Of the object: completed | failed | expired …, as the provider says, in lower case; only when it has ended."""
    files: tuple[str, ...] = ()
    """Files that hold its lines."""


Tell = Callable[[Told], None]

_PLACES: tuple[tuple[re.Pattern[bytes], What], ...] = (
    (re.compile(rb"(?i)/messages/batches/([^/]+)/results$"), What.LINES),
    (re.compile(rb"(?i)/files/([^/]+)/content$|(?i:/files/([^/:]+):download$)"), What.FILE),
    (
        re.compile(
            rb"(?i)/(?:responses|batches|batch/jobs|embed-jobs|videos|operations|batchPredictionJobs|evals/[^/]+/runs)"
            rb"/([^/:]+)$"
        ),
        What.OBJECT,
    ),
)


def place_of(path: bytes) -> Place | None:
    """What a GET of this path gives back that may have been promised; None: nothing."""
    for spelled in routes.spellings(path.partition(b"?")[0]):
        for pattern, what in _PLACES:
            match = pattern.search(spelled)
            if match is not None:
                return Place(what, unquote_to_bytes(match.group(match.lastindex or 1)).decode("utf-8", "replace"))
    return None


class LinesTeller:
    """Reads a file of results, one JSON object a line, in whatever pieces it comes."""

    __slots__ = ("_line", "_number", "_place", "_provider", "_tell", "results")

    def __init__(self, place: Place, provider: str, tell: Tell) -> None:
        self._place, self._provider, self._tell = place, provider, tell
        self.results = False
        """It is a file of results: one line, or more, was a call's answer or told that there is none."""
        self._line = Bounded()
        self._number = 0

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
        if told is not None and told.reading is not None:  # a line that failed is billed nothing: nothing to tell
            told.id, told.in_file = self._place.id, self._place.what is What.FILE
            told.line = told.line or f"#{self._number}"
            self._tell(told)
        self._number += 1


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
    reader = flavor.reader(flavor, Prepared(body=b""), _ANSWER, provider)
    reader.whole(bytes(body))
    return Told(id="", line=name, api=flavor.api, operation=flavor.operation, reading=reader.reading())


def long_line_told(head: bytes, tail: bytes, provider: str) -> Told | None:
    """The same of a line of which only the ends were kept."""
    if b'"response"' not in head and b'"message"' not in head:
        return None
    flavor = next((one for mark, one in _MARKS if mark in head or mark in tail), UNKNOWN)
    reader = flavor.reader(flavor, Prepared(body=b""), _ANSWER, provider)
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


def object_told(body: bytes, place: Place, provider: str, *, lined: bool = False) -> list[Told]:
    """What an object tells of itself, and of each model of a run; [] while it goes on. `lined`: lines stood in it."""
    found = members(body)
    if found is None or not (state := state_of(found)):
        return []
    name = name_of(found, place)
    lines = _of_models(found, name, provider)
    files = _files(found, name)
    used = None
    if state not in _FAILED and raw_text(found.get("object")) != "batch":
        flavor = VIDEO if raw_text(found.get("object")) == "video" else UNKNOWN
        reader = flavor.reader(flavor, Prepared(body=b""), _ANSWER, provider)
        reader.whole(body)
        used = reader.reading()
        if not (used.reported or used.measured) and (lined or lines or files):
            used = None  # its lines tell
    return [*lines, Told(id=name, state=state, reading=used, files=files)]


def _of_models(found: Members, name: str, provider: str) -> list[Told]:
    """What each model of an evaluation's run used; also of one that failed, which is billed as far as it came."""
    return [
        Told(id=name, line=used.response_model, api=EVALS.api, operation=EVALS.operation, reading=used)
        for used in used_by_model(found, provider)
    ]


def state_of(found: Members) -> str:
    """How an object ended, in lower case; "" while it goes on."""
    inside = members(found["metadata"]) if "metadata" in found else None
    told = ""
    for source in (inside or {}, found):
        for key in ("state", "processing_status", "status"):
            told = raw_text(source.get(key)) or told
    state = _state_prefix.sub("", told.lower())
    if bytes(found.get("done", b"")) == b"true":
        return "failed" if "error" in found else state if state in _ENDED else "completed"
    return state if state in _ENDED else ""


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
    (b'"result"', MESSAGES),
    (b'"embedding"', EMBEDDINGS),
    (b'"object":"response"', RESPONSES),
    (b'"object": "response"', RESPONSES),
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


def inlined_told(element: Bounded, number: int, provider: str) -> Told | None:
    """What an answer tells that stands in the object itself (Gemini: `response.inlinedResponses.inlinedResponses`)."""
    whole = element.whole()
    if whole is None:
        told = long_line_told(*element.ends(), provider)
    else:
        told = line_told(whole, provider)
        inside = members(whole) or {}
        meta = members(inside["metadata"]) if "metadata" in inside else None
        if told is not None and meta is not None:
            told.line = short_text(meta.get("key"))
    if told is not None:
        told.line = told.line or f"#{number}"
    return told


def name_of(found: Members, place: Place) -> str:
    """What an object calls itself."""
    return short_text(found.get("id")) or short_text(found.get("name")) or short_text(found.get("job_id")) or place.id


def _files(found: Members, name: str) -> tuple[str, ...]:
    """Ids of the files that hold its lines, without Google's `files/`; Anthropic's results have the batch's own path.
    What failed is billed nothing, so a file of errors is none of them."""
    inside = members(found["response"]) if "response" in found else None
    names = [
        short_text(source.get(key))
        for source in (found, inside or {})
        for key in ("output_file_id", "output_file", "responsesFile")
    ]
    if short_text(found.get("results_url")):
        names.append(results_of(name))
    return tuple(each.removeprefix("files/") for each in names if each)


def results_of(batch: str) -> str:
    """What the results of a batch are called that have its own path (Anthropic's) and so no name."""
    return f"{batch}/results"
