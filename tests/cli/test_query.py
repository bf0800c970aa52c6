"""The query verbs' output, from a running proxy and straight from its history: it is the same."""

import asyncio
import json
import os
import sys
from datetime import datetime

import click
import pytest
from click.testing import CliRunner

from control_plane import DAY_US, NOON_US, embedding, record
from present import present
from taximeter.cli import VERBS, main, options
from taximeter.config import AuthSettings, Settings
from taximeter.core.record import Outcome
from taximeter.keys.rule import digest


@pytest.fixture
async def asked(control):
    """`await asked(where, "stats", …)`: the verb's result on a history of some calls."""
    await control.add(
        record(1, provider="openai", task="filter", cost_nusd=5_230_000_000, input_tokens=600_000),
        record(2, provider="anthropic", task="group", cost_nusd=6_120_000_000, request_model="claude-sonnet-4"),
        record(3, provider="anthropic", cost_nusd=None, ended_at=NOON_US + DAY_US, outcome=Outcome.UPSTREAM_CUT),
        embedding(4, workspace="beta", ended_at=NOON_US + 3 * DAY_US, track="t1", document="doc-1"),
        record(5, workspace="beta", track="t1", document="doc-1", cost_nusd=113_000, ended_at=NOON_US + 3 * DAY_US),
    )

    async def ask(where, *args, **env):
        place = {"proxy": ("--url", control.url), "history": ("--history", str(control.history._database.url))}
        return await asyncio.to_thread(
            CliRunner(env={"COLUMNS": "120", **env}).invoke, main, [*args, *(place[where] if where else ())]
        )

    return ask


def tidy(text):
    """Without the blanks that pad a table's last column."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


both = pytest.mark.parametrize("where", ["proxy", "history"])


@both
async def test_stats(asked, where):
    result = await asked(where, "stats")
    assert result.exit_code == 0, result.output
    assert (
        tidy(result.stdout)
        == """\
Total Calls: 5
Total Tokens: 600,436
Estimated Cost: $11.35 USD

Operation   Calls     Input   of it cached   Output   of it reasoning
─────────────────────────────────────────────────────────────────────
LLM             4   600,300             80      120                40
Embedding       1        16
Rerank          0         0
1 attempt ended in an error or a refusal
1 call without a price: not in the cost
"""
    )


@both
async def test_by_provider(asked, where):
    result = await asked(where, "by-provider")
    assert (
        tidy(result.stdout)
        == """\
Provider    Calls     Input   Output    Tokens   Cost (USD)
───────────────────────────────────────────────────────────
anthropic       2       200       60       260        $6.12
openai          3   600,116       60   600,176        $5.23
Total           5   600,316      120   600,436       $11.35
1 attempt ended in an error or a refusal
1 call without a price: not in the cost
"""
    )


@both
async def test_by_task_and_the_rest(asked, where):
    result = await asked(where, "by-task", "--workspace", "acme")
    assert (
        tidy(result.stdout)
        == """\
Task Type   Calls     Input   Output    Tokens   Cost (USD)
───────────────────────────────────────────────────────────
group           1       100       30       130        $6.12
filter          1   600,000       30   600,030        $5.23
(none)          1       100       30       130            —
Total           3   600,200       90   600,290       $11.35
1 attempt ended in an error or a refusal
1 call without a price: not in the cost
"""
    )
    by_model = (await asked(where, "by-model", "--provider", "openai")).stdout
    assert "gpt-4o-mini                  2   600,100       60   600,160        $5.23" in by_model
    assert "text-embedding-3-small       1        16        0        16    $0.000000" not in by_model
    assert "beta" in (await asked(where, "by-workspace")).stdout


@both
async def test_range_is_half_open_and_shows_its_days(asked, where):
    result = await asked(where, "range", "--start", "2026-11-03", "--end", "2026-11-05")
    assert result.stdout.startswith(
        "From 2026-11-03T00:00:00Z until before 2026-11-05T00:00:00Z\nTotal Calls: 3\nTotal Tokens: 600,290\n"
    )
    assert result.stdout.endswith("""\
Day          Calls     Input   Output    Tokens   Cost (USD)
────────────────────────────────────────────────────────────
2026-11-03       2   600,100       60   600,160       $11.35
2026-11-04       1       100       30       130            —
""")


@both
async def test_costs_are_bars_with_a_line_for_every_day(asked, where):
    result = await asked(where, "costs", "--from", "2026-11-01", "--provider", "openai")
    assert (
        tidy(result.stdout)
        == """\
