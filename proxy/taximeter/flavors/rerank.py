"""`/rerank`: Cohere, Jina, Voyage, vLLM, llama.cpp, OpenRouter, Xinference, DashScope, TEI.

Cohere bills `meta.billed_units.search_units` and reports no tokens; Jina, Voyage and OpenRouter report
`usage.total_tokens`; llama.cpp and vLLM OpenAI's usage; Xinference `meta.tokens`; TEI answers a bare array.
"""

from __future__ import annotations

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors import cohere_usage, openai_usage, spoken
from taximeter.flavors.counts import decode, fields, first, items
from taximeter.flavors.json_flavor import Asked, JsonFlavor
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.tally import Tally

_LISTS = ("documents", "texts", "passages")


class RerankTally(Tally):
    """One rerank answer."""

    usage_keys = ("meta", "usage")

    __slots__ = ()

    def convert(self) -> Reading:
        if cohere_usage.is_cohere(self.usage):
            reading = cohere_usage.read(self.usage)
            reading.upstream_cost_nusd = openai_usage.cost_nusd(self.usage)
        else:
            reading = openai_usage.read(self.usage, self.provider, self.model)
        if reading.input_tokens is None:
            reading.input_tokens = first(self.usage, "total_tokens")
        return reading


class Rerank(JsonFlavor):
    """Flavor of `/rerank`."""

    api = "rerank"
    operation = Operation.RERANK
    tally = RerankTally

    def ask(self, prepared: Prepared, found: Asked, *, inject: bool) -> None:
        prepared.rerank_documents = len(_documents(prepared.body)) or None

    def input(self, body: bytes) -> Countable:
        asked = spoken.request(body)
        inner = fields(asked.get("input"))  # DashScope: {"input": {"query", "documents"}}
        query = spoken.walked(asked.get("query") or inner.get("query"))
        walk = spoken.Walk()
        for document in _documents(body):
            # every pair is read, so the query counts once a document
            for text in query:
                walk.take(text)
            walk.take(document)
        countable = walk.countable()
        countable.truncated = countable.truncated or not walk.texts
        return countable


def _documents(body: bytes) -> list[object]:
    asked = fields(decode(body))
    for source in (asked, fields(asked.get("input"))):
        for name in _LISTS:
            found = items(source.get(name))
            if found:
                return found
    return []


RERANK = Rerank()
