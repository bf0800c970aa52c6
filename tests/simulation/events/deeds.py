"""What operators do in the course of a simulation, on a node: write off, price again, close statements.

Whoever does it may not hear of it: the process dies, the history does not answer. Then it is done again, or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from simulation import asked
from taximeter.billing.books import Tariff
from taximeter.billing.period import QUARTER_US, Asked, Period
from taximeter.billing.rule import Plan
from taximeter.core.errors import NotFound, TaximeterError
from taximeter.sinks.query import Filters
from taximeter.sinks.redis.client import ERRORS

if TYPE_CHECKING:
    from simulation.actors.node import Control
    from simulation.simulation import Simulation
    from simulation.virtual.world import Process


class Deed(NamedTuple):
    """One of them."""

    at_s: float
    kind: str
    """write off, reprice, close, seal, rebuild (Redis)."""
    node: int
    amount: int = 0
    """By how much prices are multiplied, from then on."""
    workspace: str = ""
    quarters: tuple[int, int] = (0, 0)
    """Whose statement of which quarters of an hour is closed, counted from the one in which everything begins."""


PLANS = (Plan(name="half more than it costs", factor_ppm=1_500_000),)
AHEAD_US = 4 * 3_600_000_000
"""Statements are about quarters of an hour, and a simulation lasts one: whoever closes them has a clock so far ahead,
and calls of the period come on."""
LAST_PRICE = 5
"""What prices are multiplied by at the end, where operators price periods again: no other price is that."""
LAST = -40, -39
"""A period in which nothing happens: its statement has nothing but corrections."""


def draw(seed: int, over_s: float, nodes: int, workspaces: int, *, jobs: bool) -> list[Deed]:
    """Of some seeds; `jobs`: something is billed later."""
    drawn = random.Random(f"{seed}/deeds")
    found: list[Deed] = []
    if jobs:
        times = drawn.choice((0, 0, 1, 2))
        found += [Deed(drawn.random() * over_s, "write off", drawn.randrange(nodes)) for _ in range(times)]
    if drawn.random() < 0.3:
        found += [
            Deed(drawn.random() * over_s, "reprice", drawn.randrange(nodes), drawn.choice((1, 2, 3)))
            for _ in range(drawn.randrange(1, 4))
        ]
    if drawn.random() < 0.3:
        for _ in range(drawn.randrange(1, 7)):
            start, whose = drawn.randrange(-6, 6), f"w{drawn.randrange(workspaces)}"
            ends = start + drawn.choice((1, 2, 6, 12))
            at_s = drawn.random() * over_s
            found.append(Deed(at_s, "close", drawn.randrange(nodes), workspace=whose, quarters=(start, ends)))
    seals = random.Random(f"{seed}/seals")
    if seals.random() < 0.4:
        times = seals.randrange(1, 4)
        found += [Deed(seals.random() * over_s, "seal", seals.randrange(nodes)) for _ in range(times)]
    return sorted(found)


def period_of(quarters: tuple[int, int], begins_ns: int) -> Period:
    """These quarters of an hour."""
    begins_us = begins_ns // 1_000 // QUARTER_US * QUARTER_US
    return Period(from_us=begins_us + quarters[0] * QUARTER_US, to_us=begins_us + quarters[1] * QUARTER_US)


class Operators:
    """Who does it, and how far they are."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._begun: list[tuple[Process, asyncio.Task[None]]] = []
        self.price_times = 1
        """What prices are multiplied by, from now on."""
        self.repriced = False
        """At the end, all of it."""
        self.statements: dict[tuple[str, int], tuple[str, ...]] = {}
        """What has ever been seen of closed ones, by workspace and number: it must not change."""
        self.unlike: list[tuple[str, int]] = []
        """Those that did."""
        self._left = sorted({deed.workspace for deed in simulation.plan.deeds if deed.kind == "close"})
        """Whose last statement is not closed yet."""

    def do(self, deed: Deed) -> None:
        """In the control process of its node, where there is one."""
        control = self._simulation.nodes[deed.node].control
        if control is not None:
            if deed.kind == "reprice":
                self.price_times = deed.amount
            control.node.run_in(control.process, self._begin, control, deed)

    def look(self) -> None:
        """See whether closed statements are what they were."""
        with contextlib.closing(sqlite3.connect(self._simulation.sql.path)) as connection:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'billing_statements'").fetchone() is None:
                return
            found = connection.execute("SELECT * FROM billing_statements").fetchall()
        rows = {(row[0], row[1]): tuple(map(str, row)) for row in found}
        self.unlike += [key for key, row in self.statements.items() if rows.get(key) != row]
        self.statements |= rows

    def _begin(self, control: Control, deed: Deed, then: Callable[[], None] = lambda: None) -> None:
        task = self._simulation.loop.create_task(self._quietly(control, deed, then))
        self._begun.append((control.process, task))

    async def _quietly(self, control: Control, deed: Deed, then: Callable[[], None]) -> None:
        world, parts = self._simulation.world, control.parts
        world.tell(f"an operator begins to {deed.kind}")
        try:
            if deed.kind == "write off":
                await parts.owed.write_off(0)
            elif deed.kind == "rebuild":
                await parts.counters.rebuild()
            elif deed.kind == "seal":
                await parts.history.seal_evidence(world.wall_ns() // 1_000, [asked.signer()])
                world.counts["signed roots of evidence"] += 1
            elif deed.kind == "reprice":
                await parts.corrections.reprice(Filters(), dry_run=False)
            else:
                wanted = Asked(workspace=deed.workspace, period=period_of(deed.quarters, world.begins_ns))
                await control.billing.close(wanted, Tariff(PLANS), by="simulation")
                world.counts["statements"] += 1
        except NotFound as error:  # nothing is recorded of the workspace, nor stated: there is nothing to close
            world.tell(f"{deed.kind}: {error}")
            then()
        except (TaximeterError, *ERRORS) as error:
            world.tell(f"{deed.kind}: {self._simulation.sql.told(error)}")
            if deed.quarters == LAST and "Nothing is recorded of workspace" in str(error):
                then()  # none of its calls found a worker: there is nothing that could be stated
        else:
            world.tell(f"{deed.kind}: done")
            then()
        self.look()

    def _all_repriced(self) -> None:
        self.repriced = True

    def at_rest(self) -> str:
        """Why it is not over yet, when all is well; "": it is. Asked again and again: one price has to hold for
        everything, and the journals of the control processes to end, as they do with their processes."""
        simulation = self._simulation
        controls = [node.control for node in simulation.nodes if not node.lost]
        if None in controls:
            return "there is a node without control"
        if any(process.alive and not task.done() for process, task in self._begun):
            return "operators are at work"
        wanted = [deed for deed in simulation.plan.deeds if deed.kind == "reprice"]
        if wanted and not self.repriced and (control := controls[0]) is not None:
            self.price_times = LAST_PRICE  # what was settled or corrected just now has that one, too
            control.node.run_in(control.process, self._begin, control, wanted[-1], self._all_repriced)
            return "the last prices are not everybody's"
        if self._left and (control := controls[-1]) is not None:
            last = Deed(0.0, "close", 0, workspace=self._left[0], quarters=LAST)
            control.node.run_in(control.process, self._begin, control, last, lambda: self._left.remove(last.workspace))
            return f"the last statements are not closed: {self._left}"
        writing = [each.node for each in controls if each is not None and each.writes]
        for node in writing:
            node.stop("control")
        return f"{[node.name for node in writing]} wrote corrections" if writing else ""
