"""`/rerank`: Cohere, Jina, Voyage, vLLM, llama.cpp, OpenRouter, Xinference, DashScope, TEI.

Cohere bills `meta.billed_units.search_units` and reports no tokens; Jina, Voyage and OpenRouter report
`usage.total_tokens`; llama.cpp and vLLM (also `/score`) OpenAI's usage; Xinference `meta.tokens`, SiliconFlow `tokens`
beside its results, watsonx `input_token_count`; TEI returns a bare array and tells in its head.
"""

from __future__ import annotations

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.json_flavor import JsonFlavor, RequestMembers
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage import cohere as cohere_usage
from taximeter.flavors.usage import openai as openai_usage
from taximeter.flavors.usage.counts import Fields, Members, decode, fields, first, items
from taximeter.flavors.usage.reader import UsageReader, Verdict

_LISTS = ("documents", "texts", "passages", "inputs", "text_2")
_FLAT = ("tokens", "input_token_count")


class RerankReader(UsageReader):
    """One rerank answer."""

    usage_keys = ("meta", "usage")
    model_keys = ("model", "model_id")

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        flat: Fields = {name: decode(found[name]) for name in _FLAT if name in found}
        if flat:
            self.report(flat, b"")
        return super().take(found)

    def convert(self) -> Reading:
        if cohere_usage.is_cohere(self.usage):
            reading = cohere_usage.read(self.usage)
            reading.upstream_cost_nusd = openai_usage.cost_nusd(self.usage)
        else:
            reading = openai_usage.read(self.usage, self.provider, self.model)
        if reading.input_tokens is None:
            reading.input_tokens = first(self.usage, "total_tokens", "input_token_count")
        if reading.input_tokens is None:
            reading.input_tokens = self.head_count(b"x-compute-tokens")
        return reading


class Rerank(JsonFlavor):
    """Flavor of `/rerank`."""

    api = "rerank"
    operation = Operation.RERANK
    reader = RerankReader

    def add_to(self, prepared: Prepared, found: RequestMembers, *, inject: bool) -> None:
        prepared.rerank_documents = len(_documents(prepared.reading or prepared.body)) or None

    def input(self, body: bytes) -> Countable:
        asked = extract.request(body)
        inner = fields(asked.get("input"))  # DashScope: {"input": {"query", "documents"}}
        query = extract.texts_in(asked.get("query") or inner.get("query") or asked.get("text_1"))
        walk = extract.TextWalk()
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
