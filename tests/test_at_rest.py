"""What a whole node leaves in its data directory and its log: no text, no credential, nothing others can read.

The directory exists before and is open to everybody, and the umask takes nothing away, as under some service managers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from nodes import Node, node
from upstream import CLOSE, Provider, Request, Script, response
from waits import HANG_S

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"),
    pytest.mark.xdist_group("processes"),
]

ASKED, ANSWERED = "the-prompt-of-a-tenant", "the-answer-to-a-tenant"
CREDENTIAL = "sk-of-the-operator"
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


def answer(request: Request) -> Script:
    """A good answer, an error that holds text, or an answer that breaks off."""
    said = {"index": 0, "message": {"role": "assistant", "content": ANSWERED}}
    body = {"model": "gpt-4o-mini", "choices": [said], "usage": USAGE}
    if request.header("x-case") == "error":
        body = {"error": {"message": f"{ASKED} is no good", "code": "bad"}}
    whole = response(json.dumps(body).encode(), 400 if "error" in body else 200, [("content-type", "application/json")])
    return Script((whole[:-20], CLOSE) if request.header("x-case") == "cut" else (whole,))


@pytest.fixture
def open_house(tmp_path: Path, provider: Provider) -> Iterator[Node]:
    provider.handler = answer
    upstream = {"name": "openai", "base_url": provider.base_url, "api_key_env": "OPERATORS"}
    told = {"TAXIMETER_UPSTREAM": json.dumps([upstream]), "OPERATORS": CREDENTIAL}
    before = os.umask(0)
    try:
        (tmp_path / "data").mkdir(mode=0o777)
        with node(tmp_path, **told) as made:
            yield made
    finally:
        os.umask(before)


async def use(base: str, control: str) -> str:
    """Calls of every outcome with a proxy key made for it; the key."""
    async with httpx2.AsyncClient(timeout=HANG_S) as client:
        made = (await client.post(f"{control}/keys", json={"workspace": "acme"})).json()
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": ASKED}], "user": "someone"}
        headers = {"x-taximeter-key": made["key"], "authorization": "Bearer sk-of-the-client"}
        while (await client.get(f"{base}/v1/models", headers=headers)).status_code == 401:
            await asyncio.sleep(0.05)  # workers follow new keys within a second
        for case in ("ok", "error", "cut"):
            with contextlib.suppress(httpx2.RemoteProtocolError):
                await client.post(f"{base}/v1/chat/completions", json=body, headers=headers | {"x-case": case})
        usage = await client.get(f"{control}/usage", params={"workspace": "acme"})
        assert usage.json()["usage"]["llm"]["requests"] == 3, usage.text
        return str(made["key"])


def readable_by_others(top: Path) -> Iterator[Path]:
    """Files under `top` that another user could open, if `top` lets him in."""
    for folder, folders, files in os.walk(top):
        for name in files:
            if stat.S_IMODE((Path(folder) / name).lstat().st_mode) & 0o077 and not name.endswith(".sock"):
                yield Path(folder) / name
        folders[:] = [name for name in folders if stat.S_IMODE((Path(folder) / name).stat().st_mode) & 0o077]


async def test_nothing_in_the_data_directory_is_a_text_or_a_credential_or_is_open_to_others(open_house: Node) -> None:
    runtime = await asyncio.to_thread(open_house.start, "serve")
    key = await use(f"http://{runtime.listen}", f"http://{runtime.admin_listen}")
    held = list(readable_by_others(open_house.data_dir))
    files = [file for file in open_house.data_dir.rglob("*") if file.is_file()]
    assert {"history.db", "keys.json", "redis.url"} <= {file.name for file in files}
    for file in (*files, open_house.log_file):
        content = file.read_bytes()
        for secret in (ASKED, ANSWERED, CREDENTIAL, "sk-of-the-client", key, key[3:]):
            assert secret.encode() not in content, (file, secret)
    assert held == []
