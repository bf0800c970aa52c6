"""What `taximeter check` tries: each thing that the settings name, and what was found."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from taximeter.cli.check_sinks import history_troubles, redis_troubles, split_troubles, sqlite_troubles
from taximeter.cli.check_upstreams import (
    base_trouble,
    known_providers,
    provider_trouble,
    resolved,
    tls_trouble,
    upstream_troubles,
)
from taximeter.cli.findings import Finding, Trouble
from taximeter.config import EvidenceSettings, Section, Settings
from taximeter.config.addresses import masked
from taximeter.config.checks import before_serving, loop_problems
from taximeter.config.envfile import environment
from taximeter.config.found import Found
from taximeter.core.errors import ConfigError, TaximeterError
from taximeter.node.datadir import Runtime, read_runtime

AT_ONCE = 16
"""Upstreams asked together."""

DO_DIRECTORY = "name a directory that the user who runs Taximeter may write, or give that user the right"
DO_PORT = "stop what has it, or set an address of this machine with a free port"
DO_PRICES = "mend the file or variable that is named; docs/operations.md, Prices, says what stands in it"
DO_KEY = "make one with `taximeter evidence keygen FILE`, and let the user who runs Taximeter read it"
DO_MAIL = "see that host, port and security are the mail server's, that it may be reached from here, and who logs in"


def understood(settings: Settings) -> list[str]:
    """The settings in force as `path = value` lines, defaults included, secrets masked."""
    return list(_lines(settings, ""))


def _lines(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Section):
        for name in value.__struct_fields__:
            yield from _lines(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], Section):
        for number, item in enumerate(value):
            yield from _lines(item, f"{path}[{number}]")
    else:
        yield f"{path} = {repr('***') if path.endswith('sha256') and value else masked(repr(value))}"


def findings(settings: Settings, found: Found, *, connect: bool) -> Iterator[Finding]:
    """Try everything; slow things (a database that does not answer) are bounded by a few seconds each.

    `connect`: ask the upstreams as well.
    """
    environ = environment(settings.env_file, os.environ)
    running = read_runtime(Path(settings.data_dir))
    tried: list[tuple[str, str, Callable[[], Iterable[Trouble]], str]] = [
        ("safe to serve, credentials there", "", lambda: _tried(_try_serving, settings, environ), ""),
        (_admin(settings), "", lambda: (), ""),
        (
            f"data directory {Path(settings.data_dir).absolute()}",
            "data_dir",
            lambda: _tried(_try_directory, Path(settings.data_dir)),
            DO_DIRECTORY,
        ),
        (
            f"data port {settings.listen}",
            "listen",
            lambda: _tried(_try_port, "listen", settings.listen, running),
            DO_PORT,
        ),
        (
            f"control port {settings.admin_listen}",
            "admin_listen",
            lambda: _tried(_try_port, "admin_listen", settings.admin_listen, running),
            DO_PORT,
        ),
        (f"Redis {masked(settings.redis.url) or 'embedded Valkey'}", "redis.url", lambda: _redis(settings), ""),
        (
            f"history {masked(settings.history.url) or 'SQLite in the data directory'}",
            "history.url",
            lambda: _history(settings),
            "",
        ),
        ("prices", "prices_file", lambda: _tried(_try_prices, settings, environ), DO_PRICES),
    ]
    if settings.limits.websocket_sessions:
        tried.append(("WebSockets", "limits.websocket_sessions", lambda: _open_files(settings), ""))
    if settings.evidence != EvidenceSettings():
        keys = lambda: _tried(_try_keys, settings, environ)  # noqa: E731
        setting = f"evidence.{'key_env' if settings.evidence.key_env else 'key_file'}"
        tried.append(("the key that signs evidence", setting, keys, DO_KEY))
    if settings.smtp.host:
        mail = f"mail server {settings.smtp.host}:{settings.smtp.port}"
        tried.append((mail, "smtp.host", lambda: _tried(_try_mail, settings, environ), DO_MAIL))
    for what, setting, attempt, do in tried:
        yield from _told(what, setting, list(attempt()), found, do)
    yield from _exports(settings, environ, found, connect=connect)
    yield from _providers(settings, found)
    yield from _compared(settings, environ, found)
    yield from _conventions(settings, environ, found)
    if connect:
        yield from _upstreams(settings, environ, found)
        yield from _reconciles(settings, environ, found)


def _told(what: str, setting: str, troubles: list[Trouble], found: Found, do: str = "") -> Iterator[Finding]:
    """One line where all is well, else one for each trouble. `do`: what to do where the trouble does not say."""
    for trouble in troubles or [Trouble("", level="ok")]:
        at = trouble.setting or setting
        yield Finding(
            level=trouble.level,
            what=what,
            problem=str(trouble),
            setting=at,
            where=found.where(at) if at else "",
            do=trouble.do or (do if trouble.level != "ok" else ""),
        )


def _tried(act: Callable[..., object], *args: object) -> Iterator[Trouble]:
    try:
        act(*args)
    except (TaximeterError, OSError) as error:
        yield Trouble(str(error))


def _open_files(settings: Settings) -> Iterator[Trouble]:
    sessions, hard = settings.limits.websocket_sessions, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and 2 * sessions > hard:
        yield Trouble(
            f"{sessions} sessions in a worker need {2 * sessions} sockets, and a process may have {hard} files open",
            do="raise the hard limit (LimitNOFILE=, `ulimit -Hn`, --ulimit nofile=…), or allow fewer",
            level="warning",
        )


def _providers(settings: Settings, found: Found) -> Iterator[Finding]:
    known = known_providers(settings)
    for number, upstream in enumerate(settings.upstream):
        trouble = provider_trouble(upstream, known)
        if trouble is not None:
            what, setting = f"provider of upstream {upstream.name}", f"upstream[{number}].provider"
            yield from _told(what, setting, [trouble], found)
        trouble = base_trouble(upstream)
        if trouble is not None:
            yield from _told(f"base URL of upstream {upstream.name}", f"upstream[{number}].base_url", [trouble], found)
        trouble = tls_trouble(upstream)
        if trouble is not None:
            yield from _told(f"TLS to upstream {upstream.name}", f"upstream[{number}].tls_verify", [trouble], found)


def _upstreams(settings: Settings, environ: dict[str, str], found: Found) -> Iterator[Finding]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = pool.map(lambda upstream: list(upstream_troubles(upstream, environ)), settings.upstream)
        for number, (upstream, troubles) in enumerate(zip(settings.upstream, asked, strict=True)):
            for trouble in troubles:
                trouble.setting = f"upstream[{number}].{trouble.setting or 'base_url'}"
            what = f"upstream {upstream.name} {masked(upstream.base_url)}"
            yield from _told(what, f"upstream[{number}].base_url", troubles, found)


def _exports(settings: Settings, environ: dict[str, str], found: Found, *, connect: bool) -> Iterator[Finding]:
    """Whether files by month can be put where they are to go; a bucket is asked with --connect alone."""
    from taximeter.exports.places import S3, place

    for number, export in enumerate(settings.export):
        bucket = export.to.startswith(S3)
        if not bucket:
            troubles = list(_tried(_try_directory, Path(export.to)))
        elif connect:
            troubles = list(_tried(lambda to: place(to, environ).get("taximeter-check"), export.to))
        else:
            continue
        do = "AWS_… in the environment says with whose rights, and where" if bucket else DO_DIRECTORY
        yield from _told(f"export to {export.to}", f"export[{number}].to", troubles, found, do)


def _compared(settings: Settings, environ: dict[str, str], found: Found) -> Iterator[Finding]:
    """Comparisons that would work, but probably not as they are meant."""
    if not settings.reconcile:
        return
    from taximeter.cli.check_reconciles import doubts

    for number, each in enumerate(settings.reconcile):
        for trouble in doubts(each, f"reconcile[{number}]", settings, environ):
            yield from _told(f"reconcile {each.name}", f"reconcile[{number}]", [trouble], found)


def _conventions(settings: Settings, environ: dict[str, str], found: Found) -> Iterator[Finding]:
    """Versions of OpenTelemetry's names that were asked for with a word that none has."""
    if not settings.otel.endpoint:
        return
    from taximeter.sinks.otel import convention

    for word in convention.unread(environ.get(convention.OPT_IN, "")):
        trouble = Trouble(
            f"it has {word[:80]!r}, which asks for nothing: the names are those of {convention.EARLIER}",
            do="gen_ai_latest_experimental asks for the new ones, gen_ai_latest_experimental/dup for both",
            level="warning",
        )
        yield from _told(convention.OPT_IN, "otel.endpoint", [trouble], found)


