"""`taximeter quote` against a node that runs, and where none does."""

import asyncio
import json

import httpx2
import pytest
from click.testing import CliRunner

from faults.running import Node
from taximeter.cli import main
from taximeter.cli.quote import api_of
from taximeter.core.errors import BadRequest
from waits import HANG_S

pytestmark = pytest.mark.xdist_group("processes")

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 40}


@pytest.fixture
def quote(tmp_path, monkeypatch):
    monkeypatch.delenv("TAXIMETER_KEY", raising=False)

    async def run(*args, body=CHAT, env=None):
        env = {"TAXIMETER_DATA_DIR": str(tmp_path), "COLUMNS": "160", **(env or {})}
        told = json.dumps(body)
        return await asyncio.to_thread(CliRunner(env=env).invoke, main, ["quote", "-", *args], input=told)

    return run


async def test_a_call_is_quoted_and_a_spent_budget_is_exit_code_1(quote, tmp_path):
    async with Node(tmp_path / "node") as node:
        proxy = f"http://127.0.0.1:{node.port}"
        shown = await quote("--proxy", proxy, "--workspace", "acme")
        assert shown.exit_code == 0, shown.output
        assert "gpt-4o-mini (" in shown.stdout and "counted by o200k_base" in shown.stdout
        assert shown.stdout.endswith("It would pass.\n")
        made = {"workspace": "acme", "limit": "10", "unit": "tokens", "period": "total"}
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.admin}", timeout=HANG_S) as control:
            assert (await control.post("/budgets", json=made)).status_code == 201

        async def known():
            return (await quote("--proxy", proxy, "--workspace", "acme", "--json")).exit_code == 1

        await node.until(known, "the workers to know the budget")
        shown = await quote("--proxy", proxy, "--workspace", "acme")
        assert shown.exit_code == 1 and "-1" in shown.stdout  # less than nothing would be left
        assert (
            "It would NOT pass: 429 insufficient_quota: Workspace 'acme' has used its budget of 10 tokens"
            in shown.stdout
        )
        wrong = await quote("--proxy", proxy, "--workspace", "no good")
        assert wrong.exit_code == 2 and "header x-workspace" in wrong.stderr
        await node.settle()
        assert node.records() == []


async def test_a_proxy_key_comes_from_the_environment_and_is_asked_for(quote, tmp_path):
    async with Node(tmp_path / "node", config='[auth]\nmode = "keys"\n') as node:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{node.admin}", timeout=HANG_S) as control:
            key = (await control.post("/keys", json={"workspace": "acme"})).json()["key"]
        settings = {"TAXIMETER_DATA_DIR": str(node.data), "TAXIMETER_PROXY": f"http://127.0.0.1:{node.port}"}
        asked = await quote(env=settings)
        assert asked.exit_code == 1 and "Set TAXIMETER_KEY." in asked.stderr

        async def known():
            return (await quote(env={**settings, "TAXIMETER_KEY": key})).exit_code == 0

        await node.until(known, "the workers to know the key")
        # As an operator has it: the settings are read too, and know the variable is none of theirs.
        found = await quote(env={"TAXIMETER_DATA_DIR": str(node.data), "TAXIMETER_KEY": key})
        assert found.exit_code == 0 and "for workspace acme" in found.stdout, found.stderr


async def test_where_nothing_listens_it_says_so(quote, free_address):
    told = await quote("--proxy", f"http://{free_address}")
    assert told.exit_code == 3 and "does not answer" in told.stderr
    assert (await quote("--proxy", f"http://{free_address}", body={"x": 1})).exit_code == 2


@pytest.mark.parametrize(
    ("body", "api"),
    [
        (CHAT, "/v1/chat/completions"),
        ({**CHAT, "model": "claude-sonnet-4-5"}, "/v1/messages"),
        ({"model": "text-embedding-3-small", "input": "x"}, "/v1/embeddings"),
        ({"model": "gpt-5", "input": "x"}, "/v1/responses"),
        ({"model": "rerank-v3.5", "query": "x", "documents": []}, "/v1/rerank"),
        ({"prompt": "x"}, "/v1/completions"),
    ],
)
def test_the_api_is_told_by_the_members(body, api):
    assert api_of(json.dumps(body).encode()) == api


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}"])
def test_a_body_that_tells_no_api_is_wrong_usage(body):
    with pytest.raises(BadRequest):
        api_of(body)
