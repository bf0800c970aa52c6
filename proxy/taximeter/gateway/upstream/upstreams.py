"""The upstreams a worker sends to: which one, which path, which headers and credential; and the seam `send` → Response.

Knows nothing of sockets (`wire`, `pool`; `http2` for HTTP/2, `httpx_client` for outbound proxies) nor of metering.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from taximeter import config
from taximeter.core import loops, routes
from taximeter.core.errors import NotFound
from taximeter.core.origins import is_preflight
from taximeter.core.tags import TAG_HEADERS
from taximeter.gateway.upstream import credentials
from taximeter.gateway.upstream.asked import UsageAsked
from taximeter.gateway.upstream.endpoint import Address, host_header, key_of, matcher
from taximeter.gateway.upstream.opening import Body, Headers, Kept, Transport, pool_of
from taximeter.gateway.upstream.pool import Pool
from taximeter.gateway.upstream.response import Response
from taximeter.gateway.upstream.shapes import foreign, told
from taximeter.gateway.upstream.targets import Base, Targets
from taximeter.gateway.upstream.upload import length_of
from taximeter.server.client import Then, at_once
from taximeter.server.fields import HOP_BY_HOP, named_by

if TYPE_CHECKING:
    from taximeter.gateway.upstream.wire import WireConnection

__all__ = ["Response", "Upstream", "Upstreams"]

_REBUILT = frozenset({b"host", b"content-length", b"accept-encoding", b"expect"})
_ORDINARY_CONNECTION = frozenset({b"keep-alive", b"close"})
_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})
_NO_HEAD: Mapping[bytes, bytes] = {}
_CACHED_MODELS = 4096


class Upstream:
    """One configured provider endpoint."""

    def __init__(
        self,
        settings: config.UpstreamSettings,
        drop: frozenset[bytes],
        environ: Mapping[str, str],
        then: Then = at_once,
        screen: credentials.Screen | None = None,
        mark: bytes = b"",
    ) -> None:
        """`mark`: see Upstreams."""
        self.first = True
        """Calls that name neither it nor a model come here."""
        self._screen = screen or credentials.Screen()
        self.settings = settings
        self.name = settings.name
        self.provider = settings.provider
        self.region = routes.region_in(settings.base_url.encode())
        self.usage = UsageAsked(settings.stream_usage)
        self.key = key_of(settings, environ)
        self._forward = settings.forward_credentials and not self.key
        withheld = drop if self._forward else drop | credentials.HEADERS
        self._skip = HOP_BY_HOP | _REBUILT | withheld
        self.base = base = Base.of_settings(settings)
        self.targets = Targets(base, self._screen, settings.provider, forward=self._forward)
        self._transport = transport = _transport(settings, base.origin, then, mark)
        self._native_transport = (
            transport if base.native_origin == base.origin else _transport(settings, base.native_origin, then, mark)
        )
        if not (loops.gets_mark(base.origin[1]) and loops.gets_mark(base.native_origin[1])):
            self._skip |= {loops.HEADER}

    def send(
        self, method: bytes, path: bytes, headers: Headers, body: Body, memo: dict[object, Any] | None = None
    ) -> Awaitable[Response]:
        """Send a request as the client made it; await the head of its answer.

        `path` is what follows the tags, with its query. `headers` have lower-case names; hop-by-hop ones, those
        `Connection` names, tags and credentials that are not the upstream's are left out. Host, framing and
        `accept-encoding: identity` are ours. A body that streams keeps the client's content-length, or is chunked.
        Redirects are answers like any other. `memo`: of method, path and headers (`Exchange.memo`).

        Raises BadRequest (nothing sent), UpstreamUnreachable, UpstreamTimeout, UpstreamGarbage; what `body` raises.
        """
        target, native = self.targets.known.get(path) or self.targets.of(path)
        kept: Kept | None = None if memo is None else memo.get(self)
        if kept is None:
            kept = Kept(self.kept(headers))
            if self.key and (method != b"OPTIONS" or not is_preflight(dict(headers))):
                kept.fields.append(credentials.header_for(self.provider, target, self.key))
            if memo is not None:
                memo[self] = kept
        length = None if isinstance(body, bytes) else length_of(headers)
        transport = self._native_transport if native else self._transport
        return transport.send(method, target, kept, body, length)

    def withhold(self, names: frozenset[bytes]) -> None:
        """These headers do not go on."""
        self._skip |= names

    async def close(self) -> None:
        """Drop every connection."""
        await self._transport.close()
        await self._native_transport.close()

    def kept(self, headers: Headers) -> Headers:
        """What of the client's headers goes on, in one pass."""
        skip, screen, kept = self._skip, self._screen, []
        for field in headers:
            name, value = field
            if name in skip:
                if name == b"connection" and value.lower() not in _ORDINARY_CONNECTION:
                    skip = skip | named_by(value)
                elif name == loops.HEADER and (left := loops.without_marks(value)):
                    kept.append((name, left))
            elif credentials.PROXY_KEY not in value and (
                name not in credentials.LOOKED_INTO or (name == b"authorization" and value.startswith(screen.others))
            ):
                kept.append(field)
            elif (let := screen.header(name, value)) is not None:
                kept.append(field if let is value else (name, let))
        return kept if skip is self._skip else [field for field in kept if field[0] not in skip - {loops.HEADER}]


