"""Outgoing calls bear the tags and leave their request ids; only those to the proxy, whatever library makes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest

import taximeter_rag
from closing import Closing
from rag import venvs
from taximeter_rag import metered
from taximeter_rag.clients import REQUEST_ID, Hooks, install, tag
from upstream import Provider, response
from waits import run

TAGS = {"x-workspace": "acme", "x-track-id": "t1", "x-document-id": "d1"}


@pytest.fixture
def hooks() -> Iterator[list[Hooks]]:
    made: list[Hooks] = []
    yield made
    for each in made:
        each.uninstall()


def tagged(provider: Provider) -> list[dict[str, str]]:
    return [{name: value for name, value in each.headers if name in {*TAGS, "x-task"}} for each in provider.requests]


async def test_httpx2_and_the_openai_sdk_are_tagged_and_their_ids_kept(hooks: list[Hooks]) -> None:
    async with Provider() as provider, Provider() as stranger:
        hooks.append(install(provider.url, key="tm-key"))
        assert "httpx2" in hooks[0].names
        provider.script(response(b"{}", headers=[(REQUEST_ID, "id-1")]))
        async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="sk") as sdk, httpx2.AsyncClient() as plain:
            async with metered(workspace="acme", track="t1", document="d1") as scope:
                await plain.get(provider.url)
                await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "a b"}])
                async with plain.stream("POST", provider.base_url + "/chat/completions", json={"stream": True}) as got:
                    await got.aread()
                await plain.get(stranger.url)
            await plain.get(provider.url)
        assert tagged(provider) == [TAGS, TAGS, TAGS, {}]
        assert tagged(stranger) == [{}]
        assert [each.header("x-taximeter-key") for each in provider.requests] == ["tm-key"] * 4
        assert stranger.requests[0].header("x-taximeter-key") is None
        assert list(scope.calls) == ["id-1"]


async def test_a_header_the_call_itself_names_is_stronger(hooks: list[Hooks]) -> None:
    async with Provider() as provider, httpx2.AsyncClient() as client:
        hooks.append(install(provider.url))
        with metered(workspace="acme", track="t1", document="d1"):
            await client.get(provider.url, headers={"X-Track-Id": "mine"})
        assert tagged(provider) == [{**TAGS, "x-track-id": "mine"}]


async def test_uninstalled_hooks_leave_no_trace() -> None:
    before = httpx2.AsyncClient.send, httpx2.Client.send
    hooks = install("http://127.0.0.1:1")
    assert httpx2.AsyncClient.send is not before[0]
    hooks.uninstall()
    assert (httpx2.AsyncClient.send, httpx2.Client.send) == before


async def test_one_client_can_be_tagged_alone(closing: Closing) -> None:
    async with Provider() as provider, httpx2.AsyncClient() as other:
        provider.script(response(b"{}", headers=[(REQUEST_ID, "id-1")]))
        sdk = closing(tag(openai.AsyncOpenAI(base_url=provider.base_url, api_key="sk", max_retries=0)))
        with metered(**{"workspace": "acme", "track": "t1", "document": "d1"}) as scope:
            await sdk.get("/anything", cast_to=httpx2.Response)
            await other.get(provider.url)
        assert tagged(provider) == [TAGS, {}]
        assert list(scope.calls) == ["id-1"]


def test_a_client_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="dict is no client"):
        tag({})


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://a", "http://"])
def test_a_proxy_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="proxy's URL"):
        install(url)


OTHERS = """
import asyncio, sys
import aiohttp, httpx
from taximeter_rag import aiohttp_trace, install, metered

async def main(url):
    with metered(workspace="acme", track="t1", document="d1") as scope:
        async with aiohttp.ClientSession(trace_configs=[aiohttp_trace()]) as session:
            async with session.get(url) as answer:
                await answer.read()
        hooks = install(url)
        assert hooks.names[0] == "httpx" and hooks.names[-1] == "aiohttp", hooks.names
        async with aiohttp.ClientSession() as session, httpx.AsyncClient() as client:
            async with session.post(url, json={}) as answer:
                await answer.read()
            await client.get(url)
        httpx.get(url)
    print(*scope.calls)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.venv(venvs.EXAMPLES)
async def test_httpx_and_aiohttp_are_tagged_and_their_ids_kept(tmp_path: Path) -> None:
    async with Provider() as provider:
        for number in range(4):
            provider.script(response(b"{}", headers=[(REQUEST_ID, f"id-{number}")]))
        source = str(Path(taximeter_rag.__file__).parents[1])
        argv = [str(venvs.python(venvs.EXAMPLES)), "-c", OTHERS, provider.url]
        process = await asyncio_run(argv, {"PYTHONPATH": source})
        assert process == "id-0 id-1 id-2 id-3\n"
        assert tagged(provider) == [TAGS] * 4


async def asyncio_run(argv: list[str], environ: dict[str, str]) -> str:
    """Run a program beside this loop; its output. Raises AssertionError with its errors."""
    import asyncio

    done = await asyncio.to_thread(run, argv, env=environ)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)
