"""A whole Taximeter node as real processes, and the means to hurt it.

async with Node(tmp_path) as node:
    async with node.load(clients=4):
        node.kill("worker")
    await node.settle()
    node.compare()

The scripted provider runs in the test's own loop, so a test sees and steers each request; what the books say is in
ledger_check.py, the clients in load.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import redis

from bench import processes
from faults import ledger_check
from faults.load import Load
from taximeter.core.record import Record
from upstream import Provider
from valkeys import free_ports
from waits import HANG_S, happens, run, tree

INJECT = Path(__file__).parent / "inject"
SOURCES = Path(__file__).parents[2] / "proxy"


class Node:
    """One node under test. Nodes may share a provider, a Redis and a history (`redis_client`, `history_url`)."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 2,
        config: str = "",
        upstreams: str = "",
        env: dict[str, str] | None = None,
        provider: Provider | None = None,
        chunks: int = 8,
        chunk_ms: float = 5,
        redis_client: Callable[[], redis.Redis] | None = None,
        history_url: str = "",
        activated: bool = False,
    ) -> None:
        """`config`: TOML in front of the upstreams; `upstreams`: further [[upstream]] tables. `activated`: it is handed
        its listening sockets, as by a systemd socket unit, and they stay open while it is down."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "taximeter.log"
        self.commit_fails = folder / "commit-fails"
        """While this file exists, a commit of the history reports a failure after it has taken effect."""
        self.settings_file = folder / "taximeter.toml"
        self.port, self.admin = free_ports(2)  # none that a connection of ours could take while the node is down
        self.workers, self.config, self.upstreams = workers, config, upstreams
        self.env = env or {}
        self.own_provider = provider is None
        self.provider = provider or Provider(chunks=chunks, chunk_ms=chunk_ms)
        self.process: subprocess.Popen[bytes] | None = None
        self.sockets = [socket.create_server(("127.0.0.1", port)) for port in (self.port, self.admin) if activated]
        self.loads = Load([])
        self._redis_client, self.history_url = redis_client, history_url or f"sqlite:///{self.data}/history.db"

    async def __aenter__(self) -> Node:
        async with contextlib.AsyncExitStack() as opened:
            if self.own_provider:
                await opened.enter_async_context(self.provider)
            opened.push_async_callback(self.stop)
            self.start()
            await self.until_ready()
            self._opened = opened.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()
        for each in self.sockets:
            each.close()

    # ── life and death ───────────────────────────────────────────────────────────────────────────────────────

    def start(self, preexec: Callable[[], object] | None = None) -> None:
        """Start Taximeter on the same data and ports as before."""
        self.write_settings()
        argv = [sys.executable, "-m", "taximeter", "serve", "--config", str(self.settings_file)]
        if self.sockets:
            first, second = (each.fileno() for each in self.sockets)
            moved = f"exec 3<&{first} 4<&{second}; LISTEN_PID=$$ LISTEN_FDS=2 exec "
            argv = ["bash", "-c", f'{moved} "$@"', "bash", *argv]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                argv,
                stdout=out,
                stderr=out,
                env=self._environ(),
                preexec_fn=preexec,  # noqa: PLW1509
                pass_fds=[each.fileno() for each in self.sockets],
            )

    def write_settings(self) -> None:
        """Its settings file, as `config` and `upstreams` are now."""
        self.settings_file.write_text(
            f'listen = "127.0.0.1:{self.port}"\nadmin_listen = "127.0.0.1:{self.admin}"\n'
            f'data_dir = "{self.data}"\nworkers = {self.workers}\n{self.config}\n'
            f'[[upstream]]\nname = "openai"\nbase_url = "{self.provider.base_url}"\nforward_credentials = true\n'
            f"{self.upstreams}"
        )

    def _environ(self) -> dict[str, str]:
        paths = [str(INJECT), str(SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "FAULTS_COMMIT_FAILS": str(self.commit_fails),
            **self.env,
        }

    async def reload(self) -> int:
        """`taximeter reload`: its exit code."""
        argv = [sys.executable, "-m", "taximeter", "reload", "--config", str(self.settings_file)]
        done = await asyncio.to_thread(run, argv, env=self._environ())
        print(done.stdout, done.stderr)
        return done.returncode

    async def stop(self) -> None:
        """End in order."""
        if self.process is not None:
            process, self.process = self.process, None
            for pid in tree(process.pid):  # what a failed test left stopped could not hear of the end
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            await asyncio.to_thread(processes.stop, process)

    def pids(self, title: str) -> list[int]:
        """Processes of this node whose title has `title` in it (`worker`, `control`, `valkey`, `supervisor`)."""
        assert self.process is not None
        return [pid for pid in tree(self.process.pid) if f"taximeter: {title}" in _command(pid)]

    def kill(self, title: str, number: signal.Signals = signal.SIGKILL) -> list[int]:
        """Send a signal to every process of that title; answers whom."""
        pids = self.pids(title)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def kill_everything(self) -> None:
        assert self.process is not None
        for pid in tree(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    async def until_replaced(self, title: str, gone: list[int]) -> None:
        """Wait until as many new processes of that title are there as `gone` were, and everything is ready."""

        def replaced() -> bool:
            now = set(self.pids(title))
            return len(now) >= len(gone) and not now & set(gone)

        await self.until(replaced, f"another {title} there")
        await self.until_ready()

    async def until_ready(self) -> None:
        async def ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the supervisor ended with {self.process.returncode}; log:\n{self.log_end()}")
            return await self.get("/readyz") is not None

        await self.until(ready, "ready")

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a condition (a function or a coroutine function) holds: other processes send no events.

        Raises TimeoutError that says what was waited for and shows the log's end.
        """
        try:
            await happens(condition, what, self.process.pid if self.process is not None else None)
        except TimeoutError as late:
            raise TimeoutError(f"{late}; log:\n{self.log_end()}") from None

    def log_end(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    async def get(self, path: str) -> Any:
        """JSON (or text) of a GET on the control port; None when it does not answer 200."""
        try:
            text = await asyncio.to_thread(_get, f"http://127.0.0.1:{self.admin}{path}")
        except OSError:
            return None
        return json.loads(text) if text[:1] in b"{[" else text.decode()

    async def problems(self) -> list[str]:
        """What is wrong with the node, ready or not; empty where nothing is, or where control does not answer."""
        try:
            told = await asyncio.to_thread(_get, f"http://127.0.0.1:{self.admin}/readyz")
        except urllib.error.HTTPError as error:
            told = error.read()
        except OSError:
            return []
        found: dict[str, list[str]] = json.loads(told)
        return [*found["problems"], *found["warnings"]]

    async def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = (await self.get("/metrics") or "").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    # ── load ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sent(self) -> int:
        return self.loads.sent

    @property
    def answers(self) -> Counter[str]:
        return self.loads.answers

    @contextlib.asynccontextmanager
    async def load(self, *, clients: int = 4, seed: int = 1, chance_to_leave: float = 0.0) -> AsyncIterator[Load]:
        """Mixed traffic from several clients until the block ends; each call bears a mark of its own as its track."""
        self.loads.urls[:] = [self.url]
        async with self.loads.running(clients=clients, seed=seed, chance_to_leave=chance_to_leave):
            yield self.loads

    @contextlib.asynccontextmanager
    async def fresh_load(self, *, clients: int = 4, seed: int = 1) -> AsyncIterator[None]:
        """Beside `load`: the same traffic, with a new connection for each call."""
        self.loads.urls[:] = [self.url]
        async with self.loads.running(clients=clients, seed=seed, keep_alive=False):
            yield

    async def answered(self, more: int) -> None:
        """Wait until so many more calls have come to an end, good or bad."""
        goal = self.loads.ended + more
        await self.until(lambda: self.loads.ended >= goal, f"through {more} more calls")

    # ── the books ────────────────────────────────────────────────────────────────────────────────────────────

    async def settle(self) -> None:
        """Wait until nothing is open and every record is in every sink."""

        async def quiet() -> bool:
            if ledger_check.open_calls([self.data]):  # first: a call that closes from now on would not be asked about
                return False
            usage, health = await self.get("/usage"), await self.get("/healthz")
            if health is None or usage is None or not usage["complete"]:
                return False
            return all(lag == 0 for lag in health["sinks"].values())

        await self.until(quiet, "settled")

    def redis(self) -> redis.Redis:
        if self._redis_client is not None:
            return self._redis_client()
        return redis.Redis.from_url((self.data / "redis.url").read_text().strip(), decode_responses=True)

    def records(self) -> list[Record]:
        """Every record of this node's journals."""
        return ledger_check.written([self.data])

    def compare(self, lost: int = 0) -> dict[str, int]:
        """Provider = journal = SQL = Redis, and what clients saw. Raises Uneven; answers what was compared.

        `lost`: how many calls the journal could not keep, to the record.
        """
        with contextlib.closing(self.redis()) as client:
            return ledger_check.compare([self.data], self.history_url, client, self.provider, self.loads, lost)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=HANG_S) as answer:
        text: bytes = answer.read()
        return text


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""