class Upstreams:
    """All upstreams of a worker, in the order of the configuration."""

    def __init__(
        self,
        settings: Iterable[config.UpstreamSettings],
        *,
        drop: frozenset[bytes] = frozenset(TAG_HEADERS),
        environ: Mapping[str, str] = os.environ,
        then: Then = at_once,
        admin_token_sha256: str = "",
        mark: bytes = b"",
    ) -> None:
        """`drop`: lower-case header names that never reach an upstream (tags, proxy keys). `then`: how it leaves.
        `admin_token_sha256`: of a token that never reaches one either. `mark`: what upstreams that may lead back here
        are told (`core.loops`).

        Raises ConfigError on a base URL or credential that cannot be used.
        """
        screen = credentials.Screen(admin_token_sha256)
        self.mark = mark
        self.all = [Upstream(one, drop, environ, then, screen, mark) for one in settings]
        for other in self.all[1:]:
            other.first = False
        for one in self.all:
            one.withhold(foreign(one.provider, one.base.origin[1], [each.provider for each in self.all]))
        self._by_name = {one.name: one for one in self.all}
        self._patterns = [(matcher(u.settings.models), u) for u in self.all]
        self._by_model: dict[str, Upstream] = {}

    def choose(
        self, name: str | None, model: str | None, head: Mapping[bytes, bytes] = _NO_HEAD, path: bytes = b""
    ) -> Upstream:
        """The named one, else the first whose `models` match, or that fits a call without a model, else the first.

        Raises NotFound on an unknown name.
        """
        if name is not None:
            named = self._by_name.get(name)
            if named is None:
                raise NotFound(f"No upstream is called {name!r}.", param="upstream")
            return named
        if model is None:
            return self._without_model(head, path)
        chosen = self._by_model.get(model)
        if chosen is None:
            chosen = next((one for match, one in self._patterns if match(model)), self.all[0])
            if len(self._by_model) < _CACHED_MODELS:  # clients name models, so the memory of them is bounded
                self._by_model[model] = chosen
        return chosen

    def _without_model(self, head: Mapping[bytes, bytes], path: bytes) -> Upstream:
        """The first of the provider that a call's credential or its path is of, else the first."""
        for providers in told(head, path) if len(self.all) > 1 else ():
            for one in self.all:
                if one.provider in providers:
                    return one
        return self.all[0]

    async def close(self) -> None:
        """Drop every connection."""
        for one in self.all:
            await one.close()


class WireTransport:
    """HTTP/1.1 over `wire`."""

    def __init__(self, pool: Pool, host: bytes, mark: bytes = b"") -> None:
        self.pool = pool
        self._static = b" HTTP/1.1\r\nhost: " + host + b"\r\naccept-encoding: identity\r\n"
        if mark:
            self._static += b"%b: %b\r\n" % (loops.HEADER, mark)

    def send(self, method: bytes, target: bytes, kept: Kept, body: Body, length: int | None) -> Awaitable[Response]:
        """See `Transport`."""
        begins = kept.begins
        if not begins:
            begins = kept.begins = b"%b %b%b%b" % (method, target, self._static, kept.lines())
        if isinstance(body, bytes):
            framed = bool(body) or method in _WITH_BODY
            head = b"%bcontent-length: %d\r\n\r\n" % (begins, len(body)) if framed else begins + b"\r\n"
        elif length is None:
            head = begins + b"transfer-encoding: chunked\r\n\r\n"
        else:
            head = b"%bcontent-length: %d\r\n\r\n" % (begins, length)
        connection = self.pool.take()
        if connection is None:
            return self._send_anew(head, body, length, method == b"HEAD")
        return _send(connection, head, body, length, method == b"HEAD").head()

    async def _send_anew(self, head: bytes, body: Body, length: int | None, head_only: bool) -> Response:
        return await _send(await self.pool.connect(), head, body, length, head_only).head()

    async def close(self) -> None:
        await self.pool.close()


def _send(connection: WireConnection, head: bytes, body: Body, length: int | None, head_only: bool) -> Response:
    if isinstance(body, bytes):
        return connection.send(head, body, head_only)
    return connection.send_streamed(head, body, length, head_only)


def _transport(settings: config.UpstreamSettings, origin: Address, then: Then, mark: bytes) -> Transport:
    mark = mark if loops.gets_mark(origin[1]) else b""

    def http1() -> Transport:
        return WireTransport(pool_of(settings, origin, then), host_header(origin), mark)

    if settings.proxy_url:
        from taximeter.gateway.upstream.httpx_client import HttpxTransport  # 60 ms of imports that few need

        return HttpxTransport(settings, origin, mark)
    if settings.http2:
        from taximeter.gateway.upstream.http2 import Http2Transport

        return Http2Transport(settings, origin, then, http1, mark)
    return http1()
