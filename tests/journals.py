"""What tests of the journal and of delivery share: calls, writers in processes of their own, a sink in memory."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from taximeter.config import JournalSettings
from taximeter.core.lines import Header, Line
from taximeter.core.record import Open, Operation, Outcome, Record, Source, seq_of
from taximeter.journal import Journal
from taximeter.journal.files import lock_if_free
from taximeter.journal.format import encode, new_journal_id
from taximeter.journal.recover import close_open_calls
from taximeter.journal.tail import Tail
from taximeter.sinks.batch import Batch
from taximeter.sinks.sink import JournalState

AT = 1_790_000_000_000_000
"""When everything happens (µs)."""


def now_us() -> int:
    return time.time_ns() // 1000


def opening(name: str, workspace: str = "acme", track: str | None = None) -> Open:
    return Open(
        request_id=name,
        started_at=AT,
        workspace=workspace,
        track=track,
        upstream="openai",
        provider="openai",
        api="chat",
        operation=Operation.LLM,
        request_model="gpt-4o-mini",
    )


def record(name: str, workspace: str = "acme", track: str | None = None) -> Record:
    return Record(
        request_id=name,
        started_at=AT,
        ended_at=AT + 5,
        workspace=workspace,
        track=track,
        upstream="openai",
        provider="openai",
        api="chat",
        operation=Operation.LLM,
        outcome=Outcome.OK,
        input_source=Source.REPORTED,
        output_source=Source.REPORTED,
        input_tokens=7,
        output_tokens=3,
        usage=msgspec.Raw(b'{"prompt_tokens":7}'),
    )


def journal(directory: Path, worker: str = "1", node: str = "n", **settings: object) -> Journal:
    chosen = {"fsync": "never", **settings}
    return Journal(
        directory, node=node, worker=worker, settings=msgspec.convert(chosen, JournalSettings), now_us=now_us
    )


def call(writer: Journal, name: str, **tags: str) -> None:
    """A whole call."""
    writer.close(writer.open(opening(name, **tags)), record(name, **tags))


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl"))


def lines(path: Path) -> list[Line]:
    """Every line of a file; fails on one that is torn or unreadable."""
    data = path.read_bytes()
    assert data.endswith(b"\n")
    return [msgspec.json.decode(line, type=Line) for line in data.splitlines()]


def records(directory: Path) -> list[Record]:
    """Every record on disk; fails where seqs have a gap."""
    found = []
    for path in files(directory):
        closed = [line.close for line in lines(path) if line.close is not None]
        assert [each.event_id for each in closed] == [f"{path.stem}:{n + 1}" for n in range(len(closed))]
        found += closed
    return found


def written(directory: Path, items: Sequence[Line], journal_id: str | None = None, boot: str = "") -> Path:
    """A journal file made by hand, nobody holding it."""
    journal_id = journal_id or new_journal_id()
    header = Header(schema=1, journal_id=journal_id, node="n", worker="1", started_at=AT, boot=boot)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{journal_id}.jsonl"
    path.write_bytes(b"".join(encode(line) for line in [Line(journal=header), *items]))
    return path


def settled(path: Path) -> int:
    """Recover a file whose writer is gone; how many calls were open in it."""
    fd = lock_if_free(path)
    assert fd is not None
    try:
        tail = read_whole(path)
        return close_open_calls(fd, tail, now_us=now_us()) if tail.end is None else 0
    finally:
        os.close(fd)


def read_whole(path: Path) -> Tail:
    tail = Tail(path)
    while not tail.at_end and not tail.broken:
        tail.read()
    return tail


def closing(journal_id: str, seq: int, name: str | None = None) -> Line:
    settled = record(name or f"r{seq}")
    settled.event_id = f"{journal_id}:{seq}"
    return Line(close=settled)


class MemorySink:
    """A sink as strict as they come: compares, sets, and remembers all it was ever given."""

    def __init__(self, name: str = "history", *, durable: bool = True) -> None:
        self.name = name
        self.durable = durable
        self.at: dict[str, int] = {}
        self.applied: list[Record] = []
        self.batches: list[Batch] = []
        self.trouble: Callable[[str], None] = lambda moment: None
        """Called with "cursors", "before" (the effect) and "after" it; may raise."""

    @property
    def names(self) -> list[str]:
        return [each.request_id for each in self.applied]

    async def cursors(self, journal_ids: Iterable[str]) -> dict[str, int]:
        self.trouble("cursors")
        return {each: self.at.get(each, 0) for each in journal_ids}

    async def deliver(self, batches: Sequence[Batch]) -> dict[str, int]:
        assert len({batch.journal_id for batch in batches}) == len(batches)
        self.trouble("before")
        for batch in batches:
            self.apply(batch)
        self.trouble("after")
        return {batch.journal_id: self.at.get(batch.journal_id, 0) for batch in batches}

    def apply(self, batch: Batch) -> None:
        assert all(each.event_id.startswith(batch.journal_id) for each in batch.records)
        seqs = [seq_of(each.event_id) for each in batch.records]
        assert seqs == sorted(set(seqs))
        assert all(batch.after < seq <= batch.upto for seq in seqs)
        if self.at.get(batch.journal_id, 0) == batch.after:
            self.at[batch.journal_id] = batch.upto
            self.applied += batch.records
            self.batches.append(batch)

    async def close(self) -> None:
        """Nothing to release."""


class KeepingSink(MemorySink):
    """One that also keeps journals, as history does."""

    def __init__(self, name: str = "history") -> None:
        super().__init__(name)
        self.states: dict[str, JournalState] = {}
        self.remembers = True
        """Single records of the time that is asked for."""

    def apply(self, batch: Batch) -> None:
        current = self.at.get(batch.journal_id, 0) == batch.after
        super().apply(batch)
        if current:
            state = JournalState(seq=batch.upto, digest=batch.digest, ended=batch.ended)
            self.states[batch.journal_id] = state

    async def journals(self, journal_ids: Iterable[str]) -> dict[str, JournalState]:
        self.trouble("journals")
        return {each: self.states[each] for each in journal_ids if each in self.states}

    async def beyond(self, journal_id: str, seq: int, since_us: int) -> list[Record] | None:
        self.trouble("beyond")
        if not self.remembers:
            return None
        return [each for each in self.applied if each.event_id.startswith(journal_id) and seq_of(each.event_id) > seq]


def digest_upto(path: Path, seq: int) -> str:
    """What a batch up to `seq` must carry, computed the plain way."""
    data = path.read_bytes()
    found = data.index(b'{"close":{"event_id":"%b:%d"' % (path.stem.encode(), seq))
    return hashlib.sha256(data[: data.index(b"\n", found) + 1]).hexdigest()


def process(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Python code in a process of its own, able to import the package and these helpers; its stdout is a pipe."""
    roots = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "proxy")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        env=environment,
    )
