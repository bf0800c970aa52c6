"""What can happen to a node, each as a coroutine that does it under load and returns when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import redis.asyncio
import redis.exceptions

from faults.running import Node
from taximeter.node.reloaded import read_reloaded

Fault = Callable[[Node, random.Random], Awaitable[None]]


async def kill_one(node: Node, dice: random.Random) -> None:
    """kill -9 of a worker, of control or of Valkey."""
    title = dice.choice(("worker", "control", "valkey"))
    victim = dice.choice(node.pids(title))
    os.kill(victim, signal.SIGKILL)
    await node.until_replaced(title, [victim])


async def kill_at_a_moment(node: Node, dice: random.Random) -> None:
    """kill -9 of the workers when the provider has just got a request, or has just sent the last byte of an answer."""
    requests = node.provider.requests
    begun, ended = len(requests), sum(request.answered for request in requests)
    if dice.random() < 0.5:
        await node.provider.until(lambda: len(requests) > begun)
    else:
        await node.provider.until(lambda: sum(request.answered for request in requests) > ended)
    await node.until_replaced("worker", node.kill("worker"))


async def kill_everything(node: Node, dice: random.Random) -> None:
    """The whole machine, as far as processes are concerned."""
    node.kill_everything()
    node.start()
    await node.until_ready()


async def power_cut_in_mid_line(node: Node, dice: random.Random) -> None:
    """Everything ends, and the journals with half a line."""
    node.kill_everything()
    tear_last_lines(node, dice)
    node.start()
    await node.until_ready()


async def kill_supervisor(node: Node, dice: random.Random) -> None:
    """Its children end with it; the next start waits for them."""
    assert node.process is not None
    node.process.kill()
    await asyncio.to_thread(node.process.wait)
    node.start()
    await node.until_ready()


async def stop_for_a_while(node: Node, dice: random.Random) -> None:
    """SIGSTOP and SIGCONT."""
    title = dice.choice(("worker", "control", "valkey"))
    async with stopped(node.pids(title)):
        await asyncio.sleep(dice.uniform(0.2, 2.5))


async def disk_full(node: Node, dice: random.Random) -> None:
    """No line more fits into the workers' journals; the records wait in memory."""
    fill_disk(node)
    await node.answered(dice.randint(5, 60))
    make_room(node)
    await node.until_ready()


async def redis_flushed(node: Node, dice: random.Random) -> None:
    """FLUSHALL."""
    async with talking_to_redis(node) as client:
        await client.flushall()


async def redis_full(node: Node, dice: random.Random) -> None:
    """OOM: maxmemory reached, noeviction."""
    async with talking_to_redis(node) as client:
        await client.config_set("maxmemory", "1")
        await asyncio.sleep(dice.uniform(0.2, 2))
        await client.config_set("maxmemory", "0")


async def redis_slow(node: Node, dice: random.Random) -> None:
    """Nothing is answered for a while; now and then for longer than our timeout."""
    pause_s = dice.choice((0.3, 1.0, 6.0))
    async with talking_to_redis(node) as client:
        await client.execute_command("CLIENT", "PAUSE", str(int(pause_s * 1000)), "ALL")
        await asyncio.sleep(pause_s)


async def redis_from_an_older_file(node: Node, dice: random.Random) -> None:
    """It dies and comes back with the append-only file of a while ago."""
    files, older = node.data / "valkey" / "appendonlydir", node.folder / "older"
    shutil.rmtree(older, ignore_errors=True)
    shutil.copytree(files, older)
    await node.answered(dice.randint(10, 60))
    async with stopped(node.pids("supervisor")):  # else it is started again before its file is exchanged
        gone = node.kill("valkey")
        await node.until(lambda: not any(map(alive, gone)), "rid of Valkey")
        shutil.rmtree(files)
        shutil.copytree(older, files)
    await node.until_replaced("valkey", gone)


