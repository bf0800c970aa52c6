"""What is added up for budgets: one unit, of the calls of a scope, by period. Pure.

Counted with every record of a workspace in the step that counts it (sinks.redis.budgeted), and written anew from
history by the same names. A sum's key says all that decides what belongs to it: budgets that measure the same share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Literal

import msgspec

from taximeter.budgets.periods import Period, period_of
from taximeter.core.errors import BadRequest
from taximeter.core.names import clean
from taximeter.core.record import Operation, Outcome, Record
from taximeter.core.totals import COST, EMBEDDING, LLM_INPUT, LLM_OUTPUT, REQUESTS, RERANK, TOTAL

Unit = Literal["usd", "tokens", "input_tokens", "output_tokens", "requests", "seconds"]
UNITS: tuple[Unit, ...] = ("usd", "tokens", "input_tokens", "output_tokens", "requests", "seconds")

DIMENSIONS = ("key_id", "task", "track", "document", "end_user", "model", "upstream")
"""What the calls of a workspace are told apart by; `model` is the one asked for."""
EACH = "*"
"""In place of a value: every value by itself. A call that has none is in none."""

AMOUNTS = ("used", "charged")
"""Fields of a sum: what was used; what is charged for calls of which that is not known."""


class Tally(msgspec.Struct, frozen=True):
    """One unit, of the calls of a scope, by period."""

    unit: Unit
    period: str
    tz: str
    scope: tuple[tuple[str, str], ...]
    """(dimension, value or EACH), in the order of DIMENSIONS; none: all calls of the workspace."""

    @property
    def text(self) -> str:
        """As it is kept in Redis."""
        return msgspec.json.encode(self).decode()

    @property
    def when(self) -> Period:
        return period_of(self.period, self.tz)

    def values(self, call: Record) -> tuple[str, ...] | None:
        """What a call says of each dimension, or None where the tally is not about it."""
        return matched(self.scope, call)

    @property
    def each(self) -> bool:
        """Whether it adds up every value of a dimension by itself."""
        return any(wanted == EACH for _, wanted in self.scope)

    @property
    def lasting(self) -> bool:
        """Whether history keeps all of it for ever: its roll-ups know keys and tasks, and no requests."""
        return self.unit != "requests" and all(dimension in ("key_id", "task") for dimension, _ in self.scope)

    @property
    def widest(self) -> Tally:
        """The one that adds up every combination of values of these dimensions: what this one counts is in it, under
        the same names."""
        return msgspec.structs.replace(self, scope=tuple((dimension, EACH) for dimension, _ in self.scope))


class TallySum(msgspec.Struct, frozen=True):
    """What a tally comes to in one bucket for one combination of values."""

    tally: Tally
    start_s: int
    """Of the bucket (periods.Period.start_s)."""
    values: tuple[str, ...]
    used: int
    charged: int
    last_s: int
    """When (s since epoch) its last record ended, or later."""


def value(call: Record, dimension: str) -> str | None:
    """What a call says of a dimension; the model as history stores it."""
    if dimension == "model":
        return clean(call.request_model) if call.request_model else None
    found: str | None = getattr(call, dimension)
    return found


def matched(scope: Iterable[tuple[str, str]], call: Record) -> tuple[str, ...] | None:
    """What a call says of each dimension of a scope, or None where it is not in it."""
    found: list[str] = []
    for dimension, wanted in scope:
        said = value(call, dimension)
        if not said or wanted not in (EACH, said):
            return None
        found.append(said)
    return tuple(found)


@lru_cache(maxsize=4_096)
def parse(text: str) -> Tally | None:
    """A tally as it was kept; None: another version's, which this one cannot count."""
    try:
        tally = msgspec.json.decode(text, type=Tally)
        tally.when  # noqa: B018  (raises where there is no such period)
    except (ValueError, RecursionError, BadRequest):
        return None
    return tally if all(dimension in DIMENSIONS for dimension, _ in tally.scope) else None


def used(unit: Unit) -> Callable[[Record], int]:
    """How much of a unit a record used: nano-USD, tokens, requests or milliseconds. What is not known adds nothing."""
    return _USED[unit]


def charged(unit: Unit) -> Callable[[Record], int]:
    """How much of a unit a record is charged because it is not known."""
    return _CHARGED[unit]


def used_of_cell(unit: Unit, cell: list[int], audio_ms: int) -> int:
    """The same of the sums of many records (core.totals.FIELDS); of requests, where none of them is of NO_REQUESTS."""
    if unit == "usd":
        return cell[COST]
    if unit == "seconds":
        return audio_ms
    if unit == "tokens":
        return cell[TOTAL]
    if unit == "requests":
        return cell[REQUESTS]
    return cell[LLM_OUTPUT] if unit == "output_tokens" else cell[LLM_INPUT] + cell[EMBEDDING] + cell[RERANK]


def _input(record: Record) -> int:
    if record.kind != "usage" or record.operation is Operation.OTHER:
        return 0
    return record.input_tokens or 0


def _output(record: Record) -> int:
    if record.kind != "usage" or record.operation is not Operation.LLM:
        return 0
    return record.output_tokens or 0


NO_REQUESTS = (Outcome.REFUSED, Outcome.INTERRUPTED)
"""What was refused is no request of a budget's; of a call whose worker died it is not known whether it was sent."""


def _requests(record: Record) -> int:
    """Retries of ours are no requests of the client's."""
    return int(record.kind == "usage" and record.attempt == 1 and record.outcome not in NO_REQUESTS)


def _charged_requests(record: Record) -> int:
    """A call whose worker died is charged as a request where it may have been sent, as its tokens are."""
    if record.outcome is not Outcome.INTERRUPTED or record.kind != "usage" or record.attempt != 1:
        return 0
    return int(record.charged_tokens is not None or record.charged_cost_nusd is not None)


def _audio_ms(record: Record) -> int:
    return 0 if record.seconds is None or record.kind != "usage" else round(record.seconds * 1_000)


_USED: dict[str, Callable[[Record], int]] = {
    "usd": lambda record: record.cost_nusd or 0,
    "tokens": lambda record: _input(record) + _output(record),
    "input_tokens": _input,
    "output_tokens": _output,
    "requests": _requests,
    "seconds": _audio_ms,
}
_CHARGED: dict[str, Callable[[Record], int]] = {
    "usd": lambda record: record.charged_cost_nusd or 0,
    "tokens": lambda record: record.charged_tokens or 0,
    "input_tokens": lambda record: record.charged_input_tokens or 0,
    "output_tokens": lambda record: record.charged_output_tokens or 0,
    "requests": _charged_requests,
    "seconds": lambda record: record.charged_audio_ms or 0,
}
