"""A worker process: the gateway on the inherited data port. `python -m taximeter.gateway.worker`, by the supervisor.

It imports neither litestar, sqlalchemy, redis nor genai-prices: a worker is small and starts fast.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from importlib import import_module
from pathlib import Path

import uvloop

from taximeter.breaker.store import TripStore
from taximeter.budgets.rates import Rates
from taximeter.budgets.slice_files import SliceFile
from taximeter.budgets.store import BudgetStore
from taximeter.core import loops
from taximeter.core.errors import TaximeterError
from taximeter.core.hosts import Hosts
from taximeter.gateway.admission.admission import Admission
from taximeter.gateway.admission.budget import BudgetGate
from taximeter.gateway.admission.holding import connect
from taximeter.gateway.handler import Gateway
from taximeter.gateway.metering.metering import Metering
from taximeter.gateway.metering.tokenizers import Tokenizers
from taximeter.gateway.tagging import dropped_headers
from taximeter.gateway.upstream.upstreams import Upstreams
from taximeter.gateway.websocket.handshake import WebSockets
from taximeter.journal import Journal
from taximeter.journal.ending import end
from taximeter.journal.status import Status
from taximeter.keys.store import KeyStore
from taximeter.node.child import LEAVE, REFUSED, RETIRE, SERVE, Boot, Child
from taximeter.node.descriptors import OPEN_FILES
from taximeter.pricebook import Beforehand, PriceBook
from taximeter.server.server import Server

log = logging.getLogger("taximeter.worker")

KEYS_POLL_S = 0.25
"""How soon a key or a budget created or revoked at run time holds; one `stat` each time."""


FILES_COUNTED_S = 5.0
"""How often open files are counted: 10,000 of them take 4 ms."""

HOLDING = "taximeter.budgets.reservations"
"""Imports redis-py: only where there is a hard budget."""


def main() -> None:
    """Serve until SIGTERM, or until the supervisor is gone; every open call is settled before this returns."""
    child = Child("worker")
    boot = child.wait()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(child, boot))
        except (TaximeterError, OSError) as error:
            child.answer(REFUSED, str(error))
            log.critical("Error: %s", error, exc_info=not isinstance(error, TaximeterError))
            raise SystemExit(1) from error


async def _serve(child: Child, boot: Boot) -> None:
    settings = boot.settings
    data_dir = Path(settings.data_dir)
    keys = KeyStore(data_dir, settings.auth)
    prices = PriceBook.load(Path(boot.prices_file))
    tokenizers = Tokenizers()
    stored_budgets, trips = BudgetStore(data_dir), TripStore(data_dir)
    budgets = BudgetGate(
        settings.budget,
        connect=lambda: connect(boot.redis_url),
        prices=Beforehand(prices),
        counting=tokenizers,
        rates=Rates(settings.rate),
        slice_file=SliceFile(data_dir),
    )
    admission = Admission(
        keys.in_force(),
        Hosts(settings.control.allowed_hosts, origins_setting="cors.allowed_origins"),
        required=settings.auth.mode == "keys",
        budgets=budgets,
    )
    admission.use_budgets(stored_budgets.stored())
    admission.use_trips(trips.in_force())
    if admission.limited:
        import_module(HOLDING)
    journal = Journal(
        data_dir / "journal",
        node=boot.node,
        worker=str(child.slot.number),
        settings=settings.journal,
        now_us=_now_us,
        batched=True,
    )
    upstreams = Upstreams(
        settings.upstream,
        drop=dropped_headers(settings),
        then=journal.after_written,
        admin_token_sha256=settings.auth.admin_token_sha256,
        mark=loops.mark(boot.node),
    )
    metering = Metering(settings, journal=journal, prices=prices, tokenizers=tokenizers)
    gateway = Gateway(settings, metering=metering, upstreams=upstreams, admission=admission)
    sockets = WebSockets(settings, metering=metering, upstreams=upstreams, admission=admission)
    server = Server(gateway, settings.limits, then=journal.after_written, websockets=sockets)
    server.on_started = child.ready
    server.on_listeners_closed = child.release
    child.on_order(LEAVE, lambda _: server.leave())
    child.on_order(RETIRE, lambda _: server.retire())
    may_serve = _told_to_serve(child, server)
    gc.collect()
    gc.freeze()  # what was made at start stays: the collector need not look at it again
    gc.set_threshold(100_000, 20, 20)  # a call leaves no cycles behind; collecting at every 700th object was 18 % of it
    try:
        async with asyncio.TaskGroup() as group:
            watches = [
                group.create_task(_watch(keys, stored_budgets, trips, admission)),
                group.create_task(budgets.watch()),
                group.create_task(journal.attend()),
                group.create_task(_count_files(journal.status)),
            ]
            with child.socket() as listener:
                await may_serve.wait()
                await server.serve([listener])
            for watch in watches:
                watch.cancel()
    finally:
        await upstreams.close()
        await budgets.close()
        tokenizers.close()
        await end(journal)


def _told_to_serve(child: Child, server: Server) -> asyncio.Event:
    """Set when calls may be accepted: at once, unless this worker is to take the place of one that still does."""
    event = asyncio.Event()

    def stop() -> None:
        server.stop()
        event.set()

    child.on_order(SERVE, lambda _: event.set())
    child.on_stop(stop)
    if child.slot.hold:
        child.ready()
    else:
        event.set()
    return event


async def _watch(keys: KeyStore, budgets: BudgetStore, trips: TripStore, admission: Admission) -> None:
    """Let keys, budgets and trips of breakers hold, or not, that control made or ended."""
    while True:
        await asyncio.sleep(KEYS_POLL_S)
        admission.keys = keys.in_force()
        if trips.changed():
            admission.use_trips(trips.in_force())
        if budgets.changed():
            admission.use_budgets(budgets.stored())
            if admission.limited:
                await asyncio.to_thread(import_module, HOLDING)  # so that no call waits for it


async def _count_files(status: Status) -> None:
    """Have it known how many files and sockets this process has open; the journal tells it."""
    while True:
        status.open_files, status.open_files_limit = OPEN_FILES.in_use(), OPEN_FILES.limit
        status.open_files_ran_out = OPEN_FILES.ran_out
        await asyncio.sleep(FILES_COUNTED_S)


def _now_us() -> int:
    return time.time_ns() // 1_000


if __name__ == "__main__":
    main()
