"""A disk in memory: what processes see of it (the page cache), and what would be left after a power loss.

A file's bytes are safe once the file was synced, a name once its directory was. Locks are flocks: they belong to an
open file, and end with the process that has it.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from typing import NamedTuple

from simulation.virtual.world import CURRENT, Killed, Process, World

TICK_NS = 4_000_000
"""A file's times are as exact as the kernel's clock tick."""


class Inode:
    """A file or a directory."""

    __slots__ = (
        "clean", "data", "entries", "lock", "mtime_ns", "node", "number", "safe", "safe_entries", "synced_ns", "unsafe",
        "written",
    )  # fmt: skip

    def __init__(self, number: int, node: str, directory: bool) -> None:
        self.number = number
        self.node = node
        """Whose disk it is on."""
        self.data = bytearray()
        self.safe = bytearray()
        """The bytes on stable storage."""
        self.clean = 0
        """Up to here `data` and `safe` are the same."""
        self.entries: dict[str, Inode] | None = {} if directory else None
        self.safe_entries: dict[str, Inode] = {}
        self.unsafe: list[tuple[str, Inode | None]] = []
        """Changes of names that are not on stable storage, in their order: a journalling file system keeps it."""
        self.lock: Open | None = None
        self.mtime_ns = 0
        self.written: list[tuple[int, int]] = []
        """Offset and moment (ns) of each write since the last sync."""
        self.synced_ns: int | None = None
        """When that was."""


class Open:
    """An open file description."""

    __slots__ = ("append", "inode", "path", "position", "process", "writes")

    def __init__(self, inode: Inode, path: str, process: Process | None, flags: int) -> None:
        self.inode = inode
        self.path = path
        self.process = process
        self.writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
        self.append = bool(flags & os.O_APPEND)
        self.position = 0


class Stat(NamedTuple):
    """What the product asks of an os.stat_result."""

    st_mode: int
    st_ino: int
    st_dev: int
    st_nlink: int
    st_size: int
    st_mtime_ns: int

    @property
    def st_mtime(self) -> float:
        return self.st_mtime_ns / 1e9


class Trouble(NamedTuple):
    """What is wrong with a node's disk, or with some of its files, for a while."""

    full: bool = False
    failing: frozenset[str] = frozenset()
    """Operations that fail with EIO: write, read, fsync."""


_WELL = Trouble()
STATUS = ".status"
CONTROLS = "control's journals"
"""In place of a part of a path: whatever control does with journal files, be they its own or those it settles."""


