"""The upgrade at the upstream: the client's own request for a WebSocket, sent on a connection of its own."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from hashlib import sha1
from typing import TYPE_CHECKING

import httptools

from taximeter.core import loops
from taximeter.core.errors import BadRequest, UpstreamCut, UpstreamGarbage, UpstreamTimeout
from taximeter.gateway.upstream.credentials import header_for
from taximeter.gateway.upstream.dial import Dialer, unreachable
from taximeter.gateway.upstream.endpoint import host_header
from taximeter.gateway.upstream.opening import origin_of
from taximeter.server.inline import in_task
from taximeter.server.keepalive import keepalive

if TYPE_CHECKING:
    from taximeter.gateway.upstream.upstreams import Upstream

Headers = list[tuple[bytes, bytes]]

REFUSAL_BYTES = 256 * 1024
"""Most that is read of an answer that is no upgrade."""
HEAD_BYTES = 64 * 1024
_OURS = frozenset((b"sec-websocket-extensions", b"sec-websocket-protocol", b"content-length"))
"""No extension is offered: what is compressed could not be read. The protocols offered are put together anew."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_as_line = b": ".join


def what_is_wrong(headers: Headers, key: bytes) -> str | None:
    """Why an answer 101 opens no WebSocket (RFC 6455 §4.2.2); `key`: that of the request. None: it does."""
    told = dict(headers)
    accept = b64encode(sha1(key.strip() + _GUID, usedforsecurity=False).digest())
    if told.get(b"upgrade", b"").strip().lower() != b"websocket" or told.get(b"sec-websocket-accept", b"") != accept:
        return "is one to something else: no `Upgrade: websocket`, or not the Sec-WebSocket-Accept of the request's key"
    if any(name == b"sec-websocket-extensions" and value.strip() for name, value in headers):
        return "uses a WebSocket extension nobody offered"
    return None


class Opened(asyncio.Protocol):
    """A connection to an upstream until its answer to the upgrade is there; then `transport` is whose it is."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.headers: Headers = []
        """Names in lower case."""
        self.body = b""
        """Of an answer that is no upgrade."""
        self.rest = b""
        """What came behind the upgrade."""
        self._parser = httptools.HttpResponseParser(self)
        self._read_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # it is a stream's

    def data_received(self, data: bytes) -> None:
        self._read_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.status, self.rest = 101, data[upgrade.args[0] :]
            self.transport.pause_reading()
            self._done(None)
        except httptools.HttpParserError:
            self._done(UpstreamGarbage("The upstream's answer to an upgrade is not valid HTTP/1.1."))
        if self._read_bytes > HEAD_BYTES + REFUSAL_BYTES:
            self._done(UpstreamGarbage("The upstream's answer to an upgrade is too long."))

    def eof_received(self) -> bool:
        self.connection_lost(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.status:
            self._done(None)  # an answer may end with its connection
        else:
            self._done(UpstreamCut("The upstream closed the connection in place of an answer to the upgrade."))

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        if self.status == 101 or self.status >= 200:
            self._done(None)
        else:  # it hints at what is to come (RFC 9110 §15.2)
            self.headers, self.status = [], 0

    def _done(self, error: Exception | None) -> None:
        if self.answered.done():
            return
        if error is None:
            self.answered.set_result(None)
        else:
            self.answered.set_exception(error)


class Opening:
    """How the upstreams of a worker are asked for WebSockets."""

    def __init__(self, mark: bytes) -> None:
        """`mark`: see `Upstreams`."""
        self._mark = mark
        self._dialers: dict[tuple[str, bool], Dialer] = {}

    async def ask(self, upstream: Upstream, path: bytes, headers: Headers, protocols: list[bytes]) -> Opened:
        """Send the client's request on; returns when its answer is there.

        Raises BadRequest, UpstreamUnreachable, UpstreamTimeout, UpstreamCut, UpstreamGarbage.
        """
        settings = upstream.settings
        if settings.proxy_url:
            raise BadRequest(f"Upstream {upstream.name!r} is reached through a proxy: no WebSocket goes there.")
        target, native = upstream.targets.of(path)
        kept = upstream.kept([field for field in headers if field[0] not in _OURS])
        if upstream.key:
            kept.append(header_for(upstream.provider, target, upstream.key))
        address = upstream.base.native_origin if native else upstream.base.origin
        lines = [b"GET %b HTTP/1.1" % target, b"host: " + host_header(address)]
        lines += [b"connection: Upgrade", b"upgrade: websocket", *map(_as_line, kept)]
        if protocols:
            lines.append(b"sec-websocket-protocol: " + b", ".join(protocols))
        if loops.gets_mark(address[1]) and self._mark:
            lines.append(b"%b: %b" % (loops.HEADER, self._mark))
        dialer = self._dialers.get((upstream.name, native))
        if dialer is None:
            dialer = self._dialers[upstream.name, native] = Dialer(
                origin_of(settings, address, "http/1.1"),
                settings.dns_lifetime_s,
                keepalive(settings.tcp_keepalive_s, settings.tcp_user_timeout_s),
            )
        await in_task()
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                opened = await dialer.dial(Opened)
        except TimeoutError:
            raise UpstreamTimeout(f"No connection to upstream {upstream.name!r} within the connect timeout.") from None
        except (OSError, UnicodeError) as error:
            raise unreachable(upstream.name, error) from error
        try:
            opened.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
            async with asyncio.timeout(settings.first_byte_timeout_s):
                await opened.answered
        except TimeoutError:
            opened.transport.abort()
            raise UpstreamTimeout(f"Upstream {upstream.name!r} did not answer the upgrade in time.") from None
        except BaseException:
            opened.transport.abort()
            raise
        return opened
