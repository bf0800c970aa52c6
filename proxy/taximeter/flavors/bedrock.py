"""Amazon Bedrock: Converse, InvokeModel and agents, whole or as event streams. Parsing only; nothing is re-signed.

Converse reports `usage` with cache reads and writes beside `inputTokens`, as Anthropic does, while `totalTokens` holds
all four (docs.aws.amazon.com, TokenUsage); streamed, in the `metadata` event after `messageStop`. InvokeModel answers
in the model's own shape; streamed, its last chunk carries `amazon-bedrock-invocationMetrics`, which count what is
billed. Models that report nothing have the headers `x-amzn-bedrock-*-token-count`. An agent makes several model calls,
each traced with its own usage: the only place where usages are summed.
"""

from __future__ import annotations

from collections.abc import Iterable

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors import messages
from taximeter.flavors.framing.frames import FrameMeter
from taximeter.flavors.json_flavor import JsonFlavor
from taximeter.flavors.meter import Answer, Countable, Meter, Prepared
from taximeter.flavors.text import extract
from taximeter.flavors.usage import cohere as cohere_usage
from taximeter.flavors.usage import openai as openai_usage
from taximeter.flavors.usage.counts import (
    Fields,
    Members,
    added,
    count,
    decode,
    fields,
    first,
    header_count,
    items,
    text,
)
from taximeter.flavors.usage.reader import UsageReader, Verdict
from taximeter.flavors.usage.usual import parts_exceed

_METRICS = "amazon-bedrock-invocationMetrics"
_FLAT = (
    "inputTextTokenCount",  # Titan
    "totalOutputTextTokenCount",
    "prompt_token_count",  # Llama
    "generation_token_count",
)


