"""`make scale`: a fleet on three Valkey shards and a PostgreSQL, measured; writes its part of docs/scaling.md.

    make scale ARGS="--nodes 100 --print"

Two to four minutes on two cores. Counts do not depend on the machine; CPU and calls a second do.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import sys
import tempfile
from pathlib import Path

from bench.run import stamp
from postgres import Postgres
from scale import costs, delivering, fleet, partitions
from scale.servers import shared
from taximeter.node.embedded_valkey import EmbeddedValkey

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
BEGIN, END = "<!-- written by make scale -->\n", "<!-- until here -->\n"
BATCHES_A_S = 10
"""What a worker with steady traffic delivers (delivery waits 0.1 s)."""


async def measured(nodes: int) -> list[str]:
    """The lines of the page."""
    with tempfile.TemporaryDirectory(prefix="taximeter-scale-") as name:
        folder = Path(name)
        lines = await _one_server(folder / "valkey")
        with Postgres() as postgres:
            lines += await _fleet(folder, postgres, nodes)
    return [*lines, "", f"*{stamp('')}*"]


async def _fleet(folder: Path, postgres: Postgres, nodes: int) -> list[str]:
    async with shared(folder / "rest", postgres) as servers:
        await fleet.at_rest(servers, folder, 1)  # what only the first node ever does
        rest = {n: await fleet.at_rest(servers, folder, n) for n in sorted({1, 8, 100, nodes})}
    few, more = max(1, nodes // 100), max(2, nodes // 10)
    async with shared(folder / "delivering", postgres) as servers:
        stages = [
            await delivering.stage(servers, first, upto, workspaces)
            for first, upto, workspaces in ((0, few, 50), (few, more, 50), (more, nodes, 50), (nodes, nodes + few, 500))
        ]
    lines = ["", "### A fleet at rest", "", _REST.format(keys=fleet.KEYS, budgets=fleet.BUDGETS), ""]
    lines += [*fleet.table(rest), "", "### A fleet that delivers", ""]
    return [*lines, _DELIVERING.format(calls=delivering.CALLS, batch=delivering.BATCH), "", *delivering.table(stages)]


async def _one_server(folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    lines = ["### One server", "", _SERVER, "", "| what | CPU µs | a core takes a second |", "|---|---:|---:|"]
    valkey = EmbeddedValkey(folder)
    url = valkey.start()
    try:
        for records in (1, 20, 200):
            of = await costs.counting(url, records)
            lines.append(
                f"| Valkey: a batch of {records} call{'s' * (records > 1)} of one workspace | {of.cpu_us_a_batch:,.0f} "
                f"| {1e6 / of.cpu_us_a_batch:,.0f} batches, {records * 1e6 / of.cpu_us_a_batch:,.0f} calls |"
            )
        decision_us = await costs.deciding(url)
        lines.append(
            f"| Valkey: a decision about a hard budget | {decision_us:.0f} | {1e6 / decision_us:,.0f} decisions |"
        )
    finally:
        valkey.stop()
    with Postgres() as postgres:
        costs.durable(postgres)
        for nodes, records, same in ((1, 20, True), (1, 1_000, True), (8, 20, True), (8, 20, False)):
            of_them = await costs.writing(postgres, nodes, records, same=same)
            what = f"{nodes} node{'s' * (nodes > 1)}, batches of {records:,}" + (
                "" if nodes == 1 else ", one workspace" if same else ", a workspace each"
            )
            lines.append(
                f"| PostgreSQL: a record; {what} (here {of_them.batches_a_s:,.0f} batches/s, "
                f"{of_them.records_a_s:,.0f} records/s) | {of_them.cpu_us_a_record:.0f} "
                f"| {1e6 / of_them.cpu_us_a_record:,.0f} records |"
            )
        stored = await costs.record_bytes(postgres)
        divided = await partitions.agree(postgres)
    size = costs.journal_bytes(folder / "journal")
    tables = ", ".join(f"`{name}`" for name in partitions.BY)
    lines += ["", f"The journal takes {size:,.0f} bytes a call, PostgreSQL {stored:,.0f} a record.", ""]
    lines.append(
        f"Partitioned by hand, {tables} {'say the same' if divided else '**do not say the same**'} as whole ones."
    )
    return lines


_SERVER = """\
CPU of the server's own processes by what it was asked. What a core takes follows from it, with nothing left over for
connections, replication or persistence: half of it is a prudent plan. PostgreSQL's commits wait for the disk
(`fsync = on`); what is in brackets is what this machine did, with the client on the same cores."""
_REST = """\
What the control processes' own timetable asks while no call comes, commands inside scripts included, with {budgets}
hard budgets, {keys} proxy keys and a breaker: measured of one node, at its turn and not, beside as many that are
entered."""
_DELIVERING = """\
{calls} calls a node in batches of {batch}, three workspaces each, a track for every ten calls; the last line: a
hundredth as many nodes more, of other workspaces. Commands inside scripts are included, and what a node
asks that comes new."""


def main() -> None:
    """See above."""
    options = argparse.ArgumentParser(prog="make scale", description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--nodes", type=int, default=1_000, help="of the greatest fleet (1,000)")
    options.add_argument("--print", action="store_true", help="do not write the page")
    asked = options.parse_args()
    logging.disable(logging.ERROR)
    text = "\n".join(asyncio.run(measured(asked.nodes))) + "\n"
    if asked.print:
        sys.stdout.write(text)
        return
    page = PAGE.read_text()
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: f"{BEGIN}\n{text}\n{END}", page))


if __name__ == "__main__":
    main()
