"""Sequences of what sinks, owed ledger, evidence, statements and upkeep do to a history, drawn from a seed.

A step is drawn once and done on any number of databases: what it does depends on nothing that they answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from ledger import T0, batch, random_call
from taximeter.billing.books import Books, Tariff
from taximeter.billing.period import Asked, Period
from taximeter.core.audit import AuditEntry
from taximeter.core.deferred import FILE, TOLD, settlement
from taximeter.core.record import Outcome, Record
from taximeter.core.usage import MAX_COUNT
from taximeter.sinks.batch import Batch
from taximeter.sinks.history.read.owed import Unsettled
from taximeter.sinks.history.sink import History

DAY_US = 86_400_000_000
SPAN_US = 45 * DAY_US
"""Records end within so long: three months are touched."""
MONTHS_US = (1_764_547_200_000_000, 1_767_225_600_000_000)
"""2025-12-01, 2026-01-01."""
MODELS = ("m1", "M1", "m_2", "m%", "Modèle", "MODÈLE", "模型", "a\\b", "O'm")
USAGES = (b'{"a":"\\u0000\\ud83d\\ude00"}', '{"ü":1e400}'.encode(), b"[1.5,null]")
NODES = ("n0", "n1")
OBJECTS = ("b1", "b2", "B1")
FILES = ("f1", "f2")


class Side:
    """One database: a history for each node, as its control process has it."""

    def __init__(self, url: str) -> None:
        self.nodes = {name: History(url, name) for name in NODES}
        self.any = self.nodes["n0"]
        self.books = Books(self.any.reader)

    async def close(self) -> None:
        for each in self.nodes.values():
            await each.close()


class Step(NamedTuple):
    """Something that is done; `fault`: what becomes of its first commit, "" where it goes well."""

    name: str
    act: Callable[[Side], Awaitable[Any]]
    fault: str = ""


class Written:
    """A journal as its node has it."""

    def __init__(self, name: str, node: str) -> None:
        self.name, self.node = name, node
        self.records: list[Record] = []
        self.sent: list[Batch] = []
        self.without: set[str] = set()
        """Records that could not be taken: no batch has them any more."""


class Drawing:
    """Draws steps."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(f"{seed}/steps")
        self.journals = [Written(f"{node}-{number}", node) for node in NODES for number in range(2)]
        self.cursors: dict[str, int] = {}
        """As the databases said last."""
        self.aside: list[Record] = []
        """Records that their batches went without, for `retake`."""
        self.unsettled: dict[str, list[Unsettled]] = {node: [] for node in NODES}
        """As each node was told last."""
        self.files: dict[str, Sequence[str]] = dict.fromkeys(OBJECTS, FILES)
        """Object -> files that are said to hold its lines."""
        self.number = 0

    def step(self) -> Step:
        """The next one."""
        drawn, rng = self.rng.choices(*zip(*self._kinds(), strict=True))[0], self.rng
        step: Step = drawn()
        return step._replace(fault=rng.choice(("refused", "lost"))) if rng.random() < 0.2 else step

    def _kinds(self) -> list[tuple[Callable[[], Step], float]]:
        return [
            (self._deliver, 12), (self._again, 2), (self._settle, 3), (self._end, 0.5), (self._retake, 1),
            (self._roll_up, 2), (self._evidence, 2), (self._prune, 0.5), (self._owed, 2), (self._told, 1),
            (self._audit, 1), (self._state, 1),
        ]  # fmt: skip

    # ── delivery ─────────────────────────────────────────────────────────────────────────────────────────────

    def _deliver(self) -> Step:
        """What journals of one node have since their cursors, one batch each or two in a row."""
        node = self.rng.choice(NODES)
        batches: list[Batch] = []
        for journal in self.rng.sample([each for each in self.journals if each.node == node], self.rng.randint(1, 2)):
            after = self.cursors.get(journal.name, 0)
            for _ in range(self.rng.randint(1, 2)):
                made = self.batch(journal, after)
                batches.append(made)
                after = made.upto
        return self._delivered(node, batches)

    def batch(self, journal: Written, after: int) -> Batch:
        """From the cursor on; records never sent are made up now."""
        more = [] if after < len(journal.records) else [self._record() for _ in range(self.rng.randint(1, 7))]
        made = batch([*journal.records[after:], *more], journal.name, after)
        journal.records += made.records[len(journal.records) - after :]
        if self.rng.random() < 0.1 and len(made.records) > 1:
            self.aside.append(made.records[0])
            journal.without.add(made.records[0].event_id)
        records = [each for each in made.records if each.event_id not in journal.without]
        made = Batch(journal_id=made.journal_id, after=after, upto=made.upto, records=records, digest=made.digest)
        journal.sent.append(made)
        return made

    def _again(self) -> Step:
        """A batch that was sent before, or one for a cursor the journal has not come to."""
        journal = self.rng.choice(self.journals)
        if journal.sent and self.rng.random() < 0.7:
            return self._delivered(journal.node, [self.rng.choice(journal.sent)])
        return self._delivered(journal.node, [batch([self._record()], journal.name, len(journal.records) + 3)])

    def _end(self) -> Step:
        journal = self.rng.choice(self.journals)
        at = self.cursors.get(journal.name, 0)
        ends = Batch(journal_id=journal.name, after=at, upto=at, records=[], digest=f"digest-{at}", ended=True)
        return self._delivered(journal.node, [ends])

    def _delivered(self, node: str, batches: list[Batch]) -> Step:
        return Step(f"deliver {node}", lambda side: side.nodes[node].deliver(batches))

    def _retake(self) -> Step:
        records = [self.rng.choice(self.aside)] if self.aside else []
        return Step("retake", lambda side: side.any.retake(records))

    def _settle(self) -> Step:
        """Write settlements of what a node was told is to be settled, now and then of the same twice."""
        node = self.rng.choice(NODES)
        found, journal = self.unsettled[node], self.journals[NODES.index(node) * 2]
        if not found:
            return Step(f"unsettled {node}", lambda side: side.nodes[node].unsettled(1_000))
        settled = [replace(settlement(each.asked, each.told), cost_nusd=7) for each in found]
        journal.records += batch(settled, journal.name, len(journal.records)).records
        self.unsettled[node] = []
        return self._delivered(node, [self.batch(journal, self.cursors.get(journal.name, 0))])

    # ── records ──────────────────────────────────────────────────────────────────────────────────────────────

    def _record(self) -> Record:
        rng = self.rng
        self.number += 1
        made = replace(random_call(rng, SPAN_US), request_id=f"r{rng.randint(1, self.number)}")
        if rng.random() < 0.5:
            made.request_model = rng.choice(MODELS)
        if rng.random() < 0.3:
            made.usage = msgspec.Raw(
                rng.choice((b'{"a":"\\u0000\\ud83d\\ude00"}', '{"ü":1e400}'.encode(), b"[1.5,null]"))
            )
        if rng.random() < 0.05 and made.kind == "usage":
            made.cost_nusd = rng.choice((10**13, 2**61))
            made.input_tokens = made.total_tokens = MAX_COUNT
        if rng.random() < 0.1:
            made.charged_tokens, made.charged_cost_nusd = rng.choice((900, -900)), rng.choice((5, None))
        if rng.random() < 0.35:
            self._later(made)
        return made

    def _later(self, made: Record) -> None:
        """It has to do with a call that is billed later."""
        rng = self.rng
        made.workspace, made.provider, made.deferred = "acme", "openai", rng.choice(OBJECTS)
        kind = rng.randrange(4)
        if kind == 0:
            made.kind, made.cost_nusd, made.total_tokens = "usage", None, None
            return
        made.kind, made.cost_nusd = TOLD, None
        if kind == 1:
            made.line, made.object_state = "", "completed"
            made.files = tuple(file for file in self.files[made.deferred] if rng.random() < 0.5)
        elif kind == 2:
            made.line = rng.choice(("l1", "l2", "L1"))
        elif rng.random() < 0.7:
            made.deferred, made.line = FILE + rng.choice(FILES), rng.choice(("l1", "l3"))
        else:
            made.kind, made.deferred, made.outcome = "usage", None, Outcome.OK
            made.files = (rng.choice(FILES),)

    # ── what is not delivery ─────────────────────────────────────────────────────────────────────────────────

    def _roll_up(self) -> Step:
        return Step("roll up tags", lambda side: side.any.roll_up_tags())

    def _evidence(self) -> Step:
        now_us = self._moment()
        kinds: list[Step] = [
            Step("gather evidence", lambda side: side.any.gather_evidence(everything=True)),
            Step("seal evidence", lambda side: side.nodes["n1"].seal_evidence(now_us, ())),
            Step("seal evidence daily", lambda side: side.any.seal_evidence_daily(now_us, lambda: ())),
        ]
        return self.rng.choice(kinds)

    def _prune(self) -> Step:
        """Before a month: what both databases delete then is the same."""
        before_us = self.rng.choice(MONTHS_US)

        async def act(side: Side) -> None:
            await side.any.prune(before_us)  # how many bites that takes is each one's own

        return Step("prune", act)

    def _owed(self) -> Step:
        before_us, now_us, node = self._moment(), self._moment(), self.rng.choice(NODES)
        other = NODES[1 - NODES.index(node)]
        kinds: list[Step] = [
            Step("write off", lambda side: side.nodes[node].write_off_owed(before_us, now_us)),
            Step("take over", lambda side: side.nodes[node].take_over_owed([other])),
            Step("forget owed", lambda side: side.any.forget_owed(before_us, now_us)),
            Step("lease", lambda side: side.nodes[node].lease("collect", now_us, now_us + DAY_US)),
        ]
        return self.rng.choice(kinds)

    def _told(self) -> Step:
        at_us, key = self._moment(), self.rng.choice(("budget:b1:80", "budget:B1:80"))
        if self.rng.random() < 0.2:
            return Step("forget what was told", lambda side: side.any.prune_told(at_us))
        return Step("claim", lambda side: side.any.claim(key, at_us))

    def _audit(self) -> Step:
        at_us = self._moment()
        if self.rng.random() < 0.2:
            return Step("prune audit", lambda side: side.any.prune_audit(at_us))
        entries = [
            AuditEntry(
                id=f"{self.rng.randrange(40):04x}", at=at_us // DAY_US * DAY_US, node="n0", actor="nobody",
                action="sign_in", target="\0é", before={"a": [1, None]}, after="\ud800",
            )
            for _ in range(self.rng.randint(1, 3))
        ]  # fmt: skip
        return Step("audit", lambda side: side.any.add_audit(entries))

    def _state(self) -> Step:
        """Close a statement of a stretch of days."""
        from_us = T0 // DAY_US * DAY_US + self.rng.randrange(40) * DAY_US
        period = Period(from_us=from_us, to_us=from_us + self.rng.randint(1, 9) * DAY_US)
        asked = Asked(workspace=self.rng.choice(("acme", "beta")), period=period, by=("model", "task"))

        async def act(side: Side) -> Any:
            now_us = T0 + 400 * DAY_US
            draft = await side.any.read(lambda: side.books.draft(asked, Tariff(), by="test", now_us=now_us))
            return await side.any.write(lambda _: side.books.keep(draft, now_us))

        return Step("close a statement", act)

    def _moment(self) -> int:
        return T0 + self.rng.randrange(SPAN_US)
