"""Where an upstream's base URLs lead: from a path of ours to its own, and back. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from taximeter.core.errors import BadRequest
from taximeter.gateway.upstream import shapes
from taximeter.gateway.upstream.endpoint import Address, may_be_target, parse

if TYPE_CHECKING:
    from taximeter import config
    from taximeter.gateway.upstream.credentials import Screen

_CACHED_PATHS = 1024


class Base(NamedTuple):
    """The base URL that our `/v1` stands for, and the one for all other paths; paths without a last slash."""

    origin: Address
    path: bytes
    native_origin: Address
    native_path: bytes

    @classmethod
    def of_settings(cls, settings: config.UpstreamSettings) -> Base:
        """Raises ConfigError on a URL that cannot be used."""
        origin, path = parse(settings, settings.base_url)
        if settings.native_url:
            return cls(origin, path, *parse(settings, settings.native_url))
        return cls(origin, path, origin, shapes.native_base(path))

    def of(self, path: bytes) -> tuple[Address, bytes]:
        """Where a path of ours leads: origin and path there."""
        if shapes.is_native(path, self.path):
            return self.native_origin, self.native_path + path
        return self.origin, self.path + path[3:] or b"/"

    def ours(self, origin: Address, path: bytes) -> bytes | None:
        """The path of ours that leads there; None: none does."""
        for root, under, mine in ((self.origin, self.path, b"/v1"), (self.native_origin, self.native_path, b"")):
            if origin == root and (path == under or path.startswith(under + b"/")):
                found = mine + path[len(under) :]
                if self.of(found) == (origin, path):
                    return found
        return None


class Targets:
    """What goes into the request line for a path of ours with its query."""

    def __init__(self, base: Base, screen: Screen, provider: str, *, forward: bool) -> None:
        """`forward`: the client's own credential goes on."""
        self._base = base
        self._screen = screen
        self._provider = provider
        self._forward = forward
        self.known: dict[bytes, tuple[bytes, bool]] = {}
        """Of paths without a query; clients name paths, so the memory of them is bounded."""

    def of(self, path: bytes) -> tuple[bytes, bool]:
        """The target, and whether it is at the native URL's host. Raises BadRequest where it may not be sent."""
        path, mark, query = path.partition(b"?")
        self._screen.path(path)
        origin, target = self._base.of(path)
        if query:
            query = self._screen.query(query, self._provider, forward=self._forward)
            mark = b"?" if query else b""
        target += mark + query
        if may_be_target(target) is None:
            raise BadRequest("The request's path or query holds characters that no request line may.")
        if not mark and len(self.known) < _CACHED_PATHS:
            self.known[path] = target, origin != self._base.origin
        return target, origin != self._base.origin
