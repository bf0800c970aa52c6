"""What `taximeter check` tries of Redis and of the history: not only whether they answer, but what they let us do."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from taximeter.budgets.rule import Budget
from taximeter.budgets.store import BudgetStore
from taximeter.budgets.tally import EACH
from taximeter.cli.findings import Trouble
from taximeter.config import Settings
from taximeter.config.addresses import masked
from taximeter.core.errors import TaximeterError

CONNECT_S = 5
_TABLE = "usage_events"
_LUA = (
    "This server runs no scripts, and counters and budgets are scripts",
    "load its Lua engine (Valkey 9.1 has it as a module: loadmodule …/libvalkeylua.so), or allow EVAL and EVALSHA to "
    "this user",
)


def redis_troubles(settings: Settings) -> Iterator[Trouble]:
    """What is wrong with the Redis of one's own."""
    from taximeter.sinks.redis.client import ERRORS

    try:
        yield from asyncio.run(_ask_redis(settings))
    except ERRORS as error:
        yield Trouble(
            masked(str(error)),
            do="see that it runs, that this machine may reach it, and that user and password are right; calls are "
            "relayed meanwhile, and counted once it answers",
        )


async def _ask_redis(settings: Settings) -> list[Trouble]:
    from redis.exceptions import NoPermissionError, ResponseError

    from taximeter.sinks.redis.client import RedisServer
    from taximeter.sinks.redis.nodes import refuse_eviction

    server, found = RedisServer(settings.redis.url), []
    try:
        try:
            await refuse_eviction(server)
        except TaximeterError as error:
            found.append(Trouble(str(error), do="CONFIG SET maxmemory-policy noeviction"))
        try:
            await server.command("EVAL", "return 1", 1, "tm:check")
        except (NoPermissionError, ResponseError) as error:
            found.append(Trouble(f"{_LUA[0]}: {error}", do=_LUA[1]))
        if _has_hard_budgets(settings):
            try:
                told = await server.command("INFO", "persistence")
            except ResponseError:
                told = {}
            if _keeps_nothing(told):
                found.append(
                    Trouble(
                        "it keeps nothing over a restart, and there are hard budgets: it is asked about them and "
                        "decides nothing after one until its totals are rebuilt",
                        do="switch persistence on (appendonly yes)",
                        level="warning",
                    )
                )
    finally:
        await server.close()
    return found


def split_troubles(settings: Settings) -> Iterator[Trouble]:
    """Workspaces whose counters shall be split (redis.split), where that does nothing."""
    split = sorted(settings.redis.split)
    if split and "cluster" not in urlsplit(settings.redis.url).scheme:
        yield Trouble(
            "parts of a workspace's counters are spread over the shards of a Cluster, and this is none",
            do="leave redis.split out, or name a Cluster (redis+cluster://…)",
            setting="redis.split",
            level="warning",
        )
    held = {budget.workspace for budget in _budgets(settings)}
    whole = [name for name in split if settings.budget.by_header or not held.isdisjoint((name, EACH))]
    if whole:
        yield Trouble(
            f"{', '.join(whole)}: counters of a workspace that has budgets stay together: one script decides on them",
            do="end its budgets (and budget.by_header), or leave it out of redis.split",
            setting="redis.split",
            level="warning",
        )


def _keeps_nothing(told: Any) -> bool:
    return isinstance(told, dict) and told.get("aof_enabled") == 0 and told.get("rdb_last_save_time") is not None


def _has_hard_budgets(settings: Settings) -> bool:
    return any(budget.mode == "hard" for budget in _budgets(settings))


def _budgets(settings: Settings) -> list[Budget]:
    """Those in force, as far as they can be read."""
    try:
        return [budget for budget in BudgetStore(Path(settings.data_dir)).stored() if not budget.ended_at]
    except (TaximeterError, OSError):
        return []


def sqlite_troubles(file: Path) -> Iterator[Trouble]:
    """What is wrong with a SQLite history; one that is not there yet is made by the first start."""
    try:
        if not os.access(file if file.exists() else _nearest(file), os.W_OK):
            yield Trouble(f"{file} cannot be written by this user", do="see whose it is, and with which mode")
        elif file.exists():
            with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
                database.execute("select count(*) from sqlite_master").fetchone()
    except (sqlite3.Error, OSError) as error:
        yield Trouble(f"{file} cannot be read: {error}", do="name another file, or put a back-up in its place")


def _nearest(path: Path) -> Path:
    """The directory in which it would be made, or the one in which that would be."""
    return next(each for each in path.absolute().parents if each.exists())


def history_troubles(settings: Settings) -> Iterator[Trouble]:
    """What is wrong with the PostgreSQL of one's own."""
    import psycopg

    url = urlsplit(settings.history.url)._replace(scheme="postgresql").geturl()
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_S) as connection:
            yield from _rights(connection)
    except psycopg.Error as error:
        yield Trouble(
            masked(str(error)).strip().replace("\n", "; "),
            do="see that it runs, that this machine may reach it, that the database exists, and that user and password "
            "are right; calls are relayed meanwhile, and kept in the journal",
        )


def _rights(connection: Any) -> Iterator[Trouble]:
    """Whether this user can make our tables, or use those that are there."""
    read_only, schema, user = connection.execute(
        "select current_setting('transaction_read_only'), current_schema(), current_user"
    ).fetchone()
    if read_only == "on":
        yield Trouble("it only lets us read: it is a replica, or set to", do="name the primary in history.url")
        return
    if schema is None:
        yield Trouble(
            f"user {user} has no schema of its search_path",
            do=f"CREATE SCHEMA … AUTHORIZATION {user}, or set search_path",
        )
        return
    if not connection.execute("select has_schema_privilege(current_schema(), 'CREATE')").fetchone()[0]:
        yield Trouble(
            f"user {user} may not create tables in schema {schema}; the first start, and an upgrade, make some",
            do=f'GRANT CREATE, USAGE ON SCHEMA "{schema}" TO "{user}"',
        )
    (there,) = connection.execute("select to_regclass(%s)", [_TABLE]).fetchone()
    wanted = ("SELECT", "INSERT", "UPDATE", "DELETE") if there is not None else ()
    lacking = [
        right
        for right in wanted
        if not connection.execute("select has_table_privilege(%s, %s)", [_TABLE, right]).fetchone()[0]
    ]
    if lacking:
        yield Trouble(
            f"user {user} lacks {', '.join(lacking)} on the tables there are",
            do=f'GRANT ALL ON ALL TABLES IN SCHEMA "{schema}" TO "{user}" (and ON ALL SEQUENCES)',
        )
