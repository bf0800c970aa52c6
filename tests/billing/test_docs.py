"""docs/billing.md is true: its commands are run in order, and print what the page shows.

To write the outputs anew after a change: TAXIMETER_WRITE_DOCS=1 pytest tests/billing/test_docs.py
"""

import asyncio
import os
import re
import shlex
import subprocess
from pathlib import Path

from click.testing import CliRunner

from control_plane import DAY_US, NOON_US, record
from taximeter.cli import main
from taximeter.config import load
from taximeter.core.correction import correction

PAGE = Path(__file__).parents[2] / "docs/billing.md"
BLOCK = re.compile(r"```console\n\$ (?P<command>.*)\n(?P<output>(?:(?!```).*\n)*)```")
SETTINGS = re.compile(r"```toml\n(?P<text>(?:(?!```).*\n)*)```")
OCTOBER_US = NOON_US - 10 * DAY_US


def october(number, **given):
    return record(number, ended_at=OCTOBER_US + number * 1_000_000, **given)


BEFORE = [
    october(1, task="query", request_model="gpt-4o", cost_nusd=4_100_000, input_tokens=1_200, output_tokens=110),
    october(2, task="index", cost_nusd=2_700_000, input_tokens=14_000, output_tokens=1_000),
    october(3, task="index", request_model="home-made", cost_nusd=None, unpriced_reason="model_without_price"),
    record(4, task="query", request_model="gpt-4o", cost_nusd=3_300_000, input_tokens=900, output_tokens=105),
]
LATER = [correction(BEFORE[0], -1_000_000, "contract"), october(5, task="index", input_tokens=2_000, output_tokens=150)]


async def test_every_command_prints_what_the_page_shows(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    (tmp_path / "taximeter.toml").write_text(next(SETTINGS.finditer(page))["text"])
    control = await start(load(None))
    await control.add(*BEFORE)
    outputs = []
    for block in BLOCK.finditer(page):
        if block["command"].startswith("taximeter statement list --workspace"):
            await control.add(*LATER)
        outputs.append(await printed(control, block["command"]))
    assert len(outputs) == 6
    anew = iter(outputs)
    written = BLOCK.sub(lambda block: f"```console\n$ {block['command']}\n{next(anew)}```", page)
    if os.environ.get("TAXIMETER_WRITE_DOCS"):
        PAGE.write_text(written)
    assert PAGE.read_text() == written


async def printed(control, command):
    command, _, pipe = command.partition(" | ")
    env = {"COLUMNS": "120", "LOGNAME": "alice"}
    argv = [*shlex.split(command)[1:], "--url", control.url]
    result = await asyncio.to_thread(CliRunner(env=env).invoke, main, argv)
    assert result.exit_code == 0, result.output
    text = result.stdout
    if pipe:
        text = subprocess.run(pipe, shell=True, input=text, capture_output=True, check=True, text=True).stdout
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
