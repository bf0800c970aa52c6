"""That a fleet at rest asks little more of its Redis the larger it is: nothing grows with the square of its nodes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from postgres import Postgres
from scale import delivering, fleet
from scale.servers import shared


def a_second(costs: list[fleet.Cost], nodes: int) -> tuple[float, float, float]:
    """Commands, bytes and statements."""
    found = [
        [getattr(each, of) * nodes / each.period_s for each in costs] for of in ("commands", "bytes", "statements")
    ]
    return sum(found[0]), sum(found[1]), sum(found[2])


async def test_a_thousand_nodes_at_rest_and_two_that_deliver(
    tmp_path: Path, postgres_server: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    async with shared(tmp_path / "servers", postgres_server) as servers:
        rest = {nodes: await fleet.at_rest(servers, tmp_path, nodes) for nodes in (8, 1_000)}
        stage = await delivering.stage(servers, 0, 2, 50)
    eight, many = rest[8].costs, rest[1_000].costs
    commands, size, statements = a_second(many, 1_000)
    few_commands, few_bytes, _ = a_second(eight, 8)
    assert 1_000 < commands < 5 * few_commands, fleet.table(rest)
    assert size < 15 * few_bytes  # a hundred and twenty-five times as many nodes
    assert 0 < statements < 500
    assert {"registering this node in Redis", "auditing Redis against history"} <= {each.name for each in many}
    assert 0 < rest[1_000].connections_to_history <= 5 and rest[1_000].connections_to_redis > 0
    assert (stage.rows["usage_events"], stage.rows["journals"]) == (2 * delivering.CALLS, 2)
    assert 0 < stage.bytes_a_call < 20_000 and stage.keys > 10
