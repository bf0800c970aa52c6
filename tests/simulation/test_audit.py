"""The auditor makes an exception for what a fault may have touched, and for nothing beside it."""

from __future__ import annotations

from types import SimpleNamespace as Thing
from typing import Any

import pytest

from simulation.actors.client import Plan
from simulation.audit import calls, rates, webhook
from simulation.audit.journals import Said
from simulation.audit.uneven import Uneven
from simulation.events.faults import Fault, strike
from simulation.virtual.world import Process, World


def call(marker: str, track: str | None = "t1") -> Plan:
    return Plan(0.0, marker, b"/v1/chat/completions", b"", "w0", track, "ok", None, 0)


def test_only_of_tracks_whose_calls_are_gone_segments_are_not_compared():
    def segment(track: str, tokens: int) -> dict[str, Any]:
        metrics: dict[str, Any] = dict.fromkeys(webhook.METRICS, 0) | {"prompt_tokens": tokens, "total_tokens": tokens}
        metrics |= {"call_count": 1, "model": "unknown"}
        return {"workspace": "w0", "track_id": track, "metrics": metrics}

    record = Said(workspace="w0", track="t1", operation="llm", outcome="ok", input_tokens=3, output_tokens=0,
                  total_tokens=3)  # fmt: skip
    more = {"a": segment("t1", 3), "b": segment("t2", 1)}
    webhook._segments(more, [record], {call("call-0", "t2")})
    with pytest.raises(Uneven, match="more than was used"):
        webhook._segments(more, [record], {call("call-0", "t1")})


def test_only_calls_of_workers_that_met_a_bad_disk_may_be_recorded_as_less_than_their_clients_know():
    def caller(marker: str, node: Any, ended_s: float) -> Any:
        (process := Process("worker0", node)).ended_s = ended_s
        return Thing(plan=call(marker), process=process)

    nodes = [Thing(name="n0"), Thing(name="n1")]
    plan = Thing(faults=[Fault(2.0, "disk full", 0), Fault(3.0, "disk read errors", 1)])
    callers = [caller("before", nodes[0], 1.0), caller("there", nodes[0], 2.5), caller("elsewhere", nodes[1], 9.0)]
    assert calls.waiting(Thing(plan=plan, nodes=nodes, callers=callers)) == {"there"}  # type: ignore[arg-type]


def test_of_a_redis_that_forgot_calls_since_are_compared_though_a_worker_died():
    def compare(*asked_s: float) -> None:
        process = Thing(ended_s=0.5)
        each = {f"call-{n}": at_s for n, at_s in enumerate(asked_s)}
        callers = [Thing(plan=call(name), process=process, asked_s=at_s, status=200) for name, at_s in each.items()]
        bills = dict.fromkeys(each, Thing(prompt_tokens=1, output_tokens=1))
        reached_s = {name: at_s + 0.01 for name, at_s in each.items()}
        budget = Thing(on_unavailable="refuse", slice_percent=5.0)
        rate = {"name": "r", "requests_per_minute": 1}
        rates.compare(
            Thing(
                nodes=[Thing(settings=Thing(rate=[rate], budget=budget), lives=1)],
                callers=callers,
                plan=Thing(faults=[Fault(3.0, "redis empty")], rates=[rate], over_s=9.0, window_s=5),
                redis=Thing(forgot_s=[3.0], model=Thing(keys={})),
                provider=Thing(reached_s=reached_s, over_s={}, bills=bills),
                world=World(1),
                redis_forgot=True,
            ),  # type: ignore[arg-type]
            [],
        )

    compare(1.0, 4.0)
    for asked_s in ((1.0, 2.0), (4.0, 5.0)):
        with pytest.raises(Uneven, match="2 requests"):
            compare(*asked_s)


def test_a_fault_that_finds_nothing_to_strike_is_not_counted():
    world = World(1, tells=True)
    node = Thing(name="n0", processes=[])
    strike(Thing(world=world, nodes=[node], redis=None, sql=None), Fault(1.0, "kill", 0, "control", 3.0))  # type: ignore[arg-type]
    assert not world.counts["faults"] and "nothing that it could strike" in (world.story or [""])[0]