Day          Calls   Cost (USD)
──────────────────────────────────────────────────────────────────────────
2026-11-03       1        $5.23   ████████████████████████████████████████
2026-11-04       0        $0.00
2026-11-05       0        $0.00
2026-11-06       2    $0.000113
Estimated Cost: $5.23 USD
"""
    )


@both
async def test_json_is_the_apis_own_answer(asked, where, control):
    result = await asked(where, "by-model", "--json", "--task", "group")
    assert json.loads(result.stdout) == await control.get("/usage", group_by="model", task="group")


@both
async def test_by_key_and_by_user_and_only_the_first(asked, where, control):
    await control.add(
        record(9, key_id="key_1", end_user="ann"), record(10, key_id="key_2", end_user="bob", cost_nusd=1)
    )
    assert tidy((await asked(where, "by-key", "--from", "2026-11-03")).stdout).startswith(
        """\
Key      Calls     Input   Output    Tokens   Cost (USD)
────────────────────────────────────────────────────────
(none)       5   600,316      120   600,436       $11.35
key_1        1       100       30       130    $0.000033
key_2        1       100       30       130   <$0.000001
Total        7   600,516      180   600,696       $11.35
"""
    )
    users = await asked(where, "by-user", "--sort", "name", "--limit", "2")
    assert [line.split()[0] for line in users.stdout.splitlines()[2:6]] == ["(none)", "ann", "Total", "1"]
    assert "1 more, with 1 call\n" in users.stdout
    cut = json.loads((await asked(where, "by-user", "--sort", "calls", "--limit", "1", "--json")).stdout)
    assert [part["end_user"] for part in cut["groups"]] == [None] and cut["usage"]["requests"] == 7


@both
async def test_of_an_unknown_workspace_or_track_it_is_said_that_nothing_is_recorded(asked, where):
    for args in (("stats", "--workspace", "acne"), ("by-model", "--workspace", "acme", "--workspace", "acne", "--json"),
                 ("trends", "--workspace", "acne"), ("export", "-o", "-", "--workspace", "acne")):  # fmt: skip
        result = await asked(where, *args)
        assert (result.exit_code, result.stdout) == (4, ""), args
        assert result.stderr.startswith("Error: Nothing is recorded of the workspace 'acne'. There are acme"), args
    for asking in (["track", "t9"], ["track", "t1", "--workspace", "acme"], ["stats", "--track", "t9"]):
        result = await asked(where, *asking)
        assert (result.exit_code, result.stdout) == (4, ""), asking
        assert "Nothing is recorded of the track 't" in result.stderr
    quiet = await asked(where, "stats", "--workspace", "acme", "--from", "2026-12-01")  # it is known, and used nothing
    assert quiet.exit_code == 0 and "Total Calls: 0" in quiet.stdout


@both
async def test_times_are_taken_as_one_types_them(asked, where, monkeypatch):
    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.fromtimestamp((NOON_US + DAY_US) / 1e6, tz)  # 2026-11-04T12:00Z

    monkeypatch.setattr(options, "datetime", Later)
    for first, calls in (
        ("7d", 5),
        ("1d", 5),
        ("23h", 3),
        ("yesterday", 5),
        ("today", 3),
        ("now", 3),
        ("2026-11-04", 3),
    ):
        answer = json.loads((await asked(where, "stats", "--from", first, "--json")).stdout)
        assert answer["usage"]["requests"] == calls, (first, answer["from"])
    result = await asked(where, "stats", "--from", "7x")
    assert result.exit_code == 2 and "'7x' is no time" in result.stderr


QUESTIONS = (
    "stats", "by-workspace", "by-provider", "by-model", "by-task", "by-key", "by-user", "range", "costs", "trends",
    "peaks", "forecast", "alternatives", "export", "track", "top", "tail",
)  # fmt: skip


@pytest.mark.parametrize("verb", QUESTIONS)
def test_every_question_can_be_narrowed_and_answered_for_machines(verb):
    command = main.get_command(click.Context(main), verb)
    options = {name for parameter in present(command).params for name in parameter.opts}
    assert {"--workspace", "--from", "--to", "--tz", "--json", "--url", "--history"} <= options


@both
async def test_track_as_table_json_and_langfuse(asked, where, control):
    table = (await asked(where, "track", "t1")).stdout
    assert (
        tidy(table)
        == """\
Track: t1   Workspace: beta   In flight: 0
Calls: 2   Estimated Cost: $0.000113

Operation   Model                    Input   Output
───────────────────────────────────────────────────
LLM         gpt-4o-mini                100       30
Embedding   text-embedding-3-small      16

