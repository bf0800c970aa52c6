"""An answer that says something of the way it came: a redirect, or what another Taximeter tells of its own call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taximeter.gateway.upstream import answers

if TYPE_CHECKING:
    from taximeter.gateway.ending import UnderWay
    from taximeter.gateway.upstream.response import Response


def passed_on(relay: UnderWay, response: Response) -> answers.Headers:
    """Its headers as our client may have them. Redirects that lead away from the upstream are counted."""
    upstream = relay.upstream
    name = "" if upstream.first else upstream.name
    headers, away = answers.passed_on(response.headers, upstream.base, relay.exchange.path, name)
    if away and 300 <= response.status < 400:
        relay.metering.journal.status.redirects_away += 1
    return headers
