"""Records set aside: what one sink cannot take, kept on disk for that sink until somebody has it taken again.

A letter is on stable storage before the sink's cursor passes its record, and from then on that record is never
delivered to that sink in turn: so a crash between the two neither loses it nor lets it count twice.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from taximeter.core.record import Record, seq_of
from taximeter.journal.format import ASIDE
from taximeter.node.replacing import sync_directory

log = logging.getLogger(__name__)

SUFFIX = ".letter"
_PROBLEM_CHARS = 500


class Letter(msgspec.Struct, kw_only=True):
    """One record that one sink did not take."""

    sink: str
    problem: str
    """What the sink failed with."""
    set_aside_at: int
    """µs since epoch."""
    record: Record

    @property
    def key(self) -> str:
        """`<sink>/<event id>`."""
        return f"{self.sink}/{self.record.event_id}"


class Aside:
    """The letters in a journal's directory. One process; every method may block for a disk's sync."""

    def __init__(self, journal: Path) -> None:
        """Reads which letters there are. Raises OSError where the directory is there and cannot be read."""
        self.directory = journal / ASIDE
        self.seqs: dict[tuple[str, str], set[int]] = {}
        """Sink and journal id -> the records that are not delivered to it in turn."""
        for path in self._paths():
            sink, journal_id, seq = _named(path)
            self.seqs.setdefault((sink, journal_id), set()).add(seq)

    def waiting(self, sink: str) -> int:
        """How many letters there are for a sink."""
        return sum(len(seqs) for (name, _), seqs in self.seqs.items() if name == sink)

    def put(self, letter: Letter) -> None:
        """Keep a letter for good. Raises OSError; then there is none."""
        letter.problem = letter.problem[:_PROBLEM_CHARS]
        self.directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(self.directory.parent)
        path = self._path(letter)
        temp = path.with_name(f".{path.name}.new")
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(msgspec.json.encode(letter))
            os.fsync(fd)
        finally:
            os.close(fd)
        temp.replace(path)
        sync_directory(self.directory)
        self.seqs.setdefault(_place(letter), set()).add(seq_of(letter.record.event_id))

    def letters(self, sink: str | None = None) -> list[Letter]:
        """The letters, for one sink or for all, oldest first. One that cannot be read is logged and left out."""
        found = []
        for path in self._paths():
            try:
                letter = msgspec.json.decode(path.read_bytes(), type=Letter)
            except (OSError, ValueError, RecursionError) as error:
                log.error("the letter %s cannot be read: %s", path, error)
                continue
            if sink in (None, letter.sink):
                found.append(letter)
        return sorted(found, key=lambda letter: (letter.set_aside_at, letter.key))

    def taken(self, letter: Letter) -> None:
        """Forget a letter: its sink has the record. Raises OSError."""
        self._path(letter).unlink(missing_ok=True)
        self.seqs.get(_place(letter), set()).discard(seq_of(letter.record.event_id))

    def _path(self, letter: Letter) -> Path:
        journal_id, _, seq = letter.record.event_id.rpartition(":")
        return self.directory / f"{journal_id}.{seq}.{letter.sink}{SUFFIX}"

    def _paths(self) -> list[Path]:
        if not self.directory.is_dir():
            return []
        return [path for path in self.directory.glob(f"[!.]*{SUFFIX}") if _is_named(path)]


def _place(letter: Letter) -> tuple[str, str]:
    return letter.sink, letter.record.event_id.rpartition(":")[0]


def _named(path: Path) -> tuple[str, str, int]:
    journal_id, seq, sink = path.name.removesuffix(SUFFIX).split(".", 2)
    return sink, journal_id, int(seq)


def _is_named(path: Path) -> bool:
    parts = path.name.removesuffix(SUFFIX).split(".", 2)
    return len(parts) == 3 and parts[1].isdigit()
