"""The estimate for a folder: counted texts, the installation's own history or stated assumptions, and its ranges."""

import asyncio
import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from control_plane import embedding, record
from taximeter.cli import main
from taximeter.cli.estimating import ANSWER_TOKENS, PROMPT_TOKENS, Cut, Past, Span, a_call, chunks_of, embedded
from taximeter.config import Settings
from taximeter.control.services import corrections

WORDS = "the quick brown fox jumps over the lazy dog. " * 300


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "docs"
    (made / "deep").mkdir(parents=True)
    (made / "a.md").write_text(WORDS)
    (made / "deep" / "b.txt").write_text("short")
    (made / "scan.pdf").write_bytes(b"%PDF\0\xff")
    (made / "latin.txt").write_bytes("überall".encode("latin-1"))
    (made / ".git").mkdir()
    (made / ".git" / "x").write_text("x")
    (made / "link.txt").symlink_to(made / "a.md")
    return made


@pytest.fixture(scope="module")
def prices():
    """The real ones, compiled once."""
    return corrections.prices_now(Settings())


@pytest.fixture
def estimate(folder, tmp_path, monkeypatch, free_address, prices):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corrections, "prices_now", lambda settings: prices)
    env = {"TAXIMETER_DATA_DIR": str(tmp_path / "data"), "TAXIMETER_ADMIN_LISTEN": free_address, "COLUMNS": "160"}

    async def run(*args):
        return await asyncio.to_thread(CliRunner(env=env).invoke, main, ["quote", "--ingest", str(folder), *args])

    return run


async def test_texts_are_counted_and_what_is_none_is_named(estimate):
    told = json.loads((await estimate("--json")).stdout)
    assert told["documents"] == 2
    assert set(told["skipped"]) == {"scan.pdf", "latin.txt", ".git", "link.txt"}
    assert told["skipped"]["scan.pdf"].startswith("not text") and told["skipped"][".git"] == "hidden"
    assert 3_000 <= told["tokens"] <= 3_010 and told["chunks"] == len(chunks_of(told["tokens"] - 1, Cut())) + 1


async def test_without_a_history_assumptions_are_stated_and_make_a_range(estimate):
    told = json.loads((await estimate("--json")).stdout)
    assert told["basis"] == "assumptions" and any("No history" in line for line in told["rests_on"])
    assert told["llm_calls"] == 2 * told["chunks"]
    low, expected, high = (told["llm_output_tokens"][name] for name in ("low", "expected", "high"))
    assert (low, expected, high) == tuple(told["llm_calls"] * each for each in ANSWER_TOKENS)
    assert told["cost_usd"][0] < told["cost_usd"][1] < told["cost_usd"][2]
    shown = (await estimate()).stdout
    assert "Skipped scan.pdf: not text" in shown and "An ESTIMATE" in shown and "Assumed: LightRAG" in shown


async def test_a_model_without_a_price_costs_null(estimate):
    told = json.loads((await estimate("--json", "--model", "home-made-7b")).stdout)
    assert told["llm_cost_usd"] is None and told["cost_usd"] is None and told["embedding_cost_usd"] is not None
    assert "not known" in (await estimate("--model", "home-made-7b")).stdout


async def test_an_installations_own_history_goes_before_assumptions(estimate, start):
    control = await start()
    for n in range(6):  # a call takes 1,000 tokens and answers 100, 200 … 600; half as many are embedded
        name = f"doc-{n}"
        await control.add(
            record(10 * n, task="index", document=name, input_tokens=1_000, output_tokens=100 * (n + 1)),
            record(10 * n + 1, task="index", document=name, input_tokens=1_000, output_tokens=100 * (n + 1)),
            embedding(10 * n + 2, task="index", document=name, input_tokens=1_000),
            record(10 * n + 3, task="query", document=name, input_tokens=9_000, output_tokens=9_000),
        )
    told = json.loads((await estimate("--json", "--url", control.url, "--days", "3000")).stdout)
    assert told["basis"] == "history", told["rests_on"]
    calls = told["llm_calls"]
    assert told["llm_input_tokens"] == {"low": 1_000 * calls, "expected": 1_000 * calls, "high": 1_000 * calls}
    assert told["llm_output_tokens"] == {"low": 100 * calls, "expected": 400 * calls, "high": 600 * calls}
    assert told["embedding_tokens"]["expected"] == max(500 * calls, told["embedding_tokens"]["low"])
    assert any("From history" in line and "6 documents of task 'index'" in line for line in told["rests_on"])
    other = json.loads((await estimate("--json", "--url", control.url, "--days", "3000", "--task", "other")).stdout)
    assert other["basis"] == "assumptions"


async def test_what_cannot_be_meant_is_wrong_usage(estimate, folder):
    assert (await estimate("--overlap", "1200")).exit_code == 2
    assert (await estimate(str(folder / "a.md"))).exit_code == 2  # a file and a folder
    nothing = await asyncio.to_thread(CliRunner().invoke, main, ["quote"])
    assert nothing.exit_code == 2 and "--ingest" in nothing.output
    gone = await asyncio.to_thread(CliRunner().invoke, main, ["quote", "--ingest", str(folder / "none")])
    assert gone.exit_code == 2 and "is no folder" in gone.output


@given(st.integers(0, 20_000), st.integers(1, 2_000), st.integers(0, 1_999))
def test_chunks_cover_a_text_and_none_is_too_long(tokens, size, overlap):
    cut = Cut(size, min(overlap, size - 1))
    found = chunks_of(tokens, cut)
    assert sum(found) >= tokens and all(0 < each <= size for each in found)
    assert bool(found) == bool(tokens)


def test_a_call_without_history_is_the_prompt_and_the_chunk_and_the_second_holds_the_first_answer():
    spent, answered = a_call(Cut(calls_a_chunk=1), 1_200, [])
    assert spent == Span(*[PROMPT_TOKENS + 1_200] * 3) and answered == Span(*ANSWER_TOKENS)
    twice, _ = a_call(Cut(), 1_200, [])
    assert spent.low < twice.low < twice.expected < twice.high


def test_never_fewer_tokens_are_embedded_than_the_chunks_have():
    past = [Past(1, 1_000, 10, 1)] * 5
    assert embedded(5_000, Span(1_000, 2_000, 3_000), past) == Span(5_000, 5_000, 5_000)
