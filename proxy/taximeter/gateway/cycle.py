"""uvicorn's request cycle, leaner: head and first body leave in one write, and headers are looked at once.

Must not know what is relayed; it speaks ASGI on one side and writes HTTP/1.1 on the other.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_NO_BODY = (204, 304)
_JOINED_BYTES = 64 * 1024
"""A body up to this is joined with the head: copying is cheaper than a second system call."""


def _nothing() -> None:
    pass


class Cycle(RequestResponseCycle):
    """One request and its answer. A head waits at most until the loop's next turn for a body to go with it."""

    _head: bytes = b""
    _bodiless = False
    task: asyncio.Task[None]
    tasks: set[asyncio.Task[None]]

    async def run_asgi(self, app: Any) -> None:
        """Run the application. Where it raises, the connection is closed (or a 500 sent, if no answer had begun)."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            self.logger.error("The application failed", exc_info=error)
            await self._failed()
        else:
            if not self.response_complete and not self.disconnected:
                self.logger.error("The application returned without completing its answer")
                await self._failed()
        finally:
            self.on_response = _nothing
            self.tasks.discard(self.task)  # here, and not in a callback of the task, which costs a turn of the loop

    async def _failed(self) -> None:
        if self.response_started:
            self.transport.close()
        else:
            await self.send_500_response()

    async def send(self, message: Any) -> None:
        """ASGI's `send`. Waits only while the client reads too slowly; silent once the client has gone.

        Raises RuntimeError where the application breaks the protocol: the connection is then closed, so that a
        body can never be taken for another one's.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.response_started:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            self._send_head(message["status"], message["headers"])

    def _send_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        closes = False
        for name, value in [*self.default_headers, *headers] if self.default_headers else headers:
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"transfer-encoding":
                continue  # framing is ours
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive = False
                closes = True
            lines.append(b"%b: %b\r\n" % (name, value))
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        if self.scope["method"] == "HEAD" or status in _NO_BODY:
            self.expected_content_length = 0
            self._bodiless = True
        elif self.chunked_encoding is None:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            raise RuntimeError("a header holds a line break")
        self._head = head + b"\r\n"
        asyncio.get_running_loop().call_soon(self._flush_head)

    def _flush_head(self) -> None:
        """Nothing came to go with the head: it goes alone."""
        if self._head and not self.disconnected:
            head, self._head = self._head, b""
            self.transport.write(head)

    def _send_body(self, body: bytes, more: bool) -> None:
        if self.response_complete:
            raise RuntimeError("a body after the end of the answer")
        head, self._head = self._head, b""
        if len(body) > _JOINED_BYTES and head:
            self.transport.write(head)
            head = b""
        if self._bodiless:
            data = head
        elif self.chunked_encoding:
            last = b"" if more else b"0\r\n\r\n"
            data = b"%b%x\r\n%b\r\n%b" % (head, len(body), body, last) if body else head + last
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the body is longer than its content-length")
            data = head + body if head else body
        if data:
            self.transport.write(data)
        if not more:
            self._complete()

    def _complete(self) -> None:
        if self.expected_content_length:
            raise RuntimeError("the body is shorter than its content-length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
