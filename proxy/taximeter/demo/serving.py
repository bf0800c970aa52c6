"""A whole Taximeter of its own for the demo: another process, a folder and ports of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taximeter.config import Settings
from taximeter.core.errors import TaximeterError
from taximeter.demo.folder import CONFIG, LOG, Folder
from taximeter.node.datadir import Runtime, read_runtime

START_S = 300.0
"""For one that hangs: one that ends is seen at once, and on a busy machine a start may take minutes."""

FREE = ("127.0.0.1:0", "127.0.0.1:0")
"""Data and control port: any that are free."""

SETTINGS = """\
listen = "{listen}"
admin_listen = "{admin_listen}"
data_dir = {data_dir}

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


def documented_addresses() -> tuple[str, str] | None:
    """The default data and control address; None: one of them is in use."""
    from taximeter.supervisor.listening import ListenError, listen

    settings = Settings()
    try:
        listen("listen", settings.listen).close()
        listen("admin_listen", settings.admin_listen).close()
    except ListenError:
        return None
    return settings.listen, settings.admin_listen


@asynccontextmanager
async def taximeter(folder: Folder, addresses: tuple[str, str], provider_url: str) -> AsyncIterator[Runtime]:
    """`taximeter serve` with the embedded defaults in front of `provider_url`, as long as the context lasts.

    It does not outlive this process, however that ends (taximeter.demo.node).
    """
    listen, admin_listen = addresses
    data_dir = json.dumps(str(folder.path.absolute()))
    (folder.path / CONFIG).write_text(
        SETTINGS.format(listen=listen, admin_listen=admin_listen, data_dir=data_dir, provider=provider_url)
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("TAXIMETER_", "LIGHTRAG_"))}
    with (folder.path / LOG).open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "taximeter.demo.node", str(folder.path.absolute())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environ,
            pass_fds=[folder.lock_fd],
            start_new_session=True,
        )
    try:
        yield await _ready(process, folder)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ready(process: asyncio.subprocess.Process, folder: Folder) -> Runtime:
    if process.stdout is None:
        raise DemoError("taximeter serve was started without a pipe")
    try:
        said = await asyncio.wait_for(process.stdout.readline(), START_S)
    except TimeoutError:
        said = b""
    runtime = read_runtime(folder.path) if said else None
    if runtime is None:
        raise DemoError(f"taximeter serve did not start; it said:\n{(folder.path / LOG).read_text()}")
    return runtime
