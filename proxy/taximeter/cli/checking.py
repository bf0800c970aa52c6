"""What `taximeter check` tries: each thing the settings name, as (name, problem); an empty problem is good news."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from taximeter.config import Section, Settings
from taximeter.config.addresses import masked
from taximeter.config.checks import before_serving, loop_problems
from taximeter.core.errors import ConfigError, TaximeterError
from taximeter.node.datadir import Runtime, read_runtime

RESOLVED_WITHIN_S = 3.0


def understood(settings: Settings) -> str:
    """The settings in force as `path = value` lines, defaults included, secrets masked."""
    return "\n".join(_lines(settings, ""))


def _lines(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Section):
        for name in value.__struct_fields__:
            yield from _lines(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], Section):
        for number, item in enumerate(value):
            yield from _lines(item, f"{path}[{number}]")
    else:
        yield f"{path} = {repr('***') if path.endswith('sha256') and value else masked(repr(value))}"


def problems_with(settings: Settings) -> Iterator[tuple[str, str]]:
    """Try everything; slow things (a database that does not answer) are bounded by a few seconds each."""
    running = read_runtime(Path(settings.data_dir))
    tries: list[tuple[str, Callable[[], None]]] = [
        ("safe to serve, credentials there", lambda: _try_serving(settings)),
        (_admin(settings), lambda: None),
        (f"data directory {Path(settings.data_dir).absolute()}", lambda: _try_directory(Path(settings.data_dir))),
        (f"data port {settings.listen}", lambda: _try_port("listen", settings.listen, running)),
        (f"control port {settings.admin_listen}", lambda: _try_port("admin_listen", settings.admin_listen, running)),
        (f"Redis {masked(settings.redis.url) or 'embedded Valkey'}", lambda: _try_redis(settings)),
        (f"history {masked(settings.history.url) or 'SQLite in the data directory'}", lambda: _try_history(settings)),
        ("prices", lambda: _try_prices(settings)),
    ]
    for name, attempt in tries:
        try:
            attempt()
        except (TaximeterError, OSError) as error:
            yield name, str(error)
        else:
            yield name, ""


def _try_serving(settings: Settings) -> None:
    before_serving(settings, os.environ)
    for number, upstream in enumerate(settings.upstream):
        for key, why in loop_problems(upstream, settings, _resolved):
            raise ConfigError(f"upstream[{number}].{key}: {getattr(upstream, key)!r} is not allowed; {why}.")


def _resolved(host: str) -> list[str]:
    """A host's addresses; none where nobody says so within a few seconds."""
    found: list[str] = []

    def ask() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found.extend(str(place[0]) for *_, place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(RESOLVED_WITHIN_S)
    return list(found)


def _admin(settings: Settings) -> str:
    from taximeter.control.door.trust import admin_is

    return admin_is(settings)


def _try_directory(path: Path) -> None:
    nearest = path.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise OSError(f"{nearest} is not a directory")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OSError(f"{nearest} cannot be written by this user")


def _try_port(setting: str, address: str, running: Runtime | None) -> None:
    from taximeter.supervisor.listening import listen

    if running is not None and getattr(running, setting) == address:
        return  # it is ours
    listen(setting, address).close()


def _try_redis(settings: Settings) -> None:
    if not settings.redis.url:
        from taximeter.node.embedded_valkey import binary

        binary()
        return
    import asyncio

    from taximeter.sinks.redis.client import ERRORS, RedisServer
    from taximeter.sinks.redis.nodes import refuse_eviction

    async def ask() -> None:
        server = RedisServer(settings.redis.url)
        try:
            await refuse_eviction(server)
        finally:
            await server.close()

    try:
        asyncio.run(ask())
    except ERRORS as error:
        raise OSError(masked(str(error))) from error


def _try_history(settings: Settings) -> None:
    from urllib.parse import urlsplit

    url = settings.history.url
    if not url:
        return  # its directory was tried
    if url.startswith("sqlite"):
        _try_directory(Path(url.removeprefix("sqlite:///")).parent)
        return
    import psycopg

    try:
        psycopg.connect(urlsplit(url)._replace(scheme="postgresql").geturl(), connect_timeout=5).close()
    except psycopg.Error as error:
        raise OSError(masked(str(error)).strip().replace("\n", "; ")) from error


def _try_prices(settings: Settings) -> None:
    from taximeter.pricebook.compile import env_cards, own_file
    from taximeter.pricebook.listed import read_prices

    env_cards(os.environ)
    file = own_file(settings)
    if file:
        read_prices(file)
