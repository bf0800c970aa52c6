"""`keys create | list | rotate | revoke`: proxy keys, by the running proxy or, where none runs, in its directory."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from taximeter.cli.options import place
from taximeter.cli.proxy import acting
from taximeter.cli.show import console, echo, table
from taximeter.cli.times import SPANS, ahead, span_s
from taximeter.config import Settings
from taximeter.core.times import moment_us
from taximeter.keys.store import UTC, CreatedKey, KeyInfo, KeyStore, created
from taximeter.node.audit import command_log

_expires = click.option(
    "--expires", metavar="TIME", help=f"When it stops to open anything: so long from now ({SPANS}), or 2026-12-31."
)


@click.group()
def keys() -> None:
    """Proxy keys: each opens one workspace. The secret is shown once, when it is made."""


@keys.command()
@click.option("--workspace", required=True, metavar="NAME", help="Whose calls the key's calls are.")
@click.option("--name", default="", help="What it is for.")
@click.option("--model", "models", multiple=True, metavar="PATTERN", help="Allow only these models (gpt-4o*).")
@_expires
@place
def create(
    url: str | None,
    config_file: Path | None,
    as_json: bool,
    workspace: str,
    name: str,
    models: tuple[str, ...],
    expires: str | None,
) -> None:
    """Make a key and print it."""
    until = _end(expires)
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            store, end = _store(settings), moment_us(until, UTC, "--expires") if until else 0
            key, secret = store.create(workspace, name=name, models=models, expires_at=end)
            made = created(store.info(key), secret)
        else:
            asked = {"workspace": workspace, "name": name, "models": models, "expires_at": until}
            made = proxy.send(CreatedKey, "POST", "/keys", asked)
    _print(made, as_json, f"{made.id} opens workspace {made.workspace}{_until(made)}. It is not shown again.")


@keys.command()
@click.argument("key_id")
@click.option("--overlap", default="24h", show_default=True, metavar="SPAN", help="How long the old secret holds, too.")
@_expires
@place
def rotate(
    url: str | None, config_file: Path | None, as_json: bool, key_id: str, overlap: str, expires: str | None
) -> None:
    """Give a key another secret and print it. Its id, budgets and sums stay.

    One that expires lasts as long again, unless --expires says otherwise. --overlap 0s ends the old secret at once.
    """
    overlap_s, until = span_s(overlap, "overlap"), _end(expires)
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            store, end = _store(settings), moment_us(until, UTC, "--expires") if until else None
            key, secret = store.rotate(key_id, overlap_s=overlap_s, expires_at=end)
            made = created(store.info(key), secret)
        else:
            asked = {"overlap_s": overlap_s, "expires_at": until}
            made = proxy.send(CreatedKey, "POST", f"/keys/{quote(key_id, safe='')}/rotate", asked)
    old = f"The old secret holds until {made.old_secret_until}" if made.old_secret_until else "The old secret is ended"
    _print(made, as_json, f"{made.id} has another secret{_until(made)}. It is not shown again. {old}.")


@keys.command("list")
@click.option("--workspace", metavar="NAME", help="Only this workspace's.")
@place
def listing(url: str | None, config_file: Path | None, as_json: bool, workspace: str | None) -> None:
    """List the keys, ended ones too; never their secrets."""
    with acting(url, config_file) as (settings, proxy):
        if proxy is None:
            store = _store(settings)
            found = [store.info(key) for key in store.listing()]
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
            store = _store(settings)
            ended = store.info(store.revoke(key_id))
        else:
            ended = proxy.send(KeyInfo, "DELETE", f"/keys/{quote(key_id, safe='')}")
    echo(msgspec.json.encode(ended) if as_json else f"{ended.id} is revoked.")


def _store(settings: Settings) -> KeyStore:
    """The keys in the data directory, while no proxy runs on it."""
    data_dir = Path(settings.data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    return KeyStore(data_dir, settings.auth, audit=command_log(settings))


def _end(expires: str | None) -> str | None:
    return None if expires is None else ahead(expires, "expires", datetime.now(UTC))


def _print(made: CreatedKey, as_json: bool, words: str) -> None:
    if as_json:
        echo(msgspec.json.encode(made))
        return
    echo(made.key)
    echo(words, err=True)


def _until(key: KeyInfo) -> str:
    return f" until {key.expires_at}" if key.expires_at else ""


def _state(key: KeyInfo) -> str:
    if key.state == "revoked":
        return f"revoked {_minute(key.revoked_at)}"
    if key.state == "expired":
        return f"expired {_minute(key.expires_at)}"
    words = "declared in the settings" if key.declared else f"since {_minute(key.rotated_at or key.created_at)}"
    if key.expires_at:
        words += f", until {_minute(key.expires_at)}"
    if key.old_secret_until:
        words += f"; old secret until {_minute(key.old_secret_until)}"
    return words


def _minute(at: str | None) -> str:
    return (at or "")[:16].replace("T", " ")
