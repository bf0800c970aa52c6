"""Where evidence is: the history that settings name, and the journals beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taximeter.sinks.history.read.evidence import HistoryEvidence


def history_url(history: str | None, config_file: Path | None) -> str:
    """The database named, or the one of the settings."""
    if history is not None:
        return history
    from taximeter.config import load
    from taximeter.sinks.history.sink import default_url

    settings = load(config_file)
    return settings.history.url or default_url(settings.data_dir)


def journal_of(history: str | None, config_file: Path | None) -> Path | None:
    """The directory of this node's journals; None where there is none, or a database was named: it may be another's."""
    if history is not None:
        return None
    from taximeter.config import load

    journal = Path(load(config_file).data_dir) / "journal"
    return journal if journal.is_dir() else None


@contextmanager
def evidence_of(url: str) -> Iterator[HistoryEvidence]:
    """One state of a history, read only. Raises ConfigError where there is none."""
    from taximeter.sinks.history.database import Database
    from taximeter.sinks.history.read.evidence import HistoryEvidence

    with Database(url, read_only=True) as database, HistoryEvidence.of(database) as source:
        yield source
