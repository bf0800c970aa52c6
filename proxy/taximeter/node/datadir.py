"""The data directory: one Taximeter at a time, its node's name, and where the running one listens.

Knows files and locks, no processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from pathlib import Path

import msgspec

from taximeter.core import tags
from taximeter.core.errors import DataDirError

RUNTIME_FILE = "runtime.json"
_POLL_S = 0.01


class Runtime(msgspec.Struct, kw_only=True):
    """What a running Taximeter tells others on this machine, in `<data_dir>/runtime.json`; gone when it has ended."""

    pid: int
    version: str
    node: str
    listen: str
    """host:port, with the port it really has."""
    admin_listen: str
    workers: int
    redis_url: str
    """Password masked."""
    redis_url_file: str
    """Embedded Valkey only: path of a 0600 file with the whole URL; else empty."""
    started_at: int
    """µs since epoch."""


def read_runtime(data_dir: Path) -> Runtime | None:
    """What runs on this directory now; None where nothing does (a file left by a killed process does not count)."""
    try:
        runtime = msgspec.json.decode((data_dir / RUNTIME_FILE).read_bytes(), type=Runtime)
        with (data_dir / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return runtime
    except (OSError, ValueError):
        pass
    return None


class DataDir:
    """The directory, held by this process until `release` or its end."""

    def __init__(self, path: Path) -> None:
        """Make it where needed and take its lock. Raises DataDirError: not usable, or used by another process."""
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirError(
                f"The data directory {self.path} cannot be used: {error.strerror} ({error.filename})."
            ) from error
        if not _try_lock(self._lock):
            holder = os.pread(self._lock, 20, 0).decode("ascii", "replace") or "unknown"
            os.close(self._lock)
            raise DataDirError(
                f"The data directory {self.path} is in use by another Taximeter (process {holder}). "
                "Stop that one, or set data_dir to another directory."
            )
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def children_lock(self, timeout_s: float = 15.0) -> int:
        """A lock for children to inherit: they close it once their port is closed. Returns its file descriptor.

        Waits for children of a killed supervisor to let go of theirs. Raises DataDirError after `timeout_s`.
        """
        descriptor = os.open(self.path / "children.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + timeout_s
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise DataDirError(
                    f"Processes of an earlier Taximeter on {self.path} do not end; look for `taximeter: worker` and "
                    "`taximeter: control`."
                )
            time.sleep(_POLL_S)
        return descriptor

    def node(self, configured: str) -> str:
        """This node's name: the configured one, else one made at the first start and kept in `node`."""
        if configured:
            return configured
        file = self.path / "node"
        with contextlib.suppress(OSError):
            known = file.read_text().strip()
            if tags.is_valid(known):
                return known
        made = f"node-{secrets.token_hex(4)}"
        file.write_text(made + "\n")
        return made

    def publish(self, runtime: Runtime) -> None:
        """Tell others on this machine; readable by the owner only."""
        write_private(self.path / RUNTIME_FILE, msgspec.json.format(msgspec.json.encode(runtime), indent=1) + b"\n")

    def release(self) -> None:
        """Give the directory to whoever comes next."""
        (self.path / RUNTIME_FILE).unlink(missing_ok=True)
        os.close(self._lock)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file in one step; readable by its owner only. Raises OSError."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    draft.replace(path)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
