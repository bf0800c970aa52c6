"""docs/day-2.md is true: each section's commands are run, from top to bottom, on a node with calls, and lose none.

Real SQLite, PostgreSQL, Valkey and processes. What `systemctl` does is done to the node; `pip` is not run.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from redis import Redis

from nodes import Node
from taximeter.journal.files import lock_if_free
from upstream import Provider
from waits import HANG_S, ended, happens, until

pytestmark = pytest.mark.xdist_group("processes")

PAGE = Path(__file__).parents[1] / "docs/day-2.md"
SECTION = re.compile(r"(?m)^##+ (.*)$")
BLOCK = re.compile(r"(?m)^ *```console\n((?:(?! *```).*\n)*)")
NOT_RUN = ("pip install",)
CALLS = 5
DAY_S = 1_793_664_000
EXPORT = {"object": "page", "data": [{"start_time": DAY_S, "end_time": DAY_S + 86_400, "results": [
    {"object": "organization.usage.completions.result", "model": "gpt-4o-mini", "input_tokens": 7, "output_tokens": 7},
]}]}  # fmt: skip
"""A provider's export; of calls that are not ours."""


def sections() -> dict[str, list[str]]:
    """Heading -> its commands."""
    parts = SECTION.split(PAGE.read_text())
    commands = {}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        lines = [line.strip() for block in BLOCK.finditer(text) for line in block[1].splitlines()]
        if lines:
            assert all(line.startswith("$ ") for line in lines), (title, lines)
            commands[title] = [line.removeprefix("$ ") for line in lines]
    return commands


class House:
    """A node as an operator has it, and the commands he types."""

    def __init__(self, folder: Path, provider: Provider, **environ: str) -> None:
        upstream = json.dumps([{"name": "openai", "base_url": provider.base_url, "forward_credentials": True}])
        self.node = Node(folder, TAXIMETER_UPSTREAM=upstream, **environ)
        self.folder = folder
        self.names: dict[str, str] = {"/backups": str(folder / "backups")}
        """What stands on the page -> what it is here."""
        self.before: dict[str, Callable[[], Any]] = {}
        """Command -> what happens before it is typed."""
        self.made = 0
        wrapper = folder / "bin/taximeter"
        wrapper.parent.mkdir(parents=True)
        wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m taximeter "$@"\n')
        wrapper.chmod(0o755)
        (folder / "backups").mkdir()
        (folder / "usage.json").write_text(json.dumps(EXPORT))
        self.node.environ |= {"PATH": f"{wrapper.parent}:{os.environ['PATH']}", "COLUMNS": "120"}

    async def start(self) -> None:
        self.runtime = await asyncio.to_thread(self.node.start)

    async def stop(self) -> None:
        if self.node.process is not None and self.node.process.poll() is None:
            self.node.process.terminate()
            assert await asyncio.to_thread(ended, self.node.process) == 0

    async def call(self, times: int = CALLS) -> None:
        """Calls that end well, of two workspaces."""
        async with httpx2.AsyncClient(base_url=f"http://{self.runtime.listen}", timeout=HANG_S) as client:
            for number in range(times):
                body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
                answer = await client.post(f"/w/{'ab'[number % 2]}/t/t{number}/v1/chat/completions", json=body)
                assert answer.status_code == 200, answer.text
        self.made += times

    async def type(self, commands: list[str]) -> None:
        for command in commands:
            for name, act in self.before.items():
                if command.startswith(name):
                    await asyncio.to_thread(act)
            if command.startswith(NOT_RUN):
                continue
            if command.startswith("systemctl "):
                verb = command.split()[1]
                if verb in ("stop", "restart"):
                    await self.stop()
                if verb in ("start", "restart"):
                    await self.start()
            elif command.startswith("export "):
                name, _, value = command.removeprefix("export ").partition("=")
                self.node.environ[name] = (await self._shell(f'printf %s "{value}"')).stdout
            else:
                done = await self._shell(command)
                allowed = (0, 1) if command.startswith("taximeter reconcile") else (0,)  # 1: they differ
                assert done.returncode in allowed, (command, done.stdout, done.stderr, self.node.log[-2_000:])

    async def _shell(self, command: str) -> subprocess.CompletedProcess[str]:
        for shown, real in self.names.items():
            command = command.replace(shown, real)
        return await asyncio.to_thread(
            subprocess.run, ["bash", "-c", command], env=self.node.environ, cwd=self.folder, capture_output=True,
            text=True, check=False,
        )  # fmt: skip

    async def asked(self, *arguments: str) -> Any:
        """A verb's JSON."""
        token = self.node.environ.get("TOKEN", "")
        done = await asyncio.to_thread(self.node.run, *arguments, "--json", TAXIMETER_ADMIN_TOKEN=token)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    async def counted(self) -> tuple[int, int]:
        """Calls in history, and in Redis."""
        told = await self.asked("stats")
        status = await self.asked("status")
        url = self.node.environ.get("TAXIMETER_REDIS__URL") or Path(status["redis_url_file"]).read_text().strip()
        with Redis.from_url(url) as redis:
            sums = [int(redis.hget(f"tm:{{{name}}}:total", "requests") or 0) for name in "ab"]
        return told["usage"]["requests"], sum(sums)

    async def has_all(self) -> None:
        """Every call is in history and in Redis, once."""

        async def agreed() -> bool:
            return await self.counted() == (self.made, self.made)

        await happens(agreed, f"{self.made} calls everywhere", None)


