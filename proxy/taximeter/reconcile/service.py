"""Comparing daily in the background: each by one node of all, patiently, and what was found kept in history."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from taximeter.config.settings import ReconcileSettings
from taximeter.core.errors import BadRequest, NotFound, TaximeterError
from taximeter.reconcile import generations, rule
from taximeter.reconcile.generations import Records
from taximeter.reconcile.ours import Sums, ours, over_models
from taximeter.reconcile.pulling import Puller
from taximeter.reconcile.rule import Cell, Compared, Measured, PullFailed, State
from taximeter.reconcile.store import ReconcileStore, Run, Writable
from taximeter.reconcile.told import Span

log = logging.getLogger("taximeter.reconcile")

LONGEST_S = 3 * 3_600.0
"""A comparison that takes longer is given up, and tried again."""
HELD_US = int(LONGEST_S * 1_000_000) + 600_000_000
"""For so long a node has its turn; one that died in the midst is followed by another then."""
FIRST_WAIT_US, LONGEST_WAIT_US = 60_000_000, 3_600_000_000
"""After a comparison that failed, doubled each time."""


COUNTED = {"openai": ("llm", "embedding"), "anthropic": ("llm",), "anthropic_admin": ("llm",)}
"""Kind -> the operations whose tokens it tells; the others tell all."""


class History(Sums, Records, Writable, Protocol):
    """What is read, and where results are kept."""


class Standing(msgspec.Struct, kw_only=True):
    """How one comparison of the settings stands."""

    settings: ReconcileSettings
    run: Run
    compared: list[Compared]
    """Of the days that were compared last; none: it never went well."""
    unknown_requests: int
    unpriced_requests: int
    """Calls of ours in these days of which nothing is known, or no price."""

    @property
    def state(self) -> State:
        return rule.state(self.compared, self.settings.figures, self.settings.tolerance_percent / 100)


def _judged(compared: Compared, settings: ReconcileSettings) -> bool:
    return not settings.figures or compared.figure in settings.figures


def _standing(settings: ReconcileSettings, run: Run, found: Sequence[Cell]) -> Standing:
    ours = [each.ours for each in found if each.ours is not None]
    return Standing(
        settings=settings,
        run=run,
        compared=rule.compare(found),
        unknown_requests=sum(each.unknown_requests for each in ours),
        unpriced_requests=sum(each.unpriced_requests for each in ours),
    )


class ReconcileService:
    """The comparisons of one node. Methods raise HistoryUnavailable."""

    def __init__(self, pullers: Sequence[Puller], history: History, *, node: str, now_us: Callable[[], int]) -> None:
        self._pullers = {each.settings.name: each for each in pullers}
        self._history = history
        self._store = ReconcileStore(history)
        self._node = node
        self._now_us = now_us
        self.standings: list[Standing] = []
        """As `look` found them last, for metrics and alerts."""
        self.failures: Counter[str] = Counter()
        """By name, how many comparisons failed here since this process began."""

    def measured(self) -> list[Measured]:
        """For metrics."""
        return [
            Measured(
                name=each.settings.name,
                done_s=each.run.done_at // 1_000_000,
                tolerance=each.settings.tolerance_percent / 100,
                apart={one.figure: one.ratio for one in each.compared if _judged(one, each.settings)},
                passed={one.figure: one.coverage for one in each.compared if one.coverage is not None},
                failures=self.failures[each.settings.name],
            )
            for each in self.standings
        ]

    def use(self, pullers: Sequence[Puller]) -> None:
        """Go by other settings from now on; one that is under way goes on by those it began with."""
        self._pullers = {each.settings.name: each for each in pullers}
        self.standings = [each for each in self.standings if each.settings.name in self._pullers]

    async def look(self) -> None:
        """Compare what is due, if no other node is at it."""
        if self._pullers or self.standings:
            self.standings = await self.all()
        await asyncio.gather(*map(self._if_due, self._pullers.values()))

    async def _if_due(self, puller: Puller) -> None:
        due_us = rule.last_due_us(self._now_us(), puller.settings.at)
        try:
            done = await self._compare(puller, due_us, forced=False)
        except PullFailed:
            done = True  # noted, and told
        if done:
            self.standings = await self.all()

    async def now(self, name: str) -> Standing:
        """Compare one now. Raises NotFound, BadRequest where some node is at it, PullFailed."""
        puller = self._named(name)
        if not await self._compare(puller, rule.last_due_us(self._now_us(), puller.settings.at), forced=True):
            raise BadRequest(f"{name} is being compared just now; ask again when that is over.")
        self.standings = await self.all()
        return next(each for each in self.standings if each.settings.name == name)

    async def all(self) -> list[Standing]:
        """Each of the settings, in their order."""
        if not self._pullers:
            return []
        runs = await self._store.runs()
        return [await self._stands(each, runs.get(name)) for name, each in list(self._pullers.items())]

    async def _stands(self, puller: Puller, run: Run | None) -> Standing:
        """Its rows are read when it was done anew, not each time that it is looked."""
        name, run = puller.settings.name, run or Run(name=puller.settings.name)
        known = next((each for each in self.standings if each.settings.name == name), None)
        if known is not None and known.run.done_at == run.done_at:
            return msgspec.structs.replace(known, settings=puller.settings, run=run)
        cells = await self._store.cells(name, run.from_day, run.to_day) if run.done_at else []
        return _standing(puller.settings, run, cells)

    async def cells(self, name: str, from_day: str | None, to_day: str | None) -> tuple[Standing, list[Cell]]:
        """One of the settings, and what is known of these days (half-open); None: of those compared last. Raises
        NotFound where it is not in the settings, or was never compared."""
        puller = self._named(name)
        run = (await self._store.runs()).get(name)
        if run is None or not run.done_at:
            why = f": {run.problem}" if run is not None and run.problem else ""
            raise NotFound(f"{name} was not compared yet{why}.", param="name")
        run = msgspec.structs.replace(run, from_day=from_day or run.from_day, to_day=to_day or run.to_day)
        found = await self._store.cells(name, run.from_day, run.to_day)
        return _standing(puller.settings, run, found), found

    def _named(self, name: str) -> Puller:
        if name not in self._pullers:
            there = f" There are: {', '.join(self._pullers)}." if self._pullers else " None is configured."
            raise NotFound(f"No reconcile {name[:128]!r}.{there}", param="name")
        return self._pullers[name]

    async def _compare(self, puller: Puller, due_us: int, *, forced: bool) -> bool:
        """Whether it was done; False: it is not due, or another node is at it. Raises PullFailed."""
        settings, now_us = puller.settings, self._now_us()
        if not forced and self._rests(settings.name, due_us, now_us):
            return False
        if not await self._store.claim(settings.name, self._node, due_us, now_us, HELD_US, forced=forced):
            return False
        before = (await self._store.runs())[settings.name]
        span = Span(*rule.settled(now_us, settings.lag_h * 3_600, settings.days))
        try:
            async with asyncio.timeout(LONGEST_S):
                found = await self._both(puller, span)
            run = Run(
                name=settings.name,
                done_at=self._now_us(),
                due_at=due_us,
                from_day=rule.day_of(span.from_s),
                to_day=rule.day_of(span.to_s),
                node=self._node,
            )
            await self._store.keep(run, found)
        except (TaximeterError, TimeoutError) as error:
            problem = str(error) or f"it took longer than {LONGEST_S / 3_600:g} hours"
            await self._failed(before, problem)
            raise PullFailed(problem) from error
        except Exception as error:  # what others answer is read here: a fault of ours in it ends no control process
            log.exception("reconcile %s: a fault of Taximeter's own", settings.name)
            problem = f"a fault of Taximeter's own: {type(error).__name__}: {error}"
            await self._failed(before, problem)
            raise PullFailed(problem) from error
        except BaseException:
            await asyncio.shield(self._store.note(msgspec.structs.replace(before, held_until=0)))
            raise
        self.standings = [each for each in self.standings if each.settings.name != settings.name]  # to be read anew
        self._tell(_standing(settings, run, found))
        return True

    def _rests(self, name: str, due_us: int, now_us: int) -> bool:
        """Whether there is nothing to do, as far as is known here: no question to the database then."""
        run = next((each.run for each in self.standings if each.settings.name == name), None)
        return run is not None and (run.due_at >= due_us or run.next_at > now_us or run.held_until > now_us)

    async def _both(self, puller: Puller, span: Span) -> list[Cell]:
        settings, scope = puller.settings, puller.scope
        if settings.kind == "openrouter_generations":
            asker = puller.asker()
            try:
                calls = generations.both(asker, self._history, span, settings, scope.provider, scope.upstreams)
                return rule.cells(*await calls)
            finally:
                await asker.close()
        told = await puller.pull(span)
        mine = await ours(
            self._history,
            span,
            settings.by,
            provider=scope.provider,
            upstreams=scope.upstreams,
            counted=COUNTED.get(settings.kind, ("llm", "embedding", "rerank")),
        )
        if told and not any(place.model for place in told):
            mine = over_models(mine)
        return rule.cells(told, mine)

    async def _failed(self, before: Run, problem: str) -> None:
        attempts = before.attempts + 1
        wait_us = min(LONGEST_WAIT_US, FIRST_WAIT_US << min(attempts - 1, 16))
        if before.problem != problem:
            log.error("reconcile %s: %s; tried again in %d s", before.name, problem, wait_us // 1_000_000)
        self.failures[before.name] += 1
        next_us = self._now_us() + wait_us
        noted = msgspec.structs.replace(before, attempts=attempts, next_at=next_us, problem=problem, held_until=0)
        await self._store.note(noted)

    def _tell(self, standing: Standing) -> None:
        furthest = rule.worst(standing.compared, standing.settings.figures)
        apart = "nothing to compare" if furthest is None else f"{furthest.figure} {furthest.ratio:.2%} apart"
        level = logging.WARNING if standing.state == "differs" else logging.INFO
        run = standing.run
        log.log(level, "reconcile %s, %s until before %s: %s", run.name, run.from_day, run.to_day, apart)