Document   LLM input   LLM output   Embedding
─────────────────────────────────────────────
doc-1            100           30          16
"""
    )
    ranged = await asked(where, "track", "t1", "--from", "2026-11-05", "--to", "2026-11-08", "--json")
    assert json.loads(ranged.stdout) == await control.get(
        "/usage/tracks/t1", **{"from": "2026-11-05", "to": "2026-11-08"}
    )
    before = await asked(where, "track", "t1", "--to", "2026-11-05", "--json")
    assert json.loads(before.stdout)["usage"]["requests"] == 0
    assert json.loads((await asked(where, "track", "t1", "--json")).stdout) == await control.get("/usage/tracks/t1")
    assert (await asked(where, "track", "t1", "--format", "langfuse")).stdout == (
        "Input usage\n100\ninput_cached_tokens\n20\ninput\n80\ninput_audio_tokens\n0\nOutput usage\n30\n"
        "output_reasoning_tokens\n10\noutput\n20\noutput_accepted_prediction_tokens\n0\noutput_audio_tokens\n0\n"
        "output_rejected_prediction_tokens\n0\nTotal usage\n130\n"
    )


@both
async def test_what_is_asked_wrongly_ends_with_code_2_and_says_why(asked, where):
    for args in (("stats", "--from", "bogus"), ("stats", "--tz", "Mars"), ("range", "--start", "2026-01-01")):
        result = await asked(where, *args)
        assert result.exit_code == 2 and "Error: " in result.stderr, args


async def test_the_admin_token_comes_from_the_environment(start):
    control = await start(Settings(auth=AuthSettings(admin_token_sha256=digest("secret"))))
    args = ["stats", "--json", "--url", control.url]
    refused = await asyncio.to_thread(CliRunner(env={"TAXIMETER_ADMIN_TOKEN": ""}).invoke, main, args)
    assert refused.exit_code == 1 and "TAXIMETER_ADMIN_TOKEN" in refused.stderr
    allowed = await asyncio.to_thread(CliRunner(env={"TAXIMETER_ADMIN_TOKEN": "secret"}).invoke, main, args)
    assert allowed.exit_code == 0 and json.loads(allowed.stdout)["usage"]["requests"] == 0


def test_nothing_to_ask_is_code_3(tmp_path, monkeypatch, free_address):
    monkeypatch.chdir(tmp_path)
    result = CliRunner(env={"TAXIMETER_ADMIN_LISTEN": free_address}).invoke(main, ["stats"])
    assert result.exit_code == 3 and "taximeter serve" in result.stderr
    gone = CliRunner().invoke(main, ["stats", "--url", f"http://{free_address}"])
    assert gone.exit_code == 3 and "does not answer" in gone.stderr


async def test_without_a_running_proxy_its_history_is_read_and_that_is_said(asked, tmp_path, monkeypatch, free_address):
    monkeypatch.chdir(tmp_path)
    env = {"TAXIMETER_ADMIN_LISTEN": free_address, "TAXIMETER_DATA_DIR": str(tmp_path)}
    result = await asked(None, "stats", **env)
    assert result.exit_code == 0 and "Total Calls: 5" in result.stdout
    assert "No proxy runs here" in result.stderr


def test_a_database_that_is_no_history_is_refused(tmp_path):
    result = CliRunner().invoke(main, ["stats", "--history", f"sqlite:///{tmp_path}/none.db"])
    assert result.exit_code == 2 and "none.db" in result.stderr


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(verb):
    result = CliRunner().invoke(main, [verb, "--help"])
    assert result.exit_code == 0 and result.stdout.startswith("Usage: ")


def test_a_misspelt_verb_is_code_2_with_a_hint():
    result = CliRunner().invoke(main, ["stat"])
    assert result.exit_code == 2 and "stats" in result.stderr


async def test_as_a_real_process_colourless_and_light(asked, control):
    """What a user runs: no colours in a pipe, and no heavy module loaded for a verb that needs none."""
    code = (
        "import sys; from taximeter.cli import main\n"
        "heavy = {'litestar', 'sqlalchemy', 'openai', 'prometheus_client'}\n"
        "try: main()\n"
        "finally: print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, "stats", "--url", control.url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "FORCE_COLOR": "", "NO_COLOR": "1"},
    )  # fmt: skip
    out, err = await process.communicate()
    assert (process.returncode, err.decode().strip()) == (0, "[]")
    assert out.startswith(b"Total Calls: 5\n") and b"\x1b" not in out
