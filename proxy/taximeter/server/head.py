"""A request without its body, as it was read. Pure."""

from __future__ import annotations

from typing import Any

import msgspec


class Head(msgspec.Struct):
    """A request without its body. `target` is raw; names in `headers` are in lower case."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    version: str
    keep_alive: bool
    expects_continue: bool
    upgrades: bool = False
    """It asks for a WebSocket: what follows it is no HTTP (see `framing.RequestFraming.rest`)."""
    memo: dict[object, Any] = msgspec.field(default_factory=dict)
    """What those who work with it have learned from it, each under itself (see `repeated`)."""

    def with_length(self, digits: bytes) -> Head:
        """The same for a body of another length."""
        headers = [(name, digits) if name == b"content-length" else (name, value) for name, value in self.headers]
        return Head(self.method, self.target, headers, self.version, self.keep_alive, False, False, self.memo)
