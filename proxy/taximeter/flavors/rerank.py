"""`/rerank`: Cohere, Jina, Voyage, vLLM, llama.cpp, OpenRouter, Xinference, DashScope, TEI.

Cohere bills `meta.billed_units.search_units` and reports no tokens; Jina, Voyage and OpenRouter report
`usage.total_tokens`; llama.cpp and vLLM (also `/score`) OpenAI's usage; Xinference `meta.tokens`.
"""

from __future__ import annotations

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.meter import Answer, Countable, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage import conventions
from taximeter.flavors.usage.counts import items, text
from taximeter.flavors.usage.reader import UsageReader
from taximeter.flavors.usage.row import Row

UNIT_DOCUMENTS = 100
"""Documents that are one unit, one query each: https://aws.amazon.com/bedrock/pricing/ (Rerank),
https://cloud.google.com/generative-ai-app-builder/pricing (Ranking API)."""
CHUNK_TOKENS = 512
"""At Bedrock a document that is longer together with the query counts as several; no token is shorter than a byte."""

_LISTS = ("documents", "texts", "passages", "inputs", "text_2")
_DOCUMENTS = (*_LISTS, *(f"input.{name}" for name in _LISTS))
"""The latter are DashScope's: {"input": {"query", "documents"}}."""


class RerankReader(UsageReader):
    """A ranking. Where the provider bills by the request and tells nothing, what the request makes is what it used."""

    __slots__ = ("_units",)

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        self._units = prepared.search_units if answer.status < 400 else None

    def convert(self) -> Reading:
        reading = super().convert()
        if self._units is not None and not reading.reported:
            reading.search_units = self._units
        return reading


class Rerank(Dialect, frozen=True, kw_only=True, eq=False):
    """`/rerank` and `/score`."""

    def input(self, body: bytes) -> Countable:
        """Every pair is read, so the query counts once a document."""
        asked = extract.request(body)
        query = next((given for path in ("query", "input.query", "text_1") if (given := extract.at(asked, path))), None)
        documents = next((given for path in _DOCUMENTS if (given := extract.at(asked, path))), [])
        walk = extract.TextWalk()
        for document in documents if isinstance(documents, list) else [documents]:
            for asked_for in extract.texts_in(query):
                walk.take(asked_for)
            walk.take(document)
        countable = walk.countable()
        countable.truncated = countable.truncated or not walk.texts
        return countable


class BedrockRerank(Rerank, frozen=True, kw_only=True, eq=False):
    """`/rerank` as others have it, and Bedrock's of the same name: `sources` and `queries`, the model far inside."""

    def prepare(self, body: bytes, path: bytes, *, inject: bool) -> Prepared:
        """See `Flavor.prepare`."""
        prepared = super().prepare(body, path, inject=inject)
        if b'"sources"' in body and prepared.model is None:
            asked = extract.request(prepared.reading or body)
            prepared.model = text(extract.at(asked, _MODEL_ARN))
            prepared.rerank_documents = len(items(asked.get("sources"))) or None
            prepared.search_units = _bedrock_units(items(asked.get("sources")), items(asked.get("queries")))
        return prepared


class Rank(Rerank, frozen=True, kw_only=True, eq=False):
    """Google's Ranking API: `records`, a hundred of which are a unit."""

    def prepare(self, body: bytes, path: bytes, *, inject: bool) -> Prepared:
        """See `Flavor.prepare`."""
        prepared = super().prepare(body, path, inject=inject)
        if prepared.rerank_documents:
            prepared.search_units = -(-prepared.rerank_documents // UNIT_DOCUMENTS)
        return prepared


_MODEL_ARN = "rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn"


def _bedrock_units(sources: list[object], queries: list[object]) -> int | None:
    """Units of a request all of whose documents surely are one chunk each; None: not known."""
    if not sources or not queries:
        return None
    asked_bytes = max(map(_text_bytes, queries))
    if any(asked_bytes + _text_bytes(source) > CHUNK_TOKENS for source in sources):
        return None
    return -(-len(sources) // UNIT_DOCUMENTS) * len(queries)


def _text_bytes(value: object) -> int:
    """Bytes of every string in it."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    return sum(map(_text_bytes, value.values() if isinstance(value, dict) else items(value)))


RERANK = BedrockRerank(
    source="https://docs.cohere.com/reference/rerank",
    api="rerank",
    operation=Operation.RERANK,
    usage=("meta", "usage"),
    flat=("tokens", "input_token_count"),  # SiliconFlow; watsonx
    heads=((b"x-compute-tokens", "input_tokens"),),
    model=("model", "model_id"),
    read=conventions.cohere,
    reader=RerankReader,
    documents=_DOCUMENTS,
)
RANK = Rank(
    source="https://cloud.google.com/generative-ai-app-builder/docs/ranking",
    api="rerank",
    operation=Operation.RERANK,
    reader=RerankReader,
    documents=("records",),
)
