"""The demo's folder: settings, log and data of its node, held by one demo at a time, removed when it is over."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import msgspec

NAME = "data-demo"
"""In the working directory, where the demo is to be kept and nobody else has it."""
CONFIG, LOG = "taximeter.toml", "log"
"""In it: the node's settings, and what it writes to stderr."""
_LOCK = "demo.lock"


class Folder(msgspec.Struct, frozen=True):
    """An empty folder of this demo's own."""

    path: Path
    lock_fd: int
    """Held as long as the demo or its node lives: the node inherits it."""


def stated(path: Path) -> Folder | None:
    """`path`, emptied of what a killed demo left there; None: another demo has it, or it is no demo's folder."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        if path.is_symlink() or (any(path.iterdir()) and not (path / _LOCK).exists()):
            return None
        folder = _locked(path)
    except OSError:
        return None
    if folder is not None:
        for left in path.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            elif left.name != _LOCK:
                left.unlink()
    return folder


def temporary() -> Folder:
    """A new one beside all others."""
    folder = _locked(Path(tempfile.mkdtemp(prefix="taximeter-demo-")))
    if folder is None:
        raise RuntimeError("a new folder was locked by another process")
    return folder


def remove(path: Path) -> None:
    """All of it; what cannot be removed stays."""
    shutil.rmtree(path, ignore_errors=True)


def _locked(path: Path) -> Folder | None:
    descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:  # its last holder may have removed it meanwhile
            return Folder(path, descriptor)
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None
