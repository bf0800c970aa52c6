"""What verbs print fits a terminal of 80 columns, with names and figures as large as they come; no figure is cut."""

import asyncio
import re

import pytest
from click.testing import CliRunner

from control_plane import DAY_US, NOON_US, embedding, record
from taximeter.cli import main

LARGE = 987_654_321_000
"""Tokens of one call: about as many as one may have (2^40)."""
LONG = {
    "workspace": "a-workspace-of-a-customer-with-a-long-name-0001", "task": "extract-entities-and-relations",
    "provider": "azure-openai-westeurope", "request_model": "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8-2026-11",
    "track": "upload-2026-11-03-the-quarterly-report-of-the-group.pdf", "document": "chunk-of-a-long-document-0001",
    "end_user": "somebody.with.a.long.name@a-company.example.com", "key_id": "key_2a2a069106ea",
}  # fmt: skip


@pytest.fixture
async def asked(control):
    figures = {
        "input_tokens": LARGE, "cached_input_tokens": LARGE // 2, "output_tokens": LARGE // 3,
        "total_tokens": 4 * LARGE // 3, "reasoning_output_tokens": LARGE // 4, "cost_nusd": 9_999_990_000_000,
    }  # fmt: skip
    await control.add(
        *(record(n, **LONG, **figures, ended_at=NOON_US + n * DAY_US // 4) for n in range(12)),
        embedding(13, **(LONG | {"request_model": "text-embedding-3-large"})),
    )
    control.keys.create(LONG["workspace"], name="the ingestion of the customer's documents", models=["gpt-4o*", "o4-*"])

    async def ask(*args):
        env = {"COLUMNS": "80", "TZ": "UTC", "LOGNAME": "somebody-with-a-long-name"}
        return await asyncio.to_thread(CliRunner(env=env).invoke, main, [*args, "--url", control.url])

    return ask


VERBS = (
    "stats", "by-workspace", "by-provider", "by-model", "by-task", "by-key", "by-user", "trends", "peaks", "forecast",
    "costs --from 2026-11-01", "range --start 2026-11-01 --end 2026-11-08", "keys list", "audit",
    "top --once --from 2026-11-01", f"track {LONG['track']}", "by-model --limit 1 --sort tokens",
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
async def test_it_fits_and_no_figure_is_cut(asked, verb):
    result = await asked(*verb.split())
    assert result.exit_code == 0, result.output
    too_long = [line for line in result.stdout.splitlines() if len(line.rstrip()) > 80]
    assert not too_long, result.stdout
    assert not re.search(r"\d…|…\d", result.stdout), result.stdout
    if verb.startswith("by-"):
        name = LONG.get({"by-key": "key_id", "by-user": "end_user", "by-model": "request_model"}.get(
            verb.split()[0], verb.split()[0].removeprefix("by-")), "")  # fmt: skip
        folded = "".join(re.split("  +", line)[0].strip() for line in result.stdout.splitlines()[2:])
        assert name and name in folded, result.stdout  # folded, and all there
        assert "15.8T" in result.stdout and "--json has whole figures" in result.stdout
