"""Our usage against a provider's own export, by day (UTC) and model: reading both, and what differs. Pure.

Exports: pages of OpenAI's organization API (`GET /v1/organization/usage/completions`, `/embeddings`, `/costs`), or CSV
and lists of JSON objects whose columns have names known here, or said. Raises BadRequest on a file that is neither.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from taximeter.core.bounds import MAX_SUM
from taximeter.core.errors import BadRequest
from taximeter.core.times import moment_us, shown, zone
from taximeter.reconcile import openai_pages
from taximeter.reconcile.openai_pages import Bucket, Page
from taximeter.reconcile.rule import DAY_S, LAST_S, Figures, Place, PullFailed, day_of, told_day

TOKENS = ("input_tokens", "cached_input_tokens", "output_tokens")
COMPARED = (*TOKENS, "cost_nusd")
"""What `GET /usage` tells of ours."""
DayModel = tuple[str, str | None]
"""Day (`2026-11-22`) and model; None: the export does not tell models apart."""

COLUMNS = {
    "day": ("start_time", "start_time_iso", "date", "day"),
    "end": ("end_time",),
    "model": ("model",),
    "key": ("api_key_id",),
    "input_tokens": ("input_tokens", "prompt_tokens", "n_context_tokens_total"),
    "cached_input_tokens": ("input_cached_tokens", "cached_input_tokens", "cached_tokens"),
    "cache_write_input_tokens": ("input_cache_write_tokens", "cache_write_input_tokens"),
    "output_tokens": ("output_tokens", "completion_tokens", "n_generated_tokens_total"),
    "requests": ("num_model_requests", "requests", "n_requests"),
    "cost_usd": ("cost_usd", "amount_usd"),
}
"""What a column may mean, and the names that say so; OpenAI's first."""
_COUNTED = ("input_tokens", "cached_input_tokens", "cache_write_input_tokens", "output_tokens", "requests")


class Export(msgspec.Struct):
    """What a provider says."""

    start_s: int
    end_s: int
    """The period it is about, half-open."""
    operations: set[str]
    """llm, embedding: which calls it is about; empty: it does not say."""
    rows: dict[tuple[str, str | None, str], Figures]
    """By day, model (None: not told apart) and key ("": not told apart)."""

    @property
    def figures(self) -> dict[DayModel, Figures]:
        """The same whatever the key."""
        found: dict[DayModel, Figures] = {}
        for (day, model, _), each in self.rows.items():
            found.setdefault((day, model), Figures()).add(msgspec.structs.asdict(each))
        return found

    def places(self) -> dict[Place, Figures]:
        """For comparing by model and key."""
        return {Place(day, model or "", key): each for (day, model, key), each in self.rows.items()}

    def add(self, day: str, model: str | None, key: str, figures: Mapping[str, int | None]) -> None:
        self.rows.setdefault((day, model, key), Figures()).add(figures)


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
    difference_ratio: float
    """How far apart the figures are over all days, of the one that is furthest: see rule.Compared.ratio."""
    theirs: Figures
    """Sums of everything compared. Requests are shown only: what a provider counts as one differs."""


def read(content: bytes, columns: Mapping[str, str] | None = None) -> Export:
    """An export: one JSON page, a list of pages, pages as JSON lines, a list of JSON objects, or CSV.

    `columns`: what of COLUMNS stands in which column, where its name is another.
    """
    text = content.removeprefix(b"\xef\xbb\xbf").strip()
    if columns or text[:1] not in (b"{", b"["):
        return _of_rows(_objects(text) if text[:1] in (b"{", b"[") else _lines(text), columns or {})
    try:
        return _of_pages(_pages(text))
    except PullFailed as error:
        raise BadRequest(f"It cannot be compared: {error}.") from error


def _pages(text: bytes) -> list[Page]:
    try:
        if text.startswith(b"["):
            return msgspec.json.decode(text, type=list[Page])
        return [msgspec.json.decode(line, type=Page) for line in _documents(text)]
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"This is no page of OpenAI's usage API: {error}.") from error


def _documents(text: bytes) -> list[bytes]:
    """One document, however it is laid out, or one a line."""
    try:
        msgspec.json.decode(text)
    except ValueError:
        return [line for line in text.split(b"\n") if line.strip()]
    return [text]


def _of_pages(pages: Iterable[Page]) -> Export:
    export = Export(2**62, 0, set(), {})
    buckets = [bucket for page in pages for bucket in page.data]
    models = {result.model or "" for bucket in buckets for result in bucket.results}
    for bucket in buckets:
        _widen(export, bucket.start_time, bucket.end_time)
        _add_bucket(export, bucket, models)
    return _whole(export)


def _add_bucket(export: Export, bucket: Bucket, models: set[str]) -> None:
    for result in bucket.results:
        kind = openai_pages.kind_of(result)
        if kind in openai_pages.OPERATIONS:
            export.operations.add(openai_pages.OPERATIONS[kind])
            model = result.model
        elif kind == "costs":
            model = None if result.line_item is None else openai_pages.model_of(result.line_item, models)
        else:
            raise BadRequest(f"Results of {result.object!r} cannot be compared; completions and embeddings can.")
        export.add(told_day(bucket.start_time), model, result.api_key_id or "", openai_pages.figures_of(result))


