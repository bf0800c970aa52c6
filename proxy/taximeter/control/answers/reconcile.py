"""Our usage against a provider's own export, by day (UTC) and model: reading both, and what differs. Pure.

Exports: pages of OpenAI's organization usage API (`GET /v1/organization/usage/completions`, `/embeddings`), or CSV with
the same names. Raises BadRequest on a file that is neither.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from taximeter.control.answers.responses import UsageAggregateResponse
from taximeter.core.errors import BadRequest
from taximeter.core.times import moment_us, shown, zone

FIGURES = ("input_tokens", "cached_input_tokens", "output_tokens")
"""What is compared."""
DAY_S = 86_400

DayModel = tuple[str, str | None]
"""Day (`2026-11-22`) and model; None: the export does not tell models apart."""

COLUMNS = {
    "input_tokens": ("input_tokens", "prompt_tokens", "n_context_tokens_total"),
    "cached_input_tokens": ("input_cached_tokens", "cached_input_tokens", "cached_tokens"),
    "output_tokens": ("output_tokens", "completion_tokens", "n_generated_tokens_total"),
    "requests": ("num_model_requests", "requests", "n_requests"),
}
"""Names a CSV column may have; OpenAI's first."""
TIMES = ("start_time", "start_time_iso", "date", "day")
_OPERATIONS = {"completions": "llm", "embeddings": "embedding"}


