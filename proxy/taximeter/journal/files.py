"""Locks and names on disk: how a file comes into being already locked, and how one learns that its writer is gone.

A lock is an flock: it belongs to the open file description, so it ends with the process however that dies, and it
holds between two descriptors of one process as well. Descriptors are close-on-exec, hence no child keeps a lock alive.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path

from taximeter.journal.format import STATUS_SUFFIX, SUFFIX
from taximeter.node.replacing import sync_directory

log = logging.getLogger(__name__)

_NEW = ".new"
REPLACED = ".replaced"
"""What stood in the place of a journal file is kept under its name and this."""
_PIECE_BYTES = 1024 * 1024
_ABANDONED_S = 60.0
"""A file whose creation took longer than this was left by a process that died while creating it."""

sync_data = getattr(os, "fdatasync", os.fsync)
"""fdatasync where the system has it: the size of a file that grew is synced too, its times are not."""


def create_locked(path: Path, head: bytes, *, append: bool) -> int:
    """Create `path` with `head` in it and return a descriptor that holds its lock.

    The file gets its name only after it is locked and its head is written: nobody ever finds it unlocked or empty
    while its writer lives. Raises OSError; then nothing is left behind.
    """
    temp = path.with_name(f".{path.name}{_NEW}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | (os.O_APPEND if append else 0)
    fd = os.open(temp, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.write(fd, head) != len(head):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        temp.rename(path)
    except OSError:
        os.close(fd)
        temp.unlink(missing_ok=True)
        raise
    return fd


def replace_lost(path: Path, fd: int, size: int) -> int:
    """Put the first `size` bytes of an open file under `path` again, where it was removed or another file stands now.

    Returns a descriptor for it that holds its lock, as `create_locked`; `fd` stays as it is. What stands there is kept
    under another name. A link to `fd` would do on Linux only, and not there once the last name is gone (ENOENT), so the
    bytes are copied: 64 MiB take 50 ms, once. Raises OSError; then nothing has changed but that.
    """
    make_directory(path.parent)
    temp = path.with_name(f".{path.name}{_NEW}")
    temp.unlink(missing_ok=True)
    copy = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_APPEND, 0o600)
    try:
        fcntl.flock(copy, fcntl.LOCK_EX | fcntl.LOCK_NB)
        at = 0
        while at < size:
            piece = os.pread(fd, min(_PIECE_BYTES, size - at), at)
            if not piece or os.write(copy, piece) != len(piece):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            at += len(piece)
        if path.exists():
            path.rename(path.with_name(f"{path.name}{REPLACED}"))
        temp.rename(path)
    except OSError:
        os.close(copy)
        temp.unlink(missing_ok=True)
        raise
    return copy


def lock_if_free(path: Path) -> int | None:
    """A descriptor holding the lock of `path`, or None: its writer lives, or the file is gone. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(fd).st_ino:  # not renamed or replaced between open and lock
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return None


def sync_and_close(fd: int, *, sync: bool = True) -> None:
    """Close a descriptor nothing will be written through any more. May block for long. Never raises."""
    try:
        if sync:
            sync_data(fd)
    except OSError as error:  # the lines are written; that a power loss may take them, nobody can help any more
        log.error("cannot sync a journal file: %s", error.strerror)
    finally:
        os.close(fd)


def make_directory(directory: Path) -> None:
    """Make a directory where it is missing. Its name survives a power loss as what is synced in it does. Raises OSError
    where it cannot be made."""
    directory.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # a disk that syncs nothing is found out with the first line
        sync_directory(directory.parent)


def remove_abandoned(directory: Path, now_s: float) -> None:
    """Remove files whose creation was cut off by a crash; they never held a line. `now_s`: seconds since epoch."""
    for suffix in (SUFFIX, STATUS_SUFFIX):
        for path in directory.glob(f".*{suffix}{_NEW}"):
            try:
                if now_s - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
            except FileNotFoundError:
                continue
