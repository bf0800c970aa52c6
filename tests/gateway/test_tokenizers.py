"""The counter as the gateway uses it: a real process behind it, and an estimate whenever that fails."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from taximeter.core.record import Source
from taximeter.flavors.meter import Countable
from taximeter.gateway.metering import tokenizers as module
from taximeter.gateway.metering.tokenizers import Counted, Tokenizers
from taximeter.gateway.metering.tokenizing import count


@pytest.fixture
async def tokenizers() -> AsyncIterator[Tokenizers]:
    counter = Tokenizers()
    yield counter
    counter.close()


async def counted(tokenizers: Tokenizers, *texts: str, model: str | None = "qwen3", tokenizer: str = "") -> Counted:
    return await tokenizers.count(Countable(texts=list(texts)), model=model, provider="vllm", tokenizer=tokenizer)


async def test_counts_are_those_of_the_models_tokenizer(tokenizers: Tokenizers) -> None:
    long = "The quick brown fox; 你好世界! " * 9_000
    for model, name in (("gpt-4o", "o200k_base"), ("gpt-4", "cl100k_base"), ("Qwen3-8B", "qwen3")):
        expected = Counted(count(name, long) + count(name, "hi"), name, Source.COUNTED)
        assert await counted(tokenizers, long, "", "hi", model=model) == expected


async def test_tokens_known_without_a_tokenizer_are_added(tokenizers: Tokenizers) -> None:
    arrays = Countable(texts=[], tokens=17)
    assert await tokenizers.count(arrays, model=None, provider="vllm") == Counted(17, None, Source.COUNTED)
    assert tokenizers._process is None
    both = await tokenizers.count(Countable(texts=["hello"], tokens=3), model="qwen3", provider="vllm")
    assert both == Counted(4, "qwen3", Source.COUNTED)


async def test_a_configured_tokenizer_goes_before_the_models_name(tokenizers: Tokenizers) -> None:
    found = await counted(tokenizers, "hello world", model="gpt-4o", tokenizer="llama3")
    assert found == Counted(2, "llama3", Source.COUNTED)


async def test_a_tokenizer_file_is_shown_by_the_end_of_its_path(tokenizers: Tokenizers, tmp_path: Path) -> None:
    path = tmp_path / "bge-m3" / "tokenizer.json"
    path.parent.mkdir()
    words = {"[UNK]": 0, "hello": 1, "world": 2}
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 99,
    }
    path.write_text(
        json.dumps(
            {"version": "1.0", "pre_tokenizer": {"type": "BertPreTokenizer"}, "model": {**model, "vocab": words}}
        )
    )
    found = await counted(tokenizers, "hello world", model="any", tokenizer=str(path))
    assert found == Counted(2, "bge-m3/tokenizer.json", Source.COUNTED)


async def test_an_unknown_tokenizer_is_an_estimate(tokenizers: Tokenizers) -> None:
    assert await counted(tokenizers, "12345678", "你好", model="claude-x") == Counted(4, None, Source.ESTIMATED)
    assert await counted(tokenizers, "a" * 100_000, model=None) == Counted(25_000, None, Source.ESTIMATED)
    assert tokenizers._process is None  # nothing was started for it


@pytest.mark.parametrize("tokenizer", ["no-such-tokenizer", "/nowhere/tokenizer.json"])
async def test_a_tokenizer_that_cannot_be_used_is_warned_about_once(
    tokenizers: Tokenizers, caplog: pytest.LogCaptureFixture, tokenizer: str
) -> None:
    with caplog.at_level(logging.WARNING, "taximeter.tokenizers"):
        for _ in range(3):
            assert (await counted(tokenizers, "12345678", model=None, tokenizer=tokenizer)).source is Source.ESTIMATED
    assert len(caplog.records) == 1
    assert tokenizer in caplog.text


async def test_lone_surrogates_are_counted_as_the_replacement(tokenizers: Tokenizers) -> None:
    assert await counted(tokenizers, "a\ud800b") == await counted(tokenizers, "a?b")


async def test_many_calls_at_once_each_get_their_own_count(tokenizers: Tokenizers) -> None:
    found = await asyncio.gather(*(counted(tokenizers, "word " * number) for number in range(1, 40)))
    assert [each.tokens for each in found] == [count("qwen3", "word " * number) for number in range(1, 40)]


async def test_a_process_that_dies_costs_an_estimate_and_is_replaced(tokenizers: Tokenizers) -> None:
    assert (await counted(tokenizers, "hello")).source is Source.COUNTED
    process = tokenizers._process
    assert process is not None
    process._process.kill()
    await asyncio.to_thread(process._process.wait)
    assert await counted(tokenizers, "12345678") == Counted(2, None, Source.ESTIMATED)
    assert await counted(tokenizers, "hello") == Counted(1, "qwen3", Source.COUNTED)


async def test_a_call_that_is_cancelled_does_not_shift_the_answers_of_others(tokenizers: Tokenizers) -> None:
    await counted(tokenizers, "hello")
    doomed = asyncio.create_task(counted(tokenizers, "word " * 400_000))
    other = asyncio.create_task(counted(tokenizers, "hello world"))
    await asyncio.sleep(0)
    doomed.cancel()
    assert await other == Counted(2, "qwen3", Source.COUNTED)
    with pytest.raises(asyncio.CancelledError):
        await doomed
    starting = Tokenizers()
    early = asyncio.create_task(counted(starting, "hello"))
    await asyncio.sleep(0)
    early.cancel()
    with pytest.raises(asyncio.CancelledError):
        await early
    assert starting._process is None


async def test_a_job_that_takes_too_long_is_given_up(tokenizers: Tokenizers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOB_S", 0.0)
    assert (await counted(tokenizers, "12345678")) == Counted(2, None, Source.ESTIMATED)
    assert tokenizers._process is None


async def test_what_waits_is_bounded(tokenizers: Tokenizers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_CHARS", 10)
    assert (await counted(tokenizers, "x" * 11)).source is Source.ESTIMATED
    assert (await counted(tokenizers, "x" * 10)).source is Source.COUNTED
    assert tokenizers._waiting_chars == 0


async def test_an_idle_process_is_ended(tokenizers: Tokenizers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.0)
    await counted(tokenizers, "hello")
    process = tokenizers._process
    assert process is not None
    await asyncio.to_thread(process._process.wait, 10)
    assert tokenizers._process is None
    assert await counted(tokenizers, "hello") == Counted(1, "qwen3", Source.COUNTED)


async def test_the_process_ends_with_the_worker(tokenizers: Tokenizers) -> None:
    await counted(tokenizers, "hello")
    process = tokenizers._process
    assert process is not None
    process._writer.transport.abort()  # all it sees when the worker is killed
    assert await asyncio.to_thread(process._process.wait, 10) == 0


async def test_the_process_knows_no_credentials(tokenizers: Tokenizers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    await counted(tokenizers, "hello")
    process = tokenizers._process
    assert process is not None
    assert b"sk-secret" not in Path(f"/proc/{process._process.pid}/environ").read_bytes()


async def test_after_close_counts_are_estimates() -> None:
    tokenizers = Tokenizers()
    await counted(tokenizers, "hello")
    tokenizers.close()
    assert (await counted(tokenizers, "hello")).source is Source.ESTIMATED
    tokenizers.close()
