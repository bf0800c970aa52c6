"""`breaker list | reset`: what runaway breakers stop, and letting it go on (in the data directory where none runs)."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from taximeter.breaker.responses import TripInfo, TripList, info
from taximeter.breaker.store import TripStore
from taximeter.cli.options import place
from taximeter.cli.proxy import Proxy, acting
from taximeter.cli.show import console, echo, table
from taximeter.config import Settings
from taximeter.control.answers import responses
from taximeter.core.errors import BadRequest
from taximeter.node.audit import command_log


@click.group()
def breaker() -> None:
    """Runaway breakers: what they stop, because it used far more a minute than it usually does."""


@breaker.command("list")
@click.option("--all", "everything", is_flag=True, help="Also what they stopped before.")
@place
def listing(url: str | None, config_file: Path | None, as_json: bool, everything: bool) -> None:
    """List what is stopped, until when, and why."""
    with acting(url, config_file) as (settings, proxy):
        found = _listed(settings, proxy, everything)
    if as_json:
        echo(responses.encode(found))
        return
    rows = [(each.id, each.breaker, _about(each), _until(each), each.why) for each in found]
    console().print(table(["Id", "Breaker", "For", "Stopped until", "Used"], [], rows))


@breaker.command()
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Everything that is stopped.")
@place
def reset(url: str | None, config_file: Path | None, as_json: bool, ids: tuple[str, ...], everything: bool) -> None:
    """Let it go on before its time; what it used until now is not counted against it again."""
    if bool(ids) == everything:
        raise BadRequest("Name the ids (taximeter breaker list), or say --all.")
    with acting(url, config_file) as (settings, proxy):
        wanted = [each.id for each in _listed(settings, proxy, False)] if everything else ids
        if proxy is None:
            ended = [info(trip) for trip in _store(settings).reset(wanted, time.time_ns() // 1_000)]
        else:
            ended = [proxy.send(TripInfo, "DELETE", f"/breakers/{quote(each, safe='')}") for each in wanted]
    if as_json:
        echo(responses.encode(ended))
        return
    for each in ended:
        echo(f"{each.id}: {_about(each)} may call again.")


def _listed(settings: Settings, proxy: Proxy | None, everything: bool) -> list[TripInfo]:
    if proxy is not None:
        answer = proxy.request("GET", "/breakers", params={"all": ["true"]} if everything else {})
        return msgspec.json.decode(answer.content, type=TripList).data
    store = _store(settings)
    return [info(trip) for trip in (store.stored() if everything else store.open())]


def _store(settings: Settings) -> TripStore:
    return TripStore(Path(settings.data_dir), audit=command_log(settings))


def _about(each: TripInfo) -> str:
    part = f" key {each.key_id}" if each.key_id else f" track {each.track}" if each.track else ""
    return f"{each.workspace}{part}"


def _until(each: TripInfo) -> str:
    if each.armed_at is not None:
        return f"{each.armed_at[:19].replace('T', ' ')} (over)"
    return (each.until or "")[:19].replace("T", " ")
