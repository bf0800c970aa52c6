"""A POST nobody told us about is relayed as any other; where its answer says what it used by names we know, it is read.

It is recorded as `other`, so it is neither chat nor embedding nor rerank, and nothing is counted locally. Also here on
purpose: what is billed by pages, images or seconds of work (OCR, Replicate), whose usage object is kept as it came.
"""

from __future__ import annotations

from taximeter.core.usage import Reading
from taximeter.flavors.bedrock import read_native
from taximeter.flavors.json_flavor import JsonFlavor
from taximeter.flavors.usage.counts import first
from taximeter.flavors.usage.openai import cost_nusd
from taximeter.flavors.usage.reader import UsageReader


class UnknownReader(UsageReader):
    """An answer of unknown make."""

    usage_keys = (
        "usage",
        "meta",
        "usageMetadata",
        "usage_info",  # Mistral OCR: pages_processed
        "metrics",  # Replicate: input_token_count, output_token_count, predict_time
        "inference_status",  # DeepInfra: tokens_input, tokens_generated, cost
    )
    envelopes = ("response", "result", "data", "message")
    watched = tuple((b'"%s"' % name.encode(), b'"%s":null' % name.encode()) for name in usage_keys)

    __slots__ = ()

    def convert(self) -> Reading:
        reading = read_native(self.usage, self.provider, self.model)
        if not reading.reported:
            reading.input_tokens = first(self.usage, "input_token_count", "tokens_input", "promptTokenCount")
            reading.output_tokens = first(self.usage, "output_token_count", "tokens_generated", "candidatesTokenCount")
        if reading.upstream_cost_nusd is None:
            reading.upstream_cost_nusd = cost_nusd(self.usage)
        return reading


class Unknown(JsonFlavor):
    """Flavor of what no other flavor knows."""

    reader = UnknownReader


UNKNOWN = Unknown()