class Disk:
    """All nodes' disks: `/sim/<node>/…`. Raises OSError as the system does."""

    FIRST_FD = 1_000_000

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers = 100
        self._fds = self.FIRST_FD
        self.root = self._inode("", directory=True)
        self.open_files: dict[int, Open] = {}
        self.trouble: dict[tuple[str, str], Trouble] = {}
        """By node, and by the part of a path that it is about; "": all of the node's."""
        self.removed: list[tuple[str, bytes]] = []
        """Path and bytes of every file that was removed: the auditor has them still."""

    # ── paths ────────────────────────────────────────────────────────────────────────────────────────────────

    def _inode(self, node: str, *, directory: bool) -> Inode:
        self._numbers += 1
        return Inode(self._numbers, node, directory)

    def _walk(self, path: str) -> Inode:
        at = self.root
        for name in path.split("/")[2:]:
            if not name:
                continue
            if at.entries is None:
                raise _error(errno.ENOTDIR, path)
            found = at.entries.get(name)
            if found is None:
                raise _error(errno.ENOENT, path)
            at = found
        return at

    def _parent(self, path: str) -> tuple[Inode, str]:
        folder, _, name = path.rstrip("/").rpartition("/")
        parent = self._walk(folder)
        if parent.entries is None:
            raise _error(errno.ENOTDIR, path)
        return parent, name

    def _name(self, parent: Inode, name: str, inode: Inode | None) -> None:
        assert parent.entries is not None
        if inode is None:
            del parent.entries[name]
        else:
            parent.entries[name] = inode
        parent.unsafe.append((name, inode))
        self._touch(parent)

    def _touch(self, inode: Inode) -> None:
        inode.mtime_ns = self._world.wall_ns() // TICK_NS * TICK_NS

    def _wrong(self, inode: Inode, path: str) -> Trouble:
        if not self.trouble:
            return _WELL
        found = [each for (node, part), each in self.trouble.items() if node == inode.node and _concerns(part, path)]
        return Trouble(any(each.full for each in found), frozenset().union(*(each.failing for each in found)))

    # ── what processes ask ───────────────────────────────────────────────────────────────────────────────────

    def open(self, path: str, flags: int) -> int:
        process = self._world.step(f"open {path}") if flags & os.O_CREAT else CURRENT.get()
        if process is not None and not process.alive:  # on its way out: what it opens now nobody would close
            raise Killed
        parent, name = self._parent(path)
        assert parent.entries is not None
        inode = parent.entries.get(name)
        if inode is None:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT, path)
            if self._wrong(parent, path).full:
                raise _error(errno.ENOSPC, path)
            inode = self._inode(path.split("/")[2], directory=False)
            self._touch(inode)
            self._name(parent, name, inode)
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise _error(errno.EEXIST, path)
        elif flags & os.O_TRUNC:
            del inode.data[:]
            inode.clean = 0
        self._fds += 1
        self.open_files[self._fds] = Open(inode, path, process, flags)
        return self._fds

    def close(self, fd: int) -> None:
        found = self.open_files.pop(fd, None)
        if found is None:
            raise _error(errno.EBADF, str(fd))
        if found.inode.lock is found:
            found.inode.lock = None

    def flock(self, fd: int, *, shared: bool, wait: bool) -> None:
        """Shared locks count as exclusive ones: who asks for one only looks whether it is free."""
        found = self._of(fd)
        if found.inode.lock not in (None, found):
            if wait:
                raise NotImplementedError("nobody waits for a lock in a simulation")
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        if not shared:
            found.inode.lock = found

    def write(self, fd: int, data: bytes, at: int | None = None) -> int:
        """Bytes written: fewer where the disk becomes full, or the process dies, in the middle."""
        found = self._of(fd)
        inode, world, process = found.inode, self._world, CURRENT.get()
        if not found.writes:
            raise _error(errno.EBADF, found.path)
        if at is None:
            at = len(inode.data) if found.append else found.position
        dies = process is not None and process.dies_in == 0
        if dies and world.luck.random() < 0.7:  # it is cut short, at a page's end or anywhere
            page_ends = 4096 - at % 4096
            cut = world.luck.choice((len(data), min(page_ends, len(data)), world.luck.randrange(len(data) + 1)))
            self._put(inode, at, data[:cut])
        world.step(f"write {found.path} {_glance(data)}")
        wrong = self._wrong(inode, found.path)
        spared = found.path.endswith((".status", ".status.new")) and (inode.node, STATUS) not in self.trouble
        if "write" in wrong.failing and not spared:
            raise _error(errno.EIO, found.path)  # where even that file cannot be written, nobody can be told of a loss
        if wrong.full:
            there = min(len(data), max(0, len(inode.data) - at))
            beyond = len(data) - there
            fits = there + (world.luck.randrange(beyond) if beyond and world.luck.random() < 0.3 else 0)
            if not fits:
                raise _error(errno.ENOSPC, found.path)
            data = data[:fits]
        self._put(inode, at, data)
        found.position = at + len(data)
        world.counts["writes"] += 1
        world.step(f"written {found.path}")
        return len(data)

    def _put(self, inode: Inode, at: int, data: bytes) -> None:
        inode.written.append((at, self._world.now_ns))
        if at > len(inode.data):
            inode.data.extend(bytes(at - len(inode.data)))
        inode.data[at : at + len(data)] = data
        inode.clean = min(inode.clean, at)
        self._touch(inode)

    def read(self, fd: int, most: int, at: int | None = None) -> bytes:
        found = self._of(fd)
        if "read" in self._wrong(found.inode, found.path).failing:
            raise _error(errno.EIO, found.path)
        start = found.position if at is None else at
        data = bytes(found.inode.data[start : start + most])
        if at is None:
            found.position += len(data)
        return data

    def fsync(self, fd: int) -> None:
        found = self._of(fd)
        self._world.step(f"sync {found.path}")
        if "fsync" in self._wrong(found.inode, found.path).failing:
            raise _error(errno.EIO, found.path)
        self.make_safe(found.inode)
        self._world.step(f"synced {found.path}")

    def ftruncate(self, fd: int, size: int) -> None:
        found = self._of(fd)
        self._world.step(f"truncate {found.path}")
        if "write" in self._wrong(found.inode, found.path).failing:
            raise _error(errno.EIO, found.path)
        del found.inode.data[size:]
        found.inode.clean = min(found.inode.clean, size)
        self._touch(found.inode)

    def stat(self, path: str) -> Stat:
        return _stat(self._walk(path))

    def fstat(self, fd: int) -> Stat:
        return _stat(self._of(fd).inode)

    def names(self, path: str) -> dict[str, Inode]:
        """Of a directory."""
        found = self._walk(path)
        if found.entries is None:
            raise _error(errno.ENOTDIR, path)
        return dict(found.entries)

    def mkdir(self, path: str) -> None:
        self._world.step(f"mkdir {path}")
        parent, name = self._parent(path)
        assert parent.entries is not None
        if name in parent.entries:
            raise _error(errno.EEXIST, path)
        made = self._inode(path.split("/")[2], directory=True)
        self._touch(made)
        self._name(parent, name, made)

    def rename(self, path: str, target: str) -> None:
        self._world.step(f"rename {path}")
        parent, name = self._parent(path)
        inode = self._walk(path)
        into, there = self._parent(target)
        if inode.node != into.node:
            raise _error(errno.EXDEV, target)
        if self._wrong(parent, target).full and self._world.luck.random() < 0.2:
            raise _error(errno.ENOSPC, target)
        self._name(into, there, inode)
        self._name(parent, name, None)
        self._world.step(f"renamed {target}")

    def unlink(self, path: str) -> None:
        self._world.step(f"unlink {path}")
        parent, name = self._parent(path)
        self.removed.append((path, bytes(self._walk(path).data)))
        self._name(parent, name, None)

    def _of(self, fd: int) -> Open:
        found = self.open_files.get(fd)
        if found is None:
            raise _error(errno.EBADF, str(fd))
        return found

    # ── what becomes of it ───────────────────────────────────────────────────────────────────────────────────

    def make_safe(self, inode: Inode) -> None:
        inode.safe[inode.clean :] = inode.data[inode.clean :]
        inode.clean = len(inode.data)
        inode.written.clear()
        inode.synced_ns = self._world.now_ns
        if inode.entries is not None:
            inode.safe_entries = dict(inode.entries)
            inode.unsafe.clear()

    def died(self, process: Process) -> None:
        """Its descriptors are closed, its locks free."""
        for fd in [fd for fd, each in self.open_files.items() if each.process is process]:
            self.close(fd)

    def lose_power(self, node: str) -> None:
        """What was not on stable storage is left in part, or not at all. No process of the node may live."""
        top = self.root.entries.get(node) if self.root.entries is not None else None
        if top is not None:
            self._lose(top)

    def _lose(self, inode: Inode) -> None:
        luck = self._world.luck
        if inode.entries is None:
            lost = inode.data[inode.clean :]
            kept = lost[: luck.randrange(len(lost) + 1)] if lost and luck.random() < 0.6 else bytearray()
            if len(kept) > 4096 and luck.random() < 0.3:  # a page that was not written, before one that was
                start = luck.randrange(len(kept) // 4096) * 4096
                kept[start : start + 4096] = bytes(4096)
            shorter = len(inode.data) < len(inode.safe)
            inode.data = inode.safe[: inode.clean] + kept
            if not shorter:  # what was written over is as it was
                inode.data += inode.safe[len(inode.data) :]
            if shorter and luck.random() < 0.5:  # a truncation that did not get through
                inode.data = bytearray(inode.safe)
            inode.safe, inode.clean = bytearray(inode.data), len(inode.data)
            inode.written.clear()
            return
        entries = dict(inode.safe_entries)
        for name, changed in inode.unsafe[: luck.randrange(len(inode.unsafe) + 1)]:
            if changed is None:
                entries.pop(name, None)
            else:
                entries[name] = changed
        inode.entries, inode.safe_entries = entries, dict(entries)
        inode.unsafe.clear()
        for each in entries.values():
            self._lose(each)

    def is_named(self, file: Open) -> bool:
        """Whether anybody can still find it."""
        folder = self._walk(file.path.rpartition("/")[0])
        return folder.entries is not None and file.inode in folder.entries.values()

    def take_away(self, folder: str, name: str) -> None:
        """Remove a name: the file is its writer's still."""
        self._name(self._walk(folder), name, None)

    def name_of(self, folder: str, file: Open) -> str:
        """By which name it can be found."""
        return next(name for name, inode in self.names(folder).items() if inode is file.inode)

    def copy(self, path: str) -> dict[str, bytes]:
        """The files of a directory, as a back-up has them."""
        return {name: bytes(each.data) for name, each in self.names(path).items() if each.entries is None}

    def put_back(self, path: str, files: dict[str, bytes]) -> None:
        """A directory restored from a copy: it has these files and no others."""
        folder = self._walk(path)
        assert folder.entries is not None
        node = path.split("/")[2]
        for name in [name for name, each in folder.entries.items() if each.entries is None]:
            self._name(folder, name, None)
        for name, data in files.items():
            inode = self._inode(node, directory=False)
            inode.data[:] = data
            self._touch(inode)
            self._name(folder, name, inode)
            self.make_safe(inode)
        self.make_safe(folder)


def _concerns(part: str, path: str) -> bool:
    if part != CONTROLS:
        return part in path
    process = CURRENT.get()
    return process is not None and process.name.endswith("/control") and ".jsonl" in path


def _glance(data: bytes) -> str:
    """What lines are written, for the story: open ×2, close call-7."""
    kinds = [
        line[2 : line.find(b'"', 2)].decode(errors="replace")
        for line in data[:100_000].split(b"\n")
        if line[:2] == b'{"'
    ]
    return f"{len(data)} bytes: {' '.join(kinds)}"


def _stat(inode: Inode) -> Stat:
    mode = modes.S_IFREG | 0o600 if inode.entries is None else modes.S_IFDIR | 0o700
    return Stat(mode, inode.number, 1, 1, len(inode.data), inode.mtime_ns)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
