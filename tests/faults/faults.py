"""What can happen to a node, each as a coroutine that does it under load and returns when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import redis.asyncio

from faults.house import House

Fault = Callable[[House, random.Random], Awaitable[None]]


async def kill_one(house: House, dice: random.Random) -> None:
    """kill -9 of a worker, of control or of Valkey."""
    title = dice.choice(("worker", "control", "valkey"))
    victim = dice.choice(house.pids(title))
    os.kill(victim, signal.SIGKILL)
    await house.until_replaced(title, [victim])


async def kill_everything(house: House, dice: random.Random) -> None:
    """The whole machine, as far as processes are concerned."""
    house.kill_everything()
    house.start()
    await house.until_ready()


async def kill_supervisor(house: House, dice: random.Random) -> None:
    """Its children end with it; the next start waits for them."""
    assert house.process is not None
    house.process.kill()
    await asyncio.to_thread(house.process.wait)
    house.start()
    await house.until_ready()


async def stop_for_a_while(house: House, dice: random.Random) -> None:
    """SIGSTOP and SIGCONT."""
    title = dice.choice(("worker", "control", "valkey"))
    async with stopped(house.pids(title)):
        await asyncio.sleep(dice.uniform(0.2, 2.5))


async def redis_flushed(house: House, dice: random.Random) -> None:
    """FLUSHALL."""
    async with talking_to_redis(house) as client:
        await client.flushall()


async def redis_full(house: House, dice: random.Random) -> None:
    """OOM: maxmemory reached, noeviction."""
    async with talking_to_redis(house) as client:
        await client.config_set("maxmemory", "1")
        try:
            await asyncio.sleep(dice.uniform(0.2, 2))
        finally:
            await client.config_set("maxmemory", "0")


async def redis_slow(house: House, dice: random.Random) -> None:
    """Nothing is answered for a while; now and then for longer than our timeout."""
    pause_s = dice.choice((0.3, 1.0, 6.0))
    async with talking_to_redis(house) as client:
        await client.execute_command("CLIENT", "PAUSE", str(int(pause_s * 1000)), "ALL")
        await asyncio.sleep(pause_s)


async def redis_from_an_older_file(house: House, dice: random.Random) -> None:
    """It dies and comes back with the append-only file of a while ago."""
    files, older = house.data / "valkey" / "appendonlydir", house.folder / "older"
    shutil.rmtree(older, ignore_errors=True)
    shutil.copytree(files, older)
    await house.answered(dice.randint(10, 60))
    async with stopped(house.pids("supervisor")):  # else it is started again before its file is exchanged
        gone = house.kill("valkey")
        await house.until(lambda: not any(map(alive, gone)), "rid of Valkey")
        shutil.rmtree(files)
        shutil.copytree(older, files)
    await house.until_replaced("valkey", gone)


async def history_locked(house: House, dice: random.Random) -> None:
    """Another connection holds the write lock, now and then for longer than SQLite waits."""
    with contextlib.closing(sqlite3.connect(house.data / "history.db", isolation_level=None, timeout=20)) as other:
        other.execute("begin immediate")
        await asyncio.sleep(dice.choice((0.5, 1.5, 6.0)))
        other.execute("rollback")


async def history_gone(house: House, dice: random.Random) -> None:
    """The file is moved away, and back."""
    file, away = house.data / "history.db", house.data / "history.away"
    file.rename(away)
    await asyncio.sleep(dice.uniform(0.2, 1.5))
    away.rename(file)


async def history_fails_after_commit(house: House, dice: random.Random) -> None:
    """Commits take effect and report an error."""
    house.commit_fails.touch()
    await asyncio.sleep(dice.uniform(0.2, 1.5))
    house.commit_fails.unlink()


FAULTS: tuple[Fault, ...] = (
    kill_one,
    kill_one,
    kill_one,
    kill_everything,
    kill_supervisor,
    stop_for_a_while,
    stop_for_a_while,
    redis_flushed,
    redis_full,
    redis_slow,
    redis_from_an_older_file,
    history_locked,
    history_gone,
    history_fails_after_commit,
)


@contextlib.asynccontextmanager
async def stopped(pids: list[int]) -> AsyncIterator[None]:
    """SIGSTOP for the block's time."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def talking_to_redis(house: House) -> AsyncIterator[redis.asyncio.Redis]:
    """The node's embedded Valkey."""
    client = redis.asyncio.Redis.from_url((house.data / "redis.url").read_text().strip())
    try:
        yield client
    finally:
        await client.aclose()


def alive(pid: int) -> bool:
    """A process that is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
