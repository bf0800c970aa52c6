"""`keys create | list | revoke`: proxy keys, through the running proxy or, when none runs, in the data directory."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from taximeter.cli.options import guarded
from taximeter.cli.show import console, table
from taximeter.cli.sources import TOKEN_ENV, Proxy, running_at
from taximeter.config import load
from taximeter.control.keyinfo import CreatedKey, KeyInfo, info
from taximeter.control.keyring import KeyRing
from taximeter.keyfile import KeyFile


@click.group()
def keys() -> None:
    """Proxy keys: each opens one workspace. The secret is shown once, when it is made."""


def _place(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--url", envvar="TAXIMETER_URL", help="Control port; default: the proxy running here."),
        click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings of the proxy."),
        click.option("--json", "as_json", is_flag=True, help="For machines."),
    ):
        command = option(command)
    return guarded(command)


@keys.command()
@click.option("--workspace", required=True, metavar="NAME", help="Whose calls the key's calls are.")
@click.option("--name", default="", help="What it is for.")
@click.option("--model", "models", multiple=True, metavar="PATTERN", help="Allow only these models (gpt-4o*).")
@_place
def create(
    url: str | None, config_file: Path | None, as_json: bool, workspace: str, name: str, models: tuple[str, ...]
) -> None:
    """Make a key and print it."""
    with_proxy, ring = _where(url, config_file)
    if with_proxy is not None:
        body = {"workspace": workspace, "name": name, "models": list(models)}
        made = msgspec.json.decode(with_proxy.request("POST", "/keys", body=body).content, type=CreatedKey)
    else:
        key, secret = ring().create(workspace, name=name, models=models)
        made = CreatedKey(**msgspec.structs.asdict(info(key)), key=secret)
    if as_json:
        click.echo(msgspec.json.encode(made))
        return
    click.echo(made.key)
    click.echo(f"{made.id} opens workspace {made.workspace}. It is not shown again.", err=True)


@keys.command("list")
@click.option("--workspace", metavar="NAME", help="Only this workspace's.")
@_place
def listing(url: str | None, config_file: Path | None, as_json: bool, workspace: str | None) -> None:
    """List the keys, revoked ones too; never their secrets."""
    with_proxy, ring = _where(url, config_file)
    if with_proxy is not None:
        raw = with_proxy.request("GET", "/keys").content
        found = msgspec.json.decode(raw, type=dict[str, list[KeyInfo]])["data"]
    else:
        found = [info(key) for key in ring().listing()]
    found = [each for each in found if workspace in (None, each.workspace)]
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    rows = [
        (each.id, each.workspace, each.name or "—", ", ".join(each.models) or "all", _state(each)) for each in found
    ]
    console().print(table(["Id", "Workspace", "Name", "Models", "State"], [], rows))


@keys.command()
@click.argument("key_id")
@_place
def revoke(url: str | None, config_file: Path | None, as_json: bool, key_id: str) -> None:
    """End a key. Calls that are running go on; workers refuse it within about a second."""
    with_proxy, ring = _where(url, config_file)
    if with_proxy is not None:
        raw = with_proxy.request("DELETE", f"/keys/{quote(key_id, safe='')}").content
        ended = msgspec.json.decode(raw, type=KeyInfo)
    else:
        ended = info(ring().revoke(key_id))
    click.echo(msgspec.json.encode(ended) if as_json else f"{ended.id} is revoked.")


def _where(url: str | None, config_file: Path | None) -> tuple[Proxy | None, Callable[[], KeyRing]]:
    """The proxy to ask or, where none runs, the keys of the data directory."""
    token = os.environ.get(TOKEN_ENV, "")
    settings = load(config_file)
    data_dir = Path(settings.data_dir)

    def ring() -> KeyRing:
        data_dir.mkdir(parents=True, exist_ok=True)
        return KeyRing(
            KeyFile(data_dir), settings.auth, now_us=lambda: time.time_ns() // 1_000, random=secrets.token_bytes
        )

    address = url or running_at(settings)
    return (Proxy(address, token) if address else None), ring


def _state(key: KeyInfo) -> str:
    if key.revoked_at:
        return f"revoked {key.revoked_at}"
    return "declared in the settings" if key.declared else f"since {key.created_at}"
