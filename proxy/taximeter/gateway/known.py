"""What a request's head says to a worker: read once, and kept with the head for all requests that repeat it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taximeter.core.routes import Route
    from taximeter.flavors.meter import Flavor
    from taximeter.keys.rule import Keys, ProxyKey


class Known:
    """Of one head. It holds as long as `keys` are those in force."""

    __slots__ = ("flavor", "head", "json", "key", "keys", "named", "route")

    def __init__(
        self,
        head: dict[bytes, bytes],
        route: Route,
        flavor: Flavor,
        named: dict[str, str],
        keys: Keys,
        key: ProxyKey | None,
    ) -> None:
        self.head = head
        """Of several requests with the same head the first one's: its `content-length` is not theirs."""
        self.route = route
        self.flavor = flavor
        self.named = named
        """The tags in its headers."""
        self.keys = keys
        """Those in which its key was looked up."""
        self.key = key
        kind = head.get(b"content-type")
        coding = head.get(b"content-encoding", b"identity")
        self.json = (kind is None or b"json" in kind) and coding == b"identity"
        """Its body is read whole, if it is not too long."""
