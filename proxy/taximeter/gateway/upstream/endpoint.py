"""What an upstream's settings mean: where its URLs lead, whose key it is sent, which models are its. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import translate
from urllib.parse import urlsplit

from taximeter import config
from taximeter.config.secret import sendable
from taximeter.config.unix_urls import is_unix, split_unix
from taximeter.core.errors import ConfigError

Address = tuple[str, str, int]
"""Scheme, host and port; of a unix socket `unix`, its path and 0."""

may_be_target = re.compile(rb"/[\x21-\x22\x24-\x7e\x80-\xff]*").fullmatch
"""Whether a path and query may stand in a request line."""


def matcher(patterns: list[str]) -> Callable[[str], object]:
    """Whether a model's name matches one of the shell patterns; no pattern, no match."""
    return re.compile("|".join(map(translate, patterns)) or "(?!)").match


def host_header(origin: Address) -> bytes:
    """The Host header's value: IPv6 addresses in brackets, the scheme's own port left out; `localhost` for a socket."""
    scheme, host, port = origin
    if scheme == "unix":
        return b"localhost"
    shown = f"[{host}]" if ":" in host else host
    return (shown if port == {"http": 80, "https": 443}[scheme] else f"{shown}:{port}").encode()


def parse(settings: config.UpstreamSettings, url: str) -> tuple[Address, bytes]:
    """(scheme, host, port) and the path without its trailing slash. Raises ConfigError."""
    where = f"upstream {settings.name!r}: {url!r}"
    if is_unix(url):
        try:
            socket_path, under = split_unix(url)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
        return ("unix", socket_path, 0), _path(where, under)
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except (ValueError, UnicodeError) as error:
        raise ConfigError(f"{where} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{where} must be http://host[:port][/path] or https://…")
    if parts.username or parts.query or parts.fragment:
        raise ConfigError(f"{where} must hold no user, query or fragment; a credential goes into api_key_env")
    return (parts.scheme, host, port or (443 if parts.scheme == "https" else 80)), _path(where, parts.path)


def _path(where: str, path: str) -> bytes:
    found = path.rstrip("/").encode()
    if found and may_be_target(found) is None:
        raise ConfigError(f"{where} has a path that no request line may hold; percent-encode it")
    return found


def key_of(settings: config.UpstreamSettings, environ: Mapping[str, str]) -> bytes:
    """The operator's own credential, b"" where the settings name none. Raises ConfigError."""
    if not settings.api_key_env:
        return b""
    key = environ.get(settings.api_key_env, "").strip()
    if not key or not sendable(key):
        raise ConfigError(
            f"upstream {settings.name!r}: the environment variable {settings.api_key_env}, named by api_key_env, "
            "is not set or holds no usable key"
        )
    return key.encode()
