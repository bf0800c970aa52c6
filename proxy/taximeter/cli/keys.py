"""`keys create | list | revoke`: proxy keys, through the running proxy or, when none runs, in the data directory."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from taximeter.cli.options import place
from taximeter.cli.proxy import Proxy, acting
from taximeter.cli.show import console, echo, table
from taximeter.config import Settings, load
from taximeter.keys.file import KeyFile
from taximeter.keys.shown import CreatedKey, KeyInfo, info
from taximeter.keys.store import KeyRing


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
    with _where(url, config_file) as place:
        made = place.create(workspace, name, models)
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
    with _where(url, config_file) as place:
        found = place.listing()
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
    with _where(url, config_file) as place:
        ended = place.revoke(key_id)
    echo(msgspec.json.encode(ended) if as_json else f"{ended.id} is revoked.")


class _Proxy:
    """Keys through the running proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def create(self, workspace: str, name: str, models: tuple[str, ...]) -> CreatedKey:
        body = {"workspace": workspace, "name": name, "models": models}
        return msgspec.json.decode(self._proxy.request("POST", "/keys", body=body).content, type=CreatedKey)

    def listing(self) -> list[KeyInfo]:
        return msgspec.json.decode(self._proxy.request("GET", "/keys").content, type=dict[str, list[KeyInfo]])["data"]

    def revoke(self, key_id: str) -> KeyInfo:
        raw = self._proxy.request("DELETE", f"/keys/{quote(key_id, safe='')}").content
        return msgspec.json.decode(raw, type=KeyInfo)


class _File:
    """Keys in the data directory, while no proxy runs on it."""

    def __init__(self, settings: Settings) -> None:
        data_dir = Path(settings.data_dir)
        data_dir.mkdir(parents=True, exist_ok=True)
        self._ring = KeyRing(
            KeyFile(data_dir), settings.auth, now_us=lambda: time.time_ns() // 1_000, random=secrets.token_bytes
        )

    def create(self, workspace: str, name: str, models: tuple[str, ...]) -> CreatedKey:
        key, secret = self._ring.create(workspace, name=name, models=models)
        return CreatedKey(**msgspec.structs.asdict(info(key)), key=secret)

    def listing(self) -> list[KeyInfo]:
        return [info(key) for key in self._ring.listing()]

    def revoke(self, key_id: str) -> KeyInfo:
        return info(self._ring.revoke(key_id))


@contextmanager
def _where(url: str | None, config_file: Path | None) -> Iterator[_Proxy | _File]:
    settings = load(config_file)
    with acting(url, settings) as proxy:
        yield _File(settings) if proxy is None else _Proxy(proxy)


def _state(key: KeyInfo) -> str:
    if key.revoked_at:
        return f"revoked {key.revoked_at}"
    return "declared in the settings" if key.declared else f"since {key.created_at}"
