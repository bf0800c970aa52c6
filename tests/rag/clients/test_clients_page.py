"""docs/clients.md is true: its blocks are settings, and its base URLs do with the real packages what direct ones do."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from nodes import Node, node
from present import present
from providers import anthropic_like, cohere_like, gemini_like, mistral_like, ollama_like
from providers.scripts import whole
from rag import venvs
from rag.clients import page, python_clients
from taximeter import config
from taximeter.config.checks import before_serving
from upstream import Provider, Request, Script
from waits import until

ROOT = Path(__file__).parents[3]
NODE_PLACE = ROOT / ".node/clients"
NPM = ("ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/anthropic@3.0.140", "@ai-sdk/google@3.0.141",
       "@anthropic-ai/sdk@1.14.0", "@google/genai@2.32.0", "openai@6.49.0")  # fmt: skip
ENVIRONMENTS = ("dev", venvs.CLIENTS, venvs.EXAMPLES)


def answer(request: Request) -> Script | None:
    """Every provider at one address, told apart by path and model; None: OpenAI."""
    path = request.target.partition("?")[0]
    if path.endswith("/messages") or "/publishers/anthropic/" in path:
        return anthropic_like.answer(request)
    if re.search(r"/models/[^/]+:(streamG|g)enerateContent", path):
        return gemini_like.answer(request)
    if path.startswith("/v2/"):
        return cohere_like.answer(request)
    if path.startswith("/api/"):
        return ollama_like.answer(request)
    if path.endswith("/converse"):
        return whole({
            "output": {"message": {"role": "assistant", "content": [{"text": "What it uses."}]}},
            "stopReason": "end_turn", "metrics": {"latencyMs": 1},
            "usage": {"inputTokens": 12, "outputTokens": 4, "totalTokens": 16},
        })  # fmt: skip
    if "mistral" in json.loads(request.body).get("model", ""):
        return mistral_like.answer(request)
    return None


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with Provider(answering=answer) as running:
        yield running


def secrets() -> dict[str, str]:
    """A credential for each environment variable that the page names."""
    names = {str(page.upstream(block).get("api_key_env", "")) for block in page.blocks()}
    return {name: f"secret-of-{name}" for name in names if name}


def rewritten(block: str, provider: Provider) -> str:
    """A block whose provider is the scripted one; everything else as it stands."""
    return re.sub(r'(?<=_url = ")https?://[^/"]+', provider.url, block)


def test_every_block_is_a_setting(tmp_path: Path) -> None:
    wanted = {"openai", "azure", "anthropic", "gemini", "cohere", "mistral", "bedrock", "vertex", "ollama", "vllm"}
    assert {page.upstream(block)["name"] for block in page.blocks()} == {*wanted, "openrouter"}
    for number, block in enumerate(page.blocks()):
        file = tmp_path / f"{number}.toml"
        file.write_text(block)
        before_serving(config.load(file, {}), secrets())


def test_taximeter_check_takes_all_blocks_at_once(tmp_path: Path) -> None:
    file = tmp_path / "taximeter.toml"
    file.write_text("\n".join(page.blocks()))
    with node(tmp_path, **secrets()) as running:
        checked = running.run("check", "--config", str(file))
    assert checked.returncode == 0, checked.stdout
    assert "ok     safe to serve, credentials there" in checked.stdout


def test_the_program_knows_exactly_the_clients_of_the_page() -> None:
    assert sorted(row.name for row in page.rows("Python")) == sorted(python_clients.CLIENTS)


async def output(*command: str) -> Any:
    """The JSON on the last line that a program prints, in an environment with nothing of ours in it."""
    kept = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    aws = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_EC2_METADATA_DISABLED": "true"}
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HAYSTACK_TELEMETRY_ENABLED": "False"}
    program = await asyncio.create_subprocess_exec(
        *command, env={**kept, **aws, **offline}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    said, errors = await program.communicate()
    assert program.returncode == 0, errors.decode()
    return json.loads(said.splitlines()[-1])


async def as_directly(rows: list[page.Row], program: list[str], provider: Provider, folder: Path) -> None:
    """Run a program of clients directly and through a node with the page's blocks: the same in every respect."""
    (folder / "taximeter.toml").write_text("\n".join(rewritten(block, provider) for block in page.blocks()))
    with node(folder, **secrets()) as running:
        runtime = await asyncio.to_thread(running.start)
        direct = {row.name: re.sub("/u/[a-z]+", "", row.url).replace(page.HERE, provider.url) for row in rows}
        tagged = {
            row.name: row.url.replace(page.HERE, f"http://{runtime.listen}/w/acme/t/track-{number}")
            for number, row in enumerate(rows)
        }
        told, through = await output(*program, json.dumps([direct, tagged]))
        assert through == told
        for row in rows:
            shows_as_the_page_says(row, told[row.name])
        half = len(provider.requests) // 2
        first, second = provider.requests[:half], provider.requests[half:]
        assert sorted(each.target for each in second) == sorted(each.target for each in first)
        for request in second:
            is_what_the_provider_expects(request)
        records = await asyncio.to_thread(recorded, running, len(second))
    billed(rows, records, told)


def shows_as_the_page_says(row: page.Row, told: Any) -> None:
    assert isinstance(told, list), f"{row.name}: {told}"
    whole, *streams = told
    assert min(whole) > 0
    expected = {"always": [whole], "–": []}.get(row.stream, [None, whole])
    assert streams == expected, (row, told)


