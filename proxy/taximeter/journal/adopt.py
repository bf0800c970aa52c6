"""Taking over the journals of another data directory, whose node is gone for good (`taximeter adopt DIR`)."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from taximeter.core.errors import JournalError
from taximeter.journal import gone
from taximeter.journal.files import lock_if_free, make_directory
from taximeter.journal.format import ASIDE, STATUS_SUFFIX, SUFFIX
from taximeter.node.replacing import sync_directory


def adopt(source: Path, into: Path) -> list[str]:
    """Move every journal of directory `source` into directory `into`; returns the journal ids, in order.

    Both are journal directories (`<data_dir>/journal`). Delivery finds the files there, settles their open calls and
    brings them to each sink from where that sink is. May be repeated after a crash: what was moved is not moved twice.
    Raises JournalError where a file is still being written, or another of the same name is there; nothing is moved
    then that had not been moved before.
    """
    if not source.is_dir():
        raise JournalError(f"{source} is not a directory; name the journal directory of the node that is gone")
    if into.exists() and source.samefile(into):
        raise JournalError(f"{source} is this node's own journal")
    gone.announce(into, gone.writers(source))
    paths = sorted(source.glob(f"*{SUFFIX}")) + sorted(source.glob(f"*{STATUS_SUFFIX}"))
    letters = sorted((source / ASIDE).glob("[!.]*"))
    locks: list[int] = []
    try:
        for path in paths:
            locks.append(_lock(path))
            _check_free(path, into / path.name)
        make_directory(into)
        if letters:  # first: what was set aside must be known before its journal is read
            (into / ASIDE).mkdir(mode=0o700, exist_ok=True)
            sync_directory(into)
            _move(letters, into / ASIDE)
        _move(paths, into)
        gone.declare(into)
    except OSError as error:
        raise JournalError(f"cannot move the journals of {source} into {into}: {error}") from error
    finally:
        for fd in locks:
            os.close(fd)
    return [path.stem for path in paths if path.suffix == SUFFIX]


def _lock(path: Path) -> int:
    fd = lock_if_free(path)
    if fd is None:
        raise JournalError(f"{path} is still being written; stop the node that writes it first")
    return fd


def _check_free(path: Path, target: Path) -> None:
    """Refuse to overwrite anything but what an earlier try has copied (recovery may have gone on from there)."""
    if target.exists():
        with path.open("rb") as ours, target.open("rb") as theirs:
            for line in ours:
                if line.endswith(b"\n") and theirs.read(len(line)) != line:
                    raise JournalError(f"{target} exists already and is not a copy of {path}")


def _move(paths: list[Path], into: Path) -> None:
    """Move files. None goes here before it is there for good."""
    copied = [path for path in paths if not _renamed(path, into / path.name)]
    sync_directory(into)
    for path in copied:
        path.unlink()


def _renamed(path: Path, target: Path) -> bool:
    """Whether it is moved; False: a copy of it is there. At no moment is half a copy found under the target's name."""
    if target.exists():
        return False
    try:
        path.rename(target)
    except OSError:  # another file system
        _copy(path, target)
        return False
    return True


def _copy(path: Path, target: Path) -> None:
    temp = target.with_name(f".{target.name}.adopted")
    temp.unlink(missing_ok=True)
    with path.open("rb") as source, temp.open("xb") as copy:
        fcntl.flock(copy, fcntl.LOCK_EX)  # until it is whole, nobody takes it for a dead writer's
        temp.chmod(0o600)
        shutil.copyfileobj(source, copy, 1024 * 1024)
        copy.flush()
        os.fsync(copy.fileno())
        temp.rename(target)
