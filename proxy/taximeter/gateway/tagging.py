"""Whose a call is, where anybody has said so: headers, the path, and the weak sources that settings switch on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taximeter.core import tags
from taximeter.gateway.admission.admission import KEY_HEADER
from taximeter.gateway.admission.capping import HEADER as CAP_HEADER

if TYPE_CHECKING:
    from taximeter.config import Settings
    from taximeter.core.routes import Route
    from taximeter.core.tags import Tags
    from taximeter.flavors.meter import Prepared
    from taximeter.gateway.upstream.upstreams import Upstream
    from taximeter.keys.rule import ProxyKey


class Tagging:
    """By one worker's settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.tags
        self._headers = tag_headers(settings)
        self.names = self._headers.keys()
        """Header names, in lower case: a request with none of them has no `named`."""
        self.weak = settings.tags.baggage or settings.tags.body
        """Whether end users may tag."""

    def named(self, head: dict[bytes, bytes]) -> dict[str, str]:
        """What a request's headers say. Raises BadTag."""
        return tags.from_headers(head, self._headers)

    def of(
        self,
        head: dict[bytes, bytes],
        named: dict[str, str],
        route: Route,
        key: ProxyKey | None,
        upstream: Upstream,
        prepared: Prepared | None,
    ) -> Tags:
        """All that is said of a call, the strongest first. Raises Forbidden."""
        return tags.resolve(
            key_workspace=None if key is None else key.workspace,
            headers=named,
            path=route.tags,
            weak=self._weak(head, prepared) if self.weak else None,
            upstream_workspace=upstream.settings.workspace,
        )

    def _weak(self, head: dict[bytes, bytes], prepared: Prepared | None) -> dict[str, object]:
        """Tags from where end users can write, only where switched on; baggage before body."""
        weak: dict[str, object] = {}
        if self._settings.body and prepared is not None:
            weak.update({name: value for name, value in prepared.metadata.items() if name in tags.FIELDS})
        if self._settings.baggage and b"baggage" in head:
            weak.update(tags.from_baggage(head[b"baggage"]))
        return weak


def tag_headers(settings: Settings) -> dict[bytes, str]:
    """Our tag headers and those added in config: lower-case name -> tag."""
    named = dict(tags.TAG_HEADERS)
    named.update((name.lower().encode(), tag) for name, tag in settings.tags.headers.items())
    return named


def dropped_headers(settings: Settings) -> frozenset[bytes]:
    """Header names that never reach an upstream: tags and the proxy key's own."""
    return frozenset({*tag_headers(settings), KEY_HEADER, CAP_HEADER})
