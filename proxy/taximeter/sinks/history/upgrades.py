"""What an older history lacks, made in one transaction. Nothing that is there changes."""

from __future__ import annotations

from sqlalchemy import Connection, func, inspect, literal, select, text

from taximeter.sinks.history import schema
from taximeter.sinks.history.schema import (
    LEVELS,
    QUARTER,
    QUARTER_S,
    SUMMARY_LEVELS,
    TAG_LEVELS,
    US,
    journals,
    meta,
    tags_done,
)


def upgrade(connection: Connection, found: int) -> None:
    """From version `found`. Version 3 added charges, 5 what is owed: of records before there are none."""
    if 2 <= found < 5:
        _without_tags(connection)
    schema.metadata.create_all(connection)
    if found < 5:
        _tags(connection)
    if found < 4:
        _apart(connection)
    if found < 5:
        _chained(connection)


def _without_tags(connection: Connection) -> None:
    """Their roll-ups did not know the series: they are filled anew from the records, as where there were none."""
    for table in (*TAG_LEVELS, tags_done):
        connection.execute(text(f"DROP TABLE IF EXISTS {table.name}"))
    connection.execute(meta.delete().where(meta.c.name == "tags_since_us"))


def _tags(connection: Connection) -> None:
    """Roll-ups by tag: of records that were deleted before, their tags are not known."""
    since = select(literal("tags_since_us"), meta.c.value).where(meta.c.name == "events_since_us")
    connection.execute(meta.insert().from_select(["name", "value"], since))


def _apart(connection: Connection) -> None:
    """Refusals apart from errors, and latencies: from the quarter of an hour after the last that is stored on."""
    for level in (*LEVELS, *SUMMARY_LEVELS, *TAG_LEVELS):
        if all(column["name"] != "refused" for column in inspect(connection).get_columns(level.name)):
            connection.execute(text(f"ALTER TABLE {level.name} ADD COLUMN refused BIGINT NOT NULL DEFAULT 0"))
    last_s = connection.execute(select(func.max(QUARTER.c.start_s))).scalar()
    if last_s is not None:
        since_us = (last_s + QUARTER_S) * US
        connection.execute(meta.insert().values(name="apart_since_us", value=str(since_us)))


def _chained(connection: Connection) -> None:
    """Evidence: a journal's chain begins with the next record that is delivered of it."""
    if all(column["name"] != "chain" for column in inspect(connection).get_columns(journals.name)):
        connection.execute(text(f"ALTER TABLE {journals.name} ADD COLUMN chain TEXT NOT NULL DEFAULT ''"))
    last = connection.execute(select(func.max(journals.c.journal_no))).scalar()
    if last is not None:
        connection.execute(meta.insert().values(name="unchained_journals", value=str(last)))
