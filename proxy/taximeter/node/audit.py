"""The audit log as it is written: into a file of the data directory first, so that no outage of the history loses any.

Whoever changes something (control process, command) appends; the control process brings the entries into the history
and then removes them from here. Each is also an entry of the log, `taximeter.audit`. Blocking: entries are few.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from taximeter.core.audit import Actor, AuditEntry, Result
from taximeter.core.errors import Forbidden, TaximeterError, Unauthorized
from taximeter.node.logs import FIELDS
from taximeter.node.replacing import sync_directory

if TYPE_CHECKING:
    from taximeter.config.settings import Settings

log = logging.getLogger("taximeter.audit")

_ACTOR: ContextVar[Actor | None] = ContextVar("actor", default=None)
_MOST_WORDS = 500
_decode = msgspec.json.Decoder(AuditEntry).decode


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """What is done while the context lasts is done by `actor`; also in threads that asyncio starts for it."""
    token = _ACTOR.set(actor)
    try:
        yield
    finally:
        _ACTOR.reset(token)


def os_user() -> str:
    """Who runs this process; "" where the system has no name for it."""
    with suppress(OSError, KeyError, ImportError):
        return getuser()
    return ""


class Change:
    """What is being done: say what was and what is."""

    target = ""
    before: Any = None
    after: Any = None


class AuditLog:
    """Appends to `<data_dir>/audit.jsonl`; without a directory it only logs."""

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        node: str = "",
        default: str = "system",
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`default`: who acts where nobody is said to (`acting_as`)."""
        self._path = None if data_dir is None else data_dir / "audit.jsonl"
        self._node = node
        self._default = default
        self._now_us = now_us
        self._random = random

    def actor(self) -> Actor:
        """Who acts now."""
        return _ACTOR.get() or Actor(name=self._default, user=os_user() if self._default == "command" else "")

    @contextmanager
    def act(self, action: str, target: str = "") -> Iterator[Change]:
        """Write down what the block does, when it has done it, or that it failed."""
        change = Change()
        change.target = target
        try:
            yield change
        except Exception as error:
            outcome: Result = "refused" if isinstance(error, (Forbidden, Unauthorized)) else "failed"
            why = str(error) if isinstance(error, TaximeterError) else f"{type(error).__name__}: {error}"
            self.note(action, change.target, before=change.before, outcome=outcome, problem=why)
            raise
        self.note(action, change.target, before=change.before, after=change.after)

    def note(
        self,
        action: str,
        target: str = "",
        *,
        before: Any = None,
        after: Any = None,
        outcome: Result = "ok",
        problem: str = "",
        actor: Actor | None = None,
        level: int = logging.INFO,
    ) -> None:
        """Write an entry, durably. One that cannot be written is in the log all the same, which says so.

        `level`: of the log's entry; lower where another entry says the same.
        """
        actor = actor or self.actor()
        entry = AuditEntry(
            id=self._random(8).hex(),
            at=self._now_us(),
            node=self._node,
            actor=actor.name,
            address=actor.address,
            user=actor.user,
            action=action,
            target=target[:_MOST_WORDS],
            before=msgspec.to_builtins(before),
            after=msgspec.to_builtins(after),
            outcome=outcome,
            problem=problem[:_MOST_WORDS],
        )
        log.log(level, "%s", words(entry), extra={FIELDS: {"audit": msgspec.to_builtins(entry)}})
        if self._path is None:
            return
        try:
            self._append(self._path, msgspec.json.encode(entry) + b"\n")
        except OSError as error:
            log.error("%s cannot be written (%s): this entry stands in the log alone", self._path, error.strerror)

    @staticmethod
    def _append(path: Path, line: bytes) -> None:
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not _is_still(path, descriptor):
                    continue  # taken for the history just now: into the next one
                _write_whole(descriptor, line)
                sync_directory(path.parent)
                return
            finally:
                os.close(descriptor)

    def taken(self) -> list[AuditEntry]:
        """The entries that are not in the history yet, set apart until `let_go`. Raises OSError."""
        if self._path is None:
            return []
        apart = _apart(self._path)
        if not apart.exists():
            with suppress(FileNotFoundError), self._path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._path.rename(apart)
        return list(_entries(apart))

    def let_go(self) -> None:
        """Those are in the history now."""
        if self._path is not None:
            _apart(self._path).unlink(missing_ok=True)

    def waiting(self) -> list[AuditEntry]:
        """The entries that are not in the history yet, left where they are."""
        if self._path is None:
            return []
        return [*_entries(_apart(self._path)), *_entries(self._path)]


def command_log(settings: Settings) -> AuditLog:
    """For a verb that changes something itself, where no proxy runs; who runs it acts."""
    data_dir = Path(settings.data_dir)
    node = settings.node
    with suppress(OSError):
        node = node or (data_dir / "node").read_text().strip()
    return AuditLog(data_dir, node=node, default="command")


def words(entry: AuditEntry) -> str:
    """An entry in a line of text."""
    by = entry.actor + (f" ({entry.user})" if entry.user else "") + (f" from {entry.address}" if entry.address else "")
    ended = "" if entry.outcome == "ok" else f": {entry.outcome}, {entry.problem}"
    return f"{entry.action} {entry.target or '-'} by {by}{ended}"


def _apart(path: Path) -> Path:
    return path.with_suffix(".filing.jsonl")


def _is_still(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False


def _write_whole(descriptor: int, line: bytes) -> None:
    """Write an entry, durably, as a line of its own. Raises OSError; then the file is as it was."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line  # a power loss cut the last one
    written = os.write(descriptor, line)
    if written != len(line):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(descriptor)


def _entries(path: Path) -> Iterator[AuditEntry]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in filter(None, lines):
        try:
            yield _decode(line)
        except (ValueError, RecursionError):
            log.error("%s: a line of %d bytes is no entry of the audit log and is left out", path, len(line))
