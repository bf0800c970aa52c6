"""Which field of a usage object is which figure of a reading. A provider's odd field is one more name here. Pure.

A figure is written as the provider's documentation adds it up: `a | b` is the first that holds a count, `a + b` the sum
of those that do (`|` binds closer), `object.a` a field of an inner object. `in.` and `out.` stand for each name that an
object with details goes by. What no name can show (reasoning beside the completion …) is decided in `conventions` and
`openai`.
"""

from __future__ import annotations

from taximeter.core.usage import DURATIONS, Reading
from taximeter.flavors.usage.counts import Fields, count, duration_s, fields, text, ticks_to_nusd, usd_to_nusd
from taximeter.flavors.usage.usual import parts_exceed

_DETAILS = {
    "in": (
        "prompt_tokens_details", "input_tokens_details", "prompt_token_details", "input_token_details",
        "promptTokensDetails",
    ),
    "out": (
        "completion_tokens_details", "output_tokens_details", "completion_token_details", "output_token_details",
        "completionTokensDetails",
    ),
}  # fmt: skip
_TOTAL = "total_tokens"

Slot = tuple[str, int]
"""A figure, and which term of its sum."""


class FieldNames:
    """The names of one convention; `figures` are members of `Reading`, and `total_tokens`: the provider's own sum."""

    __slots__ = ("_wanted", "figures", "source")

    def __init__(self, source: str, **figures: str) -> None:
        """`source`: where the fields are documented."""
        self.source = source
        self.figures = figures
        self._wanted: dict[str, dict[str, list[tuple[Slot, int]]]] = {}
        for figure, sum_ in figures.items():
            for term, names in enumerate(sum_.split("+")):
                for rank, path in enumerate(names.split("|")):
                    holder, _, name = path.strip().rpartition(".")
                    for one in _DETAILS.get(holder, (holder,)):
                        self._wanted.setdefault(one, {}).setdefault(name, []).append(((figure, term), rank))

    def read(self, usage: Fields) -> Reading:
        """The figures of a usage object; `inconsistent` where they contradict the provider's own total, or their parts.

        Costs what the object holds, not what names are known.
        """
        best: dict[Slot, tuple[int, int | float]] = {}
        for holder, wanted in self._wanted.items():
            held = usage.get(holder) if holder else usage
            if not isinstance(held, dict):
                continue
            for name in wanted.keys() & held.keys():
                for slot, rank in wanted[name]:
                    value = duration_s(held[name]) if slot[0] in DURATIONS else count(held[name])
                    if value is not None and (slot not in best or rank < best[slot][0]):
                        best[slot] = rank, value
        sums: dict[str, int | float] = {}
        for (figure, _), (_, value) in best.items():
            sums[figure] = sums.get(figure, 0) + value
        total = sums.pop(_TOTAL, None)
        tier = "byok" if usage.get("is_byok") is True else text(usage.get("service_tier"))
        reading = Reading(service_tier=tier, upstream_cost_nusd=cost_nusd(usage))
        for figure, value in sums.items():
            setattr(reading, figure, value)
        into, out = reading.input_tokens, reading.output_tokens
        contradicted = total is not None and into is not None and out is not None and total != into + out
        reading.inconsistent = contradicted or parts_exceed(reading)
        return reading


def cost_nusd(usage: Fields) -> int | None:
    """The cost the provider itself states, in nano-USD."""
    cost = usage.get("cost")  # OpenRouter, Vercel: USD
    if isinstance(cost, dict):
        cost = cost.get("total_cost")  # Perplexity
    for stated in (cost, usage.get("estimated_cost")):  # DeepInfra
        if (nusd := usd_to_nusd(stated)) is not None:
            return nusd
    nusd = ticks_to_nusd(usage.get("cost_in_usd_ticks"))  # xAI (docs.x.ai: 10**10 ticks are 1 USD)
    return usd_to_nusd(fields(usage.get("pydantic_ai_gateway")).get("cost_estimate")) if nusd is None else nusd


