"""`taximeter statement`: through a running proxy, and from its history where none runs."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from control_plane import embedding, record
from taximeter.cli import main


@pytest.fixture
async def run(billing):
    async def invoke(*args, url=True):
        argv = ["statement", *args, *(["--url", billing.url] if url else ["--config", "taximeter.toml"])]
        return await asyncio.to_thread(CliRunner(env={"COLUMNS": "200"}).invoke, main, argv)

    return invoke


ACME = ("--workspace", "acme", "--month", "2026-11")


async def test_drawn_up_closed_listed_and_shown(billing, run):
    await billing.add(record(1, task="query"), embedding(2, task="index"))
    drawn = await run(*ACME)
    assert drawn.exit_code == 0, drawn.output
    assert "Draft statement of acme" in drawn.output and "Not closed" in drawn.output
    assert "16 rag_embedding at USD 0.0002 for 1,000" in drawn.output
    none = await run("list", *ACME[:2])
    assert none.output.startswith("acme\nNo statement is closed yet.\nLedger 0.00003332 USD = 0 stated")
    closed = await run(*ACME, "--close", "--json")
    assert json.loads(closed.output)["number"] == 1
    listed = await run("list")
    assert "Ledger 0.00003332 USD = 0.00003332 stated + 0 open (0 requests)." in listed.output
    shown = await run("show", "1", "--workspace", "acme", "--for", "customer")
    assert "Statement 1 of acme" in shown.output and "Cost" not in shown.output
    again = await run(*ACME, "--close")
    nobody = ("--workspace", "nobody")
    for nothing in (("show", "2", *ACME[:2]), ("list", *nobody), (*nobody, *ACME[2:])):
        missing = await run(*nothing)
        assert missing.exit_code == 4, missing.output
    assert again.exit_code == 1 and "Statement 1 of acme has" in again.output


async def test_to_files_by_their_names(billing, run):
    await billing.add(record(1))
    for name, beginning in (("a.csv", b"workspace,"), ("a.html", b"<!doctype"), ("a.pdf", b"%PDF"), ("a.json", b"{")):
        done = await run(*ACME, "--output", name)
        assert done.exit_code == 0, done.output
        assert Path(name).read_bytes().startswith(beginning) and f"A draft of acme is in {name}." in done.output
    assert "must end in" in (await run(*ACME, "--output", "a.doc")).output
    assert "cannot be written" in (await run(*ACME, "--output", "no/such/a.csv")).output
    assert "A PDF goes to a file" in (await run(*ACME, "--format", "pdf")).output
    assert "Name the workspace" in (await run("--month", "2026-11")).output


async def test_without_a_proxy_it_is_read_from_history_and_not_closed(billing, run, tmp_path):
    await billing.add(record(1))
    await run(*ACME, "--close")
    (tmp_path / "taximeter.toml").write_text(
        f'admin_listen = "127.0.0.1:1"\n[history]\nurl = "sqlite:///{tmp_path / "history.db"}"\n'
    )
    listed = await run("list", "--json", url=False)
    assert listed.exit_code == 0, listed.output
    assert '"open_usd":0' in listed.output
    shown = await run("show", "1", "--workspace", "acme", url=False)
    assert "Statement 1 of acme" in shown.output
    assert (await run("list", "--workspace", "nobody", url=False)).exit_code == 4
    december = await run("--workspace", "acme", "--month", "2026-12", url=False)
    assert "No plan is about this workspace" in december.output
    refused = await run("--workspace", "acme", "--month", "2026-12", "--close", url=False)
    assert refused.exit_code == 3 and "needs the running proxy" in refused.output
