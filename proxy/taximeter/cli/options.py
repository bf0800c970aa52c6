"""The options all query verbs share, and what becomes of their errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click

from taximeter.cli.backend import Backend, find
from taximeter.cli.known import Unknown, require
from taximeter.cli.proxy import Proxy, Refused, Unreachable
from taximeter.cli.show import echo
from taximeter.cli.times import past
from taximeter.core.errors import BadRequest, ConfigError, TaximeterError
from taximeter.core.times import zone
from taximeter.node.logs import warn_plainly

FAILED, BAD_USAGE, UNREACHABLE, UNKNOWN, INTERRUPTED = 1, 2, 3, 4, 130
"""Exit codes; 0 is done (see `taximeter --help`)."""

Command = Callable[..., None]

_WHERE = (
    click.option("--url", envvar="TAXIMETER_URL", help="Control port to ask; default: the proxy running here."),
    click.option("--history", metavar="URL", help="Read this history database instead (sqlite:///… postgresql://…)."),
    click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings of the proxy to find."),
)
_FILTERS = ("workspace", "model", "provider", "task", "track")
_RANGE = (
    click.option(
        "--from", "from_", metavar="TIME", help="First moment: 7d, yesterday, 2026-11-22, 2026-11-22T10:00:00Z."
    ),
    click.option("--to", metavar="TIME", help="First moment no longer included."),
    click.option("--tz", default="UTC", show_default=True, metavar="ZONE", help="IANA time zone of dates and days."),
)
_JSON = click.option("--json", "as_json", is_flag=True, help="The API's own JSON, for machines.")


def guarded(command: Command) -> Command:
    """End with a message and the exit code that the error means."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        warn_plainly()
        try:
            command(*args, **options)
        except (BadRequest, ConfigError) as error:
            _end(error, BAD_USAGE)
        except Unreachable as error:
            _end(error, UNREACHABLE)
        except Unknown as error:
            _end(error, UNKNOWN)
        except Refused as error:
            _end(error, BAD_USAGE if error.status == 400 else FAILED)
        except TaximeterError as error:
            _end(error, FAILED)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    return run


def asks_proxy(command: Command) -> Command:
    """Give the command `backend`: a running proxy or, when there is none, its history."""

    @wraps(command)
    def run(url: str | None, history: str | None, config_file: Path | None, **options: Any) -> None:
        backend, note = find(url, history, config_file)
        if note:
            echo(note, err=True)
        with closing(backend):
            command(backend=backend, **options)

    return _with(guarded(run), _WHERE)


def asks_usage(command: Command) -> Command:
    """Give the command `backend`, `params` (filters and range) and `as_json`; what is named there has been used."""

    @wraps(command)
    def run(backend: Backend, params: dict[str, list[str]], **options: Any) -> None:
        if "workspace" in params or "track" in params:
            require(backend, params)
        command(backend=backend, params=params, **options)

    return asks_what_comes(run)


def asks_what_comes(command: Command) -> Command:
    """As `asks_usage`, for verbs that wait for calls: what is named may have used nothing yet."""

    @wraps(command)
    def run(params: dict[str, list[str]], **options: Any) -> None:
        named = {name: list(options.pop(name)) for name in _FILTERS}
        command(params={name: values for name, values in named.items() if values} | params, **options)

    filters = [
        click.option(f"--{name}", multiple=True, metavar="NAME", help=f"Only this {name}; can be repeated.")
        for name in _FILTERS
    ]
    return asks_proxy(_with(in_range(_with(run, [_JSON])), filters))


def in_range(command: Command) -> Command:
    """Give the command `params`: the range asked for, in the API's parameters."""

    @wraps(command)
    def run(from_: str | None, to: str | None, tz: str, **options: Any) -> None:
        place, now = zone(tz), datetime.now(UTC)
        first, last = (past(each, place, now) if each else None for each in (from_, to))
        params = {"from": [first] if first else [], "to": [last] if last else [], "tz": [tz] if tz != "UTC" else []}
        command(params={name: values for name, values in params.items() if values}, **options)

    return _with(run, _RANGE)


def place(command: Command) -> Command:
    """Give the command `url`, `config_file` and `as_json`: for verbs that act on a running proxy or its data."""
    options = (
        click.option("--url", envvar="TAXIMETER_URL", help="Control port; default: the proxy running here."),
        click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings of the proxy."),
        click.option("--json", "as_json", is_flag=True, help="For machines."),
    )
    return _with(guarded(command), options)


def needs_proxy(backend: Backend, verb: str) -> Proxy:
    """The running proxy. Raises Unreachable where only a history was found."""
    if isinstance(backend, Proxy):
        return backend
    raise Unreachable(f"`taximeter {verb}` needs a running proxy.")


def _with(command: Command, options: Any) -> Command:
    for option in reversed(list(options)):
        command = option(command)
    return command


def _end(error: Exception, code: int) -> None:
    echo(f"Error: {error}", err=True)
    sys.exit(code)
