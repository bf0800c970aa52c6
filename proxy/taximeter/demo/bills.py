"""Both sides' figures by (workspace, model), and where they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from taximeter.demo.provider import Bill
from taximeter.demo.traffic import key_of

FIGURES = (
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
    "search_units",
)

Row = dict[str, int | Decimal]
"""FIGURES and cost_usd."""
Rows = dict[tuple[str, str], Row]


def billed(bills: Mapping[tuple[str, str], Bill], workspaces: tuple[str, ...]) -> Rows:
    """What the provider says."""
    owners = {key_of(workspace): workspace for workspace in workspaces}
    return {
        (owners[key], model): {name: getattr(bill, name) for name in FIGURES} | {"cost_usd": bill.cost_usd(model)}
        for (key, model), bill in bills.items()
    }


def metered(usage: bytes) -> Rows:
    """What Taximeter says: the answer of /usage?group_by=workspace,model."""
    told = json.loads(usage, parse_float=Decimal)
    return {(group["workspace"], group["model"]): _row(group) for group in told["groups"]}


def _row(group: dict[str, Any]) -> Row:
    usage = group["usage"]
    parts = (usage["llm"], usage["embedding"], usage["rerank"])
    row: Row = {name: sum(part.get(name, 0) for part in parts) for name in FIGURES}
    row["requests"] = usage["requests"]
    row["cost_usd"] = Decimal(group["estimated_cost_usd"] or 0)
    return row


def total(rows: Rows) -> Row:
    """The sum of all rows."""
    return {name: sum(row[name] for row in rows.values()) for name in (*FIGURES, "cost_usd")}


def differences(one: Rows, other: Rows) -> list[str]:
    """Where they differ, one line a figure; empty: nowhere."""
    found = []
    for key in sorted(one.keys() | other.keys()):
        for name in (*FIGURES, "cost_usd"):
            said, heard = one.get(key, {}).get(name, 0), other.get(key, {}).get(name, 0)
            if said != heard:
                found.append(f"{key[0]} {key[1]} {name}: the provider billed {said}, Taximeter says {heard}")
    return found


def redis_differences(rows: Rows, counters: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Where the Redis totals of a workspace (`tm:{acme}:total`) differ from the provider's bill."""
    found = []
    for workspace, fields in counters.items():
        own = {key: row for key, row in rows.items() if key[0] == workspace}
        bill = total(own)
        said = {
            "requests": bill["requests"],
            "total_tokens": bill["input_tokens"] + bill["output_tokens"],
            "search_units": bill["search_units"],
            "cost_nusd": int(bill["cost_usd"] * 1_000_000_000),
        }
        for name, value in said.items():
            if int(fields.get(name, 0)) != value:
                found.append(f"tm:{{{workspace}}}:total {name}: the provider billed {value}, Redis {fields.get(name)}")
    return found
