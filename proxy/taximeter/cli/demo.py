"""The verb `demo`: Taximeter on its embedded defaults, a made-up provider, mixed traffic, two bills compared."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from taximeter.core.errors import TaximeterError

if TYPE_CHECKING:
    from rich.table import Table

    from taximeter.demo.bills import Row, Rows
    from taximeter.demo.folder import Folder
    from taximeter.demo.provider import Provider
    from taximeter.node.datadir import Runtime


LOOK_S = 1.0
"""How often a kept demo looks whether anybody can still end it."""


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C, and print what to type.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, help="How much traffic.")
def demo(keep: bool, rounds: int) -> None:
    """Send mixed traffic through a Taximeter of its own and compare its figures with the provider's bill.

    Exit codes: 0 the bills agree, 1 they differ or the demo could not run.
    """
    started_by = os.getppid()
    try:
        agreed = asyncio.run(_run(keep, rounds, started_by))
    except TaximeterError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    sys.exit(0 if agreed else 1)


async def _run(keep: bool, rounds: int, started_by: int) -> bool:
    from taximeter.demo.provider import Provider
    from taximeter.demo.serving import FREE, documented_addresses, taximeter
    from taximeter.demo.traffic import WORKSPACES, send

    provider = Provider()
    addresses = (documented_addresses() if keep else None) or FREE
    with _folder(keep) as folder:
        async with _serving(provider) as provider_url, taximeter(folder, addresses, provider_url) as runtime:
            click.echo(f"Taximeter {runtime.version} at http://{runtime.listen}/v1, a made-up provider behind it.")
            base_url = f"http://{runtime.listen}"
            calls = sum(await asyncio.gather(*[send(base_url, workspace, rounds) for workspace in WORKSPACES]))
            click.echo(f"{calls} calls: chat, streamed chat, embeddings, responses, rerank.\n")
            agreed = await _compare(provider, runtime, calls)
            if keep:
                await _keep(runtime, folder, started_by)
    return agreed


@contextmanager
def _folder(keep: bool) -> Iterator[Folder]:
    """A folder for this demo; a kept one's can be found by people."""
    from taximeter.demo.folder import NAME, remove, stated, temporary

    folder = (stated(Path(NAME)) if keep else None) or temporary()
    try:
        yield folder
    finally:
        remove(folder.path)


async def _compare(provider: Provider, runtime: Runtime, calls: int) -> bool:
    import httpx2
    from rich.console import Console

    from taximeter.demo import bills
    from taximeter.demo.traffic import WORKSPACES

    async with httpx2.AsyncClient(base_url=f"http://{runtime.admin_listen}", timeout=30) as control:
        answer = (await control.get("/usage", params={"group_by": "workspace,model"})).raise_for_status()
    metered, billed = bills.metered(answer.content), bills.billed(provider.bills, WORKSPACES)
    Console(width=max(Console().width, 126)).print(_table(metered, billed))
    differences = bills.differences(billed, metered)
    differences += await _redis_differences(Path(runtime.redis_url_file), billed, WORKSPACES)
    if bills.total(metered)["requests"] != calls:
        differences.append(f"{calls} calls were made, Taximeter says {bills.total(metered)['requests']}")
    for difference in differences:
        click.echo(f"DIFFERENT  {difference}")
    if not differences:
        click.echo("The provider's bill, /usage and the Redis counters agree to the token and to the nano-dollar.")
    return not differences