def _lines(text: bytes) -> list[dict[str, Any]]:
    try:
        found = list(csv.DictReader(io.StringIO(text.decode()), restkey="", strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRequest(f"This is neither JSON nor CSV: {error}.") from error
    for number, row in enumerate(found, start=2):
        if isinstance(row.get(""), list) and any(row[""]):
            raise BadRequest(f"Line {number} has more cells than there are columns (is a comma in an amount?).")
    return found


def _objects(text: bytes) -> list[dict[str, Any]]:
    try:
        found = [
            msgspec.json.decode(each, type=list[dict[str, Any]] | dict[str, Any], strict=False)
            for each in _documents(text)
        ]
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"This is no list of JSON objects: {error}.") from error
    return [row for each in found for row in (each if isinstance(each, list) else [each])]


def _of_rows(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> Export:
    names = set(rows[0]) if rows else set()
    for meaning, said in columns.items():
        if said not in names:
            raise BadRequest(f"There is no column {said!r} (columns.{meaning}); there are: {', '.join(sorted(names))}.")
    found = {
        meaning: name
        for meaning, known in COLUMNS.items()
        if (name := columns.get(meaning) or next((each for each in known if each in names), None))
    }
    if "day" not in found or not {"input_tokens", "cost_usd"} & set(found):
        raise BadRequest(
            f"The CSV needs a column {' or '.join(COLUMNS['day'])}, and one input_tokens or cost_usd; model, "
            "output_tokens, input_cached_tokens and num_model_requests are compared where they are there."
        )
    export = Export(2**62, 0, set(), {})
    for number, row in enumerate(rows, start=2):
        start_s = _start_s(str(row.get(found["day"]) or ""), number)
        end_s = str(row.get(found.get("end", "")) or "")
        end = int(end_s) if end_s.isascii() and end_s.isdigit() and int(end_s) < LAST_S else 0
        _widen(export, start_s, end or start_s // DAY_S * DAY_S + DAY_S)
        figures = {name: _count(row.get(found[name]), found[name], number) for name in _COUNTED if name in found}
        if "cost_usd" in found:
            figures["cost_nusd"] = _cost(row.get(found["cost_usd"]), found["cost_usd"], number)
        named = [str(row.get(found.get(name, "")) or "") for name in ("model", "key")]
        export.add(day_of(start_s), named[0] or None, named[1], figures)
    return _whole(export)


def _start_s(text: str, line: int) -> int:
    digits = text.isascii() and text.isdigit()
    if digits and len(text) == len("20261103"):  # as seconds it would be a day of 1970
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    elif digits and len(text) < 13 and int(text) < LAST_S:
        return int(text)
    try:
        return moment_us(text, zone("UTC"), "") // 1_000_000
    except BadRequest:
        raise BadRequest(f"Line {line}: {text[:80]!r} is no time (Unix seconds, a date or RFC 3339).") from None


def _count(told: Any, name: str, line: int) -> int | None:
    if told is None or told == "":
        return None
    try:
        value = Decimal(str(told))
        if 0 <= value <= MAX_SUM and value == int(value):
            return int(value)
    except (InvalidOperation, ValueError):
        pass
    raise BadRequest(f"Line {line}: {name} is {str(told)[:80]!r}, not a count.")


def _cost(told: Any, name: str, line: int) -> int | None:
    if told is None or told == "":
        return None
    try:
        value = Decimal(str(told).replace("$", "", 1))
        if abs(value) < Decimal(10) ** 9:
            return int((value * 10**9).to_integral_value())
    except InvalidOperation:
        pass
    raise BadRequest(f"Line {line}: {name} is {str(told)[:80]!r}, not an amount of USD.")


def _widen(export: Export, start_s: int, end_s: int) -> None:
    export.start_s, export.end_s = min(export.start_s, start_s), max(export.end_s, end_s)


def _whole(export: Export) -> Export:
    if export.end_s == 0:
        raise BadRequest("The export is empty: there is nothing to compare.")
    models = {model for _, model, _ in export.rows}
    if None in models and len(models) > 1:
        raise BadRequest("Some rows of the export name a model and some do not; group all of it by model.")
    return export


def by_model(export: Export) -> bool:
    """Whether the export tells models apart; one without any usage might."""
    return (not export.rows) or all(model is not None for _, model, _ in export.rows)


def compare(export: Export, mine: Mapping[DayModel, Figures]) -> Reconciliation:
    """Every figure the export tells, day by day and model by model; what one side lacks is 0 there.

    Not compared: a figure of ours that is not known, such as the cost of a model without a price.
    """
    theirs = export.figures
    told = [name for name in COMPARED if any(getattr(each, name) is not None for each in theirs.values())]
    told = told or list(TOKENS)
    keys = sorted({*theirs, *mine}, key=lambda key: (key[0], key[1] or ""))
    differences, differing, sums = [], set(), (Figures(), Figures())
    for key in keys:
        pair = mine.get(key, Figures()), theirs.get(key, Figures())
        for total, side in zip(sums, pair, strict=True):
            total.add({name: getattr(side, name) for name in (*told, "requests")})
        for name in told:
            if key in mine and getattr(mine[key], name) is None:
                continue
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
        difference_ratio=max((_apart(export, mine, name) for name in told), default=0.0),
        ours=sums[0],
        theirs=sums[1],
    )


def _apart(export: Export, mine: Mapping[DayModel, Figures], name: str) -> float:
    """The differences of all models, as a part of the larger sides."""
    sums: dict[str | None, list[int]] = {}
    for side, given in enumerate((mine, export.figures)):
        for (day, model), each in given.items():
            if (day, model) in mine and getattr(mine[day, model], name) is None:
                continue  # not known
            sums.setdefault(model, [0, 0])[side] += getattr(each, name) or 0
    larger = sum(max(abs(ours), abs(theirs), abs(ours - theirs)) for ours, theirs in sums.values())
    return sum(abs(ours - theirs) for ours, theirs in sums.values()) / larger if larger else 0.0
