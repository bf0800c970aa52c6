"""What was promised and is fetched now: finished responses, batches, their files of results, jobs, videos.

Where they are fetched, and what an object tells of itself; `results` reads the lines. Which call an object belongs to,
and whether it was told before, is for others to know: the same answer may pass a hundred times.
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
from taximeter.flavors.dialects import UNKNOWN
from taximeter.flavors.evals import EVALS, used_by_model
from taximeter.flavors.media import VIDEO
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.usage.counts import Members, members, raw_text, short_text

ANSWER = Answer(status=200, content_type=b"application/json")
_FAILED = frozenset(("failed", "cancelled", "canceled", "expired", "error", "rejected", "timeout_exceeded"))
_ENDED = _FAILED | {"completed", "complete", "ended", "success", "succeeded", "incomplete", "done"}
"""States in lower case, without Google's `JOB_STATE_` and `BATCH_STATE_`."""
_state_prefix = re.compile(r"^(job|batch)_state_")


class What(Enum):
    """What a path gives back."""

    OBJECT = "object"
    LINES = "lines"
    """A batch's results."""
    FILE = "file"
    """A file, which may be a batch's results."""
    LIST = "list"
    """Objects."""


class Place(NamedTuple):
    """What a GET asks for."""

    what: What
    id: str
    """Of the object or the file, as the path has it; "" of a list."""


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
            rb"(?i)/(?:responses|batches|batch/jobs|embed-jobs|videos|video/generations/jobs|operations|batchPredictionJobs|evals/[^/]+/runs)"
            rb"/([^/:]+)$"
        ),
        What.OBJECT,
    ),
    (re.compile(rb"(?i)/(?:batches|batch/jobs|embed-jobs|videos|batchPredictionJobs|evals/[^/]+/runs)()$"), What.LIST),
)
_CANCEL = re.compile(rb"(?i)/(?:responses|batches|batch/jobs)/([^/:]+)/cancel$").search


def place_of(path: bytes, method: bytes = b"GET") -> Place | None:
    """What a request of this path gives back that may have been promised; None: nothing. A POST that cancels answers as
    a GET of the object does."""
    for spelled in routes.spellings(path.partition(b"?")[0]):
        if method == b"POST":
            match = _CANCEL(spelled)
            if match is not None:
                return Place(What.OBJECT, _decoded(match.group(1)))
            continue
        if method != b"GET":
            continue
        for pattern, what in _PLACES:
            match = pattern.search(spelled)
            if match is not None:
                return Place(what, _decoded(match.group(match.lastindex or 1)))
    return None


def _decoded(name: bytes) -> str:
    return unquote_to_bytes(name).decode("utf-8", "replace")


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
        reader = flavor.reader(flavor, Prepared(body=b""), ANSWER, provider)
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
