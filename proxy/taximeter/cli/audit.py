"""`audit`: who changed what, who signed in, and who was refused."""

from __future__ import annotations

import json
from typing import Any

import click
import msgspec

from taximeter.budgets.responses import amount_of
from taximeter.budgets.tally import UNITS
from taximeter.cli.backend import Backend
from taximeter.cli.options import asks_proxy, in_range
from taximeter.cli.show import console, echo, table
from taximeter.control.answers.audit import AuditInfo, AuditPage
from taximeter.core.audit import ACTIONS

LINES = 50


@click.command()
@click.option(
    "--action",
    multiple=True,
    type=click.Choice(list(ACTIONS)),
    metavar="ACTION",
    help="Only this, such as key.revoke; can be repeated.",
)
@click.option("--actor", multiple=True, metavar="NAME", help="Only what this one did; can be repeated.")
@click.option("--target", multiple=True, metavar="NAME", help="Only what was done to this; can be repeated.")
@click.option("--outcome", multiple=True, type=click.Choice(["ok", "refused", "failed"]), help="Only what ended so.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=LINES, show_default=True, help="Most entries.")
@click.option("--json", "as_json", is_flag=True, help="The API's own JSON, with what was before and after.")
@asks_proxy
@in_range
def audit(backend: Backend, params: dict[str, list[str]], as_json: bool, limit: int, **named: tuple[str, ...]) -> None:
    """Keys, budgets, prices, sign-ins, repairs: who, from where, what, and how it ended; the newest first.

    Secrets are never in it. It is kept for history.audit_days.
    """
    asked = {name: list(values) for name, values in named.items() if values}
    raw = backend.audit({**params, **asked}, limit)
    if as_json:
        echo(raw)
        return
    page = msgspec.json.decode(raw, type=AuditPage)
    rows = [(_second(each), _who(each), each.action, _what(each)) for each in page.data]
    console().print(table(["Time (UTC)", "Who", "Action", "What"], [], rows))
    if page.next_page:
        echo(f"There are older ones: --to {page.data[-1].at} or a larger --limit.", err=True)


def _second(entry: AuditInfo) -> str:
    return (entry.at or "")[:19].replace("T", " ")


def _who(entry: AuditInfo) -> str:
    by = f"{entry.actor} ({entry.user})" if entry.user else entry.actor
    return f"{by}, {entry.address}" if entry.address else by


def _what(entry: AuditInfo) -> str:
    if entry.outcome != "ok":
        return f"{entry.target} {entry.outcome}: {entry.problem}".strip()
    return f"{entry.target} {_changed(entry.before, entry.after)}".strip()


def _changed(before: Any, after: Any) -> str:
    """What is different now, `name: was → is`; of something new, what it is."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = [name for name in after if after[name] != before.get(name)]
        return ", ".join(f"{name}: {_text(before.get(name))} → {_text(after[name])}" for name in names)
    if isinstance(after, dict):
        return ", ".join(f"{name}={_text(value)}" for name, value in _shown(after).items() if _told(name, value))
    return ""


def _shown(after: dict[str, Any]) -> dict[str, Any]:
    """A budget's limit in its unit, as it was asked for: an entry has it as it is counted (USD in nano-dollars)."""
    limit, unit = after.get("limit"), after.get("unit")
    if isinstance(limit, int) and unit in UNITS:
        return after | {"limit": f"{amount_of(limit, unit).normalize():f}"}
    return after


def _told(name: str, value: Any) -> bool:
    return value not in (None, "", [], False) and not name.endswith("_at") and name not in ("id", "state")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value or "—"
    return "—" if value is None else json.dumps(value)
