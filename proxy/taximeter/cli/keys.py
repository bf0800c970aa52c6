"""`keys create | list | revoke`: proxy keys, through the running proxy or, when none runs, in the data directory."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from taximeter.cli.options import place
from taximeter.cli.proxy import acting
from taximeter.cli.show import console, echo, table
from taximeter.config import Settings
from taximeter.keys.store import CreatedKey, KeyInfo, KeyStore, created, info


@click.group()
def keys() -> None:
    """Proxy keys: each opens one workspace. The secret is shown once, when it is made."""


@keys.command()
@click.option("--workspace", required=True, metavar="NAME", help="Whose calls the key's calls are.")
@click.option("--name", default="", help="What it is for.")
@click.option("--model", "models", multiple=True, metavar="PATTERN", help="Allow only these models (gpt-4o*).")
@place
def create(
    url: str | None, config_file: Path | None, as_json: bool, workspace: str, name: str, models: tuple[str, ...]
) -> None:
    """Make a key and print it."""
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            made = created(*_store(settings).create(workspace, name=name, models=models))
        else:
            made = proxy.send(CreatedKey, "POST", "/keys", {"workspace": workspace, "name": name, "models": models})
    if as_json:
        echo(msgspec.json.encode(made))
        return
    echo(made.key)
    echo(f"{made.id} opens workspace {made.workspace}. It is not shown again.", err=True)


@keys.command("list")
@click.option("--workspace", metavar="NAME", help="Only this workspace's.")
@place
def listing(url: str | None, config_file: Path | None, as_json: bool, workspace: str | None) -> None:
    """List the keys, revoked ones too; never their secrets."""
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            found = [info(key) for key in _store(settings).listing()]
        else:
            found = proxy.send(dict[str, list[KeyInfo]], "GET", "/keys")["data"]
    found = [each for each in found if workspace in (None, each.workspace)]
    if as_json:
        echo(msgspec.json.encode(found))
        return
    rows = [
        (each.id, each.workspace, each.name or "—", ", ".join(each.models) or "all", _state(each)) for each in found
    ]
    console().print(table(["Id", "Workspace", "Name", "Models", "State"], [], rows))


@keys.command()
@click.argument("key_id")
@place
def revoke(url: str | None, config_file: Path | None, as_json: bool, key_id: str) -> None:
    """End a key. Calls that are running go on; workers refuse it within about a second."""
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            ended = info(_store(settings).revoke(key_id))
        else:
            ended = proxy.send(KeyInfo, "DELETE", f"/keys/{quote(key_id, safe='')}")
    echo(msgspec.json.encode(ended) if as_json else f"{ended.id} is revoked.")


def _store(settings: Settings) -> KeyStore:
    """The keys in the data directory, while no proxy runs on it."""
    data_dir = Path(settings.data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    return KeyStore(data_dir, settings.auth)


def _state(key: KeyInfo) -> str:
    if key.revoked_at:
        return f"revoked {key.revoked_at}"
    return "declared in the settings" if key.declared else f"since {key.created_at}"
