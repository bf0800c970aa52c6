"""A new connection to one origin: its addresses, which of them is fastest, TLS, and what a failure means.

Knows neither HTTP nor which connections there are (`pool`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import TypeVar

import aiohappyeyeballs
import msgspec

from taximeter import config
from taximeter.config import upstream_tls
from taximeter.core.errors import ConfigError, TooManyOpenFiles, UpstreamError, UpstreamUnreachable
from taximeter.gateway.upstream.lookup import Lookup
from taximeter.node.descriptors import OPEN_FILES

log = logging.getLogger("taximeter.upstream")

HAPPY_EYEBALLS_S = 0.25
"""RFC 8305's delay before the next address is tried beside the first."""


class Origin(msgspec.Struct, frozen=True):
    """Where a base URL leads. `host` without brackets; `tls` None: plain http."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    socket_path: str = ""
    """Of a unix socket, where it is one."""


def tls_context(settings: config.UpstreamSettings, *protocols: str) -> ssl.SSLContext:
    """Verifies certificate and host name unless told not to. `protocols`: what may be spoken, the best first (ALPN).

    Raises ConfigError where a file it names has gone bad since `check` looked.
    """
    try:
        context = upstream_tls.context_of(settings)
    except (OSError, ValueError) as error:
        raise ConfigError(f"upstream {settings.name!r}: its certificates or key cannot be read: {error}") from error
    if not settings.tls_verify:
        log.warning(
            "upstream %s: its certificate is NOT verified (tls_verify = false): whoever stands between can read and "
            "change every call, and take the credential",
            settings.name,
        )
    context.set_alpn_protocols(protocols)
    return context


P = TypeVar("P", bound=asyncio.Protocol)


class Dialer:
    """Opens connections to one origin, each with these socket options."""

    def __init__(self, origin: Origin, dns_lifetime_s: float, socket_options: Iterable[tuple[int, int, int]]) -> None:
        self._origin = origin
        self._lookup = Lookup(origin.host, origin.port, dns_lifetime_s)
        self._socket_options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *socket_options]

    async def dial(self, protocol: Callable[[], P]) -> P:
        """A protocol that is connected. Raises OSError, UnicodeError (see `unreachable`)."""
        origin, loop = self._origin, asyncio.get_running_loop()
        OPEN_FILES.check()
        if origin.socket_path:
            _, connected = await loop.create_unix_connection(protocol, origin.socket_path)
            return connected
        found = await self._lookup.addresses()
        try:
            raw = await aiohappyeyeballs.start_connection(
                found, happy_eyeballs_delay=HAPPY_EYEBALLS_S, interleave=1, loop=loop
            )
        except BaseException:
            self._lookup.doubt()
            raise
        for option in self._socket_options:
            raw.setsockopt(*option)
        name = origin.host if origin.tls is not None else None
        _, connected = await loop.create_connection(protocol, sock=raw, ssl=origin.tls, server_hostname=name)
        return connected


def unreachable(name: str, error: OSError | UnicodeError) -> UpstreamError:
    """What a failed connection attempt means for the client. UnicodeError: a host name that is none."""
    if isinstance(error, ssl.SSLError):  # its attributes are set only where OpenSSL itself raised it
        if isinstance(error, ssl.SSLCertVerificationError):
            why = getattr(error, "verify_message", "") or "verification failed"
            return UpstreamUnreachable(f"Upstream {name!r}: its certificate is not valid: {why}.")
        why = getattr(error, "reason", "") or "no reason given"
        return UpstreamUnreachable(f"Upstream {name!r}: TLS failed: {why}.")
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return UpstreamUnreachable(f"Upstream {name!r}: its host name cannot be resolved.")
    if OPEN_FILES.tell_of(error, f"No connection to upstream {name!r}"):
        return TooManyOpenFiles(
            f"Upstream {name!r}: no socket could be opened, as the limit of open files is reached.", retry_after_s=1
        )
    return UpstreamUnreachable(f"Upstream {name!r} cannot be reached: {error.strerror or error}.")
