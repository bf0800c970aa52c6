import asyncio
import json
import os
import signal
import sys

from click.testing import CliRunner

from control_plane import NOON_US, record
from present import present
from taximeter.cli import main
from taximeter.cli.live import _events
from taximeter.core.record import Outcome


async def invoke(*args):
    return await asyncio.to_thread(CliRunner(env={"COLUMNS": "160", "TZ": "UTC"}).invoke, main, list(args))


async def test_tail_shows_past_calls_oldest_first_and_ends(control):
    await control.add(record(1, task="index"), record(2, outcome=Outcome.TIMEOUT, cost_nusd=None, output_tokens=None))
    result = await invoke("tail", "--no-follow", "--url", control.url)
    first, second = result.stdout.splitlines()
    assert "acme             openai/gpt-4o-mini" in first and "100 → 30" in first and first.endswith("ok  task=index")
    assert "100 → —" in second and second.endswith("timeout")
    only = await invoke("tail", "--no-follow", "--outcome", "timeout", "--json", "--url", control.url)
    assert [json.loads(line)["request_id"] for line in only.stdout.splitlines()] == ["req-2"]


async def test_tail_follows_until_interrupted(control):
    await control.add(record(1))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-m", "taximeter", "tail", "--json", "--workspace", "acme", "--url", control.url,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )  # fmt: skip
    assert json.loads(await present(process.stdout).readline())["request_id"] == "req-1"
    await control.add(record(2, workspace="beta"), record(3))
    assert json.loads(await present(process.stdout).readline())["request_id"] == "req-3"
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130


async def test_tail_says_that_its_key_was_revoked(control):
    key, secret = control.keys.create("acme")
    asked = asyncio.ensure_future(
        asyncio.to_thread(
            CliRunner(env={"TAXIMETER_ADMIN_TOKEN": secret}).invoke, main, ["tail", "-n", "0", "--url", control.url]
        )
    )
    while not control.live.watchers:
        await asyncio.sleep(0.01)
    control.keys.revoke(key.id)
    result = await asked
    assert result.exit_code == 1 and "no longer valid" in result.stderr


async def test_tail_ends_with_its_proxy(control):
    asked = asyncio.ensure_future(invoke("tail", "-n", "0", "--url", control.url))
    while not control.live.watchers:
        await asyncio.sleep(0)
    await control.live.close()
    assert (await asked).exit_code == 0


async def test_top_ranks_the_last_minutes(control, monkeypatch):
    await control.add(
        record(1), record(2, request_model="o1", cost_nusd=9_000_000_000), record(3, ended_at=NOON_US - 10**12)
    )
    result = await invoke("top", "--from", "2026-11-03", "--minutes", "10", "--url", control.url)
    assert result.stdout.splitlines()[0].split() == [
        "Workspace", "Model", "Calls", "Errors", "Calls/min", "Tokens/min", "Cost", "(USD)",
    ]  # fmt: skip
    assert [line.split()[1] for line in result.stdout.splitlines()[2:]] == ["o1", "gpt-4o-mini"]
    assert json.loads((await invoke("top", "--json", "--from", "2026-11-03", "--url", control.url)).stdout)["groups"]


def test_events_are_read_through_any_chunking_and_unicode_line_separators():
    stream = (
        ': watching\r\n\r\nid: 1\r\nevent: record\r\ndata: {"a":"x\u2028y"}\r\n\r\n: still\r\n\r\ndata: {"b":1}\r\n\r\n'
    )
    raw = stream.encode()
    for size in (1, 3, 7, len(raw)):
        chunks = iter([raw[at : at + size] for at in range(0, len(raw), size)])
        assert list(_events(chunks)) == [{"a": "x\u2028y"}, {"b": 1}]
