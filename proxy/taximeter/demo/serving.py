"""A whole Taximeter of its own for the demo: another process, a temporary data directory, ports of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from taximeter.core.errors import TaximeterError
from taximeter.datadir import Runtime, read_runtime

START_S = 300.0
"""For one that hangs: one that ends is seen at once, and on a busy machine a start may take minutes."""

SETTINGS = """\
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
data_dir = "{data_dir}"

[[upstream]]
name = "openai"
base_url = "{provider}/v1"
provider = "openai"
forward_credentials = true
models = ["gpt-*", "o4-*", "text-embedding-*"]

[[upstream]]
name = "cohere"
base_url = "{provider}/v1"
provider = "cohere"
forward_credentials = true
models = ["rerank-*"]
"""


class DemoError(TaximeterError):
    """The demo could not be run."""


@asynccontextmanager
async def taximeter(directory: Path, provider_url: str) -> AsyncIterator[Runtime]:
    """`taximeter serve` with the embedded defaults in front of `provider_url`, as long as the context lasts."""
    data_dir = directory / "data"
    config = directory / "taximeter.toml"
    config.write_text(SETTINGS.format(data_dir=data_dir, provider=provider_url))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("TAXIMETER_", "LIGHTRAG_"))}
    log_file = directory / "log"
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "taximeter", "serve", "--config", str(config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environ,
            start_new_session=True,
        )
    try:
        yield await _ready(process, data_dir, log_file)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ready(process: asyncio.subprocess.Process, data_dir: Path, log_file: Path) -> Runtime:
    if process.stdout is None:
        raise DemoError("taximeter serve was started without a pipe")
    try:
        said = await asyncio.wait_for(process.stdout.readline(), START_S)
    except TimeoutError:
        said = b""
    runtime = read_runtime(data_dir) if said else None
    if runtime is None:
        raise DemoError(f"taximeter serve did not start; it said:\n{log_file.read_text()}")  # noqa: ASYNC240
    return runtime
