"""A worker process: the gateway on the inherited data port. `python -m taximeter.gateway.worker`, by the supervisor.

It imports neither litestar, sqlalchemy, redis nor genai-prices: a worker is small and starts fast.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from pathlib import Path

import uvloop

from taximeter.child import Boot, Child
from taximeter.config.settings import Auth
from taximeter.core.errors import DataDirError
from taximeter.core.hosts import Hosts
from taximeter.gateway.admission import Admission
from taximeter.gateway.asgi import Gateway, dropped_headers
from taximeter.gateway.server import Server
from taximeter.gateway.tokenizers import Tokenizers
from taximeter.gateway.upstream import Upstreams
from taximeter.journal import Journal
from taximeter.keyfile import KeyFile, in_force
from taximeter.pricebook import PriceBook

log = logging.getLogger("taximeter.worker")

KEYS_POLL_S = 0.25
"""How soon a key created or revoked at run time holds; one `stat` each time."""


def main() -> None:
    """Serve until SIGTERM, or until the supervisor is gone; every open call is settled before this returns."""
    child = Child("worker")
    boot = child.wait()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(child, boot))


async def _serve(child: Child, boot: Boot) -> None:
    settings = boot.settings
    data_dir = Path(settings.data_dir)
    key_file = KeyFile(data_dir)
    admission = Admission(
        in_force(settings.auth, key_file.load()),
        Hosts(settings.control.allowed_hosts),
        required=settings.auth.mode == "keys",
    )
    journal = Journal(
        data_dir / "journal",
        node=boot.node,
        worker=str(child.slot.number),
        settings=settings.journal,
        now_us=_now_us,
    )
    upstreams = Upstreams(settings.upstream, drop=dropped_headers(settings))
    tokenizers = Tokenizers()
    gateway = Gateway(
        settings,
        journal=journal,
        upstreams=upstreams,
        prices=PriceBook.load(Path(boot.prices_file)),
        tokenizers=tokenizers,
        admission=admission,
    )
    server = Server(gateway, settings.limits)
    server.on_started = child.ready  # type: ignore[method-assign]
    server.on_listeners_closed = child.release  # type: ignore[method-assign]
    child.on_stop(server.stop)
    gc.collect()
    gc.freeze()  # what was made at start stays: the collector need not look at it again
    gc.set_threshold(100_000, 20, 20)  # a call leaves no cycles behind; collecting at every 700th object was 18 % of it
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch_keys(key_file, settings.auth, admission))
            with child.socket() as listener:
                await server.serve([listener])
            watch.cancel()
    finally:
        await upstreams.close()
        tokenizers.close()
        journal.shutdown()


async def _watch_keys(file: KeyFile, auth: Auth, admission: Admission) -> None:
    """Let keys hold, or not, that control made or revoked."""
    while True:
        await asyncio.sleep(KEYS_POLL_S)
        try:
            if file.changed():
                admission.keys = in_force(auth, file.load())
        except DataDirError as error:  # the keys known so far stay in force
            log.error("%s", error)


def _now_us() -> int:
    return time.time_ns() // 1_000


if __name__ == "__main__":
    main()
