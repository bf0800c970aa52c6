"""The official openai SDK for Node reads through the proxy what it reads directly, where node is there.

The package is installed with npm into `.node` (git-ignored) when the tests first need it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".node"
PACKAGE = "openai@6.49.0"
PROGRAM = Path(__file__).with_name("openai_sdk.mjs")
INSTALL_TIMEOUT_S = 90


@pytest.fixture(scope="session")
def node() -> Path:
    """A directory where `openai` can be imported, with the program in it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    PLACE.mkdir(exist_ok=True)
    with (PLACE / "lock").open("w") as lock:  # other test processes of this checkout wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = PLACE / "node_modules" / "openai" / "package.json"
        if not found.exists() or f"openai@{json.loads(found.read_text())['version']}" != PACKAGE:
            install = [
                "npm",
                "install",
                "--no-fund",
                "--no-audit",
                "--no-package-lock",
                "--prefix",
                str(PLACE),
                PACKAGE,
            ]
            try:
                subprocess.run(install, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                pytest.skip(f"npm could not install {PACKAGE}: {(error.stderr or b'').decode(errors='replace')[-300:]}")
        shutil.copy(PROGRAM, PLACE / PROGRAM.name)
    return PLACE


async def read(node: Path, url: str) -> dict[str, object]:
    """What the SDK gives for each call, without what differs from one call to the next."""
    program = await asyncio.create_subprocess_exec(
        "node", str(node / PROGRAM.name), url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = await program.communicate()
    assert program.returncode == 0, errors.decode()
    # ids hold the number of the provider's call; and a chunk of a stream that was asked for its usage says
    # `"usage": null`, which the proxy leaves as it came: it takes out the one event and nothing else
    output = re.sub(rb'"((?:chatcmpl|resp|msg|rs|req)[-_])[^"]*"', rb'"\1"', output)
    return json.loads(output.replace(b',"usage":null', b""))


CALLS = {
    # call -> the usage's own names for input and output, None where nothing is used
    "chat": ("prompt_tokens", "completion_tokens"),
    "streamed_chat": ("prompt_tokens", "completion_tokens"),
    "streamed_chat_with_usage": ("prompt_tokens", "completion_tokens"),
    "accumulated_chat": ("prompt_tokens", "completion_tokens"),
    "embeddings": ("prompt_tokens", None),
    "responses": ("input_tokens", "output_tokens"),
    "streamed_responses": ("input_tokens", "output_tokens"),
    "models": None,
    "error": None,
}


async def test_node_reads_through_the_proxy_what_it_reads_directly(node, serve, provider):
    async with serve(provider) as running:
        direct = await read(node, provider.base_url)
        billed = len(provider.ledger)
        through = await read(node, running.url + "/w/acme/v1")
        records = [await running.record(number) for number in range(len(CALLS))]
    bills = iter(provider.ledger[billed:])
    assert list(direct) == list(through) == list(CALLS)
    for (call, names), record in zip(CALLS.items(), records, strict=True):
        assert direct[call]
        assert direct[call] == through[call], call
        assert record["workspace"] == "acme"
        if names is None:
            assert record["outcome"] == ("upstream_error" if call == "error" else "ok")
            assert record.get("input_tokens") is None
            continue
        bill = next(bills).usage
        into, out = names
        assert (record["input_tokens"], record.get("output_tokens")) == (bill[into], bill[out] if out else None), call
        assert (record["input_source"], record["outcome"]) == ("reported", "ok"), call
