"""`/embeddings`: OpenAI's API and everybody who speaks it (Azure, Mistral, Voyage, Jina, vLLM, llama.cpp, TEI).

`usage.prompt_tokens`, or `total_tokens` alone (Voyage). Answers are large: usage is read from the tail (OpenAI), or
from the head (Jina writes it before the data).
"""

from __future__ import annotations

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors import openai_usage, spoken
from taximeter.flavors.counts import count, decode, items
from taximeter.flavors.json_flavor import Asked, JsonFlavor
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.tally import Tally


class EmbeddingsTally(Tally):
    """One embeddings answer."""

    envelopes = ("result",)

    __slots__ = ()

    def convert(self) -> Reading:
        reading = openai_usage.read(self.usage, self.provider, self.model)
        if reading.input_tokens is None:
            reading.input_tokens = count(self.usage.get("total_tokens"))
        return reading


class Embeddings(JsonFlavor):
    """Flavor of `/embeddings`."""

    api = "embeddings"
    operation = Operation.EMBEDDING
    tally = EmbeddingsTally

    def ask(self, prepared: Prepared, found: Asked, *, inject: bool) -> None:
        prepared.embedding_inputs = inputs(bytes(found.input))

    def input(self, body: bytes) -> Countable:
        return spoken.embedding_input(body, "input")


def inputs(raw: bytes) -> int | None:
    """How many inputs a raw `input` member holds: a string or a token array is one."""
    value = decode(raw)
    if isinstance(value, str):
        return 1
    if not isinstance(value, list) or not value:
        return None
    return 1 if type(items(value)[0]) is int else len(value)


EMBEDDINGS = Embeddings()
