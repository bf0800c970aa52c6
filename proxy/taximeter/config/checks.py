"""What settings mean together. `check` holds always; `before_serving` is what `serve` alone refuses (DESIGN §10)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from taximeter.config import unix_urls
from taximeter.config.addresses import is_loopback, leads_to, masked, split
from taximeter.config.plans import plan_problems
from taximeter.config.reconciles import reconcile_problems
from taximeter.config.secret import reconcile_credential, sendable, shared_secrets
from taximeter.config.settings import RateSettings, Settings, UpstreamSettings, tls_files
from taximeter.config.watching import alert_problems, breaker_problems
from taximeter.core import origins, pricecodes, tags
from taximeter.core.errors import BadRequest, ConfigError
from taximeter.core.times import moment_us, zone

REDIS_SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")
HISTORY_SCHEMES = ("sqlite", "postgresql", "postgresql+psycopg")
WEBHOOK_PATH = "/api/v1/webhooks/knowledge/metrics"
"""Added to a webhook.url without a path (DESIGN §8)."""

_is_sha256 = re.compile(r"[0-9a-fA-F]{64}").fullmatch
_is_header = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch
_is_variable = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
_FRAMING = frozenset(
    ("authorization", "connection", "content-length", "content-type", "host", "transfer-encoding", "upgrade")
)

Origin = Callable[[str], str]
"""Path of a setting -> the file or variable it came from."""


def check(settings: Settings, origin: Origin) -> None:
    """Raises ConfigError on the first value that cannot be meant. Completes webhook.url by its default path."""

    def refuse(path: str, value: object, why: str) -> ConfigError:
        # What is no hash and no variable's name may be the secret itself, in the wrong place.
        shown = "***" if path.endswith(("sha256", "_env")) else masked(repr(value))
        return ConfigError(f"{origin(path)}: {path}: {shown} is not allowed; {why}.")

    for path, problem in _problems(settings):
        raise refuse(path, _at(settings, path), problem)
    url = settings.webhook.url
    if url and urlsplit(url).path in ("", "/"):
        settings.webhook.url = url.rstrip("/") + WEBHOOK_PATH


def before_serving(settings: Settings, environ: Mapping[str, str]) -> None:
    """Raises ConfigError where serving with these settings would be unsafe or could not work."""
    for number, upstream in enumerate(settings.upstream):
        if upstream.collect and not upstream.api_key_env:
            raise ConfigError(
                f"upstream[{number}].collect: upstream {upstream.name!r} has no credential of its own to fetch with. "
                "Set api_key_env, or leave collect out."
            )
        key = environ.get(upstream.api_key_env, "")
        if not sendable(key):
            raise _unsendable(f"upstream[{number}].api_key_env", upstream.api_key_env)
        if upstream.api_key_env and not key.strip():
            raise ConfigError(
                f"upstream[{number}].api_key_env: the environment variable {upstream.api_key_env} is not set, so "
                f"upstream {upstream.name!r} has no credential. Set it, or forward_credentials = true to send the "
                "client's own."
            )
    shared_secrets(settings.auth, environ)
    smtp = settings.smtp
    if smtp.host and smtp.password_env and not environ.get(smtp.password_env):
        raise ConfigError(f"smtp.password_env: the environment variable {smtp.password_env} is not set.")
    if smtp.host and smtp.password_file and not Path(smtp.password_file).is_file():
        raise ConfigError(f"smtp.password_file: there is no file {smtp.password_file}.")
    for number, each in enumerate(settings.reconcile):
        reconcile_credential(each, f"reconcile[{number}]", environ)
    for name in ("key_env", "previous_key_env"):
        variable = getattr(settings.evidence, name)
        if variable and not environ.get(variable):
            raise ConfigError(f"evidence.{name}: the environment variable {variable} is not set.")
    webhook = settings.webhook
    for variable, proxy in environ.items():
        if webhook.url and variable.lower() in _PROXY_VARIABLES and proxy.startswith("socks"):
            raise ConfigError(
                f"webhook.url: it would be sent through the proxy in {variable}, and SOCKS is not spoken. Unset it for "
                "Taximeter, or name an HTTP proxy in it. (Upstreams use no proxy from the environment.)"
            )
    for name in ("token_env", "secret_env"):
        variable = getattr(webhook, name)
        if webhook.url and variable and not environ.get(variable):
            raise ConfigError(f"webhook.{name}: the environment variable {variable} is not set.")
    if webhook.url and not sendable(environ.get(webhook.token_env, "")):
        raise _unsendable("webhook.token_env", webhook.token_env)
    otel = settings.otel
    if otel.endpoint and otel.headers_env and not environ.get(otel.headers_env):
        raise ConfigError(f"otel.headers_env: the environment variable {otel.headers_env} is not set.")
    if otel.endpoint and find_spec("opentelemetry") is None:
        raise ConfigError("otel.endpoint is set, but OpenTelemetry is not installed: pip install 'taximeter[otel]'")
    for export in settings.export:
        if export.to.startswith("s3://") and find_spec("obstore") is None:
            raise ConfigError(f"export.to = {export.to!r} needs obstore: pip install 'taximeter[s3]'")
        if "parquet" in export.formats and find_spec("pyarrow") is None:
            raise ConfigError("export.formats has parquet, which needs pyarrow: pip install 'taximeter[parquet]'")
    if not is_loopback(split(settings.listen)[0]) and settings.auth.mode == "open" and not _relay_allowed(settings):
        raise ConfigError(
            f"listen = {settings.listen!r} with auth.mode = 'open' would let everyone who reaches this port spend on "
            "the credential in upstream api_key_env. Set auth.mode = 'keys', listen on 127.0.0.1, use "
            "forward_credentials, or say auth.allow_open_relay = true."
        )
    if not is_loopback(split(settings.admin_listen)[0]) and not settings.auth.admin_token_sha256:
        raise ConfigError(
            f"admin_listen = {settings.admin_listen!r} without auth.admin_token_sha256 would show everyone's usage to "
            "everyone who reaches this port. Set the token's SHA-256, or listen on 127.0.0.1."
        )

    wide = [pattern for pattern in settings.cors.allowed_origins if origins.is_wide(pattern)]
    if wide and settings.auth.mode == "open" and not _relay_allowed(settings):
        raise ConfigError(
            f"cors.allowed_origins holds {wide[0]!r}, which any page on the web can be, and with auth.mode = 'open' it "
            "could spend on the credential in upstream api_key_env. Set auth.mode = 'keys', name the origins, use "
            "forward_credentials, or say auth.allow_open_relay = true."
        )


def _unsendable(path: str, variable: str) -> ConfigError:
    return ConfigError(
        f"{path}: what the environment variable {variable} holds can stand in no header: it must be printable ASCII, "
        "in one line."
    )


def _relay_allowed(settings: Settings) -> bool:
    return settings.auth.allow_open_relay or not any(upstream.api_key_env for upstream in settings.upstream)


def _at(settings: Settings, path: str) -> object:
    value: object = settings
    for key, number in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        if number:
            value = value[int(number)]  # type: ignore[index]
        elif isinstance(value, dict):
            return value.get(key)
        else:
            value = getattr(value, key)
    return value


def _problems(settings: Settings) -> Iterable[tuple[str, str]]:
    """(path, what is wrong with the value there)."""
    yield from _address_problems(settings)
    if not settings.upstream:
        yield "upstream", "at least one [[upstream]] is needed"
    names: set[str] = set()
    for number, upstream in enumerate(settings.upstream):
        path = f"upstream[{number}]"
        if upstream.name in names:
            yield f"{path}.name", "two upstreams have this name"
        names.add(upstream.name)
        yield from ((f"{path}.{key}", why) for key, why in _upstream_problems(upstream))
        yield from ((f"{path}.{key}", why) for key, why in loop_problems(upstream, settings))
    yield from _access_problems(settings)
    yield from _sink_problems(settings)
    if settings.limits.held_bytes < settings.limits.json_body_bytes:
        yield "limits.held_bytes", "it is less than limits.json_body_bytes: no such body could be read"
    yield from breaker_problems(settings)
    yield from alert_problems(settings)
    yield from plan_problems(settings)
    yield from reconcile_problems(settings)
    for number, each in enumerate(settings.reconcile):
        if each.base_url:
            path = f"reconcile[{number}].base_url"
            yield from ((path, why) for why in _url_problems(each.base_url, PROXY_SCHEMES))
    named: set[str] = set()
    for number, rate in enumerate(settings.rate):
        path = f"rate[{number}]"
        if rate.name in named:
            yield f"{path}.name", "two rates have this name"
        named.add(rate.name)
        yield from ((f"{path}.{key}", why) for key, why in _rate_problems(rate, names))
    for code in settings.price_codes.__struct_fields__:
        try:
            pricecodes.price(getattr(settings.price_codes, code))
        except ValueError as error:
            yield f"price_codes.{code}", str(error)
    for number, pattern in enumerate(settings.cors.allowed_origins):
        if why := origins.problem(pattern):
            yield f"cors.allowed_origins[{number}]", why
    for header, tag in settings.tags.headers.items():
        path = f"tags.headers.{header}"
        if not _is_header(header) or header.lower() in _FRAMING:
            yield path, "its name cannot be a tag header"
        if tag not in tags.FIELDS:
            yield path, f"a header means one of {', '.join(tags.FIELDS)}"


def _address_problems(settings: Settings) -> Iterable[tuple[str, str]]:
    for path in ("listen", "admin_listen"):
        try:
            split(getattr(settings, path))
        except ValueError as error:
            yield path, str(error)
            return
    if settings.listen == settings.admin_listen and split(settings.listen)[1]:
        yield "admin_listen", "it is the same as listen, but data and control have a port each"
    if settings.node and not tags.is_valid(settings.node):
        yield "node", _TAG
    if settings.prices_file and not Path(settings.prices_file).is_file():
        yield "prices_file", "there is no such file"


_TAG = "it must be 1-128 characters of letters, digits and . _ : @ -"


def _upstream_problems(upstream: UpstreamSettings) -> Iterable[tuple[str, str]]:
    if not tags.is_valid(upstream.name):
        yield "name", _TAG
    if upstream.workspace and not tags.is_valid(upstream.workspace):
        yield "workspace", _TAG
    if not upstream.provider:
        yield "provider", "name whose prices and conventions apply, for example openai"
    for key in ("base_url", "native_url"):
        url = getattr(upstream, key)
        if url or key == "base_url":
            yield from ((key, why) for why in _base_url_problems(url))
    yield from (("proxy_url", why) for why in _proxy_problems(upstream))
    if upstream.api_key_env and not _is_variable(upstream.api_key_env):
        yield "api_key_env", "it must be the name of an environment variable, not the key itself"
    if upstream.api_key_env and upstream.forward_credentials:
        yield "forward_credentials", "with api_key_env set, that credential is sent; never both"
    if not upstream.models or "" in upstream.models:
        yield "models", 'give model names or patterns, for example ["gpt-*"]; ["*"] for all'
    if any(tls_files(upstream)):
        from taximeter.config import upstream_tls  # 20 ms, for who has such a file

        yield from upstream_tls.problems(upstream)


def _base_url_problems(url: str) -> Iterable[str]:
    if unix_urls.is_unix(url):
        try:
            unix_urls.split_unix(url)
        except ValueError as error:
            yield str(error)
    else:
        yield from (
            why + (f", or {unix_urls.FORM}" if "http://" in why else "") for why in _url_problems(url, PROXY_SCHEMES)
        )


def _proxy_problems(upstream: UpstreamSettings) -> Iterable[str]:
    url = upstream.proxy_url
    if url.startswith("socks"):
        yield "SOCKS is not spoken; it must be an HTTP proxy: http:// or https://"
    elif url:
        yield from _url_problems(url, PROXY_SCHEMES, userinfo=True)
    if url and any(map(unix_urls.is_unix, (upstream.base_url, upstream.native_url))):
        yield "no proxy leads to a unix socket"


def loop_problems(
    upstream: UpstreamSettings, settings: Settings, resolved: Callable[[str], Iterable[str]] = lambda _: ()
) -> Iterable[tuple[str, str]]:
    """Where an upstream's URLs lead back to a port of ours. `resolved`: a host's addresses, where they may be asked.

    What cannot be seen here (another name, a load balancer) is found out by a call's mark after one round.
    """
    if upstream.proxy_url:
        return  # seen from there
    for key in ("base_url", "native_url"):
        url = getattr(upstream, key)
        for listen in ("listen", "admin_listen"):
            if url and leads_to(url, getattr(settings, listen), resolved(urlsplit(url).hostname or "")):
                yield key, f"it leads back to Taximeter itself, which listens there ({listen})"


def _rate_problems(rate: RateSettings, upstreams: set[str]) -> Iterable[tuple[str, str]]:
    if not tags.is_valid(rate.name):
        yield "name", _TAG
    for key in ("workspace", "key", "task", "track", "document", "end_user"):
        value = getattr(rate, key)
        if value != "*" and (value or key == "workspace") and not tags.is_valid(value):
            yield key, f"{_TAG}, or * for each"
    if rate.upstream not in ("", "*", *upstreams):
        yield "upstream", f"name one of {', '.join(sorted(upstreams))}, or * for each"
    if not (rate.requests_per_minute or rate.tokens_per_minute or rate.concurrent):
        yield (
            "requests_per_minute",
            "say requests_per_minute, tokens_per_minute or concurrent: this rate limits nothing",
        )


PROXY_SCHEMES = ("http", "https")


def _url_problems(url: str, schemes: tuple[str, ...], *, userinfo: bool = False) -> Iterable[str]:
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        yield f"it is not a URL: {error}"
        return
    if parts.scheme not in schemes or not host:
        yield f"it must be a URL that starts with {' or '.join(f'{scheme}://' for scheme in schemes)} and names a host"
    elif (parts.username or parts.password) and not userinfo:
        yield "a credential does not belong in this URL"
    elif parts.query or parts.fragment or re.search(r"[\x00-\x20\x7f]", url):
        yield "it must have no ?query, #fragment or blanks"


def _access_problems(settings: Settings) -> Iterable[tuple[str, str]]:
    auth = settings.auth
    if auth.admin_token_sha256 and not _is_sha256(auth.admin_token_sha256):
        yield "auth.admin_token_sha256", _SHA256
    if auth.shared_secret_env and not _is_variable(auth.shared_secret_env):
        yield "auth.shared_secret_env", "it must be the name of an environment variable, not the secret itself"
    if auth.shared_secret_env and auth.shared_secret_file:
        yield "auth.shared_secret_file", "with shared_secret_env set, the secret comes from there; never both"
    evidence = settings.evidence
    for name in ("key", "previous_key"):
        variable = getattr(evidence, f"{name}_env")
        if variable and not _is_variable(variable):
            yield f"evidence.{name}_env", "it must be the name of an environment variable, not the key itself"
        if variable and getattr(evidence, f"{name}_file"):
            yield f"evidence.{name}_file", f"with {name}_env set, the key comes from there; never both"
    ids: set[str] = set()
    hashes: set[str] = set()
    for number, key in enumerate(auth.keys):
        path = f"auth.keys[{number}]"
        if not tags.is_valid(key.id):
            yield f"{path}.id", _TAG
        if key.id in ids:
            yield f"{path}.id", "two keys have this id"
        if not _is_sha256(key.sha256):
            yield f"{path}.sha256", _SHA256
        if key.sha256.lower() in hashes:
            yield f"{path}.sha256", "two entries hold the same key"
        if not tags.is_valid(key.workspace):
            yield f"{path}.workspace", _TAG
        if key.expires:
            try:
                moment_us(key.expires, zone("UTC"), "it")
            except BadRequest as error:
                yield f"{path}.expires", str(error)
        ids.add(key.id)
        hashes.add(key.sha256.lower())


_SHA256 = 'it must be a SHA-256 as 64 hexadecimal digits (printf %s "$TOKEN" | sha256sum)'


def _sink_problems(settings: Settings) -> Iterable[tuple[str, str]]:
    url = settings.redis.url
    if url and urlsplit(url).scheme not in REDIS_SCHEMES:
        yield "redis.url", f"it must start with one of {', '.join(f'{scheme}://' for scheme in REDIS_SCHEMES)}"
    for workspace in settings.redis.split:
        if not tags.is_valid(workspace):
            yield "redis.split", f"{workspace[:128]!r} is no workspace: {_TAG}"
    url = settings.history.url
    if url and (urlsplit(url).scheme not in HISTORY_SCHEMES or (url.startswith("sqlite") and url[:10] != "sqlite:///")):
        yield "history.url", "it must be sqlite:///path or postgresql://user@host/database"
    webhook = settings.webhook
    if webhook.url:
        yield from (("webhook.url", why) for why in _url_problems(webhook.url, ("http", "https")))
    for name in ("token_env", "secret_env"):
        if getattr(webhook, name) and not _is_variable(getattr(webhook, name)):
            yield f"webhook.{name}", "it must be the name of an environment variable, not the secret itself"
    otel = settings.otel
    if otel.endpoint:
        yield from (("otel.endpoint", why) for why in _url_problems(otel.endpoint, ("http", "https")))
    for number, export in enumerate(settings.export):
        path = f"export[{number}]"
        if not export.to.strip() or export.to.rstrip("/") == "s3:":
            yield f"{path}.to", "it must be a folder, or s3://bucket/prefix"
        elif "://" in export.to and not export.to.startswith("s3://"):
            yield f"{path}.to", "it must be a folder, or s3://bucket/prefix; other addresses are not known"
        if not export.formats:
            yield f"{path}.formats", "it names no format: any of csv, jsonl, parquet, focus"
    if otel.headers_env and not _is_variable(otel.headers_env):
        yield "otel.headers_env", "it must be the name of an environment variable, not the headers themselves"
