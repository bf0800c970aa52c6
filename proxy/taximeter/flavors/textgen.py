"""Text generation servers with names of their own: IBM watsonx, Hugging Face TGI, SGLang, KoboldCpp.

TGI reports `details.generated_tokens`, and the prompt in the header `x-prompt-tokens` alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from taximeter.core.record import Operation
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.text import extract
from taximeter.flavors.usage.counts import Fields, Members, added, count, decode, fields, items
from taximeter.flavors.usage.reader import UsageReader, Verdict


class WatsonxReader(UsageReader):
    """Generations of `/ml/v1/text/generation`: cumulative counts in every event, the input's in the first only."""

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        super().take(found)
        results = [fields(one) for one in items(decode(found["results"]))] if "results" in found else []
        for name in ("input_token_count", "generated_token_count"):
            here = added(*(count(one.get(name)) for one in results))
            if here is not None:
                self.report({name: max(here, count(self.usage.get(name)) or 0)}, b"")
        return Verdict.TAKEN


class KoboldReader(UsageReader):
    """KoboldCpp's `/api/v1/generate`: OpenAI's names in each result."""

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        super().take(found)
        for one in map(fields, items(decode(found["results"]))) if "results" in found else ():
            self.report({name: one[name] for name in ("prompt_tokens", "completion_tokens") if name in one}, b"")
        return Verdict.TAKEN


class TgiReader(UsageReader):
    """TGI's `/` and `/generate`, SGLang's `/generate`."""

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

    def output_text(self, event: Fields) -> Iterable[str]:
        token = extract.at(event, "token.text")
        return extract.texts_in([token] if token is not None else [event.get("generated_text"), event.get("text")])


WATSONX = Dialect(
    source="https://cloud.ibm.com/apidocs/watsonx-ai#text-generation",
    api="generate",
    operation=Operation.LLM,
    dialect="textgen",
    reader=WatsonxReader,
    usage=(),
    model=("model_id",),
    watch=("input_token_count", "generated_token_count"),
    prompt=("input", "inputs", "text", "prompt"),
    text=("results.generated_text",),
)
KOBOLD = replace(
    WATSONX,
    source="https://lite.koboldai.net/koboldcpp_api",
    reader=KoboldReader,
    model=("model",),
    watch=("results",),
    text=("token", "results.text"),
)
TGI = replace(
    WATSONX,
    source="https://huggingface.co/docs/text-generation-inference/reference/api_reference",
    reader=TgiReader,
    usage=("meta_info",),  # SGLang's, by OpenAI's names
    heads=((b"x-prompt-tokens", "input_tokens"), (b"x-generated-tokens", "output_tokens")),
    model=("model",),
    watch=("details",),
    text=(),
)
