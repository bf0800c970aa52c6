"""Amazon Bedrock: Converse, InvokeModel and agents, whole or as event streams. Parsing only; nothing is re-signed.

Converse reports `usage` with cache reads and writes beside `inputTokens`, as Anthropic does, while `totalTokens` holds
all four (docs.aws.amazon.com, TokenUsage); streamed, in the `metadata` event after `messageStop`. InvokeModel answers
in the model's own shape; streamed, its last chunk carries `amazon-bedrock-invocationMetrics`, which count what is
billed. Models that report nothing have the headers `x-amzn-bedrock-*-token-count`. An agent makes several model calls,
each traced with its own usage: the only place where usages are summed.
"""

from __future__ import annotations

from msgspec.structs import replace

from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.usage import conventions
from taximeter.flavors.usage.counts import Fields, Members, added, count, decode, fields, header_count, items, text
from taximeter.flavors.usage.reader import UsageReader, Verdict
from taximeter.flavors.usage.row import Row
from taximeter.flavors.usage.usual import parts_exceed

_TIER = b"x-amzn-bedrock-service-tier"
"""https://docs.aws.amazon.com/bedrock/latest/userguide/service-tiers-inference.html"""
_LATENCY = b"x-amzn-bedrock-performanceconfig-latency"
"""`optimized` has a price of its own, which the body of Converse tells, else this:
https://docs.aws.amazon.com/bedrock/latest/userguide/latency-optimized-inference.html"""
_METRICS = "amazon-bedrock-invocationMetrics"
_HEADERS = {
    b"x-amzn-bedrock-input-token-count": "inputTokenCount",
    b"x-amzn-bedrock-output-token-count": "outputTokenCount",
    b"x-amzn-bedrock-cache-read-input-token-count": "cacheReadInputTokenCount",
    b"x-amzn-bedrock-cache-write-input-token-count": "cacheWriteInputTokenCount",
}
"""The counts in an answer's head, by the names invocation metrics use."""


class BedrockReader(UsageReader):
    """An answer that tells whether it was made faster, at a higher price."""

    __slots__ = ("_latency",)

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        self._latency = answer.value_of(_LATENCY).decode("latin-1") or None

    def reading(self) -> Reading:
        """See `UsageReader.reading`."""
        reading = super().reading()
        reading.speed = reading.speed or self._latency
        return reading


class ConverseReader(BedrockReader):
    """Converse, whole or streamed."""

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        if "serviceTier" in found:
            self.tier = text(fields(decode(found["serviceTier"])).get("type")) or self.tier
        if "performanceConfig" in found:
            self._latency = text(fields(decode(found["performanceConfig"])).get("latency")) or self._latency
        return super().take(found)

    def event(self, data: bytes, name: bytes = b"") -> Verdict:
        verdict = super().event(data, name)
        if name == b"metadata":  # follows messageStop and carries the usage
            self.terminal = self.finished = True
        return verdict


class InvokeReader(BedrockReader):
    """InvokeModel, whole or streamed, in any model's shape."""

    __slots__ = ("_metrics",)

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        self._metrics: Fields = {}

    def take(self, found: Members) -> Verdict:
        super().take(found)
        if "results" in found:  # Titan: one count a result
            each = [count(fields(one).get("tokenCount")) for one in items(decode(found["results"]))]
            self.report({"totalOutputTextTokenCount": added(*each)}, b"")
        if _METRICS in found:
            self._metrics = fields(decode(found[_METRICS]))
            self.report({_METRICS: self._metrics}, b"")
            self.terminal = self.finished = True
        return Verdict.TAKEN

    def convert(self) -> Reading:
        self.tier = self.tier or self.answer.value_of(_TIER).decode("latin-1") or None
        native = super().convert()
        if not self._metrics:
            return native if native.reported else conventions.converse(self._told_in_head())
        # the metrics are what is billed; parts they do not tell are the native object's
        native_parts: Fields = {
            "cacheReadInputTokenCount": native.cached_input_tokens,
            "cacheWriteInputTokenCount": native.cache_write_input_tokens,
        }
        billed = conventions.converse({**native_parts, **self._metrics})
        native.input_tokens = _known(billed.input_tokens, native.input_tokens)
        native.output_tokens = _known(billed.output_tokens, native.output_tokens)
        native.cached_input_tokens = billed.cached_input_tokens
        native.cache_write_input_tokens = billed.cache_write_input_tokens
        native.inconsistent = parts_exceed(native)
        return native

    def _told_in_head(self) -> Fields:
        return {_HEADERS[name]: header_count(value) for name, value in self.answer.headers if name in _HEADERS}


class AgentReader(UsageReader):
    """An agent's traced model calls, summed."""

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


def _known(billed: int | None, told: int | None) -> int | None:
    """What is billed, unless that is a 0 or nothing and the model's own object says more."""
    return billed if billed or told is None else told


CONVERSE = Dialect(
    source="https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html",
    api="chat",
    operation=Operation.LLM,
    dialect="converse",
    reader=ConverseReader,
    read=conventions.converse,
    messages="messages",
    prompt=("prompt", "inputText", "message", "query", "documents"),
    text=("output.message.content", "delta"),
)
INVOKE = replace(
    CONVERSE,
    source="https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html",
    api="generate",
    dialect="invoke",
    reader=InvokeReader,
    usage=("usage", "meta"),
    envelopes=("message", "metadata", "response"),
    flat=(
        "inputTextTokenCount", "totalOutputTextTokenCount",  # Titan
        "prompt_token_count", "generation_token_count",  # Llama
    ),
    read=conventions.by_names,
    text=(
        "content", "delta", "generation", "outputText", "completion", "text", "output", "outputs", "choices",
        "results.outputText", "generations.text", "contentBlockDelta.delta",
    ),
)  # fmt: skip
INVOKE_EMBED = replace(
    INVOKE, api="embeddings", dialect="unknown", operation=Operation.EMBEDDING, prompt=("inputText", "texts")
)
INVOKE_RERANK = replace(INVOKE, api="rerank", dialect="unknown", operation=Operation.RERANK)
AGENT = replace(
    CONVERSE,
    source="https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_InvokeAgent.html",
    api="other",
    dialect="agent",
    reader=AgentReader,
    usage=(),
    watch=("trace",),
    text=("text",),
)
