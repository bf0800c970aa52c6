"""Dialects that are rows and nothing else: where the usage stands and what a request holds. Which field of a usage
object is which figure stands in `usage/fields.py`; dialects that need code have modules of their own.
"""

from __future__ import annotations

from msgspec.structs import replace

from taximeter.core.record import Operation
from taximeter.flavors.chat import hosted_model
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.generate import TieredReader
from taximeter.flavors.meter import Prepared
from taximeter.flavors.usage import conventions, usual
from taximeter.flavors.usage.counts import Members, decode
from taximeter.flavors.usage.reader import UsageReader, Verdict


class AudioReader(UsageReader):
    """Sound from text or text from sound. `verbose_json` alone tells how long it is that was transcribed
    (https://platform.openai.com/docs/api-reference/audio/verbose-json-object); others with a `duration` measure
    something of their own."""

    __slots__ = ()

    def take(self, found: Members) -> Verdict:
        if "duration" in found and ("task" in found or "segments" in found):
            self.report({"duration": decode(found["duration"])}, b"")
        return super().take(found)

    def names(self) -> tuple[str, ...]:
        return (*super().names(), "duration", "task")


_COMPUTE_TOKENS = ((b"x-compute-tokens", "input_tokens"),)  # TEI, whose body is a bare array


UNMETERED = Dialect(
    # what is no inference; what gives back another call's answer is `polls`
    metered=False,
    usual=usual.nothing,
)
UNKNOWN = Dialect(
    # A POST no rule knows: recorded as `other`, so neither chat nor embedding nor rerank, and nothing is counted; what
    # is billed by pages, images or seconds of work (OCR, Replicate) has its usage object kept as it came.
    usage=(
        "usage", "meta", "usageMetadata",
        "usage_info",  # Mistral OCR: pages_processed
        "metrics",  # Replicate: input_token_count, output_token_count, predict_time
        "inference_status",  # DeepInfra: tokens_input, tokens_generated, cost
    ),
    envelopes=("response", "result", "data", "message"),
    read=conventions.by_names,
)  # fmt: skip

# -- embeddings

EMBEDDINGS = Dialect(
    # `usage.prompt_tokens`, or `total_tokens` alone (Voyage). Answers are large: usage is read from the tail (OpenAI)
    # or from the head (Jina writes it before the data).
    source="https://platform.openai.com/docs/api-reference/embeddings",
    api="embeddings",
    operation=Operation.EMBEDDING,
    envelopes=("result",),
    flat=("input_token_count",),  # watsonx, beside its results
    heads=_COMPUTE_TOKENS,
    model=("model", "model_id"),
    usual=usual.embeddings,
    inputs=("input", "inputs"),
    prompt=("input", "inputs"),
)
HOSTED_EMBEDDINGS = replace(
    EMBEDDINGS,
    model_in=hosted_model,
    inputs=("input", "inputs", "text"),
    prompt=("input", "inputs", "text"),
)
DASHSCOPE_EMBEDDINGS = replace(
    EMBEDDINGS,
    source="https://help.aliyun.com/en/model-studio/",
    inputs=("input.texts", "input.contents"),
    prompt=("input.texts", "input.contents"),
)
OLLAMA_EMBED = Dialect(
    source="https://docs.ollama.com/api/embed",  # the legacy /api/embeddings reports nothing
    api="embeddings",
    operation=Operation.EMBEDDING,
    usage=(),
    flat=("prompt_eval_count", "prompt_eval_cached_count", "eval_count"),
    read=conventions.ollama,
    streams=False,
    ndjson=True,
    inputs=("input",),
    prompt=("input", "prompt"),
)

# -- chat and generation

DASHSCOPE = Dialect(
    # a stream (asked for by a header, not by the body) repeats its cumulative usage in every event
    source="https://www.alibabacloud.com/help/en/model-studio/qwen-api-reference",
    api="chat",
    operation=Operation.LLM,
    dialect="dashscope",
    messages="input.messages",
    prompt=("input.prompt",),
    text=("output.text", "output.choices"),
)


class Conversations(Dialect, frozen=True, kw_only=True, eq=False):
    """Mistral's answers what `inputs` say; OpenAI's of the same name, without them, only writes down a conversation."""

    def prepare(self, body: bytes, path: bytes, *, inject: bool) -> Prepared:
        """See `Flavor.prepare`."""
        prepared = super().prepare(body, path, inject=inject)
        prepared.uses_nothing = bool(body) and b'"inputs"' not in (prepared.reading or body)
        return prepared


CONVERSATIONS = Conversations(
    # kept by the provider, with connectors that bring text into the prompt (`connector_tokens`, beside it)
    source="https://docs.mistral.ai/api/",
    api="responses",
    operation=Operation.LLM,
    dialect="conversations",
    ends=frozenset(("conversation.response.done",)),
    fails=frozenset(("error", "conversation.response.error")),
    marks=(b"error", b'"conversation.response.done"'),
    prompt=("inputs", "instructions"),
    prompt_json=("tools",),
    kept=True,
    text=("outputs.content", "content", "name", "arguments"),
    text_kinds=("message.output.delta", "function.call.delta"),
)
INTERACTIONS = Dialect(
    source="https://ai.google.dev/api/interactions-api",
    api="generate",
    operation=Operation.LLM,
    dialect="interactions",
    reader=TieredReader,
    read=conventions.interactions,
    envelopes=("interaction", "metadata"),
    kind=("event_type",),
    ends=frozenset(("interaction.completed", "interaction.complete", "interaction.failed")),
    fails=frozenset(("error", "interaction.failed")),
    marks=(b"[DONE]", b"error", b'"interaction.'),
    prompt=("input", "system_instruction"),
    prompt_json=("tools",),
    text=("delta", "outputs", "steps"),
)
OLLAMA_CHAT = Dialect(
    source="https://docs.ollama.com/api/chat",
    api="chat",
    operation=Operation.LLM,
    dialect="ollama",
    usage=(),
    flat=OLLAMA_EMBED.flat,  # in the last line; the first is absent where the prompt was cached (issues 2068, 3427)
    read=conventions.ollama,
    done="done",
    marks=(b'"done":true', b'"done": true', b"error"),
    streams=True,
    ndjson=True,
    messages="messages",
    prompt=("prompt", "system", "suffix"),
    text=("message", "response", "thinking"),
)
OLLAMA_GENERATE = replace(OLLAMA_CHAT, source="https://docs.ollama.com/api/generate", api="generate")

# -- sound; images, speech and documents are billed by the piece and stand in `media`

AUDIO = Dialect(
    # {"type": "tokens", …} or {"type": "duration", "seconds": …}: two units, never both; Mistral adds both
    source="https://platform.openai.com/docs/api-reference/audio",
    api="audio",
    reader=AudioReader,
    read=conventions.transcribed,
    ends=frozenset(("transcript.text.done", "transcription.done")),
    prompt=("prompt", "input"),
    kept=True,
)
