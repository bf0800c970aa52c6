"""Where paths lead, remembered: a path that was seen before costs one look-up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taximeter import flavors
from taximeter.core import routes
from taximeter.gateway.quoting import PREFIX, QuoteAsked

if TYPE_CHECKING:
    from taximeter.core.routes import Route
    from taximeter.flavors.meter import Flavor

REMEMBERED_PATHS, REMEMBERED_BYTES = 4096, 256
"""So many paths, each at most so long: tags, and a provider's own models, may stand in them."""


class Places(dict[bytes, "tuple[Route, Flavor]"]):
    """Path -> where it leads, and what a POST to it speaks. Raises BadTag, BadRequest, QuoteAsked on a new one."""

    def __missing__(self, path: bytes) -> tuple[Route, Flavor]:
        route = routes.resolve(path)
        if route.path.startswith(PREFIX):
            raise QuoteAsked
        place = route, flavors.find(b"POST", route.path)
        if len(path) <= REMEMBERED_BYTES:
            if len(self) >= REMEMBERED_PATHS:
                self.clear()
            self[path] = place
        return place
