"""The verbs around a running Taximeter: `serve`, `check`, `status`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from taximeter import config
from taximeter.cli.show import echo
from taximeter.core.errors import ConfigError, TaximeterError

if TYPE_CHECKING:
    from taximeter.config import Settings
    from taximeter.config.found import Found
    from taximeter.node.datadir import Runtime

P = ParamSpec("P")

FAILED, BAD_SETTINGS = 1, 2
DEFAULT_FILES = "Settings; default: config/taximeter.toml, else taximeter.toml."


def _settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command the settings and where they come from; a mistake in them ends it with exit code 2."""

    @click.option("--config", "file", type=click.Path(path_type=Path), help=DEFAULT_FILES)
    @wraps(command)
    def with_settings(file: Path | None, **options: Any) -> None:
        from taximeter.config.found import find

        found = None
        try:
            found = find(file, os.environ)
            settings, found = config.load_found(file)
            command(settings, found, **options)
        except TaximeterError as error:
            echo(f"Error: {error}", err=True)
            for line in found.lines() if found else ():  # which settings these were may be the very mistake
                echo(f"settings: {line}", err=True)
            sys.exit(BAD_SETTINGS if isinstance(error, ConfigError) else FAILED)

    return with_settings


@click.command()
@click.option("--workers", type=click.IntRange(1, 128), help="Processes that relay; default: the setting.")
@_settings
def serve(settings: Settings, found: Found, workers: int | None) -> None:
    """Relay and meter until SIGTERM or Ctrl-C.

    The first lets open streams end (limits.shutdown_s), a second one ends at once.
    """
    from taximeter.config.checks import before_serving
    from taximeter.config.envfile import environment
    from taximeter.node.logs import log_to_stderr
    from taximeter.supervisor import serve as supervise

    def read() -> tuple[Settings, Path | None]:
        again, at = config.load_found(found.named)
        again.workers = workers or again.workers
        return again, at.file

    settings.workers = workers or settings.workers
    as_json = settings.log.format == "json"
    try:
        before_serving(settings, environment(settings.env_file, os.environ))
        supervise(settings, found.file, read, lambda runtime: (_log_ready if as_json else _announce)(runtime, found))
    except TaximeterError as error:
        if not as_json:
            raise
        log_to_stderr("supervisor", settings.log)
        logging.getLogger("taximeter").critical("Error: %s", error)
        sys.exit(BAD_SETTINGS if isinstance(error, ConfigError) else FAILED)


def _log_ready(runtime: Runtime, found: Found) -> None:
    """Where the log is for machines, what people are told is an entry of it."""
    from taximeter.node.logs import FIELDS

    told = {name: getattr(runtime, name) for name in ("version", "node", "listen", "admin_listen", "redis_url")}
    words = f"Taximeter {runtime.version} is ready."
    logging.getLogger("taximeter").info("%s", words, extra={FIELDS: told | {"settings": list(found.lines())}})


def _announce(runtime: Runtime, found: Found) -> None:
    where = "\n                ".join(found.lines())
    click.echo(
        f"Taximeter {runtime.version} is ready.\n"
        f"  data port     http://{runtime.listen}/v1   set OPENAI_BASE_URL to this\n"
        f"  control port  http://{runtime.admin_listen}      usage, metrics, keys, dashboard\n"
        f"  Redis         {runtime.redis_url}"
        + (f"   ({runtime.redis_url_file})" if runtime.redis_url_file else "")
        + f"\n  settings      {where}"
    )
    sys.stdout.flush()


@click.command()
@click.option(
    "--connect", is_flag=True, help="Ask each upstream as well: host, port, TLS, and GET /models with its key."
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@_settings
def check(settings: Settings, found: Found, connect: bool, as_json: bool) -> None:
    """Print the settings as understood and try what they name: data directory, ports, Redis, history, credentials.

    Each thing that is wrong is shown with where it stands and what to do. With --connect the upstreams are asked, too,
    which is free.

    Exit codes: 0 everything would work (there may be warnings), 1 something would not, 2 bad settings.
    """
    from taximeter.cli.checking import findings, understood

    told = []
    if not as_json:
        click.echo("\n".join(f"settings: {line}" for line in found.lines()))
        click.echo("\n".join(understood(settings)))
    for finding in findings(settings, found, connect=connect):
        told.append(finding)
        for line in () if as_json else finding.lines():
            echo(line)
    failed = any(finding.level == "failed" for finding in told)
    if as_json:
        import msgspec

        read = {"settings_from": found.lines(), "settings": understood(settings)}
        echo(msgspec.json.encode({"ok": not failed, "findings": told, **read}))
    if failed:
        sys.exit(FAILED)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@_settings
def status(settings: Settings, _found: Found, as_json: bool) -> None:
    """What runs on this data directory: addresses, Redis, workers, how far each sink is behind.

    Exit codes: 0 ready, 1 not ready, 3 not running.
    """
    from taximeter.node.status import show

    sys.exit(show(settings.data_dir, as_json=as_json))
