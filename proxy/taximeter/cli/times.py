"""Times as one types them: `7d`, `yesterday`, `2026-11-01`. Everything but dates and RFC 3339 is worked out here."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from taximeter.core.errors import BadRequest

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_span = re.compile(r"(\d{1,6})([smhdw])").fullmatch
_DAYS = {"today": 0, "yesterday": 1}

SPANS = "30m, 12h, 7d, 2w"


def span_s(text: str, param: str) -> int:
    """Seconds of `30m`, `12h`, `7d`, `2w`. Raises BadRequest."""
    found = _span(text.strip().lower())
    if found is None:
        raise BadRequest(f"--{param}: {text[:80]!r} is no span of time. Give one such as {SPANS}.", param=param)
    return int(found[1]) * _UNITS[found[2]]


def is_span(text: str) -> bool:
    return _span(text.strip().lower()) is not None


def past(text: str, tz: ZoneInfo, now: datetime) -> str:
    """A moment as the API takes it: `7d` is so long ago, `yesterday` and `today` begin at midnight in `tz`, `now` is
    now; anything else is handed on as it is."""
    word = text.strip().lower()
    if word == "now":
        return now.isoformat()
    if word in _DAYS:
        return (now.astimezone(tz).date() - timedelta(days=_DAYS[word])).isoformat()
    if is_span(word):
        return (now - timedelta(seconds=span_s(word, "from"))).isoformat()
    return text


def ahead(text: str, param: str, now: datetime) -> str:
    """A moment to come as the API takes it: `30d` from now; anything else is handed on as it is."""
    return (now + timedelta(seconds=span_s(text, param))).isoformat() if is_span(text) else text
