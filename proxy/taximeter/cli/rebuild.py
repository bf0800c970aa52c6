"""`rebuild redis`: the Redis counters written anew from history; through the running proxy, or directly."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import msgspec

from taximeter.cli.options import place
from taximeter.cli.proxy import acting
from taximeter.cli.show import echo
from taximeter.config import Settings
from taximeter.core.errors import ConfigError, TaximeterError
from taximeter.node.audit import command_log

REBUILD_S = 3_600.0


@click.group()
def rebuild() -> None:
    """Write what can be derived anew from what it is derived from."""


@rebuild.command("redis")
@click.option("--workspace", metavar="NAME", help="Only this workspace's counters.")
@place
def redis(url: str | None, config_file: Path | None, as_json: bool, workspace: str | None) -> None:
    """Write the Redis counters anew from history. Calls go on meanwhile, and none is missed or counted twice."""
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            with command_log(settings).act("redis.rebuild", workspace or "") as change:
                rebuilt = asyncio.run(_directly(settings, workspace))
                change.after = {"rebuilt": rebuilt}
        else:
            answer = proxy.request("POST", "/rebuild/redis", body={"workspace": workspace}, wait_s=REBUILD_S)
            rebuilt = int(answer.json()["rebuilt"])
    told = f"{rebuilt} workspace{'' if rebuilt == 1 else 's'} rebuilt from history."
    echo(msgspec.json.encode({"rebuilt": rebuilt}) if as_json else told)


async def _directly(settings: Settings, workspace: str | None) -> int:
    """A Redis of one's own, while no proxy runs here; other nodes on it may."""
    from taximeter.sinks.history.sink import History, default_url
    from taximeter.sinks.redis.client import ERRORS
    from taximeter.sinks.redis.counters import Counters

    if not settings.redis.url:
        raise ConfigError("The embedded Redis runs with the proxy only, which rebuilds it by itself: start the proxy.")
    history = History(settings.history.url or default_url(settings.data_dir))
    counters = Counters(settings.redis.url, history=history, history_id=await history.identity())
    try:
        return await counters.rebuild(workspace)
    except ERRORS as error:
        raise TaximeterError(f"Redis {counters.server.shown}: {error}") from error
    finally:
        await counters.close()
        await history.close()
