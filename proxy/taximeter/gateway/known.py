"""What a request's head says to a worker: read once, and kept with the head for all requests that repeat it.

host, origin → loop → route, flavor → tags in headers → key
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taximeter.core import loops
from taximeter.core.origins import is_preflight
from taximeter.flavors.dialects import UNMETERED
from taximeter.gateway.metering.polls import flavor_of
from taximeter.gateway.pages import Pages
from taximeter.gateway.places import Places

if TYPE_CHECKING:
    from taximeter.config import Settings
    from taximeter.core.record import Open
    from taximeter.core.routes import Route
    from taximeter.flavors.meter import Flavor
    from taximeter.gateway.admission.admission import Admission
    from taximeter.gateway.tagging import Tagging
    from taximeter.gateway.upstream.upstreams import Upstreams
    from taximeter.journal import Journal
    from taximeter.keys.rule import Keys, ProxyKey
    from taximeter.server.exchange import Exchange

_UNTAGGED: dict[str, str] = {}


class Known:
    """Of one head. It holds as long as `keys` are those in force."""

    __slots__ = ("flavor", "head", "key", "keys", "named", "route", "streams_through")

    def __init__(
        self,
        head: dict[bytes, bytes],
        route: Route,
        flavor: Flavor,
        named: dict[str, str],
        keys: Keys,
        key: ProxyKey | None,
        json_body_bytes: int,
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
        kind, coding = head.get(b"content-type"), head.get(b"content-encoding", b"identity")
        json, length = (kind is None or b"json" in kind) and coding == b"identity", head.get(b"content-length")
        if json:
            through = length is not None and int(length) > json_body_bytes
        else:
            through = length != b"0" if length is not None else b"transfer-encoding" in head
        self.streams_through = through
        """JSON is read whole to learn model and stream; any other body, and one that is too long, is not held."""

    def mark(self, record: Open) -> None:
        """Write down what its own tags say, before anything else is known."""
        record.workspace, record.track = self.named.get("workspace", record.workspace), self.named.get("track")


class Heads:
    """Reads those of one worker. What it has read is in `Exchange.memo`, under this."""

    def __init__(
        self, settings: Settings, journal: Journal, upstreams: Upstreams, admission: Admission, tagging: Tagging
    ) -> None:
        self._json_body_bytes = settings.limits.json_body_bytes
        self._journal = journal
        self._mark = upstreams.mark
        self._admission = admission
        self._tagging = tagging
        self._pages = Pages(admission.hosts, settings.cors.allowed_origins)
        self._places = Places()

    def read(self, exchange: Exchange, record: Open) -> Known | None:
        """Who calls what, as far as the head tells; `record` has what was found, also where it is refused. None: it has
        been answered. Raises RequestError, QuoteAsked."""
        admission, head = self._admission, dict(exchange.headers)
        usual = b"origin" not in head and head.get(b"host") in admission.hosts.accepted
        if not (usual or self._pages.admit(exchange, head, record.started_at)):
            return None
        if loops.HEADER in head:
            loops.check(exchange.headers, self._mark)
        route, flavor = self._places[exchange.path]
        repeats = usual and loops.HEADER not in head
        if flavor is UNMETERED or exchange.method != b"POST":
            flavor = flavor_of(exchange.method, route.path, self._journal, record, UNMETERED)
            repeats = repeats and flavor is UNMETERED  # what a poll tells is written with its own record
        named = _UNTAGGED
        if not self._tagging.names.isdisjoint(head):
            named = self._tagging.named(head)
            record.workspace, record.track = named.get("workspace", record.workspace), named.get("track")
        keys, key = admission.keys, None
        if exchange.method != b"OPTIONS" or not is_preflight(head):
            key = admission.key_of(head)
        known = Known(head, route, flavor, named, keys, key, self._json_body_bytes)
        if repeats:
            exchange.memo[self] = known
        return known
