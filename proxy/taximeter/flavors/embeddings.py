"""`/embeddings`: OpenAI's API and everybody who speaks it (Azure, Mistral, Voyage, Jina, vLLM, llama.cpp, TEI).

`usage.prompt_tokens`, or `total_tokens` alone (Voyage); watsonx writes `input_token_count` beside its results, TEI a
header where its answer is a bare array. Answers are large: usage is read from the tail (OpenAI), or
from the head (Jina writes it before the data).
"""

from __future__ import annotations

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.json_flavor import JsonFlavor, RequestMembers
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage import openai as openai_usage
from taximeter.flavors.usage import usual
from taximeter.flavors.usage.counts import Members, decode, first, items
from taximeter.flavors.usage.reader import UsageReader, Verdict

_FLAT = "input_token_count"


class EmbeddingsReader(UsageReader):
    """One embeddings answer."""

    envelopes = ("result",)
    model_keys = ("model", "model_id")

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        if _FLAT in found:
            self.report({_FLAT: decode(found[_FLAT])}, b"")
        return super().take(found)

    def convert(self) -> Reading:
        reading = openai_usage.read(self.usage, self.provider, self.model)
        if reading.input_tokens is None:
            reading.input_tokens = first(self.usage, "total_tokens", _FLAT)
        if reading.input_tokens is None:
            reading.input_tokens = self.head_count(b"x-compute-tokens")
        return reading


class Embeddings(JsonFlavor):
    """Flavor of `/embeddings`."""

    api = "embeddings"
    operation = Operation.EMBEDDING
    reader = EmbeddingsReader

    def add_to(self, prepared: Prepared, found: RequestMembers, *, inject: bool) -> None:
        prepared.embedding_inputs = inputs(bytes(found.input))
        if prepared.embedding_inputs is None:
            prepared.embedding_inputs = (
                len(items(extract.request(prepared.reading or prepared.body).get("inputs"))) or None
            )

    def usual(self, body: bytes, provider: str) -> Reading | None:
        """As OpenAI and most who speak its API answer."""
        return usual.embeddings(body)

    def input(self, body: bytes) -> Countable:
        return extract.embedding_input(body, "input", "inputs")


def inputs(raw: bytes) -> int | None:
    """How many inputs a raw `input` member holds: a string or a token array is one."""
    value = decode(raw)
    if isinstance(value, str):
        return 1
    if not isinstance(value, list) or not value:
        return None
    return 1 if type(items(value)[0]) is int else len(value)


EMBEDDINGS = Embeddings()
