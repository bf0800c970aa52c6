"""Everything that is no inference, or that we do not know: relayed, recorded, never counted.

Polls (responses, runs, batches by id) repeat what another call used, and token counting uses nothing: their
`usage` members must not be read.
"""

from __future__ import annotations

from taximeter.flavors.framing.body import HeadMeter
from taximeter.flavors.json_flavor import JsonFlavor
from taximeter.flavors.meter import Answer, Meter, Prepared
from taximeter.flavors.usage.reader import UsageReader


class Opaque(JsonFlavor):
    """No usage, whatever the answer says."""

    def meter(self, prepared: Prepared, answer: Answer, provider: str) -> Meter:
        """See `Flavor.meter`."""
        return HeadMeter(UsageReader(prepared, answer, provider))


OPAQUE = Opaque()
