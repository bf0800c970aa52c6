"""`/rerank`: Cohere, Jina, Voyage, vLLM, llama.cpp, OpenRouter, Xinference, DashScope, TEI.

Cohere bills `meta.billed_units.search_units` and reports no tokens; Jina, Voyage and OpenRouter report
`usage.total_tokens`; llama.cpp and vLLM (also `/score`) OpenAI's usage; Xinference `meta.tokens`.
"""

from __future__ import annotations

from taximeter.core.record import Operation
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.meter import Countable
from taximeter.flavors.text import extract
from taximeter.flavors.usage import conventions

_LISTS = ("documents", "texts", "passages", "inputs", "text_2")
_DOCUMENTS = (*_LISTS, *(f"input.{name}" for name in _LISTS))
"""The latter are DashScope's: {"input": {"query", "documents"}}."""


class Rerank(Dialect, frozen=True, kw_only=True, eq=False):
    """`/rerank` and `/score`."""

    def input(self, body: bytes) -> Countable:
        """Every pair is read, so the query counts once a document."""
        asked = extract.request(body)
        query = next((given for path in ("query", "input.query", "text_1") if (given := extract.at(asked, path))), None)
        documents = next((given for path in _DOCUMENTS if (given := extract.at(asked, path))), [])
        walk = extract.TextWalk()
        for document in documents if isinstance(documents, list) else [documents]:
            for text in extract.texts_in(query):
                walk.take(text)
            walk.take(document)
        countable = walk.countable()
        countable.truncated = countable.truncated or not walk.texts
        return countable


RERANK = Rerank(
    source="https://docs.cohere.com/reference/rerank",
    api="rerank",
    operation=Operation.RERANK,
    usage=("meta", "usage"),
    flat=("tokens", "input_token_count"),  # SiliconFlow; watsonx
    heads=((b"x-compute-tokens", "input_tokens"),),
    model=("model", "model_id"),
    read=conventions.cohere,
    documents=_DOCUMENTS,
)