class Figures(msgspec.Struct):
    """Sums of one day and model; None: the export does not tell them."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    requests: int | None = None

    def add(self, other: Mapping[str, int | None]) -> None:
        for name, value in other.items():
            if value is not None:
                setattr(self, name, (getattr(self, name) or 0) + value)


class Export(msgspec.Struct):
    """What a provider says."""

    start_s: int
    end_s: int
    """The period it is about, half-open."""
    operations: set[str]
    """llm, embedding: which calls it is about; empty: it does not say."""
    figures: dict[DayModel, Figures]


class Difference(msgspec.Struct):
    """One figure that differs."""

    day: str
    model: str | None
    figure: str
    ours: int
    theirs: int
    difference: int
    """ours - theirs"""


class Reconciliation(msgspec.Struct, kw_only=True):
    """What a comparison found."""

    from_: str | None = msgspec.field(name="from")
    to: str | None
    compared: int
    """Pairs of day and model on either side."""
    differing: int
    """Of these, those with a difference."""
    differences: list[Difference]
    ours: Figures
    theirs: Figures
    """Sums of everything compared. Requests are shown only: what a provider counts as one differs."""


class _Result(msgspec.Struct):
    object: str = ""
    model: str | None = None
    input_tokens: int | None = None
    input_cached_tokens: int | None = None
    output_tokens: int | None = None
    num_model_requests: int | None = None


class _Bucket(msgspec.Struct):
    start_time: int
    end_time: int
    results: list[_Result]


class _Page(msgspec.Struct):
    data: list[_Bucket]


def read(content: bytes) -> Export:
    """An export: one JSON page, a list of pages, pages as JSON lines, or CSV."""
    text = content.removeprefix(b"\xef\xbb\xbf").strip()
    return _of_pages(_pages(text)) if text[:1] in (b"{", b"[") else _of_csv(text)


def _pages(text: bytes) -> list[_Page]:
    try:
        if text.startswith(b"["):
            return msgspec.json.decode(text, type=list[_Page])
        return [msgspec.json.decode(line, type=_Page) for line in _documents(text)]
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"This is no page of OpenAI's usage API: {error}.") from error


def _documents(text: bytes) -> list[bytes]:
    """One document, however it is laid out, or one a line."""
    try:
        msgspec.json.decode(text)
    except ValueError:
        return [line for line in text.split(b"\n") if line.strip()]
    return [text]


def _of_pages(pages: Iterable[_Page]) -> Export:
    export = Export(2**62, 0, set(), {})
    for bucket in (bucket for page in pages for bucket in page.data):
        _widen(export, bucket.start_time, bucket.end_time)
        for result in bucket.results:
            kind = result.object.removeprefix("organization.usage.").removesuffix(".result")
            if kind not in _OPERATIONS:
                raise BadRequest(f"Results of {result.object!r} cannot be compared; completions and embeddings can.")
            export.operations.add(_OPERATIONS[kind])
            figures = export.figures.setdefault((_day(bucket.start_time), result.model), Figures())
            figures.add(
                {
                    "input_tokens": result.input_tokens,
                    "cached_input_tokens": result.input_cached_tokens,
                    "output_tokens": result.output_tokens,
                    "requests": result.num_model_requests,
                }
            )
    return _whole(export)


def _of_csv(text: bytes) -> Export:
    try:
        rows = list(csv.DictReader(io.StringIO(text.decode()), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRequest(f"This is neither JSON nor CSV: {error}.") from error
    names = set(rows[0]) if rows else set()
    time = next((name for name in TIMES if name in names), None)
    found = {
        figure: name for figure, known in COLUMNS.items() if (name := next((n for n in known if n in names), None))
    }
    if time is None or "input_tokens" not in found:
        raise BadRequest(f"The CSV needs a column {' or '.join(TIMES)}, and one input_tokens; model, output_tokens, "
                         "input_cached_tokens and num_model_requests are compared where they are there.")  # fmt: skip
    export = Export(2**62, 0, set(), {})
    for number, row in enumerate(rows, start=2):
        start_s = _start_s(row[time] or "", number)
        end_s = row.get("end_time") or ""
        _widen(export, start_s, int(end_s) if end_s.isdigit() else start_s // DAY_S * DAY_S + DAY_S)
        figures = export.figures.setdefault((_day(start_s), row.get("model") or None), Figures())
        figures.add({figure: _count(row[name], name, number) for figure, name in found.items()})
    return _whole(export)


def _start_s(text: str, line: int) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return moment_us(text, zone("UTC"), "") // 1_000_000
    except BadRequest:
        raise BadRequest(f"Line {line}: {text[:80]!r} is no time (Unix seconds, a date or RFC 3339).") from None


def _count(text: str | None, name: str, line: int) -> int | None:
    if not text:
        return None
    try:
        value = float(text)
        if value == int(value) and value >= 0:
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise BadRequest(f"Line {line}: {name} is {text[:80]!r}, not a count.")


def _widen(export: Export, start_s: int, end_s: int) -> None:
    export.start_s, export.end_s = min(export.start_s, start_s), max(export.end_s, end_s)


def _whole(export: Export) -> Export:
    if export.end_s == 0:
        raise BadRequest("The export is empty: there is nothing to compare.")
    models = {model for _, model in export.figures}
    if None in models and len(models) > 1:
        raise BadRequest("Some rows of the export name a model and some do not; group all of it by model.")
    return export


def by_model(export: Export) -> bool:
    """Whether the export tells models apart; one without any usage might."""
    return (not export.figures) or all(model is not None for _, model in export.figures)


def ours(answer: UsageAggregateResponse, *, models: bool) -> dict[DayModel, Figures]:
    """Our own figures from `GET /usage?window=day`: input of every operation, output of LLM calls."""
    found: dict[DayModel, Figures] = {}
    for part in answer.series:
        usage = part.usage
        key = str(part.start)[:10], (str(part.model) if isinstance(part.model, str) else "unknown") if models else None
        found.setdefault(key, Figures()).add(
            {
                "input_tokens": usage.llm.input_tokens + usage.embedding.input_tokens + usage.rerank.input_tokens,
                "cached_input_tokens": usage.llm.cached_input_tokens,
                "output_tokens": usage.llm.output_tokens,
                "requests": usage.requests,
            }
        )
    return found


def compare(export: Export, mine: Mapping[DayModel, Figures]) -> Reconciliation:
    """Every figure the export tells, day by day and model by model; what one side lacks is 0 there."""
    told = [name for name in FIGURES if any(getattr(each, name) is not None for each in export.figures.values())]
    told = told or list(FIGURES)
    keys = sorted({*export.figures, *mine}, key=lambda key: (key[0], key[1] or ""))
    differences, differing, sums = [], set(), (Figures(), Figures())
    for key in keys:
        pair = mine.get(key, Figures()), export.figures.get(key, Figures())
        for total, side in zip(sums, pair, strict=True):
            total.add({name: getattr(side, name) for name in (*told, "requests")})
        for name in told:
            our, their = (getattr(side, name) or 0 for side in pair)
            if our != their:
                differing.add(key)
                differences.append(Difference(key[0], key[1], name, our, their, our - their))
    return Reconciliation(
        from_=shown(export.start_s * 1_000_000),
        to=shown(export.end_s * 1_000_000),
        compared=len(keys),
        differing=len(differing),
        differences=differences,
        ours=sums[0],
        theirs=sums[1],
    )


def _day(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")
