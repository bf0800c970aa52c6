"""Statements made from history, and closed in it. Synchronous; `service` and the command line call it.

What a closed statement says never changes. What the ledger says of its period may: records that come late,
corrections, prices applied again, batches settled. So each new statement of the workspace also has, for every period
closed before, what the ledger says now less all that has been stated of it. The sum of all statements and of what is
open is then the ledger, whatever comes in which order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec
from msgspec.structs import replace

from taximeter.billing import costing, drawn, making
from taximeter.billing.costing import Itemise
from taximeter.billing.making import KEY, Names, Part, Stated
from taximeter.billing.period import Asked, Period
from taximeter.billing.rule import USD, Plan, Rate, borders, of_workspace, rate_at
from taximeter.billing.statement import MarginList, Standing, Statement
from taximeter.billing.store import Basis, Closed, Statements
from taximeter.core import tags
from taximeter.core.bounds import FOREVER_US
from taximeter.core.errors import BadRequest, Conflict, NotFound
from taximeter.core.record import Record
from taximeter.core.times import shown
from taximeter.core.views import usd
from taximeter.sinks.cells import FIELDS
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.write.owed import EXPIRED, OUTSTANDING
from taximeter.sinks.query import GROUPS, SERIES, TAGS, Filters

_COST, _REQUESTS = FIELDS.index("cost_nusd"), FIELDS.index("requests")


class Tariff(msgspec.Struct, frozen=True):
    """What the settings say of prices and currencies."""

    plans: Sequence[Plan] = ()
    rates: Sequence[Rate] = ()
    itemise: Itemise | None = None
    """What a call's cost is made of; None: the providers' prices are not known here."""


class Books:
    """The statements of one history database."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._statements = Statements(reader.database)

    def preview(self, asked: Asked, tariff: Tariff) -> Statement:
        """As it would be closed now; where part of it is stated already, which it then says, without corrections.

        Raises BadRequest, NotFound.
        """
        return self._made(asked, tariff).statement

    def close(self, asked: Asked, tariff: Tariff, *, by: str, now_us: int) -> Statement:
        """Number it and keep it: `draft`, then `keep`."""
        return self.keep(self.draft(asked, tariff, by=by, now_us=now_us), now_us)

    def draft(self, asked: Asked, tariff: Tariff, *, by: str, now_us: int) -> Closed:
        """What would be kept. Raises as `preview`; BadRequest where the period is not over, Conflict where part of it
        is stated already."""
        if asked.period.to_us > now_us:
            raise BadRequest(
                f"The period is over at {shown(asked.period.to_us)}; it can be closed from then on.", param="to"
            )
        made = self._made(asked, tariff, closes=True)
        statement = replace(made.statement, number=made.number, closed_at=shown(now_us), closed_by=by)
        return replace(made, statement=statement)

    def keep(self, draft: Closed, now_us: int) -> Statement:
        """Keep it. Raises Conflict where another of its workspace was closed since it was drafted."""
        if not self._statements.add(draft, now_us):
            raise Conflict(
                f"Another statement of {draft.statement.workspace} was closed meanwhile. Look at it, and try again."
            )
        return draft.statement

    def show(self, workspace: str, number: int) -> Statement:
        """A closed one, as it was closed. Raises NotFound."""
        for closed in self._statements.of(workspace):
            if closed.number == number:
                return closed.statement
        raise NotFound(f"{workspace[:128]!r} has no statement number {number}.")

    def standing(self, workspace: str) -> Standing:
        """The closed statements of a workspace, beside its ledger. Raises NotFound where there is nothing of either."""
        closed = self._statements.of(workspace)  # before the ledger: what is stated was in it then
        ledger = self._ledger(workspace)
        if ledger is None and not closed:
            raise NotFound(f"Nothing is recorded of workspace {workspace[:128]!r}.")
        cost_nusd, requests = (0, 0) if ledger is None else (ledger[_COST], ledger[_REQUESTS])
        stated = [each for one in closed for sums in one.basis.stated.values() for each in sums]
        stated_nusd = sum(each.sums.get("cost_nusd", 0) for each in stated)
        return Standing(
            workspace=workspace,
            statements=[drawn.summary(each.statement) for each in closed],
            ledger_usd=usd(cost_nusd),
            stated_usd=usd(stated_nusd),
            open_usd=usd(cost_nusd - stated_nusd),
            open_requests=requests - sum(each.sums.get("requests", 0) for each in stated),
        )

    def margins(self, period: Period, tariff: Tariff) -> MarginList:
        """Every workspace with calls in a period, by name, by the plans as they are now."""
        marks = _marks(period, tariff.plans)
        [sums] = self._reader.stretches(Filters(), [(SERIES, marks)])
        of_workspace_: dict[str, dict[tuple[int, Names], list[int]]] = defaultdict(dict)
        for (at, key), cell in sums.items():
            of_workspace_[key[0] or ""][at, key[1:]] = cell
        found = []
        for workspace, own in sorted(of_workspace_.items()):
            plans = of_workspace(tariff.plans, workspace)
            parts = making.parts(KEY, _stretches(own, marks), plans, workspace, 0, period.to_us - 1)
            found.append(drawn.margin(workspace, making.total(making.lines(parts, (), USD, []))))
        return MarginList(from_=shown(period.from_us) or "", to=shown(period.to_us) or "", tz=period.tz, data=found)

    def workspaces(self) -> list[str]:
        """Those with closed statements."""
        return self._statements.workspaces()

    def _ledger(self, workspace: str) -> list[int] | None:
        [sums] = self._reader.stretches(Filters(workspace=workspace), [((), (0, FOREVER_US))])
        return next(iter(sums.values()), None)

    def _made(self, asked: Asked, tariff: Tariff, *, closes: bool = False) -> Closed:
        """The statement, and what it is made of; its number is the next one's."""
        by = _checked(asked)
        closed = self._statements.of(asked.workspace)
        clash = next((each for each in closed if each.period.overlaps(asked.period)), None)
        if clash is not None and closes:
            raise Conflict(f"{_stated_on(clash)}; a period is stated once. What comes later for it is on the next one.")
        corrected = closed if clash is None else []
        plans = of_workspace(tariff.plans, asked.workspace)
        rate = _rate(asked, tariff)
        own, fine, sums = self._read(asked, by, plans, corrected)
        stated = {len(closed) + 1: list(making.stated(own).values())}
        lines = making.lines(fine, by, rate, self._reasons(asked, own))
        if tariff.itemise is not None:
            lines = costing.with_prices(lines, by, self._few_records(asked), tariff.itemise)
        for each, now in zip(corrected, sums, strict=True):
            missing = _missing(each, closed, now, asked.workspace, self._others(asked.workspace, each.period))
            stated[each.number] = missing
            same = each.basis.rate if each.basis.rate.code == rate.code else rate
            lines += making.corrections(missing, by, same, each.number)
        if not lines and not closed and self._ledger(asked.workspace) is None:
            raise NotFound(f"Nothing is recorded of workspace {asked.workspace[:128]!r}.")
        notes = drawn.notes(asked, plans, own, lines, self._owed(asked))
        if clash is not None:
            notes.insert(0, f"{_stated_on(clash)}: this one cannot be closed, and has no corrections.")
        return Closed(
            number=len(closed) + 1,
            period=asked.period,
            statement=drawn.statement(asked, by, rate, lines, own, notes),
            basis=Basis(plans=plans, chunks=asked.chunks, rate=rate, stated=stated),
        )

    def _read(
        self, asked: Asked, by: Sequence[str], plans: Sequence[Plan], corrected: Sequence[Closed]
    ) -> tuple[list[Part], list[Part], list[list[making.Stretch]]]:
        """The period's sums by KEY, and as fine as its lines need them; those of the periods to be corrected. In one
        snapshot."""
        period, last_us = asked.period, asked.period.to_us - 1
        finer = tuple(name for name in by if name in TAGS)
        questions: list[tuple[tuple[str, ...], list[int]]] = [
            (KEY, _marks(*each)) for each in (*((one.period, one.basis.plans) for one in corrected), (period, plans))
        ]
        if finer:
            self._records_are_kept(period)
            questions.append(((*KEY, *finer), questions[-1][1]))
        answers = self._reader.stretches(Filters(workspace=asked.workspace), questions)
        found = [_stretches(sums, marks) for sums, (_, marks) in zip(answers, questions, strict=True)]
        own = making.parts(KEY, found[len(corrected)], plans, asked.workspace, asked.chunks, last_us)
        own += self._others(asked.workspace, period)
        if not finer:
            return own, own, found[: len(corrected)]
        fine = making.parts((*KEY, *finer), found[-1], plans, asked.workspace, asked.chunks, last_us)
        if _cost(fine) != _cost(own):
            raise BadRequest(f"Single records of this period are missing: lines by {finer[0]} cannot be made.")
        return own, fine, found[: len(corrected)]

    def _few_records(self, asked: Asked) -> list[Record]:
        """Those of the period; none where there are more than are looked at."""
        filters = Filters(workspace=asked.workspace, from_us=asked.period.from_us, to_us=asked.period.to_us)
        if self._reader.count(filters) > costing.MOST_RECORDS:
            return []
        return [record for records in self._reader.export(filters) for record in records]

    def _owed(self, asked: Asked) -> int:
        """How many calls of the period are billed later, and not settled."""
        period = asked.period
        return self._reader.owed(asked.workspace, (OUTSTANDING, EXPIRED), period.from_us, period.to_us)

    def _others(self, workspace: str, period: Period) -> list[Part]:
        asked = Filters(workspace=workspace, from_us=period.from_us, to_us=period.to_us)
        return making.others(self._reader.quantities(asked, KEY))

    def _records_are_kept(self, period: Period) -> None:
        since_us = self._reader.records_since_us()
        if period.from_us < since_us:
            raise BadRequest(
                f"Single records before {shown(since_us)} are kept no longer (history.retention_days): lines by track, "
                "document or end user cannot be made of this period.",
                param="by",
            )

    def _reasons(self, asked: Asked, own: Sequence[Part]) -> list[tuple[Mapping[str, str | None], str, int]]:
        if not any(part.sums.get("unknown_requests") or part.sums.get("unpriced_requests") for part in own):
            return []
        found = self._reader.unpriced(asked.workspace, asked.period.from_us, asked.period.to_us)
        return [(dict(zip(GROUPS, each.key, strict=True)), each.reason, each.calls) for each in found or ()]


