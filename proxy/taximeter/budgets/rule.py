"""Budgets: what is stored of one, which calls it is about, and whose each call's part of it is. Pure.

Shared by the gateway (reserves), the control plane (keeps them) and the counters (add up what is spent).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

import msgspec

from taximeter.budgets.periods import Period, period_of
from taximeter.budgets.tally import DIMENSIONS, EACH, UNITS, Tally, Unit, matched
from taximeter.core.errors import BadRequest, NotFound
from taximeter.core.names import clean
from taximeter.core.record import Record
from taximeter.core.tags import is_valid
from taximeter.core.union import union

Mode = Literal["soft", "hard"]

MOST = 2**53
"""Largest limit: what the reserving script counts exactly ($9 million in nano-USD)."""

CHARGED = (
    "charged_tokens", "charged_cost_nusd", "charged_input_tokens", "charged_output_tokens", "charged_audio_ms",
)  # fmt: skip
"""Fields of a record that say what budgets are charged for it because it is not known what it used."""

_FREE = frozenset(("model", "upstream"))
"""Dimensions whose values may be any text; the others are tags."""

_is_id = re.compile(r"bud_[0-9a-f]{12}").fullmatch


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much the calls of a scope of a workspace may use in a period. It is ended, never changed.

    The scope is any combination of its dimensions: "" all, a value those calls only, `*` each value by itself.
    """

    id: str
    workspace: str
    key_id: str = ""
    task: str = ""
    track: str = ""
    document: str = ""
    end_user: str = ""
    model: str = ""
    """As the request names it."""
    upstream: str = ""
    """As the configuration names it."""
    unit: Unit = "usd"
    period: str = "month"
    """See periods.FIXED, or `rolling 30d`; a call belongs to the one in which it ends."""
    tz: str = "UTC"
    """Where a day, week or month begins: an IANA time zone."""
    limit: int
    """nano-USD, tokens, requests or milliseconds of audio."""
    mode: Mode = "hard"
    """soft: told when it is spent; hard: calls beyond it are refused."""
    created_at: int = 0
    """µs since epoch."""
    ended_at: int = 0
    """µs since epoch; 0: in force. An ended one stays in the file, so that no other copy brings it back."""

    @property
    def tally(self) -> Tally:
        """What it is measured by."""
        return _tally(self)

    @property
    def when(self) -> Period:
        return period_of(self.period, self.tz)

    @property
    def each(self) -> tuple[str, ...]:
        """The dimensions of which each value has an allowance of its own."""
        return tuple(name for name, wanted in self.tally.scope if wanted == EACH)

    @property
    def sole(self) -> Allowance | None:
        """Its only allowance; None where each value of a dimension has one."""
        scope = self.tally.scope
        return None if self.each or self.workspace == EACH else Allowance(self, tuple(wanted for _, wanted in scope))

    def of_values(self, values: tuple[str, ...]) -> Allowance | None:
        """The allowance of these values of its dimensions, as a tally has them; None: it is not about them."""
        wanted = tuple(value for _, value in self.tally.scope)
        return Allowance(self, values) if all(map(_matches, wanted, values)) else None

    def allowance(self, call: Record) -> Allowance | None:
        """Whose part of it a call uses; None: it is not about that call."""
        values = matched(self.tally.scope, call)
        return None if values is None else Allowance(self, values)


class Allowance(msgspec.Struct, frozen=True):
    """What one combination of values may use of a budget: all of it. Without `*` a budget has one."""

    budget: Budget
    values: tuple[str, ...]
    """Of each dimension of its scope."""
    cap: str = ""
    """Not "": its limit is kept in Redis by what calls say (see `caps`): `?` where one is, `!` made where none is yet,
    `^` raised too."""

    @property
    def own(self) -> tuple[str, ...]:
        """The values that tell it from the budget's other allowances."""
        return tuple(
            value for (_, wanted), value in zip(self.budget.tally.scope, self.values, strict=True) if wanted == EACH
        )

    @property
    def named(self) -> str:
        """`end user 'alice' of workspace 'acme'`, or `workspace 'acme'`."""
        parts = [
            f"{WORDS[name]} {value!r}" for (name, _), value in zip(self.budget.tally.scope, self.values, strict=True)
        ]
        whose = f"workspace {self.budget.workspace!r}"
        return f"{', '.join(parts)} of {whose}" if parts else whose


WORDS = {name: name.replace("_", " ") for name in DIMENSIONS} | {"key_id": "key"}
"""Dimensions, as a sentence has them."""


def _matches(wanted: str, value: str) -> bool:
    return wanted in (EACH, value)


@lru_cache(maxsize=4_096)
def _tally(budget: Budget) -> Tally:
    scope = tuple((name, wanted) for name in DIMENSIONS if (wanted := getattr(budget, name)))
    return Tally(budget.unit, budget.period, budget.tz, scope)


