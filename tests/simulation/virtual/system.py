"""Puts a world in the place of the operating system, for as long as a simulation runs.

The product is not changed, and has no switch for this: it asks `os`, `fcntl`, `time` and `random` as ever, and they
answer for paths under `/sim/` and descriptors of the simulated disk; anything else goes to the real ones.
"""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import io
import logging
import os
import random
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from itertools import count
from typing import Any

import taximeter.gateway.metering.call
import taximeter.journal.durable
import taximeter.journal.files
import taximeter.sinks.history.sink
from simulation.virtual.clocks import look_up
from simulation.virtual.disk import Disk, Inode, Stat
from simulation.virtual.loop import SimPool
from simulation.virtual.world import CURRENT, World

ROOT = "/sim/"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


@contextlib.contextmanager
def installed(world: World, disk: Disk, tuning: Mapping[str, int]) -> Iterator[None]:
    """For the length of a block. `tuning`: `module:NAME` -> what stands for it meanwhile."""
    put: list[tuple[Any, str, Any]] = []

    def place(owner: Any, name: str, thing: Any) -> None:
        put.append((owner, name, getattr(owner, name)))
        setattr(owner, name, thing)

    for name, call in _calls(disk).items():
        place(os, name, call)
    place(fcntl, "flock", _flock(disk))
    opener = _opener(disk)
    place(io, "open", opener)
    place(builtins, "open", opener)
    place(os, "fdopen", lambda fd, mode="r", *rest, **named: opener(fd, mode, *rest, **named))
    look_up()
    for name, tells in _clocks(world).items():
        place(time, name, tells)
    place(os, "urandom", _urandom(world))
    place(ssl, "create_default_context", lambda *_, **__: _tls())  # 5 ms each, of clients that connect nowhere
    place(random, "_urandom", world.bytes.randbytes)
    state = random.getstate()
    random.seed(f"{world.seed}/dice")
    # Bound when they were imported.
    for module in (taximeter.journal.files, taximeter.journal.durable):
        place(module, "sync_data", os.fsync)
    for module in (taximeter.journal.durable, taximeter.sinks.history.sink):
        place(module, "ThreadPoolExecutor", SimPool)
    for name, size in tuning.items():
        module_name, _, constant = name.partition(":")
        place(import_module(module_name), constant, size)
    place(taximeter.gateway.metering.call, "_worker_bits", world.bytes.randbytes(4).hex())
    place(taximeter.gateway.metering.call, "_numbers", count())
    before, logging.raiseExceptions = logging.raiseExceptions, False
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        logging.raiseExceptions = before
        random.setstate(state)
        for owner, name, thing in reversed(put):
            setattr(owner, name, thing)


@cache
def _tls(make: Any = ssl.create_default_context) -> ssl.SSLContext:
    made: ssl.SSLContext = make()
    return made


def _urandom(world: World) -> Any:
    """Two streams: what a library draws once, and remembers for all simulations, changes nothing of the product's."""
    others = random.Random(0)

    def urandom(size: int) -> bytes:
        asks = sys._getframe(1).f_globals.get("__name__", "")
        return (world.bytes if asks.startswith("taximeter.") else others).randbytes(size)

    return urandom


def _clocks(world: World) -> dict[str, Any]:
    return {
        "time": lambda: world.wall_ns() / 1e9,
        "time_ns": world.wall_ns,
        "monotonic": world.now_s,
        "monotonic_ns": lambda: world.now_ns,
        "perf_counter": world.now_s,
        "perf_counter_ns": lambda: world.now_ns,
    }


def _virtual(path: Any) -> str | None:
    """The path, where it is one of the simulated disk."""
    if isinstance(path, int):
        return None
    text = os.fspath(path)
    return text if isinstance(text, str) and text.startswith(ROOT) else None


