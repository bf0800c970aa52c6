"""The simulated history database answers as a real PostgreSQL does, on the same sequences of what is done to it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from ledger import T0
from postgres import Postgres
from simulation.compared import sql_state
from simulation.compared.sql_answers import questions
from simulation.compared.sql_steps import NODES, Drawing, Side, Step
from simulation.virtual.database import SqlHost, serving
from simulation.virtual.world import World
from taximeter.core.errors import TaximeterError
from taximeter.sinks.batch import Batch
from taximeter.sinks.history.database import Database
from taximeter.sinks.history.sink import History

SEEDS, STEPS = range(2), 30
TROUBLE = (TaximeterError, ValueError)


class Cuts:
    """Connections of a PostgreSQL that its server ends: before a commit, or behind it."""

    def __init__(self, url: str, side: Side) -> None:
        self.url, self.due = url, ""
        for history in side.nodes.values():
            dialect: Any = history._database._writer.dialect
            dialect.do_commit = self._committing(dialect.do_commit)

    def _committing(self, commit: Any) -> Any:
        def do_commit(connection: Any) -> None:
            due = self.due if self.due and self._has_written(connection) else ""
            if due:
                self.due = ""
            if due == "refused":
                self._cut(connection)
            commit(connection)
            if due == "lost":
                self._cut(connection)
                connection.driver_connection.execute("SELECT 1")

        return do_commit

    @staticmethod
    def _has_written(connection: Any) -> bool:
        """Rows, that is; not tables."""
        query = """
            SELECT pg_current_xact_id_if_assigned() IS NOT NULL AND NOT EXISTS (
                SELECT FROM pg_class WHERE xmin = pg_current_xact_id_if_assigned()::xid)
        """
        return bool(connection.driver_connection.execute(query).fetchone()[0])

    def _cut(self, connection: Any) -> None:
        with psycopg.connect(self.url, autocommit=True) as other:
            pid = connection.driver_connection.info.backend_pid
            assert other.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,)).fetchone() == (True,)


def prepared(server: Postgres) -> str:
    """A PostgreSQL database with the simulated one's id, that sorts text as most people's do: not by code points."""
    url = server.database(icu="en-US")
    with Database(url) as database, database.writing() as connection:
        connection.execute(text("UPDATE history_meta SET value = 'simulated' WHERE name = 'id'"))
    return url


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_simulated_database_does_as_postgresql(seed, tmp_path, postgres_server):
    await compare(seed, tmp_path, postgres_server)


async def compare(seed: int, folder: Path, server: Postgres) -> None:
    """Do the same on both, and look after each step whether they are alike."""
    host, url = SqlHost(World(seed), folder), prepared(server)
    theirs = Side(url)
    with serving(host):
        ours, cuts, drawn = Side(host.url), Cuts(url, theirs), Drawing(seed)
        asking = Random(f"{seed}/questions")
        try:
            for number in range(STEPS):
                where = f"seed {seed}, step {number}"
                await step_on_both(drawn, ours, theirs, host, cuts, where)
                asked = questions(asking)
                for name in asking.sample(sorted(asked), 4) if number < STEPS - 1 else asked:
                    assert await outcome(asked[name](ours)) == await outcome(asked[name](theirs)), f"{where}: {name}"
        finally:
            await ours.close()
            await theirs.close()


async def step_on_both(drawn: Drawing, ours: Side, theirs: Side, host: SqlHost, cuts: Cuts, where: str) -> None:
    step: Step = drawn.step()
    host.refuses, host.loses_replies = int(step.fault == "refused"), int(step.fault == "lost")
    of_ours = await outcome(step.act(ours))
    struck = step.fault if not host.refuses + host.loses_replies else ""
    host.refuses = host.loses_replies = 0
    cuts.due = struck
    of_theirs = await outcome(step.act(theirs))
    if of_theirs == "HistoryUnavailable" and cuts.due == struck:  # it was not cut off
        of_theirs = await outcome(step.act(theirs))  # the other node had dropped a month: delivery tries again
    assert of_theirs == of_ours, (where, step, struck)
    assert not cuts.due, (where, step, "PostgreSQL wrote nothing")
    names = [journal.name for journal in drawn.journals]
    drawn.cursors = await ours.any.cursors(names)
    for node in drawn.unsettled:
        drawn.unsettled[node] = await ours.nodes[node].unsettled(1_000)
        assert drawn.unsettled[node] == await theirs.nodes[node].unsettled(1_000), where
    state = [sql_state.rows(side.any._database) for side in (ours, theirs)]
    for table in state[0].keys() | state[1].keys():
        assert state[0].get(table, []) == state[1].get(table, []), (where, step, struck, table)


async def outcome(asked: Any) -> Any:
    """The answer, or which error."""
    try:
        return await asked
    except TROUBLE as error:
        return type(error).__name__


OWED = {"usage_owed": 3, "usage_owed_files": 3, "usage_owed_lines": 4}
"""Who comes first decides what these rows say: so many columns of each decide that it is there."""


async def test_two_nodes_at_once_end_in_what_they_do_one_after_the_other(tmp_path, postgres_server):
    drawn = Drawing(7)
    drawn.files = {"b1": ("f1",), "b2": ("f2",), "B1": ()}  # else who comes first decides whose lines a file holds
    batches: dict[str, list[Batch]] = {node: [] for node in NODES}
    for _ in range(60):
        journal = drawn.rng.choice(drawn.journals)
        made = drawn.batch(journal, drawn.cursors.get(journal.name, 0))
        drawn.cursors[journal.name] = made.upto
        batches[journal.node].append(made)

    async def work(history: History, theirs: list[Batch]) -> None:
        for number, each in enumerate(theirs):
            for _ in range(2):  # the second time it is there already
                assert await history.deliver([each]) == {each.journal_id: each.upto}
            if number % 5 == 0:
                await history.roll_up_tags()
            await history.claim(f"budget:{number}", T0)

    async def end(side: Side) -> dict[str, list[Any]]:
        await side.any.roll_up_tags()
        await side.any.gather_evidence(everything=True)
        await side.any.seal_evidence(T0, ())
        for history in side.nodes.values():
            await history.unsettled(1_000)
        found = sql_state.rows(side.any._database)
        roots = found.pop("evidence_roots")  # over segments in the order in which their journals began
        assert len(roots) == 1
        return found | {name: [row[:size] for row in found[name]] for name, size in OWED.items()}

    host = SqlHost(World(0), tmp_path)
    theirs = Side(prepared(postgres_server))
    with serving(host):
        ours = Side(host.url)
        for node, history in ours.nodes.items():
            await work(history, batches[node])
        expected = await end(ours)
        await ours.close()
    await asyncio.gather(*(work(history, batches[node]) for node, history in theirs.nodes.items()))
    found = await end(theirs)
    await theirs.close()
    for table in expected:
        assert found[table] == expected[table], table
