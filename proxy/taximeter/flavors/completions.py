"""`/completions`: OpenAI's legacy text completions, and what speaks it (vLLM, Together, llama.cpp).

Usage as in chat; `completion_tokens` is absent where nothing was generated: the
provider's own total then says 0. llama.cpp's native `/completion` reports `tokens_evaluated` and
`tokens_predicted` beside its `content`, Aleph Alpha's `/complete` `num_tokens_prompt_total` and `num_tokens_generated`.
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.usage import Reading
from taximeter.flavors.chat import Chat, ChatReader
from taximeter.flavors.json_flavor import JsonFlavor
from taximeter.flavors.meter import Countable
from taximeter.flavors.text import extract
from taximeter.flavors.usage.counts import Fields, Members, count, decode, fields, first, items
from taximeter.flavors.usage.reader import Verdict

_FLAT_INPUT = ("tokens_evaluated", "num_tokens_prompt_total")
_FLAT_OUTPUT = ("tokens_predicted", "num_tokens_generated")


class CompletionsReader(ChatReader):
    """Text completions, whole or streamed."""

    marks = (*ChatReader.marks, b'"stop_reason"', b'"tokens_evaluated"', b'"num_tokens_generated"')

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        flat: Fields = {name: decode(found[name]) for name in _FLAT_INPUT + _FLAT_OUTPUT if name in found}
        if flat:
            self.report(flat, b"")
        return super().take(found)

    def convert(self) -> Reading:
        reading = super().convert()
        if not reading.reported:
            reading.input_tokens = first(self.usage, *_FLAT_INPUT)
            reading.output_tokens = first(self.usage, *_FLAT_OUTPUT)
        total = count(self.usage.get("total_tokens"))
        if reading.output_tokens is None and reading.input_tokens is not None and total is not None:
            reading.output_tokens = max(total - reading.input_tokens, 0)
        return reading

    def output_text(self, event: Fields) -> Iterable[str]:
        listed = [fields(fields(one).get("data")).get("text") for one in items(event.get("completions"))]  # AI21's J2
        return (*super().output_text(event), *extract.texts_in([event.get("completion"), event.get("content"), listed]))


class Completions(Chat):
    """Flavor of `/completions`."""

    api = "completions"
    reader = CompletionsReader
    usual = JsonFlavor.usual  # its answers are not read as OpenAI's

    def input(self, body: bytes) -> Countable:
        return extract.embedding_input(body, "prompt", "suffix", "input", "instruction", "input_prefix", "input_suffix")


COMPLETIONS = Completions()