OPENAI = FieldNames(
    "https://platform.openai.com/docs/api-reference/chat/object",
    # and, after OpenAI's own, the names of those who count as it does
    input_tokens="prompt_tokens | input_tokens"
    "| promptTokens | inputTextTokens"  # Oracle (GenerativeAiInference, Usage); Yandex
    "| tokens_evaluated"  # llama.cpp, tools/server, /completion
    "| num_tokens_prompt_total"  # Aleph Alpha
    "| input_token_count"  # watsonx; Replicate (metrics)
    "| tokens_input"  # DeepInfra (inference_status)
    "| inputTextTokenCount | prompt_token_count"  # Bedrock: Titan; Llama
    "| input_length",  # TGI
    output_tokens="completion_tokens | output_tokens"
    "| total_output_tokens"  # LM Studio
    "| completionTokens"
    "| tokens_predicted | num_tokens_generated"
    "| generated_token_count | output_token_count"  # watsonx; Replicate
    "| tokens_generated"
    "| totalOutputTextTokenCount | generation_token_count"
    "| generated_tokens",
    cached_input_tokens="in.cached_tokens | in.cachedTokens"
    "| cached_tokens"  # Together, Hugging Face, Moonshot, Anthropic's OpenAI endpoint
    "| num_cached_tokens"  # Mistral
    "| prompt_cache_hit_tokens"  # DeepSeek
    "| cache_read_input_tokens",  # Venice, Databricks, Vercel, Doubleword
    cache_write_input_tokens="in.cache_write_tokens | in.cache_creation_tokens"
    "| in.cache_creation_input_tokens"  # Qwen (Model Studio, explicit cache)
    "| cache_creation_input_tokens",
    cache_write_input_tokens_5m="cache_creation.ephemeral_5m_input_tokens",
    cache_write_input_tokens_1h="cache_creation.ephemeral_1h_input_tokens",
    audio_input_tokens="in.audio_tokens | audio_prompt_tokens",
    image_input_tokens="in.image_tokens",
    video_input_tokens="in.video_tokens",  # OpenRouter, Qwen
    reasoning_output_tokens="out.reasoning_tokens | out.thinking_tokens | out.reasoningTokens"
    "| reasoning_tokens | reasoning_output_tokens",  # Perplexity; LM Studio
    audio_output_tokens="out.audio_tokens",
    image_output_tokens="out.image_tokens",
    video_output_tokens="out.video_tokens",
    accepted_prediction_tokens="out.accepted_prediction_tokens | out.acceptedPredictionTokens",
    rejected_prediction_tokens="out.rejected_prediction_tokens | out.rejectedPredictionTokens",
    search_units="search_units",  # OpenRouter
    web_search_requests="server_tool_use_details.web_search_requests | server_tool_use.web_search_requests"
    "| num_search_queries"  # Perplexity
    "| tool_usage.web_search"  # Volcengine
    "| connectors.web_search"  # Mistral: uses by name (https://docs.mistral.ai/agents/connectors/)
    "| server_side_tool_usage_details.web_search_calls"  # xAI; searches of X cost the same
    "+ server_side_tool_usage_details.x_search_calls + connectors.web_search_premium",
    file_search_requests="server_side_tool_usage_details.file_search_calls"
    "+ server_side_tool_usage_details.document_search_calls + connectors.document_library",
    code_interpreter_sessions="server_side_tool_usage_details.code_interpreter_calls | connectors.code_interpreter",
    image_generations="connectors.image_generation",
    seconds="seconds | prompt_audio_seconds",  # whisper-1, OpenRouter; Mistral
    images="generated_images | image_count",  # Volcengine; Model Studio
    input_characters="characters | usage_characters",  # Model Studio; MiniMax
    pages="pages_processed",  # Mistral OCR
)

ANTHROPIC = FieldNames(
    "https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching",  # total input is the sum of the three
    input_tokens="input_tokens + cache_read_input_tokens + cache_creation_input_tokens",
    cached_input_tokens="cache_read_input_tokens",
    cache_write_input_tokens="cache_creation_input_tokens",
    cache_write_input_tokens_5m="cache_creation.ephemeral_5m_input_tokens",
    cache_write_input_tokens_1h="cache_creation.ephemeral_1h_input_tokens",
    output_tokens="output_tokens",
    reasoning_output_tokens="output_tokens_details.thinking_tokens",
    web_search_requests="server_tool_use.web_search_requests",
)

GEMINI = FieldNames(
    "https://ai.google.dev/api/generate-content#UsageMetadata",  # the total is the sum of the four
    input_tokens="promptTokenCount + toolUsePromptTokenCount",
    cached_input_tokens="cachedContentTokenCount",
    output_tokens="candidatesTokenCount | responseTokenCount + thoughtsTokenCount",
    reasoning_output_tokens="thoughtsTokenCount",
    total_tokens="totalTokenCount",
)

INTERACTIONS = FieldNames(
    "https://ai.google.dev/api/interactions-api",  # 149 = 12 + 1 + 136
    input_tokens="total_input_tokens + total_tool_use_tokens",
    cached_input_tokens="total_cached_tokens",
    output_tokens="total_output_tokens + total_thought_tokens",
    reasoning_output_tokens="total_thought_tokens",
    total_tokens="total_tokens",
)

CONVERSE = FieldNames(
    "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html",  # the total holds all four
    input_tokens="inputTokens | inputTokenCount + cacheReadInputTokens | cacheReadInputTokenCount"
    "+ cacheWriteInputTokens | cacheWriteInputTokenCount",
    cached_input_tokens="cacheReadInputTokens | cacheReadInputTokenCount",
    cache_write_input_tokens="cacheWriteInputTokens | cacheWriteInputTokenCount",
    output_tokens="outputTokens | outputTokenCount",
    total_tokens="totalTokens",
)

COHERE = FieldNames(
    "https://docs.cohere.com/reference/chat",  # meta.billed_units, usage; images are billed beside the text
    input_tokens="billed_units.input_tokens + billed_units.image_tokens",
    output_tokens="billed_units.output_tokens",
    search_units="billed_units.search_units",
    image_input_tokens="billed_units.image_tokens",
    cached_input_tokens="cached_tokens",
    reasoning_output_tokens="tokens.reasoning_tokens",
)

OLLAMA = FieldNames(
    "https://docs.ollama.com/api/usage",
    input_tokens="prompt_eval_count",
    cached_input_tokens="prompt_eval_cached_count",
    output_tokens="eval_count",
)
