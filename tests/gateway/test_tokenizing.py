"""What the tokenizing process does with a text: exact counts, cuts that change nothing, no network."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import splintr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recordings import corpus
from taximeter.gateway.metering import tokenizing
from taximeter.gateway.metering.tokenizers import _parts
from taximeter.gateway.metering.tokenizing import Answer, count, framed, read_jobs, slices
from taximeter.gateway.metering.vocabularies import VOCABULARIES, vocabulary_of

PROXY = Path(__file__).parents[2] / "proxy"
FRAGMENTS = ["'s", "'LL", " ", "  ", "\n", " \n", "\t", "a", "The", " of the", "Word", "123", "...", "/", "_", "▁"]
FRAGMENTS += ["你好", "世界。", "日本", "한국", "é", "😀", "<s>", "</s>", "<|im_end|>", "<|endoftext|>", "[INST]"]
FRAGMENTS += ['{"k": "v"}', "x = y + z", "don't do it", "http://a.b/c d", "\u00a0", "\u3000", "العربية", "हिन्दी"]
TEXT = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=40).map("".join)


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
@settings(deadline=None)
@given(text=TEXT)
@example(text="'\u017f")  # a contraction by Unicode's case folding
@example(text="word " * 3000)
def test_openai_counts_are_tiktokens_own(name: str, text: str) -> None:
    exact = tokenizing._encoder("tiktoken", name)
    clean = text.encode("utf-8", "replace").decode()
    assert count(name, clean) == len(exact(clean))


def recorded_texts() -> Iterator[tuple[str, list[str], int]]:
    """(model, texts, tokens reported) of recorded embeddings (inputs) and plain Gemini answers (output)."""
    for exchange in corpus():
        if exchange["stream"] or exchange["status"] != 200 or exchange["framing"] != "json":
            continue
        answer = json.loads(exchange["response_body"])
        if exchange["flavour"] == "openai.embeddings" and exchange["request_body"]:
            asked = json.loads(exchange["request_body"])
            texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
            if all(isinstance(text, str) for text in texts) and answer.get("usage"):
                yield answer["model"], texts, answer["usage"]["prompt_tokens"]
        elif exchange["flavour"] == "google.generate" and len(answer.get("candidates", ())) == 1:
            parts = answer["candidates"][0].get("content", {}).get("parts", [])
            tokens = answer["usageMetadata"].get("candidatesTokenCount")
            if parts and tokens and all(set(part) == {"text"} for part in parts) and "modelVersion" in answer:
                yield answer["modelVersion"], ["".join(part["text"] for part in parts)], tokens


@pytest.mark.skipif(not corpus(), reason="the recorded exchanges are not here")
def test_counts_are_what_providers_reported() -> None:
    around = {"cl100k_base": 0, "gemma3": 0, "mistral_v1": 2}  # tokens a server adds around each input
    compared = dict.fromkeys(around, 0)
    differences = []
    for model, texts, reported in recorded_texts():
        name = vocabulary_of(model)
        if name in around:
            compared[name] += 1
            ours = sum(count(name, text) + around[name] for text in texts)
            if ours != reported:
                differences.append((model, ours, reported))
    assert all(compared.values()), compared
    # One answer of Gemini's was billed a token less than its text has.
    assert [abs(ours - reported) for _, ours, reported in differences] in ([], [1])


@pytest.mark.parametrize("name", sorted(VOCABULARIES))
def test_cutting_a_text_changes_no_count(name: str) -> None:
    choose = random.Random(11)
    vocabulary = VOCABULARIES[name]
    encode = tokenizing._encoder(vocabulary.engine, vocabulary.name)
    for _ in range(150):
        text = "".join(
            choose.choice(FRAGMENTS) + choose.choice(["", " ", "\n"]) for _ in range(choose.randrange(1, 80))
        )
        pieces = list(slices(text, 8, drop_space=vocabulary.prefixed))
        assert sum(len(encode(piece)) for piece in pieces) == len(encode(text)), text


@settings(deadline=None)
@given(TEXT, st.integers(1, 30))
def test_slices_are_the_text(text: str, size: int) -> None:
    assert "".join(slices(text, size)) == text
    assert " ".join(slices(text, size, drop_space=True)) == text


def test_gemma_3_and_gemma_4_count_alike() -> None:
    three = splintr.Tokenizer.from_pretrained("gemma3").encode_ordinary
    four = splintr.Tokenizer.from_pretrained("gemma4").encode_ordinary
    choose = random.Random(12)
    for _ in range(500):
        text = "".join(choose.choice(FRAGMENTS) for _ in range(choose.randrange(1, 60)))
        assert len(three(text)) == len(four(text)), text


@pytest.mark.parametrize("character", ["a", " ", "\n", "中", "!"])
def test_a_million_equal_characters_are_counted(character: str) -> None:
    text = character * 1_000_000
    assert count("o200k_base", text) == len(splintr.Tokenizer.from_pretrained("o200k_base").encode_ordinary(text))


def test_a_special_token_spelled_out_is_text() -> None:
    for name in VOCABULARIES:
        assert count(name, "<|endoftext|><|im_end|></s>") > 3, name


def byte_level_file(directory: Path) -> Path:
    """A tokenizer.json in which `ab` and `abab` are tokens."""
    alphabet = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    alphabet += [chr(256 + number) for number in range(68)]
    vocabulary = {token: number for number, token in enumerate([*alphabet, "ab", "abab"])}
    model = {"type": "BPE", "vocab": vocabulary, "merges": ["a b", "ab ab"]}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    path = directory / "tokenizer.json"
    path.write_text(
        json.dumps(
            {"version": "1.0", "added_tokens": [], "pre_tokenizer": byte_level, "decoder": byte_level, "model": model}
        )
    )
    return path


def test_a_tokenizer_file_counts_by_its_own_vocabulary(tmp_path: Path) -> None:
    assert count(str(byte_level_file(tmp_path)), "ababab c") == 4  # abab ab Ġ c


@settings(deadline=None)
@given(st.lists(st.text(max_size=20), max_size=12), st.integers(1, 9))
def test_texts_arrive_as_they_were_sent_whatever_the_parts(texts: list[str], part_chars: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("taximeter.gateway.metering.tokenizers.PART_CHARS", part_chars)
        sent = b"".join(framed(part) for _ in range(2) for part in _parts("qwen3", texts))
    assert list(read_jobs(io.BytesIO(sent))) == [("qwen3", texts)] * 2


def test_a_job_that_fails_is_answered_with_why(tmp_path: Path) -> None:
    answer = tokenizing._answer(str(tmp_path / "none.json"), ["text"])
    assert answer.tokens == 0
    assert "No such file" in answer.error
    assert tokenizing._answer("no-such", ["text"]).error.startswith("KeyError")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=Answer) == answer


def test_a_vocabulary_file_that_is_not_openais_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tokenizing._SHA256, "o200k_base", "0" * 64)
    with pytest.raises(ValueError, match="not OpenAI's o200k_base"):
        tokenizing._tiktoken("o200k_base")


def test_every_vocabulary_loads_without_a_network(tmp_path: Path) -> None:
    program = """
import socket
def refuse(*_, **__): raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from taximeter.gateway.metering.tokenizing import count
from taximeter.gateway.metering.vocabularies import VOCABULARIES, vocabulary_of
print(sum(count(name, "hello") > 0 for name in VOCABULARIES))
"""
    empty = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": str(PROXY)}
    done = subprocess.run([sys.executable, "-c", program], env=empty, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (str(len(VOCABULARIES)), "")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_whose_worker_was_killed_ends_without_a_word() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        command = [sys.executable, "-m", "taximeter.gateway.metering.tokenizing", str(its.fileno())]
        process = subprocess.Popen(command, pass_fds=[its.fileno()], stderr=subprocess.PIPE, text=True)
        its.close()
        ours.sendall(b"".join(framed(part) for part in _parts("o200k_base", ["x"])))
        ours.close()
        _, said = process.communicate()
    assert (process.returncode, said) == (0, "")
