"""What the upstream sends on a WebSocket: read as it passes; what it settles is written before it goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from taximeter.gateway.websocket.frames import CLOSE, Frames
from taximeter.gateway.websocket.messages import Messages

if TYPE_CHECKING:
    from taximeter.gateway.websocket.books import Books
    from taximeter.gateway.websocket.frames import Piece
    from taximeter.gateway.websocket.under_way import UnderWay

log = logging.getLogger("taximeter.gateway")


class Answers:
    """Of one connection."""

    __slots__ = ("_books", "_messages", "_ours", "closing", "frames")

    def __init__(self, books: Books) -> None:
        self._books = books
        self.frames = Frames(masked=False)
        self._messages = Messages()
        self._ours: list[bytes] = []
        """Frames of ours that wait for the end of the message that is passing."""
        self.closing = False
        """The upstream has said that it leaves."""

    def say(self, frame: bytes) -> bytes:
        """A message of ours: what of it may go to the client now, for no message may stand within another."""
        if self.frames.between_messages:
            return frame
        self._ours.append(frame)
        return b""

    def feed(self, data: bytes) -> tuple[bytes, list[UnderWay]]:
        """What has come: what goes on to the client, and the responses that the server began by itself, which have
        limits."""
        part = bool(self._ours) or not self.frames.between_frames
        pieces = self.frames.feed(data)
        self.closing = self.closing or any(piece.opcode == CLOSE for piece in pieces)
        fresh = [begun for piece in pieces if not piece.control and (begun := self._heard(piece)) is not None]
        if not part and self.frames.between_frames and not (self._ours or self.frames.broken):
            return data, fresh
        out: list[bytes] = []
        for piece in pieces:
            out.append(piece.raw)
            if self._ours and piece.last and not piece.control:
                out += self._ours
                self._ours.clear()
        return b"".join(out), fresh

    def _heard(self, piece: Piece) -> UnderWay | None:
        messages, books = self._messages, self._books
        try:
            going_on = messages.over and not piece.first
            payload = messages.take(piece)
            if going_on:
                books.goes_on(payload, last=piece.last)
            elif messages.event is not None and payload:
                return books.server_says(messages.event, payload, whole=piece.last)
        except Exception:  # metering never breaks the relay
            log.exception("a message of an upstream could not be read; it goes on")
        return None
