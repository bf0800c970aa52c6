"""Ollama's own API: `/api/chat`, `/api/generate`, `/api/embed`; streams are NDJSON, and are the default.

`prompt_eval_count` and `eval_count` stand at the top level of the last line (`done: true`). The former is absent where
the prompt was cached: then the input is not known (ollama issues 2068, 3427), and is counted instead.
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.embeddings import inputs
from taximeter.flavors.json_flavor import JsonFlavor, RequestMembers
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage.counts import Fields, Members, decode, first
from taximeter.flavors.usage.reader import UsageReader, Verdict
from taximeter.flavors.usage.usual import exceeds

_COUNTS = ("prompt_eval_count", "prompt_eval_cached_count", "eval_count")


class OllamaReader(UsageReader):
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

    def output_text(self, event: Fields) -> Iterable[str]:
        return extract.texts_in([event.get("message"), event.get("response"), event.get("thinking")])


class Ollama(JsonFlavor):
    """Flavor of `/api/chat` and `/api/generate`."""

    operation = Operation.LLM
    reader = OllamaReader
    ndjson = True

    def __init__(self, api: str) -> None:
        self.api = api

    def add_to(self, prepared: Prepared, found: RequestMembers, *, inject: bool) -> None:
        prepared.stream = found.stream is not False

    def input(self, body: bytes) -> Countable:
        if "messages" in extract.request(body):
            return extract.chat_input(body)
        return extract.input_of(body, "prompt", "system", "suffix")


class OllamaEmbed(JsonFlavor):
    """Flavor of `/api/embed` and the legacy `/api/embeddings`, which reports nothing."""

    api = "embeddings"
    operation = Operation.EMBEDDING
    reader = OllamaReader

    def add_to(self, prepared: Prepared, found: RequestMembers, *, inject: bool) -> None:
        prepared.stream = False
        prepared.embedding_inputs = inputs(bytes(found.input))

    def input(self, body: bytes) -> Countable:
        return extract.embedding_input(body, "input", "prompt")


OLLAMA_CHAT = Ollama("chat")
OLLAMA_GENERATE = Ollama("generate")
OLLAMA_EMBED = OllamaEmbed()
