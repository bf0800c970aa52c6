"""docs/usage.md is true: every command on it is run, and what it prints is what the page shows.

To write the page's outputs anew after a change: TAXIMETER_WRITE_DOCS=1 pytest tests/test_usage_docs.py
"""

import asyncio
import os
import re
import shlex
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from control_plane import DAY_US, NOON_US, control, embedding, record, start
from taximeter.cli import VERBS, main
from taximeter.core.prices import Card, Rates
from taximeter.core.record import Outcome

__all__ = ["control", "start"]

PAGE = Path(__file__).parent.parent / "docs" / "usage.md"
BLOCK = re.compile(r"```console\n\$ (?P<command>.*)\n(?P<output>(?:(?!```).*\n)*)```")
CARDS = {
    ("openai", "gpt-4o-mini"): Card(ref="list", rates=Rates(input=150_000, cached_input=75_000, output=600_000)),
    ("anthropic", "claude-sonnet-4"): Card(ref="list", rates=Rates(input=3_000_000, output=15_000_000)),
    ("mistral", "mistral-small"): Card(ref="list", rates=Rates(input=100_000, output=300_000)),
}
OF_SERVING = {"serve", "check", "status", "demo"}


@pytest.fixture
async def installation(start):
    control = await start(now_us=lambda: NOON_US + 4 * DAY_US, card=lambda *model: CARDS.get(model[:2]))
    upload = {"track": "upload-7", "task": "extract"}
    await control.add(
        record(1, document="doc-1", cost_nusd=1_454_700, input_tokens=7_850, output_tokens=462, **upload),
        embedding(2, document="doc-1", input_tokens=93, cost_nusd=1_860, **upload),
        record(3, document="doc-2", cost_nusd=894_000, input_tokens=5_120, output_tokens=210, **upload),
        record(4, task="query", provider="anthropic", request_model="claude-sonnet-4", cost_nusd=750_000),
        record(5, workspace="beta", task="query", cost_nusd=None, request_model="home-made", ended_at=NOON_US + DAY_US),
        record(6, workspace="beta", task="query", outcome=Outcome.TIMEOUT, status=None, output_tokens=None,
               cost_nusd=15_000, ended_at=NOON_US + 3 * DAY_US),
    )  # fmt: skip
    return control


async def printed(control, command):
    """What a command of the page prints, without the blanks that pad tables."""
    name, *args = shlex.split(command)
    if name == "curl":
        answer = await control.client.get(args[-1].removeprefix("localhost:8001"))
        text = msgspec.json.format(answer.content, indent=2).decode()
    else:
        env = {"COLUMNS": "120", "TZ": "UTC"}
        result = await asyncio.to_thread(CliRunner(env=env).invoke, main, [*args, "--url", control.url])
        text = result.output
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


async def test_every_command_prints_what_the_page_shows(installation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    outputs = {match["command"]: await printed(installation, match["command"]) for match in BLOCK.finditer(page)}
    if os.environ.get("TAXIMETER_WRITE_DOCS"):
        PAGE.write_text(BLOCK.sub(lambda match: f"```console\n$ {match[1]}\n{outputs[match[1]]}```", page))
        return
    assert {match["command"]: match["output"] for match in BLOCK.finditer(page)} == outputs


def test_every_verb_is_on_the_page():
    page = PAGE.read_text()
    for verb in VERBS.keys() - OF_SERVING:
        assert f"taximeter {verb}" in page or f"`{verb}`" in page, verb


async def test_every_path_of_the_schema_is_on_the_page(control):
    page = PAGE.read_text()
    for path in (await control.get("/schema"))["paths"]:
        last = path.replace("/usage/{kind}", "/usage/completions")
        assert last in page or last.removeprefix("/v1/organization") in page, path
