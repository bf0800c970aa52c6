"""The analytics in the terminal, from a running proxy and straight from its history."""

import asyncio
import time

import pytest
from click.testing import CliRunner

from control_plane import DAY_US, record
from taximeter.cli import main
from taximeter.core.prices import Card, Rates


@pytest.fixture
async def asked(start):
    """`await asked(where, "trends", …)` on two weeks of calls until now."""
    card = Card(ref="c", rates=Rates(input=100_000, output=300_000))
    now_us = time.time_ns() // 1_000  # what asks a history directly has no other clock
    control = await start(now_us=lambda: now_us, card=lambda provider, model, at: card if model != "none" else None)
    await control.add(*(record(day, ended_at=now_us - day * DAY_US - DAY_US // 48, task="query") for day in range(14)))

    async def ask(where, *args):
        place = {"proxy": ("--url", control.url), "history": ("--history", str(control.history._database.url))}[where]
        return await asyncio.to_thread(CliRunner(env={"COLUMNS": "140"}).invoke, main, [*args, *place])

    return ask


both = pytest.mark.parametrize("where", ["proxy", "history"])


@both
async def test_trends(asked, where):
    result = await asked(where, "trends")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["gpt-4o-mini", "7", "7", "±0", "%", "$0.000231", "$0.000231", "±0", "%"] in rows


@both
async def test_peaks(asked, where):
    result = await asked(where, "peaks")
    assert result.exit_code == 0, result.output
    hours = [line for line in result.stdout.splitlines() if line[2:5] == ":00"]
    assert len(hours) == 24 and sum(int(line.split()[1]) for line in hours) == 14
    assert "Busiest: " in result.stdout and "█" in result.stdout


@both
async def test_forecast(asked, where):
    result = await asked(where, "forecast")
    assert result.exit_code == 0, result.output
    assert "Forecast for its end: $" in result.stdout and "the mean of the same weekday" in result.stdout


async def test_alternatives_need_a_proxy_s_prices(asked):
    result = await asked("proxy", "alternatives", "--candidate", "mistral/small", "--candidate", "a/none")
    assert result.exit_code == 0, result.output
    assert "the same tokens at another model's list price" in result.stdout
    assert "query: 14 calls, 1,400 → 420 tokens, $0.000462" in result.stdout
    assert "Without a price, so not compared: a/none" in result.stdout
    assert (await asked("history", "alternatives")).exit_code == 3


@both
async def test_json_is_the_api_s(asked, where):
    result = await asked(where, "forecast", "--json")
    assert '"basis_days":' in result.stdout
