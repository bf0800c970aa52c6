"""The syntax of HTTP/1.1 answers: bytes in; status, headers and pieces of a body out; and whether doubt remains.

Pure; `wire` adds the socket. llhttp itself refuses bare LF, obs-fold, bad field names, a doubled or bad
Content-Length and one beside Transfer-Encoding. What it lets pass is guarded here: other versions, other transfer
codings, a HEAD's missing body, sizes, an unasked switch of protocols, trailers, bytes after the end.
"""

from __future__ import annotations

import re

import httptools

from taximeter.server.fields import HOP_BY_HOP, named_by

HEAD_BYTES = 64 * 1024
HEAD_FIELDS = 200
INTERIM_HEADS = 32
"""1xx answers before the real one."""

HEAD, LENGTH, CHUNKED, UNTIL_CLOSE = range(4)
"""What the next bytes are: a head, a body of known length, chunks, or everything until the connection closes."""

_LAST_CHUNK = b"0\r\n\r\n"
_FRAMING = HOP_BY_HOP | {b"content-length"}
_keep_alive_timeout = re.compile(rb"(?i)(?:^|[,\s])timeout\s*=\s*\"?(\d{1,9})").search


class _Stop(Exception):
    """Raised in a parser callback to stop the parser at that byte."""


class ResponseFraming:
    """Reads answers one after another. After `feed`, look at `wrong`, then `complete` and `clean`, then `mode`."""

    __slots__ = (
        "_barren_bytes", "_framing", "_head_bytes", "_head_only", "_interim", "_interim_bytes", "_length", "_of_11",
        "_parser", "_pieces", "_refusal", "body_left", "clean", "complete", "headers", "keep_alive", "kept_s", "mode",
        "on_body", "status", "wrong",
    )  # fmt: skip

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # straight from the parser into the list, without a Python frame
        self._parser = httptools.HttpResponseParser(self)
        self.begin(False)

    def begin(self, head_only: bool) -> None:
        """Before each answer. `head_only`: it answers a HEAD request."""
        self.mode = HEAD
        self.status = 0
        self.body_left = 0
        """In mode LENGTH: bytes still to come."""
        self.complete = False
        self.clean = False
        """Complete, and the answer ended exactly where the bytes did."""
        self.keep_alive = True
        self.kept_s: float | None = None
        """How long the upstream keeps the connection when it is idle, where it says so (`Keep-Alive: timeout`)."""
        self.wrong = ""
        """Why this is not an answer that can be framed safely."""
        self._head_only = head_only
        self._of_11 = False
        """The first head began as one of HTTP/1.1 does."""
        self.headers: list[tuple[bytes, bytes]] = []
        """Lower-case names; hop-by-hop headers gone, content-length rebuilt."""
        self._framing: list[tuple[bytes, bytes]] = []
        self._length: int | None = None
        self._refusal = ""
        self._head_bytes = self._barren_bytes = self._interim = self._interim_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Parse, in the modes HEAD and CHUNKED; returns what of the body was in `data`."""
        in_head = self.mode == HEAD
        if in_head and not self._head_bytes:
            self._of_11 = data.startswith(b"HTTP/1.1 ")
            if not self._of_11 and data[0] != 0x48:  # llhttp would skip CR and LF before the H
                self.wrong = "Expected HTTP/"
                return b""
        exact = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            exact = False
            if not self.complete:
                self.wrong = self._refusal or str(error) or "unreadable"
        pieces = self._pieces
        piece = b"" if not pieces else pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if in_head:
            ends_at = self._check_head_size(data)
            if self.wrong:
                return b""  # nobody has seen the head, so nobody gets its body
            self.body_left -= len(piece)
            if self.complete:
                self.clean = exact and self._nothing_follows(data, piece, ends_at)
            self._barren_bytes = 0
        elif self.complete:
            self.clean = exact and self.mode == CHUNKED and data.endswith(_LAST_CHUNK)
        elif not piece:
            self._barren_bytes += len(data)
            if self._barren_bytes > HEAD_BYTES:  # chunk extensions or trailers without end
                self.wrong = self.wrong or "too much between two chunks"
        else:
            self._barren_bytes = 0
        return piece

    def skip_body(self) -> None:
        """A body of known length was read around the parser, which still waits for it: go on with a new one."""
        self._parser = httptools.HttpResponseParser(self)

    def end(self) -> None:
        """Nothing will be read any more: let go of the parser, which holds this in turn (a worker seldom collects)."""
        del self._parser

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.complete:
            raise _Stop

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.mode != HEAD:
            return  # trailers: what they say came too late to be trusted as headers
        name = name.lower()
        if name in _FRAMING:
            self._framing.append((name, value))
        else:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.mode != HEAD:
            return
        parser = self._parser
        status = parser.get_status_code()
        if 100 <= status < 200:
            self._skip_interim(status)
            return
        if self._interim or not self._of_11:
            self._check_version(parser.get_http_version())
        if not 200 <= status < 600:
            self._refuse(f"status {status:03}")
        if len(self.headers) + len(self._framing) > HEAD_FIELDS:
            self._refuse(f"more than {HEAD_FIELDS} header fields")
        self.mode = UNTIL_CLOSE
        for name, value in self._framing:
            self._frame(name, value)
        if status in (204, 304):  # no body, whatever the framing says; some servers send one nevertheless
            self.keep_alive = self.keep_alive and self.mode == UNTIL_CLOSE
        elif self._length is not None:
            self.headers.append((b"content-length", b"%d" % self._length))
        self.status = status
        if self._head_only:
            self.complete = True
            self.keep_alive = False  # the parser cannot be told, so what follows cannot be told apart
            raise _Stop

    def on_message_complete(self) -> None:
        if self.mode != HEAD:
            self.complete = True

    # The rules.

    def _check_version(self, version: str) -> None:
        if version != "1.1":
            self.keep_alive = False
            if version != "1.0":
                self._refuse(f"HTTP version {version}")

    def _skip_interim(self, status: int) -> None:
        self._interim += 1
        if status == 101:
            self._refuse("a switch of protocols nobody asked for")
        if self._interim > INTERIM_HEADS:
            self._refuse(f"more than {INTERIM_HEADS} interim answers")
        self._interim_bytes += _size(self.headers)
        self.headers = []
        self._framing = []

    def _frame(self, name: bytes, value: bytes) -> None:
        """Read one header that belongs to the connection."""
        if name == b"content-length":
            self._length = self.body_left = int(value)
            self.mode = LENGTH
        elif name == b"transfer-encoding":
            if self.mode != UNTIL_CLOSE or value.strip(b" \t").lower() != b"chunked":
                self._refuse("a transfer coding other than chunked")
            self.mode = CHUNKED
        elif name == b"keep-alive":
            said = _keep_alive_timeout(value)
            self.kept_s = None if said is None else float(said[1])
        elif name == b"connection" and value not in (b"keep-alive", b"Keep-Alive"):
            named = named_by(value)
            if b"close" in named:
                self.keep_alive = False
            self.headers = [field for field in self.headers if field[0] not in named]

    def _refuse(self, what: str) -> None:
        self._refusal = what
        raise _Stop

    def _check_head_size(self, data: bytes) -> int:
        """Returns where in `data` the head ends; -1 where that cannot be told cheaply."""
        ends_at = -1
        if self.mode == HEAD:
            self._head_bytes += len(data)
            size = self._head_bytes
        elif not self._head_bytes and not self._interim:
            size = ends_at = data.find(b"\r\n\r\n")
        else:
            size = self._interim_bytes + _size(self.headers)
        if size > HEAD_BYTES:
            self.wrong = self.wrong or f"a head of more than {HEAD_BYTES} bytes"
        return ends_at

    def _nothing_follows(self, data: bytes, piece: bytes, head_ends_at: int) -> bool:
        """Whether the answer ends where `data` ends. llhttp takes CR and LF after an answer for nothing at all.

        What cannot be told cheaply is rare, and costs a connection, not a customer's privacy.
        """
        if self.mode == CHUNKED:
            return data.endswith(_LAST_CHUNK)
        return head_ends_at >= 0 and head_ends_at + 4 + len(piece) == len(data)


def _size(fields: list[tuple[bytes, bytes]]) -> int:
    """Bytes of header fields on the wire."""
    return sum(len(name) + len(value) + 4 for name, value in fields)
