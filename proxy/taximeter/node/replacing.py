"""Replacing a small file of the data directory as a whole: whoever reads it sees the old or the new one."""

from __future__ import annotations

import os
from pathlib import Path

from taximeter.core.errors import DataDirError


def sync_directory(directory: Path) -> None:
    """Make names created, renamed or removed in `directory` survive a power loss. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, body: bytes) -> None:
    """Write the file anew (mode 0600), durable before it returns. Raises DataDirError; it is then as it was."""
    fresh = path.with_suffix(f".{os.getpid()}.new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise DataDirError(f"{path}: cannot be written: {error}") from error
