"""The upstream seam on httpx2, for outbound proxies. Slower than `wire`.

Knows nothing of providers or metering. It drives httpx2's transport alone: no client, so no cookies kept from one
customer for the next, no redirects, no retries, no decoding, no environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import h11
import httpcore2
import httpx2
from h2.exceptions import H2Error
from hpack.exceptions import HPACKError
from hyperframe.exceptions import HyperframeError

from taximeter import config
from taximeter.core import loops
from taximeter.core.errors import (
    BadRequest,
    RequestError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from taximeter.gateway.upstream.dial import tls_context
from taximeter.gateway.upstream.endpoint import Address
from taximeter.gateway.upstream.opening import Kept
from taximeter.gateway.upstream.response import Response
from taximeter.server.fields import HOP_BY_HOP, named_by
from taximeter.server.keepalive import keepalive

Headers = list[tuple[bytes, bytes]]


class HttpxTransport:
    """One origin through httpx2: `settings.proxy_url`. With `settings.http2` HTTP/2 behind the proxy, as httpx2 speaks
    it: a GOAWAY cuts what runs, and nothing is sent again (`http2` has neither fault)."""

    def __init__(self, settings: config.UpstreamSettings, origin: Address, mark: bytes = b"") -> None:
        """`mark`: see `core.loops`."""
        self._mark = [(loops.HEADER, mark)] if mark else []
        self.settings = settings
        self.tasks: set[asyncio.Task[None]] = set()
        scheme, host, port = origin
        self._origin = httpx2.URL(scheme=scheme, host=host, port=port)
        tls = tls_context(settings, "http/1.1")
        if settings.http2:
            tls.set_alpn_protocols(["h2", "http/1.1"])
        self.http = httpx2.AsyncHTTPTransport(
            verify=tls,
            http1=not settings.http2 or scheme == "https",  # without TLS nothing is negotiated: prior knowledge
            http2=settings.http2,
            limits=httpx2.Limits(max_connections=settings.max_connections, keepalive_expiry=settings.keep_alive_s),
            socket_options=keepalive(settings.tcp_keepalive_s, settings.tcp_user_timeout_s),
            proxy=settings.proxy_url or None,
        )

    async def send(
        self, method: bytes, target: bytes, kept: Kept, body: bytes | AsyncIterator[bytes], length: int | None
    ) -> Response:
        """See `upstream.Transport`."""
        fields = [*kept.fields, (b"accept-encoding", b"identity"), *self._mark]
        if length is not None:
            fields.append((b"content-length", b"%d" % length))
        upload = body if isinstance(body, bytes) else _Upload(body)
        url = self._origin.copy_with(raw_path=target)
        request = httpx2.Request(method.decode("ascii"), url, headers=fields, content=upload)
        exchange = _Exchange(self, request, upload)
        return await exchange.response.head()

    async def close(self) -> None:
        """Drop every connection."""
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.http.aclose()


class _Exchange:
    """One request and its answer: a task that reads httpx2's stream into a `Response`; its `Source`."""

    def __init__(self, transport: HttpxTransport, request: httpx2.Request, upload: bytes | _Upload) -> None:
        settings = transport.settings
        self._transport = transport
        self._request = request
        self._upload = upload
        self._idle_timeout_s = settings.idle_timeout_s
        self._timeouts = {
            "connect": settings.connect_timeout_s,
            "pool": settings.connect_timeout_s,
            "write": settings.idle_timeout_s,
            "read": settings.first_byte_timeout_s,
        }
        self._sent = False
        self._readable = asyncio.Event()
        self._readable.set()
        request.extensions = {**request.extensions, "timeout": self._timeouts, "trace": self._trace}
        loop = asyncio.get_running_loop()
        self.response = Response(self)
        self._task = loop.create_task(self._run())
        self._connecting = loop.call_later(settings.connect_timeout_s, self._late)
        """httpx2 waits for a stream of HTTP/2, and for a proxy's answer to CONNECT, for much longer, or for ever."""
        transport.tasks.add(self._task)
        self._task.add_done_callback(transport.tasks.discard)

    async def _run(self) -> None:
        response = self.response
        try:
            answer = await self._transport.http.handle_async_request(self._request)
            try:
                headers = _relayable(answer.headers.raw, answer.status_code)
                response.headers, response.status = headers, answer.status_code
                response.wake()
                self._timeouts["read"] = self._idle_timeout_s
                length = dict(headers).get(b"content-length")
                left_bytes = -1 if length is None else int(length)
                async for chunk in answer.stream:  # type: ignore[union-attr]  # an async transport's is async
                    left_bytes -= len(chunk)
                    response.feed(chunk, left_bytes == 0)  # its last bytes are its end, whatever else may follow
                    await self._readable.wait()
            finally:
                await answer.aclose()
            if not response.ended:
                response.feed(b"", True)
        except asyncio.CancelledError:
            response.fail(UpstreamCut(f"Upstream {self._transport.settings.name!r}: the connection was dropped."))
            raise
        except Exception as error:  # of httpx2, or of anything it stands on: none may look like a fault of ours
            response.fail(self._failure(error))
        finally:
            self._connecting.cancel()
            self._request.extensions = {}  # `trace` holds this: together they would wait for the collector

    def _late(self) -> None:
        """Nothing of the request has left within the connect timeout."""
        if not self._sent:
            name = self._transport.settings.name
            self.response.fail(UpstreamTimeout(f"No connection to upstream {name!r} within the connect timeout."))
            self._task.cancel()

    def _failure(self, error: Exception) -> Exception:
        """What whoever waits for the answer is told: what the request's own body raised, else what `error` means."""
        raised = self._upload.raised if isinstance(self._upload, _Upload) else None
        if raised is not None:
            return raised
        failure = map_error(self._transport.settings.name, error, answered=self.response.status != 0)
        failure.__cause__ = error
        if isinstance(failure, UpstreamError):
            failure.sent = self._sent
        return failure

    async def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event.endswith("send_request_headers.started"):  # a proxy's CONNECT is not yet our request
            request = info.get("request")
            self._sent = self._sent or getattr(request, "method", b"") != b"CONNECT"

    def pause(self) -> None:
        self._readable.clear()

    def resume(self) -> None:
        self._readable.set()

    def drop(self, response: Response) -> None:
        self._task.cancel()