def _checked(asked: Asked) -> tuple[str, ...]:
    if not tags.is_valid(asked.workspace):
        raise BadRequest(f"workspace: {asked.workspace[:80]!r} is no name of one.", param="workspace")
    allowed = [name for name in GROUPS if name != "workspace"]
    for name in asked.by:
        if name not in allowed:
            raise BadRequest(f"Cannot group lines by {name[:80]!r}. Allowed: {', '.join(allowed)}.", param="by")
    return tuple(dict.fromkeys(asked.by))


def _marks(period: Period, plans: Sequence[Plan]) -> list[int]:
    return [period.from_us, *borders(plans, period.from_us, period.to_us), period.to_us]


def _stretches(sums: Mapping[tuple[int, Names], Sequence[int]], marks: Sequence[int]) -> list[making.Stretch]:
    return [
        (start_us, {key: cell for (number, key), cell in sums.items() if number == at})
        for at, (start_us, _) in enumerate(pairwise(marks))
    ]


def _missing(
    one: Closed, closed: Sequence[Closed], sums: Sequence[making.Stretch], workspace: str, others: Sequence[Part]
) -> list[Stated]:
    """What the ledger says now of a closed period, less all that has been stated of it."""
    basis = one.basis
    parts = making.parts(KEY, sums, basis.plans, workspace, basis.chunks, one.period.to_us - 1)
    now = making.stated([*parts, *others])
    before: dict[Names, Stated] = {}
    for each in closed:
        for stated in each.basis.stated.get(one.number, ()):
            before[stated.key] = making.plus(before.get(stated.key), stated)
    return making.short_of(now, before)


def _cost(period: Sequence[Part]) -> int:
    return sum(part.sums.get("cost_nusd", 0) for part in period)


def _stated_on(closed: Closed) -> str:
    ends = shown(closed.period.from_us), shown(closed.period.to_us)
    return f"Statement {closed.number} of {closed.statement.workspace} has {ends[0]} to {ends[1]}"


def _rate(asked: Asked, tariff: Tariff) -> Rate:
    """The one in force when the period ends. Raises BadRequest where there is none."""
    rate = rate_at(tariff.rates, asked.currency, asked.period.to_us - 1)
    if rate is None:
        raise BadRequest(
            f"There is no rate of {asked.currency[:80]!r} for {shown(asked.period.to_us)}: put one into the settings, "
            "as [[currency]].",
            param="currency",
        )
    return rate
