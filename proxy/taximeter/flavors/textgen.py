"""Text generation servers with names of their own: IBM watsonx, Hugging Face TGI, SGLang, KoboldCpp.

watsonx reports in every event: `generated_token_count` is cumulative, `input_token_count` stands in the first only, so
the largest of each counts. TGI reports `details.generated_tokens` and the prompt only in the header `x-prompt-tokens`.
SGLang's `meta_info` uses OpenAI's names.
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.json_flavor import JsonFlavor
from taximeter.flavors.meter import Countable
from taximeter.flavors.text import extract
from taximeter.flavors.usage import openai as openai_usage
from taximeter.flavors.usage.counts import Fields, Members, added, count, decode, fields, first, items
from taximeter.flavors.usage.reader import UsageReader, Verdict


class WatsonxReader(UsageReader):
    """Generations of `/ml/v1/text/generation`."""

    usage_keys = ()
    model_keys = ("model_id",)
    watched = ((b'_token_count"', b'_token_count":null'),)

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        super().take(found)
        results = [fields(one) for one in items(decode(found["results"]))] if "results" in found else []
        for name in ("input_token_count", "generated_token_count"):
            here = added(*(count(one.get(name)) for one in results))
            if here is not None:
                self.report({name: max(here, count(self.usage.get(name)) or 0)}, b"")
        return Verdict.TAKEN

    def convert(self) -> Reading:
        return Reading(
            input_tokens=first(self.usage, "input_token_count"),
            output_tokens=first(self.usage, "generated_token_count"),
        )

    def output_text(self, event: Fields) -> Iterable[str]:
        return extract.texts_in([fields(one).get("generated_text") for one in items(event.get("results"))])


class KoboldReader(UsageReader):
    """KoboldCpp's `/api/v1/generate`: OpenAI's names in each result (github.com/LostRuins/koboldcpp, API)."""

    usage_keys = ()

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        super().take(found)
        for one in map(fields, items(decode(found["results"]))) if "results" in found else ():
            self.report({name: one[name] for name in ("prompt_tokens", "completion_tokens") if name in one}, b"")
        return Verdict.TAKEN

    def convert(self) -> Reading:
        return openai_usage.read(self.usage, self.provider, self.model)

    def output_text(self, event: Fields) -> Iterable[str]:
        return extract.texts_in([event.get("token"), *(fields(one).get("text") for one in items(event.get("results")))])


class TgiReader(UsageReader):
    """TGI's `/` and `/generate`, SGLang's `/generate`."""

    usage_keys = ("meta_info",)
    watched = ((b'"meta_info"', b'"meta_info":null'), (b'"details"', b'"details":null'))

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        super().take(found)
        details = fields(decode(found["details"])) if "details" in found else {}
        if details:
            # an array of answers has one object each
            written = added(count(self.usage.get("generated_tokens")), count(details.get("generated_tokens")))
            self.report({**details, "generated_tokens": written}, b"")
            self.finished = True
        return Verdict.TAKEN

    def report(self, usage: Fields, raw: bytes) -> None:
        super().report({name: usage[name] for name in usage if name not in ("tokens", "prefill", "top_tokens")}, raw)

    def convert(self) -> Reading:
        reading = openai_usage.read(self.usage, self.provider, self.model)
        if not reading.reported:
            reading.input_tokens = first(self.usage, "input_length")
            reading.output_tokens = first(self.usage, "generated_tokens")
        if reading.input_tokens is None:
            reading.input_tokens = self.head_count(b"x-prompt-tokens")
        if reading.output_tokens is None:
            reading.output_tokens = self.head_count(b"x-generated-tokens")
        return reading

    def output_text(self, event: Fields) -> Iterable[str]:
        token = fields(event.get("token")).get("text")
        return extract.texts_in([token] if token is not None else [event.get("generated_text"), event.get("text")])


class TextGeneration(JsonFlavor):
    """Flavor of one server's text generation."""

    api = "generate"
    operation = Operation.LLM

    def input(self, body: bytes) -> Countable:
        return extract.input_of(body, "input", "inputs", "text", "prompt")


class Watsonx(TextGeneration):
    """Flavor of watsonx."""

    reader = WatsonxReader

    def path_streams(self, path: bytes) -> bool:
        return b"_stream" in path


class Kobold(TextGeneration):
    """Flavor of KoboldCpp."""

    reader = KoboldReader

    def path_streams(self, path: bytes) -> bool:
        return path.endswith(b"/stream")


class Tgi(TextGeneration):
    """Flavor of TGI and SGLang."""

    reader = TgiReader

    def path_streams(self, path: bytes) -> bool:
        return b"_stream" in path


WATSONX = Watsonx()
KOBOLD = Kobold()
TGI = Tgi()