def _calls(disk: Disk) -> dict[str, Any]:
    real = {
        name: getattr(os, name)
        for name in (
            "open", "close", "write", "read", "pread", "pwrite", "fsync", "ftruncate", "fstat", "stat", "lstat",
            "scandir", "listdir", "mkdir", "rename", "replace", "unlink", "remove", "chmod",
        )
    }  # fmt: skip

    def by_path(name: str, ours: Any) -> Any:
        def call(path: Any, *args: Any, **named: Any) -> Any:
            found = _virtual(path)
            return real[name](path, *args, **named) if found is None else ours(found, *args, **named)

        return call

    def by_fd(name: str, ours: Any) -> Any:
        def call(fd: int, *args: Any) -> Any:
            return ours(fd, *args) if fd >= Disk.FIRST_FD else real[name](fd, *args)

        return call

    def stat(path: str, **_: Any) -> Stat:
        return disk.stat(path)

    def stat_any(path: Any, **named: Any) -> Any:
        if isinstance(path, int) and path >= Disk.FIRST_FD:
            return disk.fstat(path)
        return stat_path(path, **named)

    stat_path = by_path("stat", stat)
    return {
        "open": by_path("open", lambda path, flags, mode=0o777, **_: disk.open(path, flags)),
        "close": by_fd("close", disk.close),
        "write": by_fd("write", disk.write),
        "read": by_fd("read", disk.read),
        "pread": by_fd("pread", disk.read),
        "pwrite": by_fd("pwrite", disk.write),
        "fsync": by_fd("fsync", disk.fsync),
        "ftruncate": by_fd("ftruncate", disk.ftruncate),
        "fstat": by_fd("fstat", disk.fstat),
        "stat": stat_any,
        "lstat": by_path("lstat", stat),
        "scandir": by_path("scandir", lambda path: _Entries(path, disk.names(path))),
        "listdir": by_path("listdir", lambda path: list(disk.names(path))),
        "mkdir": by_path("mkdir", lambda path, mode=0o777, **_: disk.mkdir(path)),
        "rename": by_path("rename", lambda path, target, **_: disk.rename(path, os.fspath(target))),
        "replace": by_path("replace", lambda path, target, **_: disk.rename(path, os.fspath(target))),
        "unlink": by_path("unlink", lambda path, **_: disk.unlink(path)),
        "remove": by_path("remove", lambda path, **_: disk.unlink(path)),
        "chmod": by_path("chmod", lambda path, mode, **_: None),
    }


def _flock(disk: Disk) -> Any:
    real = fcntl.flock

    def flock(fd: Any, operation: int) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        if number < Disk.FIRST_FD:
            real(fd, operation)
        else:
            disk.flock(number, shared=bool(operation & fcntl.LOCK_SH), wait=not operation & fcntl.LOCK_NB)

    return flock


def _opener(disk: Disk) -> Any:
    real: Any = io.open

    def opened(file: Any, mode: str = "r", *rest: Any, closefd: bool = True, **named: Any) -> Any:
        if isinstance(file, int):
            if file < Disk.FIRST_FD:
                return real(file, mode, *rest, closefd=closefd, **named)
            fd = file
        else:
            path = _virtual(file)
            process = CURRENT.get()
            if process is not None and os.fspath(file) == BOOT_ID:
                return io.StringIO(f"{process.node.name}-{process.node.boots}")
            if path is None:
                return real(file, mode, *rest, closefd=closefd, **named)
            flags = os.O_RDONLY if "r" in mode else os.O_WRONLY | os.O_CREAT
            flags |= (os.O_EXCL if "x" in mode else 0) | (os.O_APPEND if "a" in mode else 0)
            fd = disk.open(path, flags | (os.O_TRUNC if "w" in mode else 0))
        raw = _Raw(disk, fd, closefd=closefd)
        buffered: Any = io.BufferedReader(raw) if "r" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")

    return opened


class _Raw(io.RawIOBase):
    """A descriptor of the simulated disk, below io's own buffers."""

    def __init__(self, disk: Disk, fd: int, *, closefd: bool) -> None:
        self._disk, self._fd, self._closefd = disk, fd, closefd

    def fileno(self) -> int:
        return self._fd

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._disk.read(self._fd, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        return self._disk.write(self._fd, bytes(data))

    def close(self) -> None:
        if not self.closed and self._closefd and self._fd in self._disk.open_files:
            self._disk.close(self._fd)
        super().close()


class _Entry:
    """An os.DirEntry."""

    def __init__(self, folder: str, name: str, inode: Inode) -> None:
        self.name, self.path, self._inode = name, f"{folder.rstrip('/')}/{name}", inode

    def __fspath__(self) -> str:
        return self.path

    def inode(self) -> int:
        return self._inode.number

    def stat(self, **_: Any) -> Any:
        return os.stat(self.path)

    def is_dir(self, **_: Any) -> bool:
        return self._inode.entries is not None

    def is_file(self, **_: Any) -> bool:
        return self._inode.entries is None

    def is_symlink(self) -> bool:
        return False


class _Entries:
    """What os.scandir returns."""

    def __init__(self, folder: str, names: dict[str, Inode]) -> None:
        self._entries = iter([_Entry(folder, name, inode) for name, inode in names.items()])

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to close."""

    def __iter__(self) -> Iterator[_Entry]:
        return self._entries

    def __next__(self) -> _Entry:
        return next(self._entries)

    def close(self) -> None:
        """See `__exit__`."""
