"""Alibaba's DashScope in its own dialect: `/api/v1/services/aigc/…/generation` and `/services/embeddings/…`.

`usage` has OpenAI's Responses names; a stream (asked for by a header, not by the body) repeats it in every event,
cumulative. Text embeddings report `total_tokens` alone. Source: https://help.aliyun.com/en/model-studio/, DashScope API
reference. Reranking shares `rerank`; the OpenAI-compatible mode shares `chat`.
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.embeddings import Embeddings
from taximeter.flavors.json_flavor import JsonFlavor, RequestMembers
from taximeter.flavors.meter import Countable, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage import openai as openai_usage
from taximeter.flavors.usage.counts import Fields, decode, fields, items
from taximeter.flavors.usage.reader import UsageReader


class DashScopeReader(UsageReader):
    """A generation, whole or streamed."""

    __slots__ = ()

    def convert(self) -> Reading:
        return openai_usage.read(self.usage, self.provider, self.model)

    def output_text(self, event: Fields) -> Iterable[str]:
        output = fields(event.get("output"))
        return (*extract.texts_in(output.get("text")), *extract.chat_output(output))


class DashScope(JsonFlavor):
    """Flavor of text and multimodal generation."""

    api = "chat"
    operation = Operation.LLM
    reader = DashScopeReader

    def input(self, body: bytes) -> Countable:
        given = fields(extract.request(body).get("input"))
        walk = extract.TextWalk()
        messages = items(given.get("messages"))
        for message in messages or (given.get("prompt"),):
            walk.take(message)
        countable = walk.countable(len(messages) * extract.TOKENS_PER_MESSAGE)
        countable.truncated = countable.truncated or not walk.texts
        return countable


class DashScopeEmbeddings(Embeddings):
    """Flavor of text and multimodal embeddings."""

    def add_to(self, prepared: Prepared, found: RequestMembers, *, inject: bool) -> None:
        prepared.embedding_inputs = len(_inputs(fields(decode(found.input)))) or None

    def input(self, body: bytes) -> Countable:
        walk = extract.TextWalk()
        for item in _inputs(fields(extract.request(body).get("input"))):
            walk.take(item)
        countable = walk.countable()
        countable.truncated = countable.truncated or not walk.texts
        return countable


def _inputs(given: Fields) -> list[object]:
    return items(given.get("texts")) or items(given.get("contents"))


DASHSCOPE = DashScope()
DASHSCOPE_EMBEDDINGS = DashScopeEmbeddings()
