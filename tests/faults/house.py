"""A whole Taximeter with its provider, as real processes, and the means to hurt it and to read its books.

async with House(tmp_path) as house:
    async with house.load(clients=4):
        house.kill("worker")
    await house.settle()
    house.compare()
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import redis

from bench import processes

TESTS = Path(__file__).resolve().parents[1]
WORKSPACES = ("alpha", "beta", "gamma")
READY_S = 30.0


class Uneven(AssertionError):
    """The books do not agree; the message says which and where."""


class House:
    """One node under test: provider, supervisor and what it starts."""

    def __init__(self, folder: Path, *, workers: int = 2, config: str = "", provider: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.ledger_file = folder / "ledger.jsonl"
        self.data = folder / "data"
        self.log = folder / "taximeter.log"
        self.port, self.admin = processes.free_port(), processes.free_port()
        self.workers, self.config, self.provider_args = workers, config, provider
        self.process: subprocess.Popen[bytes] | None = None
        self.sent = 0
        self.answers: Counter[str] = Counter()

    async def __aenter__(self) -> House:
        self.provider = subprocess.Popen(
            [sys.executable, str(TESTS / "upstream.py"), "--ledger", str(self.ledger_file), *self.provider_args],
            stdout=subprocess.PIPE,
        )
        assert self.provider.stdout is not None
        self.provider_port = int(self.provider.stdout.readline())
        self.start()
        try:
            await self.until_ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        self.provider.kill()
        self.provider.wait()
        assert self.provider.stdout is not None
        self.provider.stdout.close()

    # ── life and death ───────────────────────────────────────────────────────────────────────────────────────

    def start(self, preexec: Any = None) -> None:
        """Start Taximeter on the same data and ports as before."""
        file = self.folder / "taximeter.toml"
        file.write_text(
            f'listen = "127.0.0.1:{self.port}"\nadmin_listen = "127.0.0.1:{self.admin}"\n'
            f'data_dir = "{self.data}"\nworkers = {self.workers}\n{self.config}\n'
            f'[[upstream]]\nname = "openai"\nbase_url = "http://127.0.0.1:{self.provider_port}/v1"\n'
            "forward_credentials = true\n"
        )
        with self.log.open("ab") as out:
            argv = [sys.executable, "-m", "taximeter", "serve", "--config", str(file)]
            self.process = subprocess.Popen(argv, stdout=out, stderr=out, preexec_fn=preexec)  # noqa: PLW1509

    def stop(self) -> None:
        if self.process is not None:
            processes.stop(self.process)
            self.process = None

    def pids(self, title: str) -> list[int]:
        """Processes of this house whose title has `title` in it (`worker`, `control`, `valkey`, `supervisor`)."""
        assert self.process is not None
        return [pid for pid in processes.tree(self.process.pid) if title in _command(pid)]

    def kill(self, title: str, number: signal.Signals = signal.SIGKILL) -> list[int]:
        """Send a signal to every process of that title; answers whom."""
        pids = self.pids(title)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def kill_everything(self) -> None:
        assert self.process is not None
        for pid in processes.tree(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    async def until_ready(self) -> None:
        await self.until(lambda: self.get("/readyz") is not None, "ready")

    async def until(self, condition: Any, what: str, timeout_s: float = READY_S) -> None:
        """Wait until a condition holds. Raises TimeoutError that says what was waited for and shows the log's end."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                tail = self.log.read_text(errors="replace")[-3000:]
                raise TimeoutError(f"not {what} within {timeout_s} s; log:\n{tail}")
            await asyncio.sleep(0.02)

    def get(self, path: str) -> Any:
        """JSON of a GET on the control port; None when it does not answer 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=20) as answer:
                text = answer.read()
        except OSError:
            return None
        return json.loads(text) if text[:1] in b"{[" else text

    # ── load ─────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.asynccontextmanager
    async def load(self, *, clients: int = 4, seed: int = 1, chance_to_leave: float = 0.0) -> AsyncIterator[None]:
        """Mixed traffic from several clients until the block ends; each call bears a mark of its own as its track."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(random.Random(seed * 1000 + number), over, chance_to_leave))
            try:
                yield
            finally:
                over.set()

    async def _client(self, dice: random.Random, over: asyncio.Event, chance_to_leave: float) -> None:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}/v1", timeout=30) as client:
            while not over.is_set():
                self.sent += 1
                mark = f"call-{os.getpid()}-{self.sent}"
                headers = {"x-workspace": dice.choice(WORKSPACES), "x-track-id": mark, "x-marker": mark}
                try:
                    await self._call(client, dice, headers, chance_to_leave)
                except httpx2.HTTPError as error:
                    self.answers[type(error).__name__] += 1
                    await asyncio.sleep(0.02)  # a restarting server: do not spin

    async def _call(
        self, client: httpx2.AsyncClient, dice: random.Random, headers: dict[str, str], chance_to_leave: float
    ) -> None:
        kind = dice.choice(("chat", "chat", "stream", "stream", "embedding", "rerank"))
        text = " ".join(["word"] * dice.randint(1, 40))
        if kind == "embedding":
            path, body = "/embeddings", {"model": "text-embedding-3-small", "input": [text, text]}
        elif kind == "rerank":
            path, body = "/rerank", {"model": "rerank-v3.5", "query": text, "documents": [text, "other"]}
        else:
            path = "/chat/completions"
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}
        if kind != "stream":
            answer = await client.post(path, json=body, headers=headers)
            self.answers[str(answer.status_code)] += 1
            return
        leave_after = dice.randint(0, 8) if dice.random() < chance_to_leave else None
        async with client.stream("POST", path, json={**body, "stream": True}, headers=headers) as answer:
            seen = 0
            async for _ in answer.aiter_raw():
                seen += 1
                if leave_after is not None and seen > leave_after:
                    self.answers["left"] += 1
                    return
        self.answers[f"{answer.status_code} stream"] += 1

    # ── the books ────────────────────────────────────────────────────────────────────────────────────────────

    async def settle(self) -> None:
        """Wait until nothing is open and every record is in every sink."""

        def quiet() -> bool:
            health = self.get("/healthz")
            usage = self.get("/usage")
            if health is None or usage is None or not usage["complete"]:
                return False
            return all(lag == 0 for lag in health["sinks"].values()) and not self.open_calls()

        await self.until(quiet, "settled", 60)

    def open_calls(self) -> list[str]:
        """Requests with an `open` line and no `close` line in any journal on disk."""
        opened: Counter[tuple[str, int]] = Counter()
        for file in sorted((self.data / "journal").glob("*.jsonl")):
            for text in file.read_bytes().split(b"\n"):
                with contextlib.suppress(ValueError):
                    line = json.loads(text)
                    for name, step in (("open", 1), ("close", -1)):
                        if name in line and line[name].get("kind", "usage") == "usage":
                            opened[line[name]["request_id"], line[name].get("attempt", 1)] += step
        return [f"{request}#{attempt}" for (request, attempt), n in opened.items() if n > 0]

    def billed(self) -> dict[str, dict[str, Any]]:
        """What the provider says it charged for, by mark."""
        lines = self.ledger_file.read_text().splitlines() if self.ledger_file.exists() else []
        found = [json.loads(line) for line in lines]
        return {line["marker"]: line for line in found if line["marker"]}

    def records(self) -> list[dict[str, Any]]:
        """Every record, through the control port, page by page."""
        found: list[dict[str, Any]] = []
        page = ""
        while True:
            answer = self.get(f"/usage/events?limit=1000{page}")
            if answer is None:
                raise Uneven("the control port does not answer /usage/events")
            found += answer["data"]
            if not answer["next_page"]:
                return found
            page = f"&page={answer['next_page']}"

    def redis(self) -> redis.Redis:
        health = self.get("/healthz")
        url = Path(health["redis_url_file"]).read_text().strip()
        return redis.Redis.from_url(url, decode_responses=True)

    def compare(self) -> dict[str, int]:
        """Provider's ledger = records = Redis = SQL. Raises Uneven; answers what was compared."""
        billed, records = self.billed(), self.records()
        by_mark: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            by_mark.setdefault(record.get("track"), []).append(record)
        ids = Counter(record["event_id"] for record in records)
        twice = [event for event, n in ids.items() if n > 1]
        if twice:
            raise Uneven(f"event ids more than once: {twice[:5]}")
        for mark, bill in billed.items():
            found = by_mark.get(mark, [])
            if len(found) != 1:
                raise Uneven(f"{mark} was billed once and has {len(found)} records: {bill} {found}")
            self._check_figures(bill, found[0])
        for mark, found in by_mark.items():
            if len(found) > 1:
                raise Uneven(f"{mark} has {len(found)} records")
        self._compare_sums(records)
        outcomes = Counter(record["outcome"] for record in records)
        return {"billed": len(billed), "records": len(records), **outcomes}

    def _check_figures(self, bill: dict[str, Any], record: dict[str, Any]) -> None:
        usage = bill["usage"]
        for ours, theirs in (("input", ("prompt_tokens", "input_tokens")), ("output", ("completion_tokens",))):
            if record.get(f"{ours}_source") != "reported":
                continue
            reported = next((usage[name] for name in theirs if name in usage), None)
            if reported is not None and record[f"{ours}_tokens"] != reported:
                raise Uneven(f"{bill['marker']}: {ours}_tokens {record[f'{ours}_tokens']}, provider says {reported}")

    def _compare_sums(self, records: list[dict[str, Any]]) -> None:
        client = self.redis()
        try:
            for workspace in WORKSPACES:
                mine = [r for r in records if r["workspace"] == workspace]
                known = {name: int(n) for name, n in client.hgetall(f"tm:{{{workspace}}}:total").items()}
                sums = {
                    "requests": sum(r.get("attempt", 1) == 1 for r in mine),
                    "llm_input_tokens": _sum(mine, "llm", "input_tokens"),
                    "llm_output_tokens": _sum(mine, "llm", "output_tokens"),
                    "embedding_tokens": _sum(mine, "embedding", "input_tokens"),
                    "cost_nusd": sum(r.get("cost_nusd") or 0 for r in mine),
                }
                told = {name: known.get(name, 0) for name in sums}
                if told != sums:
                    raise Uneven(f"{workspace}: Redis {told}, records {sums}")
        finally:
            client.close()
        with contextlib.closing(sqlite3.connect(self.data / "history.db")) as db:
            rows, tokens = db.execute("select count(*), coalesce(sum(input_tokens), 0) from usage_events").fetchone()
        if (rows, tokens) != (len(records), sum(r.get("input_tokens") or 0 for r in records)):
            raise Uneven(f"SQL has {rows} rows with {tokens} input tokens, the API {len(records)} records")


def _sum(records: list[dict[str, Any]], operation: str, name: str) -> int:
    return sum(r.get(name) or 0 for r in records if r.get("operation") == operation)


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""
