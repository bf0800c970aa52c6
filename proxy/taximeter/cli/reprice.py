"""`reprice`: prices a period again, through the running proxy or, when none runs, in its data directory."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from taximeter.cli.options import place
from taximeter.cli.proxy import acting
from taximeter.cli.show import console, count, echo, money, table
from taximeter.cli.times import past
from taximeter.config import Settings
from taximeter.control.answers import responses
from taximeter.core.times import zone

if TYPE_CHECKING:
    from taximeter.control.services.reprice import RepricedModel, RepriceResponse

HISTORY_S = 3_600.0
"""A year of a busy node is millions of records."""
FOREVER_S = 10.0**9


@click.command()
@click.option(
    "--from",
    "from_",
    required=True,
    metavar="TIME",
    help="First moment: 7d, yesterday, 2026-11-22 or RFC 3339.",
)
@click.option("--to", metavar="TIME", help="First moment no longer included; default: now.")
@click.option("--tz", default="UTC", show_default=True, metavar="ZONE", help="IANA time zone of dates.")
@click.option("--dry-run", is_flag=True, help="Only show the difference.")
@place
def reprice(
    url: str | None, config_file: Path | None, as_json: bool, from_: str, to: str | None, tz: str, dry_run: bool
) -> None:
    """Price a period again by the prices as they are now; differences are written as corrections.

    Needed after a price was missing or wrong. Doing it twice changes nothing more.
    """
    from taximeter.control.services.reprice import RepriceResponse

    place_, now = zone(tz), datetime.now(UTC)
    first, last = past(from_, place_, now), past(to, place_, now) if to else None
    period: dict[str, object] = {"from": first, "to": last, "tz": tz, "dry_run": dry_run}
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            answer = _noted(settings, period, dry_run)
        else:
            raw = proxy.request("POST", "/reprice", body=period, wait_s=HISTORY_S).content
            answer = msgspec.json.decode(raw, type=RepriceResponse)
    if as_json:
        echo(responses.encode(answer))
    else:
        _show(answer)


def _noted(settings: Settings, period: dict[str, object], dry_run: bool) -> RepriceResponse:
    if dry_run:
        return asyncio.run(_directly(settings, period))
    from taximeter.control.services.reprice import costs
    from taximeter.node.audit import command_log

    with command_log(settings).act("prices.reprice", f"{period['from']}/{period['to'] or ''}") as change:
        answer = asyncio.run(_directly(settings, period))
        change.before, change.after = costs(answer)
    return answer


def _show(answer: RepriceResponse) -> None:
    rows = [(each.model or "unknown", *_figures(each)) for each in answer.models if each.corrected]
    rows.append(("Total", *_figures(answer.total)))
    console().print(table(["Model"], ["Calls", "Corrected", "Before", "After", "Difference (USD)"], rows))
    if answer.total.unpriced:
        reasons = ", ".join(
            f"{count(number)} {why.replace('_', ' ')}" for why, number in answer.total.unpriced_reasons.items()
        )
        echo(f"{count(answer.total.unpriced)} calls have no cost ({reasons}); it stays what it was")
    if answer.total.not_billed:
        echo(f"{count(answer.total.not_billed)} calls were refused or failed; they need no price")
    if not answer.total.corrected:
        echo("Nothing to correct.")
    elif answer.dry_run:
        echo("Dry run: nothing was written.")
    else:
        corrected = answer.total.corrected
        echo(f"{count(corrected)} correction{'' if corrected == 1 else 's'} written.")


def _figures(each: RepricedModel) -> tuple[str, ...]:
    return (
        count(each.requests),
        count(each.corrected),
        money(each.before_usd),
        money(each.after_usd),
        money(each.difference_usd),
    )


async def _directly(settings: Settings, period: dict[str, object]) -> RepriceResponse:
    """On the data directory, under its lock: the next start brings the corrections to the other sinks.

    History is fed here, or corrections of an earlier run that are only in the journal would be written again.
    """
    from msgspec.structs import replace

    from taximeter.control.services.corrections import WORKER, Corrections, RepriceRequest, filters_of, prices_now
    from taximeter.delivery import Delivery
    from taximeter.journal import Journal
    from taximeter.node.datadir import DataDir
    from taximeter.sinks.history.sink import History, default_url

    asked = msgspec.convert(period, RepriceRequest)
    filters = filters_of(asked)
    held = DataDir(Path(settings.data_dir))
    directory, node = held.path / "journal", held.node(settings.node)
    history = History(settings.history.url or default_url(settings.data_dir), node)
    try:
        await history.prepare()
        prices = prices_now(settings)
        # The other sinks have still to read these files: none may be removed here.
        keeping = replace(settings.journal, keep_s=FOREVER_S)
        delivery = Delivery(directory, [history], settings=keeping, node=node, now_us=_now_us, price=prices.cost)
        corrections = Corrections(
            history,
            delivery,
            prices=lambda: prices,
            journal=lambda: Journal(directory, node=node, worker=WORKER, settings=settings.journal, now_us=_now_us),
        )
        running = asyncio.ensure_future(delivery.run())
        try:
            return await corrections.reprice(filters, dry_run=asked.dry_run)
        finally:
            corrections.close()
            running.cancel()
            await asyncio.wait([running])
    finally:
        await history.close()
        held.release()


def _now_us() -> int:
    return time.time_ns() // 1_000
