"""Ollama's own API: `/api/chat`, `/api/generate`, `/api/embed`; streams are NDJSON, and are the default.

`prompt_eval_count` and `eval_count` stand at the top level of the last line (`done: true`). The former is absent where
the prompt was cached: then the input is not known (ollama issues 2068, 3427), and is counted instead.
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.embeddings import inputs
from taximeter.flavors.json_flavor import Asked, JsonFlavor
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.text import spoken
from taximeter.flavors.usage.counts import Fields, Members, decode, first
from taximeter.flavors.usage.tally import Tally, Verdict
from taximeter.flavors.usage.usual import exceeds

_COUNTS = ("prompt_eval_count", "prompt_eval_cached_count", "eval_count")


class OllamaTally(Tally):
    """One answer, whole or streamed."""

    usage_keys = ()
    watched = ()
    marks = (b'eval_count"', b'"done":true', b'"done": true', b"error")

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        super().take(found)
        flat: Fields = {name: decode(found[name]) for name in _COUNTS if name in found}
        if flat:
            self.report(flat, b"")
        if "done" in found and bytes(found["done"]) == b"true":
            self.terminal = self.finished = True
        return Verdict.TAKEN

    def convert(self) -> Reading:
        reading = Reading(
            input_tokens=first(self.usage, "prompt_eval_count"),
            cached_input_tokens=first(self.usage, "prompt_eval_cached_count"),
            output_tokens=first(self.usage, "eval_count"),
        )
        reading.inconsistent = exceeds(reading.cached_input_tokens, reading.input_tokens)
        return reading

    def said(self, event: Fields) -> Iterable[str]:
        return spoken.walked([event.get("message"), event.get("response"), event.get("thinking")])


class Ollama(JsonFlavor):
    """Flavor of `/api/chat` and `/api/generate`."""

    operation = Operation.LLM
    tally = OllamaTally
    ndjson = True

    def __init__(self, api: str) -> None:
        self.api = api

    def ask(self, prepared: Prepared, found: Asked, *, inject: bool) -> None:
        prepared.stream = found.stream is not False

    def input(self, body: bytes) -> Countable:
        if "messages" in spoken.request(body):
            return spoken.chat_input(body)
        return spoken.input_of(body, "prompt", "system", "suffix")


class OllamaEmbed(JsonFlavor):
    """Flavor of `/api/embed` and the legacy `/api/embeddings`, which reports nothing."""

    api = "embeddings"
    operation = Operation.EMBEDDING
    tally = OllamaTally

    def ask(self, prepared: Prepared, found: Asked, *, inject: bool) -> None:
        prepared.stream = False
        prepared.embedding_inputs = inputs(bytes(found.input))

    def input(self, body: bytes) -> Countable:
        return spoken.embedding_input(body, "input", "prompt")


OLLAMA_CHAT = Ollama("chat")
OLLAMA_GENERATE = Ollama("generate")
OLLAMA_EMBED = OllamaEmbed()
