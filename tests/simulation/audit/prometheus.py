"""What /metrics tells, as its text has it: every series is the sum of the records since its control process began."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from simulation import asked
from simulation.audit.journals import Journal, Said
from simulation.audit.sums import adds, model, of
from simulation.audit.uneven import NotYet, same

if TYPE_CHECKING:
    from simulation.simulation import Simulation

Series = tuple[str, tuple[str, ...]]
"""A family's name, and the values of its labels."""

SUMS = {
    "cached_input_tokens": "llm_cached_input_tokens",
    "cache_write_input_tokens": "llm_cache_write_input_tokens",
    "reasoning_output_tokens": "llm_reasoning_output_tokens",
    "search_units": "search_units",
    "cost_usd": "cost_nusd",
    "unpriced_requests": "unpriced_requests",
    "usage_missing": "unknown_requests",
}
"""docs/design.md, section 6, and what they are called elsewhere."""
SOURCES = {"reported": "reported", "counted": "counted"}
"""Anything else is `estimated`."""
_line = re.compile(r"taximeter_(\w+)\{([^}]*)\} ([0-9.e+-]+)")
_label = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
LABELS = ("workspace", "provider", "model", "operation", "outcome", "source")


def compare(simulation: Simulation, journals: Mapping[str, Journal]) -> None:
    """Raises Uneven."""
    back = {fault.node for fault in simulation.plan.faults if fault.kind == "clock" and fault.amount < 0}
    for n, node in enumerate(simulation.nodes):
        mine = [journal for journal in journals.values() if journal.node == node.name]
        if node.control is None or n in back or any(journal.written_by != node.name for journal in mine):
            continue  # what another node's journal had before it came here is told by the clock, or not
        before = node.control.passed_before
        since = [
            said
            for journal in mine
            for said in journal.records
            if int(said["event_id"].rpartition(":")[2]) > before.get(journal.journal_id, 0)
        ]
        told = _told(asked.metrics(node.control))
        # It is fed beside the sinks that keep, and nobody waits for it.
        same(f"{node.name}'s /metrics", told, _expected(since), NotYet)


def _told(text: str) -> dict[Series, int]:
    found: dict[Series, int] = {}
    families = {f"{name}_total" for name in ("requests", "input_tokens", "output_tokens", *SUMS)}
    families |= {f"{name}_per_request_{end}" for name in ("input_tokens", "output_tokens") for end in ("sum", "count")}
    families.add("request_duration_seconds_count")
    for name, labels, amount in _line.findall(text):
        if name in families and float(amount):
            scale = 1e9 if name == "cost_usd_total" else 1
            said = dict(_label.findall(labels))
            found[name, tuple(said[label] for label in LABELS if label in said)] = round(float(amount) * scale)
    return found


def _expected(records: list[Said]) -> dict[Series, int]:
    found: Counter[Series] = Counter()
    for said in records:
        if of(said, "kind") != "usage":
            continue
        shape = said["provider"], model(said), of(said, "operation")
        labels, sums, outcome = (said["workspace"], *shape), adds(said), said["outcome"]
        found["requests_total", (*labels, outcome)] += sums["requests"]
        came = sum(sums[name] for name in ("llm_input_tokens", "embedding_tokens", "rerank_tokens"))
        source = SOURCES.get(of(said, "input_source"), "estimated")
        found["input_tokens_total", (*labels, source)] += came
        source = SOURCES.get(of(said, "output_source"), "estimated")
        found["output_tokens_total", (*labels, source)] += sums["llm_output_tokens"]
        for family, name in SUMS.items():
            found[f"{family}_total", labels] += sums[name]
        if outcome != "refused":
            found["request_duration_seconds_count", shape] += said.get("duration_ms") is not None
            for figure in ("input_tokens", "output_tokens"):
                found[f"{figure}_per_request_sum", shape] += said.get(figure) or 0
                found[f"{figure}_per_request_count", shape] += said.get(figure) is not None
    return {series: amount for series, amount in found.items() if amount}