async def history_locked(node: Node, dice: random.Random) -> None:
    """Another connection holds the write lock, now and then for longer than SQLite waits."""
    uri = f"file:{node.data / 'history.db'}?mode=rw"
    try:
        other = await asyncio.to_thread(sqlite3.connect, uri, uri=True, isolation_level=None, check_same_thread=False)
    except sqlite3.OperationalError:  # it is gone just now, and must not be made
        return
    with contextlib.closing(other):
        other.execute("pragma busy_timeout = 20000")
        await asyncio.to_thread(other.execute, "begin immediate")
        await asyncio.sleep(dice.choice((0.5, 1.5, 6.0)))
        other.execute("rollback")


async def history_gone(node: Node, dice: random.Random) -> None:
    """The file is moved away, and back."""
    file, away = node.data / "history.db", node.data / "history.away"
    file.rename(away)
    await asyncio.sleep(dice.uniform(0.2, 1.5))
    away.rename(file)


async def history_fails_after_commit(node: Node, dice: random.Random) -> None:
    """Commits take effect and report an error."""
    node.commit_fails.touch()
    await asyncio.sleep(dice.uniform(0.2, 1.5))
    node.commit_fails.unlink()


async def reload(node: Node, dice: random.Random) -> None:
    """Other settings: every worker is replaced; whatever dies meanwhile, the old ones or the new ones are in force."""
    node.config = f"usage_headers = {dice.choice(('true', 'false'))}"
    node.write_settings()
    supervisor = node.process.pid if node.process is not None else 0
    before = read_reloaded(node.data)
    await node.until(lambda: not supervisor or not alive(supervisor) or hears_hangup(supervisor), "its first moment")
    with contextlib.suppress(ProcessLookupError):
        os.kill(supervisor or os.getpid(), signal.SIGHUP if supervisor else 0)
    await node.until(lambda: not supervisor or not alive(supervisor) or read_reloaded(node.data) != before, "reloaded")


DEATHS: tuple[Fault, ...] = (
    kill_one,
    kill_at_a_moment,
    kill_everything,
    power_cut_in_mid_line,
    kill_supervisor,
    redis_from_an_older_file,
    redis_flushed,
    disk_full,
    history_gone,  # not among the troubles: a control started meanwhile would rightly begin an empty history
)
TROUBLES: tuple[Fault, ...] = (
    reload,
    reload,
    stop_for_a_while,
    redis_full,
    redis_slow,
    history_locked,
    history_fails_after_commit,
)
"""Last for a while; one of DEATHS may happen meanwhile."""


def fill_disk(node: Node) -> None:
    """Let no file of the workers grow: a write past its size fails as on a full disk, and only theirs.

    A status file may be written anew in its 512 bytes, as it may be on a full disk, however short a journal is.
    """
    _limit_files(node, max(512, min(file.stat().st_size for file in (node.data / "journal").glob("*.jsonl"))))


def make_room(node: Node) -> None:
    _limit_files(node, resource.RLIM_INFINITY)


def _limit_files(node: Node, size_bytes: int) -> None:
    for pid in node.pids("worker"):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def tear_last_lines(node: Node, dice: random.Random) -> None:
    """Append half a line, cut at any byte, to every journal that has not ended. Nothing may be running."""
    for file in (node.data / "journal").glob("*.jsonl"):
        if b'{"end"' not in file.read_bytes().splitlines()[-1]:
            line = b'{"close":{"event_id":"%s:999999","request_id":"req_' % file.stem.encode()
            with file.open("ab") as journal:
                journal.write(line[: dice.randint(1, len(line))])


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
async def talking_to_redis(node: Node) -> AsyncIterator[redis.asyncio.Redis]:
    """The node's embedded Valkey."""
    client = redis.asyncio.Redis.from_url((node.data / "redis.url").read_text().strip())
    try:
        yield client
    except redis.exceptions.RedisError:  # it died meanwhile of something else; the next one has its own settings
        pass
    finally:
        await client.aclose()


def hears_hangup(pid: int) -> bool:
    """SIGHUP does not end it any more: it has a handler, or is held back until it has."""
    with contextlib.suppress(OSError):
        said = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
        return bool((int(said["SigCgt"], 16) | int(said["SigBlk"], 16)) & 1 << signal.SIGHUP - 1)
    return False


def alive(pid: int) -> bool:
    """A process that is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
