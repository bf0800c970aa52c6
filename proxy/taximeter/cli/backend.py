"""Whom the query verbs ask: a running proxy, or a history database where none runs. Both return the API's own JSON."""

from __future__ import annotations

import os
from pathlib import Path

from taximeter.cli.database import Database
from taximeter.cli.proxy import TOKEN_ENV, Proxy, Unreachable, running_at

Backend = Proxy | Database


def find(url: str | None, history: str | None, config_file: Path | None) -> tuple[Backend, str]:
    """The backend to ask, and what to tell the user about the choice ("" mostly).

    In order: `history` (a database URL), `url` (a control port), the proxy running here, its history when it is not
    running. Raises Unreachable, or ConfigError on settings that cannot be read.
    """
    if history is not None:
        return Database(history), ""
    token = os.environ.get(TOKEN_ENV, "")
    if url is not None:
        return Proxy(url, token), ""
    from taximeter.config import load

    settings = load(config_file)
    running = running_at(settings)
    if running is not None:
        return Proxy(running, token), ""
    data_dir = Path(settings.data_dir)
    database = settings.history.url
    if not database and (data_dir / "history.db").is_file():
        database = f"sqlite:///{data_dir / 'history.db'}"
    if database:
        told = "No proxy runs here: read from its history; calls still in the journal are missing."
        return Database(database, settings), told
    raise Unreachable(
        f"No proxy answers on {settings.admin_listen}, and there is no history in {data_dir.absolute()}. "
        f"Start one (taximeter serve), or name one with --url or --history."
    )