async def _redis_differences(url_file: Path, billed: Rows, workspaces: tuple[str, ...]) -> list[str]:
    """Where `tm:{workspace}:total` differs from the bill, after it had 5 s to follow (by design it takes 0.1 s)."""
    from redis.asyncio import Redis

    from taximeter.demo.bills import redis_differences

    differences: list[str] = []
    async with Redis.from_url(url_file.read_text().strip()) as client:  # noqa: ASYNC240 - one small file
        for _ in range(50):
            totals = {name: await client.hgetall(f"tm:{{{name}}}:total") for name in workspaces}
            decoded = {
                name: {_text(key): _text(value) for key, value in found.items()} for name, found in totals.items()
            }
            differences = redis_differences(billed, decoded)
            if not differences:
                break
            await asyncio.sleep(0.1)
    return differences


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _table(metered: Rows, billed: Rows) -> Table:
    from rich.table import Table

    from taximeter.demo.bills import total

    table = Table(title="Usage and cost, as Taximeter metered it", title_justify="left")
    for name in ("workspace", "model"):
        table.add_column(
            name, no_wrap=True, overflow="fold", min_width=len("text-embedding-3-small") * (name == "model")
        )
    for name in ("requests", "input", "cached", "output", "reasoning", "searches", "cost USD", "billed USD"):
        table.add_column(name, justify="right")
    for (workspace, model), row in sorted(metered.items()):
        table.add_row(workspace, model, *_cells(row, billed.get((workspace, model), {})))
    table.add_section()
    table.add_row("total", "", *_cells(total(metered), total(billed)), style="bold")
    return table


def _cells(row: Row, bill: Row) -> list[str]:
    from taximeter.demo.bills import FIGURES

    return [f"{row[name]:,}" if row[name] else "-" for name in FIGURES] + [
        f"{Decimal(side.get('cost_usd', 0)):.9f}" for side in (row, bill)
    ]


@asynccontextmanager
async def _serving(provider: Provider) -> AsyncIterator[str]:
    """The provider on a port of its own."""
    from taximeter.config import LimitSettings
    from taximeter.server.asgi import asgi
    from taximeter.server.server import Server

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(asgi(provider), LimitSettings(shutdown_s=1))
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve([listener]))
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.stop()


async def _keep(runtime: Runtime, folder: Folder, started_by: int) -> None:
    """Print what to type, and wait for Ctrl-C or until nobody can type it any more."""
    from taximeter.demo import hints

    stop, at_terminal = asyncio.Event(), os.isatty(0)
    under_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    for number in (signal.SIGINT, signal.SIGTERM, *([] if under_nohup else [signal.SIGHUP])):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    click.echo(
        f"\nStill running, with its data in {hints.short(folder.path)}; Ctrl-C ends it and removes them."
        + _otherwise(runtime, folder)
        + f"\n\nTo type in another terminal, in {Path.cwd()}:\n\n  "
        + "\n  ".join(hints.lines(runtime, folder.path, found=_found(runtime)))
        + f"\n\nThe dashboard: http://{runtime.admin_listen}/\n"
        f"For a client:  export OPENAI_BASE_URL=http://{runtime.listen}/v1   (or …/w/<workspace>/t/<track>/v1)"
    )
    while not stop.is_set() and (under_nohup or not _left_alone(started_by, at_terminal)):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_S)


def _left_alone(started_by: int, at_terminal: bool) -> bool:
    """Whether the terminal is closed or whoever started this is gone.

    Neither has to say so: a terminal's SIGHUP reaches its session's leader, maybe a `make` that passes nothing on.
    """
    looked = select.poll()
    if at_terminal:
        looked.register(0, 0)  # POLLHUP is told unasked
    return os.getppid() != started_by or any(event & select.POLLHUP for _, event in looked.poll(0))


def _otherwise(runtime: Runtime, folder: Folder) -> str:
    """What of the documented places it did not get."""
    from taximeter.config import Settings
    from taximeter.demo.folder import NAME

    said, usual = "", Settings()
    if runtime.admin_listen != usual.admin_listen:
        said += f"\n{usual.listen} or {usual.admin_listen} is in use by another program: this demo took other ports."
    if folder.path != Path(NAME):
        said += f"\n{NAME} is another demo's or cannot be used: this demo took another folder."
    return said


def _found(runtime: Runtime) -> bool:
    """Whether verbs ask this node where they are given no option."""
    from taximeter.cli.proxy import running_at
    from taximeter.config import load

    url = f"http://{runtime.admin_listen}"
    try:
        return (os.environ.get("TAXIMETER_URL") or running_at(load())) == url
    except TaximeterError:  # settings that cannot be read
        return False