@pytest.fixture
async def provider() -> Any:
    async with Provider() as running:
        yield running


@pytest.fixture
async def house(tmp_path, provider):
    """A node with some calls: SQLite, embedded Valkey."""
    made = House(tmp_path / "house", provider)
    try:
        await made.start()
        await made.call()
        yield made
    finally:
        print(made.node.log)
        await made.stop()


@pytest.fixture
def databases(postgres_server) -> Iterator[dict[str, str]]:
    """`$DATABASE` (made, empty), `$RESTORED` (not made yet), `$ADMIN_DATABASE`."""
    url = postgres_server.database()
    name = re.search(r"/([^/?]+)(\?|$)", url.removeprefix("postgresql://"))
    assert name
    admin = postgres_server.database()
    yield {"DATABASE": url, "RESTORED": url.replace(f"/{name[1]}", "/taximeter_restored", 1), "ADMIN_DATABASE": admin}
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS taximeter_restored WITH (FORCE)")
        connection.execute("DROP DATABASE IF EXISTS taximeter WITH (FORCE)")


async def test_logs_and_audit_log(house):
    await house.type(sections()["Audit log"])


async def test_rotating_secrets(house):
    made = await house.asked("keys", "create", "--workspace", "a")
    house.names["key_2a2a069106ea"] = made["id"]
    before = (house.node.data_dir / "redis.url").read_text()
    await house.type(sections()["Rotating secrets"])
    assert (house.node.data_dir / "redis.url").read_text() != before
    await house.has_all()
    assert (await asyncio.to_thread(house.node.run, "stats")).returncode == 1  # without the token


async def test_back_up_and_restore(house):
    commands = sections()["Back-up and restore"]
    at = commands.index("systemctl stop taximeter")
    await house.type(commands[:at])
    await house.type(commands[at:])
    await house.has_all()


async def test_back_up_and_restore_with_a_postgresql(tmp_path, provider, databases):
    house = House(tmp_path / "house", provider, TAXIMETER_HISTORY__URL=databases["DATABASE"], **databases)
    try:
        await house.start()
        await house.call()
        commands = sections()["With a PostgreSQL"]
        await house.type(commands[:2])
        await house.call()  # after the back-up: its journals are still there
        await house.type(commands[2:])
        await house.has_all()
    finally:
        print(house.node.log)
        await house.stop()