def _reconciles(settings: Settings, environ: dict[str, str], found: Found) -> Iterator[Finding]:
    """Whether each provider that is compared with lets us ask."""
    if not settings.reconcile:
        return
    from taximeter.cli.check_reconciles import reconcile_troubles

    for number, troubles in enumerate(reconcile_troubles(settings, environ)):
        each = settings.reconcile[number]
        setting = f"reconcile[{number}].{'path' if each.kind == 'file' else 'base_url'}"
        yield from _told(f"reconcile {each.name} ({each.kind})", setting, troubles, found)


def _try_serving(settings: Settings, environ: dict[str, str]) -> None:
    before_serving(settings, environ)
    for number, upstream in enumerate(settings.upstream):
        for key, why in loop_problems(upstream, settings, resolved):
            raise ConfigError(f"upstream[{number}].{key}: {getattr(upstream, key)!r} is not allowed; {why}.")


def _admin(settings: Settings) -> str:
    from taximeter.control.door.trust import admin_is

    return admin_is(settings)


def _redis(settings: Settings) -> Iterator[Trouble]:
    yield from split_troubles(settings)
    if settings.redis.url:
        yield from redis_troubles(settings)
        return
    from taximeter.node.embedded_valkey import binary

    yield from _tried(binary)


def _history(settings: Settings) -> Iterator[Trouble]:
    url = settings.history.url
    if url and not url.startswith("sqlite"):
        yield from history_troubles(settings)
        return
    file = Path(url.removeprefix("sqlite:///")) if url else Path(settings.data_dir) / "history.db"
    if url and not file.parent.is_dir():  # the data directory is made by a start
        yield Trouble(f"there is no directory {file.parent}", do="make it: no record reaches a history that has none")
    else:
        yield from sqlite_troubles(file)


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


def _try_mail(settings: Settings, environ: dict[str, str]) -> None:
    """Connect, and log in; nothing is sent."""
    from taximeter.alerts.mail import Mailer, password

    Mailer(settings.smtp, password(settings.smtp, environ), "").try_out()


def _try_keys(settings: Settings, environ: dict[str, str]) -> None:
    from taximeter.evidence.keys import signers

    signers(settings.evidence, environ)


def _try_prices(settings: Settings, environ: dict[str, str]) -> None:
    from taximeter.pricebook.compile import env_cards, own_file
    from taximeter.pricebook.listed import read_prices

    env_cards(environ)
    file = own_file(settings)
    if file:
        read_prices(file)
