"""What a hard budget is charged for a call of which it is not known what it used. Pure.

Unknown use is not free: what may have been billed stays charged at the bound that was held, until somebody knows
better. The tokens of a record stay null all the same: a bound is no figure of what was used.
"""

from __future__ import annotations

import msgspec

from taximeter.budgets.tally import Unit
from taximeter.core.record import Operation, Outcome, Record

GATEWAY_STATUSES = frozenset({502, 504, 520, 524})
"""A gateway before the provider (nginx, Cloudflare) says that it does not know what became of the call. Any other error
status is the provider's word that it did not answer, and so bills nothing."""


class Held(msgspec.Struct):
    """What is held of a call's budgets: the most it may use."""

    tokens: int
    cost_nusd: int | None
    """None: no budget of its is in USD, or its model has no price."""
    sent: bool = False
    """Some of the request may have been written to the upstream, and all of it was there to be written."""
    budgets: bool = True
    """False: only rates are about it, and nothing is charged."""
    told: list[tuple[bytes, bytes]] = []
    """Headers of its answer that say how its limits stand."""
    output_tokens: int | None = None
    """How much of `tokens` is its answer's; None: it is not known which is which."""
    audio_ms: int = 0

    def of(self, unit: Unit, attempt: int = 1) -> int:
        """The most it may use of a unit (tally.used). A second attempt is no second request."""
        if unit == "usd":
            return self.cost_nusd or 0
        if unit == "requests":
            return int(attempt == 1)
        if unit == "seconds":
            return self.audio_ms
        if unit == "tokens" or self.output_tokens is None:
            return self.tokens
        return self.output_tokens if unit == "output_tokens" else self.tokens - self.output_tokens


def charge(record: Record, held: Held) -> None:
    """Set what the budgets of a settled and priced call are charged beyond what is known of it."""
    if not held.budgets or not _may_be_billed(record, held):
        return
    known = _is_known(record)
    if not known:
        record.charged_tokens = max(0, held.tokens - (record.total_tokens or 0)) or None
        if record.charged_tokens is not None:
            record.charged_input_tokens = max(0, held.of("input_tokens") - (record.input_tokens or 0)) or None
            record.charged_output_tokens = max(0, held.of("output_tokens") - (record.output_tokens or 0)) or None
        record.charged_audio_ms = max(0, held.audio_ms - round((record.seconds or 0) * 1_000)) or None
    if held.cost_nusd is not None and not (known and record.cost_nusd is not None):
        record.charged_cost_nusd = max(0, held.cost_nusd - (record.cost_nusd or 0)) or None


def tokens_used(record: Record, held: Held) -> int:
    """The tokens that a settled call used, or may have used at most where that is not known."""
    total = record.total_tokens or 0
    return total if _is_known(record) or not _may_be_billed(record, held) else max(total, held.tokens)


def _may_be_billed(record: Record, held: Held) -> bool:
    """Whether anything of it may be billed that its record does not say."""
    if not held.sent or record.outcome in (Outcome.REFUSED, Outcome.UPSTREAM_UNREACHABLE):
        return False
    status = record.status or 0
    return status < 400 or status in GATEWAY_STATUSES


def _is_known(record: Record) -> bool:
    """Whether the record's figures are what the provider bills, reported or counted.

    Of an answer that ended early only what came of it is known: a provider that went on generating bills the rest, too.
    """
    if record.operation is not Operation.LLM:
        return record.input_tokens is not None or record.search_units is not None or record.cost_nusd is not None
    if record.input_tokens is None or record.output_tokens is None:
        return False
    return not record.partial
