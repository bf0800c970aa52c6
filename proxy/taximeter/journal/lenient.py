"""A close line whose values are not all fit for every sink, read member by member.

What the journal holds must never stop a sink: a line of an older version, of another writer, or with a provider's
oddities in it still makes a record, with what is out of bounds (core.bounds) unknown or cut and the record marked
`inconsistent`. All sinks are fed from what is read here, so they agree on it. Pure.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from taximeter.core.bounds import MAX_ATTEMPT, MAX_COST_NUSD, MAX_SEQ, TAG_BYTES, TAG_CHARS, types_of
from taximeter.core.record import IMPOSSIBLE, SATURATED, Outcome, Record, Source, possible, seq_of
from taximeter.core.usage import COUNTS

TEXT_CHARS = 1_024
"""What stays of any other text (models, ids); the longest legitimate one is far below."""

_TAGS = ("request_id", "workspace", "track", "document", "task", "end_user", "key_id")
_NEEDED: dict[str, Any] = {
    "request_id": "unknown",
    "workspace": "unknown",
    "upstream": "unknown",
    "provider": "unknown",
    "api": "other",
    "outcome": Outcome.INTERRUPTED,
}
"""What stands for a member that every record has, where it cannot be read."""
_FIGURES = (*COUNTS, "seconds")
_MOST_DIGITS = 40

_members = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]]).decode
_any = msgspec.json.Decoder().decode
_NULL = msgspec.Raw(b"null")


def record(line: bytes) -> Record:
    """The record of a close line. Raises ValueError where the line is no JSON object, or its event id is none."""
    found = _line(line.decode("utf-8", "replace").encode())
    event_id = _text(found.get("event_id", _NULL), 100)
    if not 0 < seq_of(event_id or "") <= MAX_SEQ:
        raise ValueError(f"its event id {event_id!r} has no seq that a journal can have")
    values: dict[str, Any] = {"event_id": event_id}
    odd = False
    for name, kind in _KINDS.items():
        if name not in found or name in ("event_id", "usage", "tags"):
            continue
        try:
            value = msgspec.json.decode(found[name], type=kind)
            fit = not isinstance(value, str) or isinstance(value, enum.Enum) or _fit(name, value) == value
        except (ValueError, RecursionError):
            fit = False
        if fit:
            values[name] = value
        else:
            odd = True
            _mend(name, found[name], values)
    values["tags"] = _tags(found.get("tags", msgspec.Raw(b"{}")))
    values["usage"] = msgspec.Raw(bytes(found.get("usage", _NULL)))
    return _whole(values, found, odd)


def _line(line: bytes) -> Mapping[str, msgspec.Raw]:
    """The members of the record in a line; without its usage object where that nests too deep to be looked into."""
    try:
        return _members(line)["close"]
    except RecursionError:
        start = line.find(b',"usage":')
        if start < 0:
            raise ValueError("it nests too deep") from None
        return _members(line[:start] + b"}}")["close"]
    except msgspec.DecodeError as error:
        if isinstance(error, msgspec.ValidationError):
            raise
        return _members(_mended(line))["close"]
    except KeyError:
        raise ValueError("it is no close line") from None


def _mended(line: bytes) -> bytes:
    """The line as strict JSON, where lone surrogates, `NaN` or `1e999` keep it from being that. Raises ValueError."""
    found = json.loads(line, parse_constant=lambda _: None, parse_float=_finite)
    return json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")


def _finite(text: str) -> float | None:
    return found if math.isfinite(found := float(text)) else None


def _mend(name: str, raw: msgspec.Raw, values: dict[str, Any]) -> None:
    """What is kept of a value that is out of its bounds; nothing where it says nothing."""
    number = _number(raw)
    if name in ("started_at", "ended_at"):
        if number is not None:
            values[name] = possible(int(number))
    elif name == "attempt":
        if number is not None:
            values[name] = min(max(int(number), 1), MAX_ATTEMPT)
    elif name == "cost_nusd":
        if number is not None:
            values[name] = MAX_COST_NUSD if number > 0 else -MAX_COST_NUSD
            values["cost_note"] = SATURATED
    elif name in ("input_source", "output_source"):
        values[name] = Source.ESTIMATED  # not the provider's word, as far as we can tell
    elif str in types_of(_KINDS[name]) and (text := _text(raw, TEXT_CHARS)) is not None:
        kept = _fit(name, text)
        if kept or name not in _TAGS:  # a tag that says nothing is none
            values[name] = kept


def _whole(values: dict[str, Any], found: Mapping[str, msgspec.Raw], odd: bool) -> Record:
    """A record of these values, with what every record has, and told apart where anything was mended."""
    moments = [values[name] for name in ("ended_at", "started_at") if name in values]
    for name in ("started_at", "ended_at"):
        values.setdefault(name, moments[0] if moments else 0)
    for name, instead in _NEEDED.items():
        if name not in values:
            values[name], odd = instead, True
    if odd:
        values["inconsistent"] = True
    if any(name in found and bytes(found[name]) != b"null" and name not in values for name in _FIGURES):
        values["cost_nusd"] = values["price_ref"] = None
        values["cost_note"] = IMPOSSIBLE
        for name, tokens in (("input_source", "input_tokens"), ("output_source", "output_tokens")):
            if tokens not in values:
                values[name] = Source.NONE
    return Record(**values)


def _fit(name: str, text: str) -> str:
    """A text as every sink can hold it: without NUL, not too long for its kind; distinct ones stay distinct."""
    kept = text.replace("\0", "").encode("utf-8", "replace").decode()
    most, most_bytes = (TAG_CHARS, TAG_BYTES) if name in _TAGS else (TEXT_CHARS, 4 * TEXT_CHARS)
    if len(kept) <= most and len(kept.encode()) <= most_bytes:
        return kept
    digest = hashlib.sha256(kept.encode()).hexdigest()
    return f"{kept.encode()[: most - 33].decode(errors='ignore')}~{digest[:32]}"


def tags_fit(record: Record) -> bool:
    """Whether tags that need not be ASCII are short enough in bytes, too."""
    tags = (getattr(record, name) for name in _TAGS)
    return all(tag is None or len(tag.encode()) <= TAG_BYTES for tag in tags)


def _tags(raw: msgspec.Raw) -> dict[str, str]:
    try:
        found = _any(raw)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _number(raw: msgspec.Raw) -> int | float | None:
    if len(bytes(raw)) > _MOST_DIGITS:
        digits = bytes(raw).lstrip(b"-")
        return (-1 if bytes(raw).startswith(b"-") else 1) * 10**_MOST_DIGITS if digits.isdigit() else None
    try:
        found = _any(raw)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _text(raw: msgspec.Raw, most: int) -> str | None:
    try:
        found = _any(raw)
    except (ValueError, RecursionError):
        return None
    return found[: 64 * most] if isinstance(found, str) else None


_KINDS: dict[str, Any] = typing.get_type_hints(Record, include_extras=True)
"""Member -> its type with its bounds."""