async def test_upgrade_and_downgrade(house):
    def newer() -> None:
        """As if a later version had been there."""
        with sqlite3.connect(house.node.data_dir / "history.db") as history:
            history.execute("UPDATE history_meta SET value = '99' WHERE name = 'version'")
        history.close()
        refused = house.node.run("serve")
        assert refused.returncode and "has schema version 99" in refused.stderr

    house.before["mv $TAXIMETER_DATA_DIR $TAXIMETER_DATA_DIR.newer"] = newer
    await house.type(sections()["Upgrade and downgrade"])
    await house.has_all()


async def test_old_records_and_giving_room_back(house):
    await house.type(sections()["Old records, and giving room back"])
    await house.has_all()


async def test_from_sqlite_to_postgresql(house, databases):
    url = databases["ADMIN_DATABASE"]
    name = re.search(r"/([^/?]+)(\?|$)", url.removeprefix("postgresql://"))
    assert name
    house.node.environ |= databases | {"DATABASE": url.replace(f"/{name[1]}", "/taximeter", 1)}
    commands = sections()["From SQLite to PostgreSQL"]
    await house.type(commands)
    await house.call()
    await house.has_all()
    assert (await house.asked("status"))["ready"]


@pytest.fixture
async def shared(tmp_path, provider, databases, valkey_url):
    """The first of two nodes on one Redis and one PostgreSQL, with a key and calls; and the second, not started."""
    with Redis.from_url(valkey_url) as redis:
        redis.flushall()
    environ = {"TAXIMETER_HISTORY__URL": databases["DATABASE"], "TAXIMETER_REDIS__URL": valkey_url}
    one, two = (House(tmp_path / name, provider, **environ) for name in ("one", "two"))
    try:
        await one.start()
        await one.call()
        yield one, two
    finally:
        for each in (one, two):
            if each.node.log_file.exists():
                print(each.node.log)
            await each.stop()


async def test_adding_a_node(shared):
    one, two = shared
    made = await one.asked("keys", "create", "--workspace", "a")
    await two.type(sections()["Adding a node"])
    await two.call()
    two.made += one.made
    await two.has_all()

    async def known() -> bool:
        return made["id"] in [key["id"] for key in await two.asked("keys", "list")]

    await happens(known, "the key is known here too", None)


async def test_losing_a_node(shared):
    one, two = shared
    await two.start()
    await two.call()
    assert two.node.process
    two.node.process.kill()
    await asyncio.to_thread(ended, two.node.process)
    await asyncio.to_thread(_gone, two)
    one.names["/mnt/lost-node/data"] = str(two.node.data_dir)
    await one.type(sections()["Losing a node"])
    one.made += two.made
    await one.has_all()


def _gone(house: House) -> None:
    """Its children end by themselves; then nobody writes its journals any more."""

    def free() -> bool:
        locks = [lock_if_free(path) for path in (house.node.data_dir / "journal").glob("*.jsonl")]
        for lock in locks:
            if lock is not None:
                os.close(lock)
        return None not in locks

    until(free, "the lost node's processes are gone")


async def test_the_numbers_look_wrong(house):
    await house.type(sections()["The numbers look wrong"])
    await house.has_all()


async def test_redis_is_gone(house):
    await house.type(sections()["Redis is gone"])
    await house.has_all()


async def test_a_redis_of_ones_own_that_comes_back_empty_is_filled(shared, valkey_url):
    one, _ = shared
    await one.has_all()
    with Redis.from_url(valkey_url) as redis:
        redis.flushall()
    await one.call()
    await one.has_all()


async def test_the_disk_is_full(house):
    await house.type(sections()["The disk is full"])
    await house.has_all()


def test_every_section_with_commands_is_run():
    here = Path(__file__).read_text()
    assert [title for title in sections() if f'sections()["{title}"]' not in here] == []
