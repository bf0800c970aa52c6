"""Whether history's other tables can be partitioned by hand: made so before the first start, it counts as it does else.

The records (`usage_events`) are partitioned by month as they are made; nobody has to do anything for that.
"""

from __future__ import annotations

import asyncio

import psycopg

from closing import closed
from ledger_fake import NOON_US, batch, traffic
from postgres import Postgres
from taximeter.sinks.history.sink import History
from taximeter.sinks.query import Filters

MONTH_US = 31 * 86_400 * 10**6

BY = {
    "usage_rollup": "hash (series_no)",
    "usage_rollup_hour": "hash (series_no)",
    "usage_summary": "hash (series_no)",
    "usage_latency_hour": "hash (series_no)",
    "usage_tags_hour": "range (start_s)",
    "usage_tags_day": "range (start_s)",
    "usage_quantities": "range (start_s)",
}
"""Table -> how. The key of each holds the column."""


def divide(url: str) -> None:
    """Put partitioned tables in place of these empty ones."""
    with psycopg.connect(url, autocommit=True) as connection:
        for table, by in BY.items():
            connection.execute(f"alter table {table} rename to {table}_whole")
            connection.execute(f"create table {table} (like {table}_whole including all) partition by {by}")
            if by.startswith("hash"):
                for part in range(4):
                    its = f"with (modulus 4, remainder {part})"
                    connection.execute(f"create table {table}_{part} partition of {table} for values {its}")
            else:
                connection.execute(f"create table {table}_rest partition of {table} default")
            connection.execute(f"drop table {table}_whole")


async def agree(postgres: Postgres) -> bool:
    """Whether a history so divided says what one says that is not."""
    answers = []
    for divided in (False, True):
        url = postgres.database()
        async with closed(History(url)) as history:
            await history.prepare()
            if divided:
                await asyncio.to_thread(divide, url)
            for journal_id in ("j1", "j2"):
                records = traffic(3, 200, journal_id=journal_id)
                await history.deliver([batch(records[:120])])
                await history.deliver([batch(records[120:])])
            await history.roll_up_tags()
            everything = Filters(from_us=NOON_US - MONTH_US, to_us=NOON_US + MONTH_US)
            answers.append(
                [
                    await history.usage(everything, ("workspace", "model")),
                    await history.usage(everything, ("task",), window="day"),
                    await history.usage(everything, ("track",)),
                ]
            )
            assert await history.prune(NOON_US + 3 * MONTH_US) > 0  # whole months go
    return answers[0] == answers[1]