def read_converse(usage: Fields) -> Reading:
    """Converse's usage (and Nova's own), invocation metrics and headers: the cache counts stand beside the input."""
    fresh = first(usage, "inputTokens", "inputTokenCount")
    reads = first(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    writes = first(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    reading = Reading(
        input_tokens=added(fresh, reads, writes),
        cached_input_tokens=reads,
        cache_write_input_tokens=writes,
        output_tokens=first(usage, "outputTokens", "outputTokenCount"),
    )
    for detail in map(fields, items(usage.get("cacheDetails"))):
        if detail.get("ttl") == "5m":
            reading.cache_write_input_tokens_5m = first(detail, "inputTokens")
        elif detail.get("ttl") == "1h":
            reading.cache_write_input_tokens_1h = first(detail, "inputTokens")
    total = count(usage.get("totalTokens"))
    if total is not None and reading.input_tokens is not None and reading.output_tokens is not None:
        reading.inconsistent = total != reading.input_tokens + reading.output_tokens
    return reading


def read_native(usage: Fields, provider: str, model: str | None) -> Reading:
    """A model's own usage, told by its names."""
    if "inputTokens" in usage or "outputTokens" in usage:
        return read_converse(usage)
    if cohere_usage.is_cohere(usage):
        return cohere_usage.read(usage)
    if "prompt_tokens" in usage or "total_tokens" in usage:
        return openai_usage.read(usage, provider, model)
    if "input_tokens" in usage or "output_tokens" in usage:
        return messages.read(usage)
    return Reading(
        input_tokens=first(usage, "inputTextTokenCount", "prompt_token_count"),
        output_tokens=first(usage, "totalOutputTextTokenCount", "generation_token_count"),
    )


class ConverseReader(UsageReader):
    """Converse, whole or streamed."""

    __slots__ = ()

    def event(self, data: bytes, name: bytes = b"") -> Verdict:
        verdict = super().event(data, name)
        if name == b"metadata":  # follows messageStop and carries the usage
            self.terminal = self.finished = True
        return verdict

    def convert(self) -> Reading:
        return read_converse(self.usage)

    def output_text(self, event: Fields) -> Iterable[str]:
        message = fields(fields(event.get("output")).get("message"))
        return extract.texts_in([message.get("content"), event.get("delta")])


class InvokeReader(UsageReader):
    """InvokeModel, whole or streamed, in any model's shape."""

    usage_keys = ("usage", "meta")
    envelopes = ("message", "metadata", "response")

    __slots__ = ("_metrics",)

    def __init__(self, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(prepared, answer, provider)
        self._metrics: Fields = {}

    def take(self, found: Members) -> Verdict:
        super().take(found)
        flat: Fields = {name: decode(found[name]) for name in _FLAT if name in found}
        if "results" in found:  # Titan: one count a result
            each = [count(fields(one).get("tokenCount")) for one in items(decode(found["results"]))]
            flat["totalOutputTextTokenCount"] = added(*each)
        if flat:
            self.report(flat, b"")
        if _METRICS in found:
            self._metrics = fields(decode(found[_METRICS]))
            self.report({_METRICS: self._metrics}, b"")
            self.terminal = self.finished = True
        return Verdict.TAKEN

    def convert(self) -> Reading:
        native = read_native(self.usage, self.provider, self.model)
        if not self._metrics:
            return native if native.reported else read_converse(_headers(self.answer))
        # the metrics are what is billed; parts they do not tell are the native object's
        native_parts: Fields = {
            "cacheReadInputTokenCount": native.cached_input_tokens,
            "cacheWriteInputTokenCount": native.cache_write_input_tokens,
        }
        billed = read_converse({**native_parts, **self._metrics})
        native.input_tokens = _either(billed.input_tokens, native.input_tokens)
        native.output_tokens = _either(billed.output_tokens, native.output_tokens)
        native.cached_input_tokens = billed.cached_input_tokens
        native.cache_write_input_tokens = billed.cache_write_input_tokens
        native.inconsistent = parts_exceed(native)
        return native

    def output_text(self, event: Fields) -> Iterable[str]:
        names = ("content", "delta", "generation", "outputText", "completion", "text", "output", "outputs")
        yield from extract.texts_in([event.get(name) for name in names])
        yield from extract.chat_output(event)
        yield from extract.texts_in([fields(one).get("outputText") for one in items(event.get("results"))])
        yield from extract.texts_in([fields(one).get("text") for one in items(event.get("generations"))])
        yield from extract.texts_in(fields(event.get("contentBlockDelta")).get("delta"))


class AgentReader(UsageReader):
    """An agent's traced model calls, summed."""

    usage_keys = ()

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        super().take(found)
        for trace in map(fields, fields(decode(found["trace"])).values()) if "trace" in found else ():
            asked = fields(trace.get("modelInvocationInput"))
            self.model = self.model or text(asked.get("foundationModel"))
            used = fields(fields(fields(trace.get("modelInvocationOutput")).get("metadata")).get("usage"))
            if used:
                self.report({name: added(count(self.usage.get(name)), count(used.get(name))) for name in used}, b"")
        return Verdict.TAKEN

    def event(self, data: bytes, name: bytes = b"") -> Verdict:
        self.finished = self.finished or name == b"chunk"
        return super().event(data, name)

    def convert(self) -> Reading:
        return read_converse(self.usage)

    def output_text(self, event: Fields) -> Iterable[str]:
        return extract.texts_in(event.get("text"))


class Bedrock(JsonFlavor):
    """A Bedrock operation."""

    def __init__(self, api: str, operation: Operation, reader: type[UsageReader]) -> None:
        self.api = api
        self.operation = operation
        self.kind = reader

    def path_streams(self, path: bytes) -> bool:
        return path.partition(b"?")[0].lower().endswith(b"-stream")

    def new_reader(self, prepared: Prepared, answer: Answer, provider: str) -> UsageReader:
        return self.kind(prepared, answer, provider)

    def framing(self, reader: UsageReader, prepared: Prepared, answer: Answer, *, strip: bool) -> Meter:
        if answer.content_type.startswith(b"application/vnd.amazon.eventstream"):
            return FrameMeter(reader)
        return super().framing(reader, prepared, answer, strip=strip)

    def input(self, body: bytes) -> Countable:
        asked = extract.request(body)
        if "messages" in asked:
            return extract.chat_input(body)
        if self.operation is Operation.EMBEDDING:
            return extract.embedding_input(body, "inputText", "texts")
        return extract.input_of(body, "prompt", "inputText", "message", "query", "documents")


def _headers(answer: Answer) -> Fields:
    """The counts in an answer's head, by the names invocation metrics use."""
    names = {
        b"x-amzn-bedrock-input-token-count": "inputTokenCount",
        b"x-amzn-bedrock-output-token-count": "outputTokenCount",
        b"x-amzn-bedrock-cache-read-input-token-count": "cacheReadInputTokenCount",
        b"x-amzn-bedrock-cache-write-input-token-count": "cacheWriteInputTokenCount",
    }
    return {names[name]: header_count(value) for name, value in answer.headers if name in names}


def _either(one: int | None, other: int | None) -> int | None:
    return other if one is None else one


CONVERSE = Bedrock("chat", Operation.LLM, ConverseReader)
INVOKE = Bedrock("generate", Operation.LLM, InvokeReader)
INVOKE_EMBED = Bedrock("embeddings", Operation.EMBEDDING, InvokeReader)
INVOKE_RERANK = Bedrock("rerank", Operation.RERANK, InvokeReader)
AGENT = Bedrock("other", Operation.LLM, AgentReader)