def shown_amount(value: int, unit: Unit) -> str:
    """An amount of a unit, as a sentence has it: `$2.50`, `1,000 tokens`, `90 seconds`."""
    if unit == "usd":
        whole = f"${value // 10**9:,}.{value % 10**9:09d}".rstrip("0")
        return whole.rstrip(".")
    if unit == "seconds":
        whole = f"{value // 1_000:,}.{value % 1_000:03d}".rstrip("0")
        return f"{whole.rstrip('.')} seconds of audio"
    return f"{value:,} {unit.replace('_', ' ')}"


def checked(budget: Budget) -> Budget:
    """The budget, if it can be meant. Raises BadRequest."""
    for name in ("workspace", *DIMENSIONS):
        wanted = getattr(budget, name)
        if name in _FREE and wanted and EACH not in wanted and wanted.isprintable() and clean(wanted) == wanted:
            continue
        if (wanted or name == "workspace") and not (is_valid(wanted) or wanted == EACH):
            raise BadRequest(
                f"{name} {wanted[:128]!r}: 1-128 characters of letters, digits and . _ : @ - are allowed, or *.",
                param=name,
            )
    if budget.unit not in UNITS or budget.mode not in ("soft", "hard"):
        raise BadRequest(f"A unit is one of {', '.join(UNITS)}; a mode is soft or hard.", param="unit")
    period_of(budget.period, budget.tz)
    if not 0 < budget.limit <= MOST:
        raise BadRequest(
            "The limit must be more than 0, and at most 9,007,199 USD, 2^53 tokens or requests, or 2^53 milliseconds.",
            param="limit",
        )
    return budget


def is_stored(budget: Budget) -> bool:
    """Whether this is a budget another node may have made."""
    try:
        return _is_id(budget.id) is not None and checked(budget) is budget
    except BadRequest:
        return False


CAP_UNITS: tuple[Unit, ...] = ("usd", "tokens")
"""What a run can be capped in by its calls."""


@lru_cache(maxsize=4_096)
def cap(workspace: str, unit: Unit, limit: int = MOST) -> Budget:
    """The budget of each track of a workspace whose limit its calls have said."""
    return Budget(id=f"cap_{unit}", workspace=workspace, track=EACH, unit=unit, period="total", limit=limit)


def caps(call: Record, said: tuple[Unit, int] | None = None, *, raises: bool = False) -> list[Allowance]:
    """What of caps a call of a track counts against, whatever track it is; `said`: the cap it names itself."""
    if call.track is None:
        return []
    found = []
    for unit in CAP_UNITS:
        mine = said is not None and said[0] == unit
        budget = cap(call.workspace, unit, said[1] if said is not None and mine else MOST)
        found.append(Allowance(budget, (call.track,), "?" if not mine else "^" if raises else "!"))
    return found


CAPS = frozenset(cap("", unit).tally for unit in CAP_UNITS)
"""What has to be added up where calls may cap their runs."""


class Budgets:
    """The budgets in force, by workspace: a call of a workspace without any costs one look-up in `workspaces`."""

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        self.workspaces: dict[str, tuple[Budget, ...]] = {}
        self.everywhere: tuple[Budget, ...] = ()
        """Those of each workspace."""
        for budget in budgets:
            if budget.ended_at:
                continue
            if budget.workspace == EACH:
                self.everywhere += (budget,)
            else:
                self.workspaces[budget.workspace] = (*self.workspaces.get(budget.workspace, ()), budget)

    def of_workspace(self, workspace: str) -> tuple[Budget, ...]:
        """Those of a workspace, its own of those of each included."""
        own = self.workspaces.get(workspace, ())
        return (*own, *(_of(budget, workspace) for budget in self.everywhere)) if self.everywhere else own

    def of_workspaces(self, asked: Iterable[str]) -> list[Budget]:
        """All of them; of those of each workspace, its own of each of these."""
        own = [budget for them in self.workspaces.values() for budget in them]
        return own + [_of(budget, workspace) for budget in self.everywhere for workspace in asked]

    def find(self, budget_id: str) -> Budget:
        """The budget of this id. Raises NotFound."""
        for budget in (*self.everywhere, *(each for them in self.workspaces.values() for each in them)):
            if budget.id == budget_id:
                return budget
        raise NotFound(f"No budget {budget_id[:128]!r}.", param="id")

    def of(self, call: Record) -> tuple[Allowance, ...]:
        """Those a call counts against."""
        them = self.of_workspace(call.workspace)
        return tuple(found for budget in them if (found := budget.allowance(call)) is not None)

    def tallies(self, workspace: str) -> frozenset[Tally]:
        """What has to be added up for the budgets of a workspace, nothing of it twice."""
        wanted = {budget.tally for budget in self.of_workspace(workspace)}
        return frozenset(tally for tally in wanted if tally.widest == tally or tally.widest not in wanted)


@lru_cache(maxsize=16_384)
def _of(budget: Budget, workspace: str) -> Budget:
    """A workspace's own of a budget of each."""
    return msgspec.structs.replace(budget, workspace=workspace)


def merge(*copies: Iterable[Budget]) -> list[Budget]:
    """Several copies of the stored budgets as one; see `union`."""
    return union(copies, "ended_at")