class _Upload:
    """A request's body, which remembers what it has raised."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self.raised: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._body:
                yield piece
        except Exception as error:
            self.raised = error
            raise


def _relayable(raw: Headers, status: int) -> Headers:
    """Lower-case names, without what belongs to the connection. Raises RemoteProtocolError on two framings."""
    headers = [(name.lower(), value) for name, value in raw]
    names = [name for name, _ in headers]
    if names.count(b"content-length") > 1 or (b"content-length" in names and b"transfer-encoding" in names):
        raise httpx2.RemoteProtocolError("Content-Length twice or beside Transfer-Encoding")
    named = {token for name, value in headers if name == b"connection" for token in named_by(value)}
    left_out = HOP_BY_HOP | (named - {b"content-type", b"content-length"})
    if status in (204, 304):
        left_out |= {b"content-length"}
    return [field for field in headers if field[0] not in left_out]


def map_error(name: str, error: Exception, *, answered: bool) -> RequestError:
    """What an error of httpx2, or of anything it stands on, means here. `answered`: the head of the answer had come."""
    shown = f"Upstream {name!r}"
    if isinstance(error, _TIMEOUTS):
        return UpstreamTimeout(f"{shown} did not answer in time.")
    if isinstance(error, _OURS):
        return BadRequest("The request cannot be relayed: it is not valid HTTP for this upstream.")
    if isinstance(error, _GARBAGE) and not _is_hang_up(_text(error)):
        return UpstreamGarbage(f"{shown} answered something that is not safe HTTP: {_text(error)}.")
    if answered:
        return UpstreamCut(f"{shown} closed the connection in the middle of its answer.")
    return UpstreamUnreachable(f"{shown} cannot be reached: {_text(error)}.")


_TIMEOUTS = (httpx2.TimeoutException, httpcore2.TimeoutException, TimeoutError)
_OURS = (httpx2.LocalProtocolError, httpx2.InvalidURL, httpcore2.LocalProtocolError, h11.LocalProtocolError)
_GARBAGE = (
    httpx2.RemoteProtocolError, httpcore2.RemoteProtocolError, h11.RemoteProtocolError, H2Error, HPACKError,
    HyperframeError,
)  # fmt: skip


def _text(error: Exception) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception:  # of a class that needs what it was not given
        return type(error).__name__


def _is_hang_up(message: str) -> bool:
    """httpx2 has one class for garbage and for a peer that leaves; only the text tells them apart."""
    marks = ("Server disconnected", "peer closed connection", "StreamReset", "ConnectionTerminated")
    return any(mark in message for mark in marks)