APIS = (
    (r"/v1/chat/completions", "authorization"),
    (r"/v1/messages", "x-api-key"),
    (r"/v1(beta)?/models/gemini-2\.5-flash:(g|streamG)enerateContent", "x-goog-api-key"),
    (r"/v2/chat", "authorization"),
    (r"/api/(chat|show)", None),
    (r"/v1/responses", "authorization"),
    (r"/openai/deployments/my-deployment/chat/completions", "api-key"),
    (r"/model/amazon\.nova-lite-v1(:|%3A)0/converse", "authorization"),
    (r"/v1/projects/my-project/locations/us-central1/publishers/anthropic/models/[^/]+:(r|streamR)awPredict",
     "authorization"),
)  # fmt: skip
"""The paths of the providers' own API references, and the header in which each wants its credential (Ollama: none)."""


def is_what_the_provider_expects(request: Request) -> None:
    """The path is one it has, and the operator's credential stands where it looks for it, the client's own nowhere."""
    path = request.target.partition("?")[0]
    [header] = [header for pattern, header in APIS if re.fullmatch(pattern, path)] or [f"no such API: {path}"]
    sent = {name: value.removeprefix("Bearer ") for name, value in request.headers if "auth" in name or "key" in name}
    assert set(sent) == ({header} if header else set())
    assert all(each in secrets().values() or each == "access-token" for each in sent.values()), (path, sent)


def recorded(running: Node, number: int) -> list[dict[str, Any]]:
    """The records of so many calls, as soon as they are there."""
    assert running.process is not None
    return until(lambda: len(found := running.records()) >= number and found, "the records", running.process.pid)


def billed(rows: list[page.Row], records: list[dict[str, Any]], told: dict[str, Any]) -> None:
    """Each call stands under its client's tags, and its figures are the provider's."""
    for number, row in enumerate(rows):
        own = [each for each in records if each["track"] == f"track-{number}" and each.get("operation") == "llm"]
        assert len(own) == len(told[row.name]), (row, own)
        for each in own:
            assert (each["workspace"], each["outcome"]) == ("acme", "ok"), each
            assert (each["input_source"], each["output_source"]) == ("reported", "reported"), each
            assert [each["input_tokens"], each["output_tokens"]] == BILLED.get(each["upstream"], told[row.name][0]), (
                each
            )


BILLED = {"anthropic": [1172, 58], "vertex": [1172, 58], "gemini": [46, 32], "cohere": [24, 63]}
"""What these bill for a call; some clients show less of it (no caches, no thoughts) or more (preambles)."""


@pytest.mark.parametrize("environment", ENVIRONMENTS)
async def test_python_clients(environment: str, provider: Provider, tmp_path: Path) -> None:
    if environment != "dev" and not venvs.is_there(environment):
        pytest.skip(f"needs an environment: .venv/bin/python tests/rag/venvs.py {environment}")
    python = sys.executable if environment == "dev" else str(venvs.python(environment))
    rows = [row for row in page.rows("Python") if python_clients.CLIENTS[row.name][0] == environment]
    assert rows
    await as_directly(rows, [python, str(Path(python_clients.__file__))], provider, tmp_path)


@pytest.fixture(scope="session")
def npm() -> Path:
    """A directory where the packages can be imported, with the program in it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    NODE_PLACE.mkdir(parents=True, exist_ok=True)
    done = NODE_PLACE / "installed"
    with (NODE_PLACE / "lock").open("w") as lock:  # other test processes of this checkout wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.read_text() != " ".join(NPM):
            quiet = ("--no-fund", "--no-audit", "--no-package-lock", "--ignore-scripts")
            command = ["npm", "install", *quiet, "--prefix", str(NODE_PLACE), *NPM]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=180)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                pytest.skip(f"npm could not install: {(error.stderr or b'').decode(errors='replace')[-300:]}")
            done.write_text(" ".join(NPM))
        shutil.copy(Path(__file__).with_name("node_clients.mjs"), NODE_PLACE)
    return NODE_PLACE


async def test_javascript_clients(npm: Path, provider: Provider, tmp_path: Path) -> None:
    await as_directly(page.rows("JavaScript"), ["node", str(npm / "node_clients.mjs")], provider, tmp_path)


AS_OPENAI = {
    "azure": ("my-deployment", "/openai/v1/chat/completions"),
    "anthropic": ("claude-sonnet-4-5", "/v1/chat/completions"),
    "gemini": ("gemini-2.5-flash", "/v1beta/openai/chat/completions"),
    "bedrock": ("openai.gpt-oss-20b-1:0", "/openai/v1/chat/completions"),
    "vertex": (
        "google/gemini-2.5-flash",
        "/v1/projects/my-project/locations/us-central1/endpoints/openapi/chat/completions",
    ),
}
"""Upstream -> a model of it, and the path of the provider's OpenAI-compatible API."""


async def test_openais_clients_use_other_providers_at_the_urls_that_stand_above_their_blocks(
    provider: Provider, tmp_path: Path
) -> None:
    above = page.above_blocks()
    (tmp_path / "taximeter.toml").write_text("\n".join(rewritten(block, provider) for block in page.blocks()))
    with node(tmp_path, **secrets()) as running:
        runtime = await asyncio.to_thread(running.start)
        for name, (model, path) in AS_OPENAI.items():
            url = above[name].replace(page.HERE, f"http://{runtime.listen}/w/acme")
            async with openai.AsyncOpenAI(base_url=url, api_key="access-token", max_retries=0) as client:
                answer = await client.chat.completions.create(model=model, messages=python_clients.MESSAGES)
            assert provider.requests[-1].target == path
            records = await asyncio.to_thread(recorded, running, len(provider.requests))
            assert (records[-1]["upstream"], records[-1]["workspace"]) == (name, "acme")
            assert records[-1]["input_tokens"] == present(answer.usage).prompt_tokens
