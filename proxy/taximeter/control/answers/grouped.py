"""Any number of groups as one file, part by part: JSON, CSV, JSON Lines. Pure.

Totals come behind the rows, and are their sum: what was sent is not read again, and what has no totals is not whole.
CSV and JSON Lines have none; a body in chunks says by itself whether it was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from taximeter.control.answers import responses
from taximeter.control.answers.responses import UsageGroup, encode
from taximeter.core import views
from taximeter.core.times import shown
from taximeter.core.totals import Totals
from taximeter.exports.lines import csv_line
from taximeter.sinks.query import Filters, Group

Kind = Literal["json", "csv", "jsonl"]
KINDS: tuple[Kind, ...] = ("json", "csv", "jsonl")


class GroupsFile:
    """What to write before the groups, of each list of them, and behind the last."""

    def __init__(self, kind: Kind, filters: Filters, group_by: Sequence[str], *, windowed: bool) -> None:
        self.kind = kind
        self.rows = 0
        """Written so far."""
        self._filters = filters
        self._names = (*group_by, *(("start", "end") if windowed else ()))
        self._total = Totals()

    def begin(self, *, complete: bool = True, lag_seconds: float = 0.0) -> bytes:
        """See UsageAggregateResponse for both."""
        if self.kind == "csv":
            return csv_line((*self._names, *_FIGURES))
        if self.kind == "jsonl":
            return b""
        head = {
            "from": shown(self._filters.from_us),
            "to": shown(self._filters.to_us),
            "filters": responses.named(self._filters),
            "complete": complete,
            "lag_seconds": lag_seconds,
        }
        return encode(head)[:-1] + b',"groups":['

    def part(self, groups: Sequence[Group]) -> bytes:
        """A line each."""
        first, self.rows = self.rows == 0, self.rows + len(groups)
        self._total = views.summed([self._total, *(group.totals for group in groups)])
        shown_ = responses.rows(groups)
        if self.kind == "csv":
            return b"".join(csv_line(_cells(row, self._names)) for row in shown_)
        if self.kind == "jsonl":
            return b"".join(encode(row) + b"\n" for row in shown_)
        lines = b",\n".join(map(encode, shown_))
        return (b"\n" if first else b",\n") + lines if lines else b""

    def end(self) -> bytes:
        """The totals."""
        if self.kind != "json":
            return b""
        total = self._total
        foot = {
            "rows": self.rows,
            "usage": views.usage(total),
            "estimated_cost_usd": views.cost_usd(total),
            "unpriced_requests": total.unpriced_requests,
        }
        return b"\n]," + encode(foot)[1:] + b"\n"


_FLAT = {name: name for name in views.UsageInfo.__struct_fields__ if name not in ("llm", "embedding", "rerank")}
_NESTED = [
    (part, field.name, f"{part}_{field.name}")
    for part, kind in (
        ("llm", views.LLMUsageInfo), ("embedding", views.EmbeddingUsageInfo), ("rerank", views.RerankUsageInfo),
    )
    for field in msgspec.structs.fields(kind)
]  # fmt: skip
_FIGURES = (*_FLAT, *(column for _, _, column in _NESTED), "estimated_cost_usd", "unpriced_requests")


def _cells(row: UsageGroup, names: Sequence[str]) -> list[Any]:
    """A row of CSV; none is empty."""
    usage = row.usage
    return [
        *(getattr(row, name) for name in names),
        *(getattr(usage, name) for name in _FLAT),
        *(getattr(getattr(usage, part), name) for part, name, _ in _NESTED),
        row.estimated_cost_usd,
        row.unpriced_requests,
    ]
