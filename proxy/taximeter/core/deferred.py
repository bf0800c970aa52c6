"""What is answered now and billed later: who told what of it, and the record by which the call is settled. Pure.

A call that only got a promise has the object's id in `deferred`. Whatever passes later and tells of that object is a
record of kind TOLD, which counts nowhere; history lets one of those that tell the same become a settlement.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from taximeter.core.correction import correction
from taximeter.core.holds import BUDGETS
from taximeter.core.record import Outcome, Record

TOLD = "told"
"""Kind of a record that says what a promised object, or a line of it, used. No call, no sums."""
FILE = "file:"
"""How `deferred` begins where a file told it: which object the file's lines are of, that object says (`files`)."""
EVALS = "evals"
"""The API whose lines are not of a batch, but the models of one run: https://platform.openai.com/docs/guides/evals."""
BATCH = "batch"
"""The service tier of what is done in a batch."""
CHARGES = (
    "charged_tokens", "charged_cost_nusd", "charged_input_tokens", "charged_output_tokens", "charged_audio_ms",
)  # fmt: skip
"""What a record says its budgets are charged for it."""


def settlement(asked: Record, told: Record) -> Record:
    """The record by which a call is settled, or a line of it: what `told` says was used, for whom `asked` asked.

    It is an attempt of the same request, so no second request, and belongs to the period in which was asked, as
    corrections do. Where nothing was used (it failed; a batch, whose lines tell) it is a correction, which adds
    nothing. Without a price yet. With the object itself (no `line`) goes what budgets were charged for it, but where it
    ended well and nobody tells what it used: that is unknown now, and stays charged.
    """
    of_line, used = bool(told.line), told.outcome is Outcome.OK
    known = not used or told.total_tokens is not None or told.search_units is not None or told.measured
    settled = replace(
        told,
        event_id="",
        kind="usage" if used else "correction",
        outcome=Outcome.OK if used else asked.outcome,
        request_id=asked.request_id,
        attempt=asked.attempt + 1,
        started_at=asked.started_at,
        ended_at=asked.ended_at,
        duration_ms=None,
        ttft_ms=None,
        overhead_us=None,
        workspace=asked.workspace,
        track=asked.track,
        document=asked.document,
        task=asked.task,
        end_user=asked.end_user,
        key_id=asked.key_id,
        tags={BUDGETS: asked.tags[BUDGETS]} if BUDGETS in asked.tags else {},
        upstream=asked.upstream,
        provider=asked.provider,
        # what lets go has the model of what was charged: budgets of a model count by it
        request_model=asked.request_model or (told.response_model if of_line else None),
        region=told.region or asked.region,
        service_tier=BATCH if of_line and told.api != EVALS else told.service_tier,
        deferred=asked.deferred,
        object_state=None,
        files=(),
        request_bytes=0,
        response_bytes=0,
    )
    return replace(settled, **_taken_back(asked)) if known and not of_line else settled


def _taken_back(asked: Record) -> dict[str, int | None]:
    """What budgets were charged."""
    return {name: -charged if (charged := getattr(asked, name)) else None for name in CHARGES}


def as_charged_now(asked: Record, records: Iterable[Record]) -> Record:
    """A call that is billed later, with what budgets are charged for it by now: somebody may have said meanwhile what
    it used. `records`: all there are of its request; without any, it is as it was asked."""
    mine = [each for each in records if each.attempt == asked.attempt and each.line is None]
    return replace(asked, **{name: _sum(mine, name) for name in CHARGES}) if mine else asked


def unsaid(asked: Record, records: Iterable[Record]) -> Record | None:
    """The correction that takes back the cost somebody said a call had, which its settlement tells now; None: none."""
    said = [each for each in records if each.attempt == asked.attempt and each.line is None]
    cost_nusd = _sum(said, "cost_nusd")
    return correction(asked, -cost_nusd, None) if cost_nusd else None


def _sum(records: Iterable[Record], name: str) -> int | None:
    return sum(getattr(each, name) or 0 for each in records) or None
