"""What a fleet shares, real and thrown away afterwards: three Valkey shards, a PostgreSQL; what was asked of them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, event

import valkeys
from postgres import Postgres

NOT_ASKED = frozenset({"info", "cluster|slots", "cluster|shards", "hello", "client|setinfo", "command", "ping", "auth"})
"""Of Redis commands those of a new connection, and ours."""


@dataclass
class Asked:
    """Of Redis and PostgreSQL, between two looks."""

    commands: dict[str, int] = field(default_factory=dict)
    in_bytes: int = 0
    out_bytes: int = 0
    statements: int = 0

    @property
    def redis(self) -> int:
        return sum(self.commands.values())

    def since(self, before: Asked) -> Asked:
        commands = {name: n - before.commands.get(name, 0) for name, n in self.commands.items()}
        return Asked(
            {name: n for name, n in commands.items() if n},
            self.in_bytes - before.in_bytes,
            self.out_bytes - before.out_bytes,
            self.statements - before.statements,
        )


class Servers:
    """The servers, and a count of what is sent to them."""

    def __init__(self, shards: list[valkeys.Server], postgres: Postgres) -> None:
        self.shards = shards
        self.postgres = postgres
        self.redis_url = "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in shards)
        self.history_url = postgres.database()
        self._statements = 0
        self._look_bytes = 0, 0
        event.listen(Engine, "after_cursor_execute", self._executed)

    def _executed(self, *_: object) -> None:
        self._statements += 1

    async def look(self) -> Asked:
        """So far. What looking itself sends is not in it."""
        asked = Asked(statements=self._statements)
        for shard in self.shards:
            told: dict[str, Any] = await shard.client.info("commandstats")
            for name, stats in told.items():
                command = name.removeprefix("cmdstat_")
                if command not in NOT_ASKED:
                    asked.commands[command] = asked.commands.get(command, 0) + int(stats["calls"])
            stats = await shard.client.info("stats")
            asked.in_bytes += int(stats["total_net_input_bytes"])
            asked.out_bytes += int(stats["total_net_output_bytes"])
        return asked

    async def asked(self, before: Asked) -> Asked:
        """Since then, without what a look sends."""
        first = await self.look()
        second = await self.look()
        asked, looking = first.since(before), second.since(first)
        asked.in_bytes -= looking.in_bytes
        asked.out_bytes -= looking.out_bytes
        return asked

    async def keys(self) -> int:
        return sum([await shard.client.dbsize() for shard in self.shards])

    def rows(self) -> dict[str, int]:
        """Of each table of history that has any."""
        found = {}
        with psycopg.connect(self.history_url, autocommit=True) as connection:
            names = connection.execute(
                "select relname from pg_class where relkind in ('r', 'p') and not relispartition "
                "and relnamespace = 'public'::regnamespace order by 1"
            ).fetchall()
            for (name,) in names:
                (rows,) = connection.execute(f'select count(*) from "{name}"').fetchone() or (0,)
                if rows:
                    found[str(name)] = int(rows)
        return found

    async def connections(self) -> tuple[int, int]:
        """Of Taximeter to PostgreSQL, and to the shards (without ours)."""
        with psycopg.connect(self.history_url, autocommit=True) as connection:
            (to_history,) = connection.execute(
                "select count(*) from pg_stat_activity "
                "where application_name = 'taximeter' and datname = current_database()"
            ).fetchone() or (0,)
        there = [await shard.client.client_list() for shard in self.shards]
        return int(to_history), sum(map(len, there)) - len(there)

    def size_bytes(self) -> int:
        with psycopg.connect(self.history_url, autocommit=True) as connection:
            (size,) = connection.execute("select pg_database_size(current_database())").fetchone() or (0,)
        return int(size)

    def close(self) -> None:
        event.remove(Engine, "after_cursor_execute", self._executed)


@contextlib.asynccontextmanager
async def shared(folder: Path, postgres: Postgres) -> AsyncIterator[Servers]:
    """Three shards without replicas, and a database of its own."""
    folder.mkdir(exist_ok=True)
    ports = enumerate(valkeys.free_ports(3))
    shards = [valkeys.Server(folder / f"shard{n}", port, "cluster-enabled yes") for n, port in ports]
    async with valkeys.running(*shards):
        for n, shard in enumerate(shards):
            await shards[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", shard.port)
            await shard.client.execute_command("CLUSTER", "ADDSLOTSRANGE", n * 5_462, min(n * 5_462 + 5_461, 16_383))
        for shard in shards:
            await valkeys.answers(functools.partial(shard.client.execute_command, "CLUSTER", "INFO"), _formed)
        servers = Servers(shards, postgres)
        try:
            yield servers
        finally:
            servers.close()


def _formed(told: object) -> bool:
    return {"cluster_state:ok", "cluster_known_nodes:3"} <= set(str(told).split())
