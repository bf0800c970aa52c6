"""A copy of a data directory while its Taximeter runs, and putting it back. Knows files and SQLite, no records.

History is copied first, then the journals: what history had not taken then stands in them, and is delivered after the
copy was put back. The other way round history would know records that no journal has. Redis is not in it: what it
counts is rebuilt from history.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import msgspec

from taximeter import __version__
from taximeter.core.errors import DataDirError

MANIFEST = "backup.json"
HISTORY = "history.db"
_LEFT_OUT = ("runtime.json", "prices.", "reload.json")
"""About the running one, and what is made anew."""
_KEPT = ("*.json", "audit*.jsonl", "node")
_BUSY_S = 30.0


class CopiedFile(msgspec.Struct, kw_only=True):
    """A file of a back-up."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, kw_only=True):
    """What a back-up holds."""

    taximeter: str
    node: str
    at: int
    """µs since epoch: when it was begun."""
    history: bool
    """With the SQLite history; false: the history is a PostgreSQL, which has back-ups of its own."""
    files: dict[str, CopiedFile]
    """Path in it -> what it has to be."""


def backup(data_dir: Path, into: Path, *, history: Path | None) -> Manifest:
    """Copy what cannot be made anew. `history`: the SQLite file; None: it is elsewhere. Raises DataDirError."""
    if history is None and not (data_dir / "journal").is_dir():
        where = data_dir.absolute()
        raise DataDirError(
            f"Nothing to back up: no Taximeter has run on {where}. Name the settings it is started with."
        )
    if into.exists() and any(into.iterdir()):
        raise DataDirError(f"{into} is not empty: give a back-up a directory of its own.")
    begun_us = time.time_ns() // 1_000
    try:
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        if history is not None:
            _copy_database(history, into / HISTORY)
        for path in _sources(data_dir):
            _copy(path, into / path.relative_to(data_dir))
        files = {str(path.relative_to(into)): _told(path) for path in sorted(into.rglob("*")) if path.is_file()}
        node = _text(into / "node")
        made = Manifest(taximeter=__version__, node=node, at=begun_us, history=history is not None, files=files)
        (into / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
    except (OSError, sqlite3.Error) as error:
        raise DataDirError(f"No back-up in {into}: {error}") from error
    return made


def check(source: Path) -> Manifest:
    """What a back-up holds, every file of it looked at. Raises DataDirError where it is not whole."""
    try:
        made = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Manifest)
        for name, expected in made.files.items():
            path = source / name
            if ".." in Path(name).parts or not path.is_file() or _told(path) != expected:
                raise DataDirError(f"{path} is not as it was when the back-up was made.")
    except FileNotFoundError:
        raise DataDirError(f"{source} holds no {MANIFEST}: it is no back-up of `taximeter backup`.") from None
    except (OSError, ValueError) as error:
        raise DataDirError(f"{source} cannot be read: {error}") from error
    return made


def restore(source: Path, data_dir: Path, *, history: Path | None) -> Manifest:
    """Put a back-up into an empty data directory, which the caller holds. `history`: where the SQLite file belongs;
    None: the history is elsewhere. Raises DataDirError; then nothing of it is in place."""
    made = check(source)
    if made.history and history is None:
        raise DataDirError("This back-up has a SQLite history, but history.url names another database.")
    for name in made.files:
        target = _target(name, data_dir, history)
        if target.exists():
            raise DataDirError(f"{target} is there already: a back-up is put into an empty data directory only.")
    try:
        for name in made.files:
            _copy(source / name, _target(name, data_dir, history))
    except OSError as error:
        raise DataDirError(f"Not restored into {data_dir}: {error}") from error
    return made


def _target(name: str, data_dir: Path, history: Path | None) -> Path:
    return history if name == HISTORY and history is not None else data_dir / name


def _sources(data_dir: Path) -> Iterator[Path]:
    for pattern in _KEPT:
        found = (path for path in sorted(data_dir.glob(pattern)) if path.is_file())
        yield from (path for path in found if not path.name.startswith(_LEFT_OUT))
    journal = data_dir / "journal"
    yield from (path for path in sorted((journal / "aside").glob("[!.]*")) if path.is_file())
    yield from sorted(journal.glob("*.jsonl"))


def _copy_database(source: Path, target: Path) -> None:
    """As SQLite does it: one state of it, however much is being written."""
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=_BUSY_S)) as reading,
        closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode = DELETE")  # in one file
    target.chmod(0o600)


def _copy(source: Path, target: Path) -> None:
    """Only this user can read it. A journal that has been delivered may go meanwhile: then it is in the history."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with source.open("rb") as reading, target.open("xb") as writing:
            target.chmod(0o600)
            shutil.copyfileobj(reading, writing)
    except FileNotFoundError:
        if source.suffix != ".jsonl" or source.exists():
            raise


def _told(path: Path) -> CopiedFile:
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            digest.update(chunk)
    return CopiedFile(sha256=digest.hexdigest(), bytes=path.stat().st_size)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
