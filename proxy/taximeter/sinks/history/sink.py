"""History as the control process sees it: the sink delivery feeds, and every query of read.Reader, off the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from taximeter.budgets.tally import Tally, TallySum
from taximeter.core.audit import AuditEntry, AuditFilters
from taximeter.core.record import Record
from taximeter.evidence.keys import Signer
from taximeter.evidence.statements import SignedRoot
from taximeter.sinks.batch import Batch
from taximeter.sinks.history import space
from taximeter.sinks.history.audit import AuditTable
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.owing import Owing
from taximeter.sinks.history.read.charges import Charge
from taximeter.sinks.history.read.evidence import HistoryEvidence
from taximeter.sinks.history.read.owed import Owed, OwedStanding, Unsettled
from taximeter.sinks.history.read.reader import Reader
from taximeter.sinks.history.read.snapshot import Snapshots
from taximeter.sinks.history.told import Told
from taximeter.sinks.history.write.evidence import EvidenceTables
from taximeter.sinks.history.write.tag_rollups import TagRoller
from taximeter.sinks.history.write.writer import Writer
from taximeter.sinks.ledger import Ledger, Standing
from taximeter.sinks.query import Filters, Group, Window
from taximeter.sinks.sink import JournalState

P = ParamSpec("P")
T = TypeVar("T")

READERS = 3
"""Queries run at once; more wait."""


def _off_loop(ask: Callable[Concatenate[Reader, P], T]) -> Callable[Concatenate[History, P], Coroutine[Any, Any, T]]:
    """A method of the reader, in one of the threads that read."""

    @wraps(ask)
    async def read(self: History, /, *args: P.args, **named: P.kwargs) -> T:
        return await self.read(ask, self.reader, *args, **named)

    return read


class History:
    """A sink (sinks.sink.Sink and JournalKeeper). One thread writes, a few read; opened at the first use.

    Every method raises HistoryUnavailable when the database cannot be used; after a failed `deliver` it is not known
    whether it took effect, and `cursors` tells.
    """

    name = "history"
    durable = True

    def __init__(self, url: str, node: str = "") -> None:
        """`sqlite:///path` or `postgresql://…`. `node`: who delivers. Raises ConfigError on any other URL."""
        self._database = Database(url)
        self._writer = Writer(self._database, node)
        self._tags = TagRoller(self._database)
        self._audit = AuditTable(self._database)
        self._told = Told(self._database)
        self._owing = Owing(self._database, node)
        self._evidence = EvidenceTables(self._database)
        self.reader = Reader(self._database)
        self._snapshots = Snapshots(self._database)
        self._begun: dict[str, int] = {}
        """journal_id -> what `begun` says of it."""
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="history-writer")
        self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="history-reader")

    async def _write(self, act: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """In the writer's thread: also what delivery asks after a cancelled or failed write, so it sees the outcome."""
        return await asyncio.get_running_loop().run_in_executor(self._writing, lambda: act(*args, **named))

    async def read(self, ask: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, lambda: ask(*args, **named))

    async def write(self, act: Callable[[Database], T]) -> T:
        """Do something else in this database, in the writer's thread: it takes turns with deliveries, never waits for
        their lock."""
        return await self._write(act, self._database)

    async def prepare(self) -> None:
        """Make or check the schema now: at start, so that a database of a newer Taximeter is refused at once."""
        await self._write(self._writer.prepare)

    async def journals(self, journal_ids: Iterable[str]) -> dict[str, JournalState]:
        """Those of these journals history has ever seen."""
        return await self._write(self._writer.journals, list(journal_ids))

    async def beyond(self, journal_id: str, seq: int, since_us: int) -> list[Record] | None:
        """See JournalKeeper.beyond. Records that tell of calls billed later only are not among them."""
        return await self._write(self._snapshots.beyond, journal_id, seq, since_us)

    async def cursors(self, journal_ids: Iterable[str]) -> dict[str, int]:
        """Where history is in each journal: last `seq` applied, 0 where it knows nothing of it."""
        wanted = list(journal_ids)
        known = await self.journals(wanted)
        found = {name: known[name].seq if name in known else 0 for name in wanted}
        for name, seq in found.items():
            self._begun.setdefault(name, seq)
        return found

    async def begun(self, journal_ids: Iterable[str]) -> dict[str, int]:
        """Where history was in each journal when this process first asked, and so had brought nothing to it: there
        begins who counts what comes from then on, however late it gets to ask."""
        wanted = list(journal_ids)
        if unknown := [name for name in wanted if name not in self._begun]:
            await self.cursors(unknown)
        return {name: self._begun[name] for name in wanted}

    async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Apply each batch whose `after` is the journal's cursor, all in one transaction; return the actual cursors."""
        return await self._write(self._writer.apply, batches)

    async def retake(self, records: Sequence[Record]) -> None:
        """See sinks.sink.Retaker."""
        await self._write(self._writer.retake, records)

    async def identity(self) -> str:
        """A random id this database was made with: counters rebuilt from it remember whose sums they are."""
        return await self.read(self.reader.identity)

    async def workspaces(self) -> list[str]:
        """Every workspace with at least one record or roll-up, sorted."""
        return await self.read(self._snapshots.workspaces)

    async def ledger(
        self,
        workspace: str,
        *,
        days_from_us: int,
        hours_from_us: int,
        tracks_from_us: int,
        tallies: Sequence[Tally] = (),
        now_us: int = 0,
    ) -> Ledger:
        """See sinks.ledger.LedgerSnapshot."""
        return await self.read(
            self._snapshots.ledger,
            workspace,
            days_from_us=days_from_us,
            hours_from_us=hours_from_us,
            tracks_from_us=tracks_from_us,
            tallies=tallies,
            now_us=now_us,
        )

    async def tallied(self, workspace: str, tallies: Sequence[Tally], now_us: int) -> list[TallySum]:
        """What these tallies of a workspace come to, in the buckets that may still be asked for."""
        return await self.read(self._snapshots.tallied, workspace, tallies, now_us)

    async def claim(self, key: str, at_us: int) -> bool | None:
        """See Told.claim."""
        return await self._write(self._told.claim, key, at_us)

    async def done(self, key: str, at_us: int) -> None:
        """See Told.done."""
        await self._write(self._told.done, key, at_us)

    async def prune_told(self, before_us: int) -> int:
        """See Told.prune."""
        return await self._write(self._told.prune, before_us)

    async def standing(self, workspace: str, cursors: Mapping[str, int]) -> Standing:
        """See sinks.ledger.LedgerSnapshot."""
        return await self.read(self._snapshots.standing, workspace, cursors)

    async def charges(
        self, workspace: str | None = None, request_id: str | None = None, limit: int = 1_000
    ) -> list[Charge]:
        """Calls whose use is charged to budgets though it is not known, the latest first."""
        return await self.read(self._snapshots.charges, workspace, request_id, limit)

    @property
    def owed_news(self) -> int:
        """Grows whenever something was delivered that has to do with what is billed later."""
        return self._writer.owed_news

    async def unsettled(self, limit: int) -> list[Unsettled]:
        """What this node has delivered of calls that are billed later, and not settled yet."""
        while await self._write(self._owing.gather):
            pass
        return await self.read(self._owing.unsettled, limit)

    async def owed(self, workspace: str | None, states: Sequence[str], limit: int) -> list[Owed]:
        """Objects by which calls are billed later, the oldest first."""
        return await self.read(self._owing.listed, workspace, states, limit)

    async def owed_standing(self) -> OwedStanding:
        """How much is owed, by all nodes on the database."""
        return await self.read(self._owing.standing)

    async def write_off_owed(self, before_us: int, now_us: int) -> list[Owed]:
        """See Owing.write_off."""
        return await self._write(self._owing.write_off, before_us, now_us)

    async def take_over_owed(self, nodes: Sequence[str]) -> int:
        """See Owing.take_over."""
        return await self._write(self._owing.take_over, nodes)

    async def let_go_owed(self) -> int:
        """See Owing.let_go."""
        return await self._write(self._owing.let_go)

    async def forget_owed(self, before_us: int, strays_us: int) -> None:
        """Forget objects promised before the first moment, and before the second what nobody here was promised."""
        while await self._write(self._owing.forget, before_us, strays_us):
            pass

    async def lease(self, name: str, now_us: int, until_us: int) -> bool:
        """See Owing.lease."""
        return await self._write(self._owing.lease, name, now_us, until_us)

    async def evidence(self, ask: Callable[[HistoryEvidence], T]) -> T:
        """What is kept of the journals' chains, over one state of the database."""

        def read() -> T:
            with HistoryEvidence.of(self._database) as source:
                return ask(source)

        return await self.read(read)

    async def add_audit(self, entries: Sequence[AuditEntry]) -> None:
        """Write these entries of the audit log; those that are there already are left alone."""
        await self._write(self._audit.add, entries)

    async def audit(
        self, asked: AuditFilters, limit: int = 100, page: str | None = None
    ) -> tuple[list[AuditEntry], str | None]:
        """Entries of the audit log, newest first, and the next page's name. Raises BadRequest on no page."""
        return await self.read(self._audit.listing, asked, limit, page)

    async def prune_audit(self, before_us: int) -> int:
        """Forget older entries of the audit log; returns how many."""
        return await self._write(self._audit.prune, before_us)

    async def roll_up_tags(self) -> None:
        """Add what was delivered to the roll-ups by tag. In bites, so that delivery goes on."""
        while await self._write(self._tags.roll_up):
            pass

    async def prune(self, before_us: int) -> int:
        """Delete single records that ended before this moment, and what the roll-ups by tag know of months before it;
        the other roll-ups stay. What that frees is given back to the disk (space.py). In bites, so that delivery goes
        on. Returns how much went.
        """
        await self.roll_up_tags()  # of the month that stays, they know the records that go
        gone = 0
        while bite := await self._write(self._writer.prune, before_us):
            gone += bite
        await self._write(self._evidence.prune)
        while await self._write(space.give_back, self._database):
            pass
        return gone

    async def gather_evidence(self, *, everything: bool = False) -> None:
        """Make segments of what was delivered, of journals that have much; `everything`: of all. In bites."""
        while await self._write(self._evidence.gather, all_=everything):
            pass

    async def seal_evidence_daily(self, now_us: int, signers: Callable[[], Sequence[Signer]]) -> SignedRoot | None:
        """Make a root where a day (UTC) has ended since the last one and no node has made it yet."""
        if not await self._write(self._evidence.is_due, now_us):
            return None
        signing = signers()
        await self.gather_evidence(everything=True)
        return await self._write(self._evidence.seal, now_us, signing, daily=True)

    async def seal_evidence(self, now_us: int, signers: Sequence[Signer]) -> SignedRoot | None:
        """Make a root over all that has none; None: there is nothing."""
        await self.gather_evidence(everything=True)
        return await self._write(self._evidence.seal, now_us, signers)

    usage = _off_loop(Reader.usage)
    stretches = _off_loop(Reader.stretches)
    unpriced = _off_loop(Reader.unpriced)
    records_since_us = _off_loop(Reader.records_since_us)
    by_upstream = _off_loop(Reader.by_upstream)
    ranked = _off_loop(Reader.ranked)
    latency = _off_loop(Reader.latency)
    quantities = _off_loop(Reader.quantities)
    apart_since_us = _off_loop(Reader.apart_since_us)
    record = _off_loop(Reader.record)
    request = _off_loop(Reader.request)
    arrived = _off_loop(Reader.arrived)
    events = _off_loop(Reader.events)
    listing = _off_loop(Reader.listing)
    names = _off_loop(Reader.names)
    search = _off_loop(Reader.search)
    track = _off_loop(Reader.track)
    count = _off_loop(Reader.count)

    async def export(self, filters: Filters, chunk: int = 2_000) -> AsyncIterator[list[Record]]:
        """See read.Reader.export."""
        lists = self.reader.export(filters, chunk)
        while (records := await self.read(lambda: next(lists, None))) is not None:
            yield records

    async def parts(
        self, filters: Filters, group_by: Sequence[str], window: Window | None = None, tz: str = "UTC"
    ) -> AsyncIterator[list[Group]]:
        """See read.Reader.parts."""
        lists = self.reader.parts(filters, group_by, window, tz)
        while (groups := await self.read(lambda: next(lists, None))) is not None:
            yield groups

    async def close(self) -> None:
        """Wait for what is being written or read, then release connections and files."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._writing.shutdown()
        self._reading.shutdown()
        self._database.dispose()


def default_url(data_dir: str) -> str:
    """Where history is when `history.url` is empty."""
    return f"sqlite:///{data_dir}/history.db"
