"""The syntax of HTTP/1.1 requests: bytes in; heads, pieces of bodies and their ends out; or why they are refused.

Pure; `connection` adds the socket. llhttp itself refuses bare LF, obs-fold, bad field names, a doubled or bad
Content-Length and one beside Transfer-Encoding. What it lets pass is guarded here: other methods, versions, targets and
transfer codings, missing or doubled hosts, sizes, offered upgrades (whose body it drops) and trailers.
"""

from __future__ import annotations

from functools import partial

import httptools

from taximeter.core.errors import BadRequest, PayloadTooLarge, RequestError
from taximeter.server.fields import asks_for_websocket, without_upgrade
from taximeter.server.head import Head
from taximeter.server.judging import judged
from taximeter.server.raw_target import encoded, path_of
from taximeter.server.repeated import TRIES, Heads, Repeated

END = b""
"""The event that a request's body is complete; a piece of it is never empty."""


class _Stop(Exception):
    """Raised in a parser callback to stop the parser at that byte."""


class RequestFraming:
    """Reads requests one after another. After `feed`, take what is in `events` out of it, then look at `refusal`."""

    __slots__ = (
        "_between", "_codings", "_continue", "_head_bytes", "_headers", "_heads", "_hosts", "_max_bytes", "_max_fields",
        "_odd_coding", "_parser", "_read_bytes", "_repeated", "_target", "_tries", "_websockets", "events", "in_head",
        "on_body", "on_message_complete", "on_url", "refusal", "rest",
    )  # fmt: skip

    def __init__(self, head_bytes: int, head_fields: int, websockets: bool = False, heads: Heads | None = None) -> None:
        """At most so many bytes and fields in a head. `websockets`: they may be asked for. `heads`: known ones."""
        self._heads = heads
        self._repeated: Repeated | None = None if heads is None else heads.latest
        """The head that is expected to come again."""
        self._tries = TRIES
        self._between = True
        """No message has begun that is not complete: what comes now is the first of one, or nothing at all."""
        self._websockets = websockets
        self.rest: bytes | None = None
        """What came behind a request for a WebSocket; then nothing may be fed any more."""
        self._max_bytes = head_bytes
        self._max_fields = head_fields
        self.events: list[Head | bytes] = []
        """Heads, pieces of bodies and END, in the order in which they came."""
        self.refusal: RequestError | None = None
        """Why nothing behind the events can be read; for good."""
        self.in_head = False
        """A head has begun and is not complete."""
        self._head_bytes = 0
        """Of an unfinished head, in earlier reads."""
        self._read_bytes = 0
        """Upper bound of the size of a head that ends in the current read."""
        self._target: list[bytes] = []
        self.on_body = self.events.append  # straight from the parser into the list, without a Python frame
        self.on_message_complete = partial(self.events.append, END)
        self.on_url = self._target.append
        self._parser = self._new_parser()

    def again(self, data: bytes) -> tuple[Head, bytes] | None:
        """Head and body, where what came is just one request whose head came before; None: it has to be fed."""
        read = self._repeated.read(data) if self._between and self._repeated is not None else None
        if read is not None:
            self._tries = TRIES
        return read

    def feed(self, data: bytes) -> None:
        """Parse what came."""
        begun = self._between
        self._parse(data)
        events = self.events
        self._between = bool(events) and events[-1] is END and not self.in_head
        if begun and self._between and self._heads is not None and self._tries:
            self._learn(self._heads, data)

    def _learn(self, heads: Heads, data: bytes) -> None:
        """Expect the request that was read to come again, if all that came was one with its body."""
        if len(self.events) != 3 or self._codings or self._read_bytes + 12 > self._max_bytes:
            return  # with a longer body's length the head might be too large
        head, body, _ = self.events
        if isinstance(head, Head) and isinstance(body, bytes) and len(body) <= heads.body_bytes:
            self._tries -= 1
            self._repeated = heads.remember(head, data[: len(data) - len(body)]) or self._repeated

    def _parse(self, data: bytes) -> None:
        self._read_bytes = self._head_bytes + len(data)
        begun = self.in_head
        try:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._go_on_without_upgrade(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserInvalidURLError:
            self._go_on_with_raw_target(data, begun)
        except httptools.HttpParserError:
            if self.refusal is None:
                self.refusal = BadRequest("The request is not valid HTTP/1.1.")
        if self.in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._max_bytes and self.refusal is None:
                self.refusal = self._too_large()

    def end(self) -> None:
        """Nothing will be read any more: let go of the parser, which holds this in turn (a worker seldom collects)."""
        del self._parser

    # What the parser calls.

    def on_message_begin(self) -> None:
        self.in_head = True
        self._target.clear()
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = self._hosts = self._codings = 0
        self._odd_coding = self._continue = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_head:
            return  # a chunk trailer: it must not become a header after the headers were judged
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            self._codings += 1
            self._odd_coding = self._codings > 1 or value.strip(b" \t").lower() != b"chunked"
        elif name == b"expect" and value.lower() == b"100-continue":
            self._continue = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.in_head = False
        parser, target = self._parser, b"".join(self._target)
        if target[:1] != b"/":
            target = path_of(target, self._headers)
        method, version = parser.get_method(), parser.get_http_version()
        self.refusal = self._judge(method, target, version)
        if self.refusal is not None:
            raise _Stop
        if parser.should_upgrade():  # the parser ends here, as if there were no body; see `_upgrade`
            if self._websockets and method == b"GET" and version == "1.1" and asks_for_websocket(self._headers):
                self.events.append(Head(method, target, self._headers, version, False, False, True))
                self.rest = b""
            return
        current = version == "1.1"
        keep_alive = current and parser.should_keep_alive()
        if not keep_alive:
            self._repeated = self._heads = None  # the parser drops what follows
        self.events.append(Head(method, target, self._headers, version, keep_alive, current and self._continue))

    # The rules.

    def _judge(self, method: bytes, target: bytes, version: str) -> RequestError | None:
        wrong = judged(method, target, version, self._hosts, self._codings, odd_coding=self._odd_coding)
        if wrong is not None:
            return wrong
        limit = self._max_bytes
        if len(self._headers) > self._max_fields or (
            self._read_bytes > limit
            and len(target) + sum([len(name) + len(value) + 4 for name, value in self._headers]) > limit
        ):
            return self._too_large()
        return None

    def _too_large(self) -> RequestError:
        return PayloadTooLarge(f"The head is over {self._max_bytes} bytes or {self._max_fields} header fields.")

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # What is pipelined behind a request that closes must not make a fault of that request; `connection` drops it.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _go_on_with_raw_target(self, data: bytes, begun: bool) -> None:
        """Read a target again that is not encoded (`raw_target`), if its request is the first in what has come: where
        another one begins is not known. `begun`: its line had begun before."""
        before = (self._parser.get_method(), b"".join(self._target)) if begun else None
        again = None if self.events else encoded(data, before)
        self._parser = self._new_parser()
        try:
            if again is None:
                raise httptools.HttpParserError
            self._parser.feed_data(again)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(memoryview(again or b"")[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.refusal = self.refusal or BadRequest("The request is not valid HTTP/1.1.")

    def _go_on_without_upgrade(self, rest: memoryview) -> None:
        """Read a request that offers an upgrade (Java's HttpClient offers h2c) as if it had not, body included.

        `rest` is what follows its head; requests pipelined there may offer one too. Each round takes a head off it,
        and the head that is read again offers nothing. Raises HttpParserError.
        """
        while self.rest is None:
            self.events.pop()  # the END of a request that has no Head
            method, version = self._parser.get_method(), self._parser.get_http_version().encode()
            line = b"%b %b HTTP/%b\r\n" % (method, b"".join(self._target), version)
            self._parser = parser = self._new_parser()
            parser.feed_data(line + without_upgrade(self._headers))
            if not rest:
                return
            try:
                parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
            else:
                return
        self.rest = bytes(rest)
