"""What each API can bill for at most, as rows: which member of a request bounds or raises it, and how. Pure data.

docs/limits.md shows these rows under "What a call is held for"; tests/gateway/test_bounds.py has a case for each.
A member is matched as the most lenient decoder would (`Model`, `max-tokens`), and inside `extra_body` too.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple


class Bounds(StrEnum):
    """What a member does to the bound."""

    ANSWER = "bounds the tokens of an answer"
    ANSWERS = "multiplies the answer"
    PROMPTS = "multiplies the answer by its length"
    THINKING = "is added to the answer"
    PREDICTED = "its bytes are added to the answer"
    KEPT = "the input is the model's whole context window"
    TIER = "the dearest tier that it may mean is priced"
    USES = "uses of tools by the provider, each a pass over the context window, and its fee"
    TOOLS = "without a stated number of uses there is no bound"
    STORED = "may bring tools: without `max_tool_calls` there is no bound"
    ENDLESS = "there is no bound"


class Rule(NamedTuple):
    """One rule. `dialect` is the name of a flavor's; * is every one, `unknown` has the most cautious ones."""

    dialect: str
    member: str
    bounds: Bounds
    source: str
    when: str = ""
    """Text that the member's value must hold for the rule to apply."""


_OPENAI_CHAT = "https://platform.openai.com/docs/api-reference/chat/create"
_OPENAI_RESPONSES = "https://platform.openai.com/docs/api-reference/responses/create"
_OPENAI_REALTIME = "https://platform.openai.com/docs/api-reference/realtime-client-events/response/create"
_OPENAI_COMPLETIONS = "https://platform.openai.com/docs/api-reference/completions/create"
_OPENAI_SEARCH = "https://platform.openai.com/docs/guides/tools-web-search"
_OPENAI_IMAGES = "https://platform.openai.com/docs/api-reference/images/create"
_ANTHROPIC = "https://docs.anthropic.com/en/api/messages"
_ANTHROPIC_THINKING = "https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking"
_ANTHROPIC_SEARCH = "https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/web-search-tool"
_ANTHROPIC_MCP = "https://docs.anthropic.com/en/docs/agents-and-tools/mcp-connector"
_GEMINI = "https://ai.google.dev/api/generate-content"
_GEMINI_THINKING = "https://ai.google.dev/gemini-api/docs/thinking"
_GEMINI_SEARCH = "https://ai.google.dev/gemini-api/docs/google-search"
_GEMINI_CACHE = "https://ai.google.dev/gemini-api/docs/caching"
_COHERE = "https://docs.cohere.com/reference/chat"
_OLLAMA = "https://github.com/ollama/ollama/blob/main/docs/api.md"
_CONVERSE = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html"
_NOVA_GROUNDING = "https://docs.aws.amazon.com/nova/latest/userguide/grounding.html"
_INVOKE = "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html"
_MISTRAL = "https://docs.mistral.ai/api/"
_OPENROUTER = "https://openrouter.ai/docs/api-reference/parameters"
_OPENROUTER_SEARCH = "https://openrouter.ai/docs/features/web-search"
_DASHSCOPE = "https://www.alibabacloud.com/help/en/model-studio/qwen-api-reference"
_TGI = "https://huggingface.co/docs/text-generation-inference/reference/api_reference"
_LLAMA_CPP = "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md"
_CODE_EXECUTION = "https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/code-execution-tool"
_COMPACTION = "https://docs.anthropic.com/en/docs/build-with-claude/compaction"
_INTERACTIONS = "https://ai.google.dev/api/interactions-api"
_ORACLE = "https://docs.oracle.com/en-us/iaas/api/#/en/generative-ai-inference/"
_AZURE_DATA = "https://learn.microsoft.com/en-us/azure/ai-foundry/openai/references/on-your-data"
_CLOUDFLARE_BATCH = "https://developers.cloudflare.com/workers-ai/features/batch-api/"
_XAI_SEARCH = "https://docs.x.ai/docs/guides/live-search"

RULES: tuple[Rule, ...] = (
    Rule("chat", "max_completion_tokens", Bounds.ANSWER, _OPENAI_CHAT),
    Rule("chat", "max_tokens", Bounds.ANSWER, _OPENAI_CHAT),
    Rule("chat", "n", Bounds.ANSWERS, _OPENAI_CHAT),
    Rule("chat", "best_of", Bounds.ANSWERS, _OPENAI_COMPLETIONS),
    Rule("chat", "prediction", Bounds.PREDICTED, _OPENAI_CHAT),
    Rule("chat", "service_tier", Bounds.TIER, _OPENAI_CHAT),
    Rule("chat", "tools", Bounds.TOOLS, _OPENAI_CHAT),
    Rule("chat", "web_search_options", Bounds.ENDLESS, _OPENAI_CHAT),
    Rule("chat", "reasoning.max_tokens", Bounds.THINKING, _OPENROUTER),
    Rule("chat", "thinking_budget", Bounds.THINKING, _DASHSCOPE),
    Rule("chat", "enable_thinking", Bounds.THINKING, _DASHSCOPE),
    Rule("chat", "thinking.budget_tokens", Bounds.THINKING, _ANTHROPIC_THINKING),
    Rule("chat", "thinking_config.thinking_budget", Bounds.THINKING, _GEMINI_THINKING),
    Rule("chat", "cached_content", Bounds.KEPT, _GEMINI_CACHE),
    Rule("chat", "search_parameters", Bounds.ENDLESS, _XAI_SEARCH),
    Rule("chat", "plugins", Bounds.ENDLESS, _OPENROUTER_SEARCH),
    Rule("chat", "enable_search", Bounds.ENDLESS, _DASHSCOPE),
    Rule("chat", "data_sources", Bounds.ENDLESS, _AZURE_DATA),
    Rule("hosted", "max_tokens", Bounds.ANSWER, _OPENAI_CHAT),
    Rule("hosted", "max_completion_tokens", Bounds.ANSWER, _OPENAI_CHAT),
    Rule("hosted", "max_new_tokens", Bounds.ANSWER, _TGI),
    Rule("hosted", "parameters.max_new_tokens", Bounds.ANSWER, _TGI),
    Rule("hosted", "parameters.maxOutputTokens", Bounds.ANSWER, _GEMINI),
    Rule("hosted", "n", Bounds.ANSWERS, _OPENAI_CHAT),
    Rule("hosted", "prompt", Bounds.PROMPTS, _OPENAI_COMPLETIONS),
    Rule("hosted", "inputs", Bounds.PROMPTS, _TGI),
    Rule("hosted", "requests", Bounds.ENDLESS, _CLOUDFLARE_BATCH),
    Rule("hosted", "tools", Bounds.TOOLS, _OPENAI_CHAT),
    Rule("completions", "max_tokens", Bounds.ANSWER, _OPENAI_COMPLETIONS),
    Rule("completions", "max_tokens_to_sample", Bounds.ANSWER, "https://docs.anthropic.com/en/api/complete"),
    Rule("completions", "n_predict", Bounds.ANSWER, _LLAMA_CPP),
    Rule("completions", "n", Bounds.ANSWERS, _OPENAI_COMPLETIONS),
    Rule("completions", "best_of", Bounds.ANSWERS, _OPENAI_COMPLETIONS),
    Rule("completions", "prompt", Bounds.PROMPTS, _OPENAI_COMPLETIONS),
    Rule("completions", "service_tier", Bounds.TIER, _OPENAI_COMPLETIONS),
    Rule("responses", "max_output_tokens", Bounds.ANSWER, _OPENAI_RESPONSES),
    Rule("responses", "previous_response_id", Bounds.KEPT, _OPENAI_RESPONSES),
    Rule("responses", "conversation", Bounds.KEPT, _OPENAI_RESPONSES),
    Rule("responses", "prompt", Bounds.KEPT, _OPENAI_RESPONSES),
    Rule("responses", "prompt", Bounds.STORED, _OPENAI_RESPONSES),
    Rule("responses", "max_tool_calls", Bounds.USES, _OPENAI_RESPONSES),
    Rule("responses", "tools", Bounds.TOOLS, _OPENAI_RESPONSES),
    Rule("responses", "service_tier", Bounds.TIER, _OPENAI_RESPONSES),
    Rule("realtime", "max_output_tokens", Bounds.ANSWER, _OPENAI_REALTIME),
    Rule("realtime", "max_response_output_tokens", Bounds.ANSWER, _OPENAI_REALTIME),
    Rule("realtime", "prompt", Bounds.ENDLESS, _OPENAI_REALTIME),
    Rule("realtime", "tools", Bounds.TOOLS, _OPENAI_REALTIME),
    Rule("conversations", "completion_args.max_tokens", Bounds.ANSWER, _MISTRAL),
    Rule("conversations", "agent_id", Bounds.ENDLESS, _MISTRAL),
    Rule("conversations", "tools", Bounds.TOOLS, _MISTRAL),
    Rule("messages", "max_tokens", Bounds.ANSWER, _ANTHROPIC),
    Rule("messages", "thinking.budget_tokens", Bounds.THINKING, _ANTHROPIC_THINKING),
    Rule("messages", "service_tier", Bounds.TIER, _ANTHROPIC),
    Rule("messages", "speed", Bounds.TIER, "https://docs.anthropic.com/en/docs/build-with-claude/fast-mode"),
    Rule("messages", "tools", Bounds.TOOLS, _ANTHROPIC_SEARCH),
    Rule("messages", "mcp_servers", Bounds.ENDLESS, _ANTHROPIC_MCP),
    Rule(
        "messages",
        "container",
        Bounds.KEPT,
        _CODE_EXECUTION,
    ),
    Rule(
        "messages",
        "context_management",
        Bounds.ENDLESS,
        _COMPACTION,
        "compact",
    ),
    Rule("generate", "generationConfig.maxOutputTokens", Bounds.ANSWER, _GEMINI),
    Rule("generate", "generationConfig.candidateCount", Bounds.ANSWERS, _GEMINI),
    Rule("generate", "generationConfig.thinkingConfig.thinkingBudget", Bounds.THINKING, _GEMINI_THINKING),
    Rule("generate", "parameters.maxOutputTokens", Bounds.ANSWER, _GEMINI),
    Rule("generate", "parameters.candidateCount", Bounds.ANSWERS, _GEMINI),
    Rule("generate", "cachedContent", Bounds.KEPT, _GEMINI_CACHE),
    Rule("generate", "tools", Bounds.TOOLS, _GEMINI_SEARCH),
    Rule("generate", "serviceTier", Bounds.TIER, _GEMINI),
    Rule(
        "interactions",
        "generation_config.max_output_tokens",
        Bounds.ANSWER,
        _INTERACTIONS,
    ),
    Rule("interactions", "previous_interaction_id", Bounds.KEPT, _INTERACTIONS),
    Rule("interactions", "agent", Bounds.ENDLESS, _INTERACTIONS),
    Rule("interactions", "tools", Bounds.TOOLS, _INTERACTIONS),
    Rule("cohere", "max_tokens", Bounds.ANSWER, _COHERE),
    Rule(
        "cohere",
        "chatRequest.maxTokens",
        Bounds.ANSWER,
        _ORACLE,
    ),
    Rule("cohere", "num_generations", Bounds.ANSWERS, "https://docs.cohere.com/reference/generate"),
    Rule("cohere", "thinking.token_budget", Bounds.THINKING, _COHERE),
    Rule("cohere", "conversation_id", Bounds.KEPT, "https://docs.cohere.com/reference/chat-v1"),
    Rule("cohere", "connectors", Bounds.ENDLESS, "https://docs.cohere.com/reference/chat-v1"),
    Rule("ollama", "options.num_predict", Bounds.ANSWER, _OLLAMA),
    Rule("ollama", "context", Bounds.KEPT, _OLLAMA),
    Rule("dashscope", "parameters.max_tokens", Bounds.ANSWER, _DASHSCOPE),
    Rule("dashscope", "parameters.n", Bounds.ANSWERS, _DASHSCOPE),
    Rule("dashscope", "parameters.thinking_budget", Bounds.THINKING, _DASHSCOPE),
    Rule("dashscope", "parameters.enable_thinking", Bounds.THINKING, _DASHSCOPE),
    Rule("dashscope", "parameters.enable_search", Bounds.ENDLESS, _DASHSCOPE),
    Rule("textgen", "parameters.max_new_tokens", Bounds.ANSWER, _TGI),
    Rule("textgen", "max_length", Bounds.ANSWER, "https://lite.koboldai.net/koboldcpp_api"),
    Rule("textgen", "parameters.best_of", Bounds.ANSWERS, _TGI),
    Rule("textgen", "inputs", Bounds.PROMPTS, _TGI),
    Rule("converse", "inferenceConfig.maxTokens", Bounds.ANSWER, _CONVERSE),
    Rule("converse", "additionalModelRequestFields.max_tokens", Bounds.ANSWER, _CONVERSE),
    Rule("converse", "additionalModelRequestFields.thinking.budget_tokens", Bounds.THINKING, _CONVERSE),
    Rule("converse", "toolConfig.tools", Bounds.TOOLS, _NOVA_GROUNDING),
    Rule("converse", "additionalModelRequestFields.tools", Bounds.TOOLS, _ANTHROPIC_SEARCH),
    Rule("converse", "performanceConfig", Bounds.TIER, _CONVERSE),
    Rule("converse", "promptVariables", Bounds.KEPT, _CONVERSE),
    Rule("invoke", "max_tokens", Bounds.ANSWER, _INVOKE),
    Rule("invoke", "max_tokens_to_sample", Bounds.ANSWER, _INVOKE),
    Rule("invoke", "max_gen_len", Bounds.ANSWER, _INVOKE),
    Rule("invoke", "textGenerationConfig.maxTokenCount", Bounds.ANSWER, _INVOKE),
    Rule("invoke", "inferenceConfig.max_new_tokens", Bounds.ANSWER, _INVOKE),
    Rule("invoke", "thinking.budget_tokens", Bounds.THINKING, _INVOKE),
    Rule("invoke", "tools", Bounds.TOOLS, _INVOKE),
    Rule("images", "n", Bounds.ANSWERS, _OPENAI_IMAGES),
    Rule("images", "parameters.sampleCount", Bounds.ANSWERS, "https://ai.google.dev/gemini-api/docs/imagen"),
    Rule("unknown", "max_tokens", Bounds.ANSWER, _OPENAI_CHAT),
    Rule("unknown", "max_output_tokens", Bounds.ANSWER, _OPENAI_RESPONSES),
    Rule("unknown", "n", Bounds.ANSWERS, _OPENAI_CHAT),
    Rule("unknown", "prompt", Bounds.PROMPTS, _OPENAI_COMPLETIONS),
    Rule("unknown", "inputs", Bounds.PROMPTS, _TGI),
    Rule("unknown", "tools", Bounds.TOOLS, _OPENAI_CHAT),
    Rule("*", "model", Bounds.ENDLESS, _OPENROUTER_SEARCH, ":online"),
    Rule("*", "model", Bounds.ENDLESS, _OPENAI_SEARCH, "search-preview"),
    Rule("*", "model", Bounds.ENDLESS, _OPENAI_SEARCH, "search-api"),
    Rule("*", "model", Bounds.ENDLESS, "https://console.groq.com/docs/compound", "compound"),
    Rule("*", "model", Bounds.ENDLESS, "https://docs.perplexity.ai/getting-started/models", "sonar-deep-research"),
    Rule("*", "model", Bounds.ENDLESS, "https://docs.x.ai/developers/pricing#voice-pricing", "grok-voice"),
)

EXCEPTIONS = frozenset((
    *(("chat", "max_completion_tokens", provider) for provider in ("deepseek", "mistral", "perplexity", "together")),
    ("chat", "web_search_options", "perplexity"),
))  # fmt: skip
"""(dialect, member, provider) where a row does not hold. Their chat APIs document `max_tokens` and nothing else
(https://api-docs.deepseek.com/api/create-chat-completion, https://docs.mistral.ai/api/,
https://docs.together.ai/reference/chat-completions-1); Perplexity's search is in the price of a request."""

SHORTENED: dict[str, tuple[str, ...]] = {
    "chat": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "conversations": ("completion_args.max_tokens",),
    "messages": ("max_tokens",),
    "generate": ("parameters.maxOutputTokens", "generationConfig.maxOutputTokens"),
    "interactions": ("generation_config.max_output_tokens",),
    "cohere": ("chatRequest.maxTokens", "max_tokens"),
    "ollama": ("options.num_predict",),
    "dashscope": ("parameters.max_tokens",),
    "converse": ("inferenceConfig.maxTokens",),
}
"""Where a clamped call that bounds no answer itself gets its bound: the first whose parent is there, else the last.

Left out are APIs that end an answer early by themselves where nothing is said (completions: 16 tokens, text generation:
20), so that no bound of ours makes an answer longer, and those of which it is not known which of several members they
read."""
SHORTENED_AT = {("chat", provider): ("max_completion_tokens",) for provider in ("openai", "azure", "azure-openai")}
"""Where that is another one at a provider: reasoning models of OpenAI's refuse `max_tokens`; others' APIs do not all
know `max_completion_tokens`."""

CLIENT_TOOLS = (
    "function", "custom", "localshell", "computer", "bash", "texteditor", "memory", "applypatch", "namespace",
)  # fmt: skip
"""How the `type` of a tool begins that the client runs: the provider is asked once. Without a type it is one too."""
SERVER_TOOL_MEMBERS = frozenset((
    "googlesearch", "googlesearchretrieval", "googlemaps", "urlcontext", "codeexecution", "filesearch",
    "enterprisewebsearch", "retrieval", "computeruse", "mcpservers", "parallelaisearch", "systemtool",
))  # fmt: skip
"""Gemini's tools have no type but a member each, and Bedrock's; these run at the provider."""
OTHER_PRICES = ("imagegeneration",)
"""How the `type` of a tool begins whose uses are billed as another model's work: that has no bound by this model's
prices (https://platform.openai.com/docs/guides/tools-image-generation)."""

TOOL_TOKENS = 800
"""Most that a tool adds to the prompt beside its schema: 735 for Anthropic's computer use, up to 530 for the system
prompt that the first one brings (https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview#pricing). Only
counted for tools with a type of the provider's own, and once for all others."""
IMAGE_TOKENS = 50_000
"""Most that one image is billed for: gpt-4o-mini, high detail, 2,833 + 8 tiles of 5,667 = 48,169 tokens
(https://platform.openai.com/docs/guides/images-vision#calculating-costs)."""
IMAGE_ANSWER_TOKENS = 16_384
"""Most tokens of one generated image; gpt-image-1 documents 6,240 (1024x1536, high), and 100 for each partial image
(https://platform.openai.com/docs/guides/image-generation#cost-and-latency)."""
THINKING_TOKENS = 81_920
"""A thinking budget that is not a number (-1: the model's choice): the longest documented (Qwen3, Model Studio)."""
SPEECH_TOKENS_PER_BYTE = 8
"""Audio tokens for a byte of text to be spoken: at 15 characters and 21 tokens a second some 1.4; read slowly, more."""
AUDIO_BYTES_PER_S = 50
"""No audio that providers take is smaller: FLAC of silence. So a file is no longer than its bytes say."""
AUDIO_TOKENS_PER_S = 32
"""OpenAI counts 10 audio tokens a second of input, Gemini 25 to 32; a transcript has about 4."""
DOCUMENT_PAGES = 1_000
"""Most pages that Mistral reads of one document (https://docs.mistral.ai/capabilities/document_ai/basic_ocr, FAQ)."""
DOCUMENT_TOKENS, DOCUMENTS_A_UNIT = 500, 100
"""Cohere: a search unit is a query with up to 100 documents; one of more than 500 tokens, the query's included, is
several (https://cohere.com/pricing)."""
COSTLY_PATHS = re.compile(
    rb"(?i)/(batches|batch_jobs|batch/jobs|batchInferenceJobs|batchPredictionJobs|embed-jobs|model-invocation-job"
    rb"|async-invoke|fine_tuning/jobs(/[^/]+/(resume|start))?|fine_tuning/alpha/graders/run|fine-tunes|finetunes?"
    rb"|finetuning/finetuned-models|(supervised|reinforcement)FineTuningJobs|tuningJobs|tunedModels|cachedContents"
    rb"|evals/[^/]+/runs|containers|sessions(/[^/]+/events)?|chatkit/sessions|videos(/[^/]+/remix)?"
    rb"|realtime(/(transcription_sessions|client_secrets|translations|calls(/[^/]+/accept)?))?)$"
    rb"|:(batchGenerateContent|batchEmbedContent|asyncBatchEmbedContent|predictLongRunning|importFile"
    rb"|uploadToFileSearchStore)$"
).search
"""POSTs that start work billed later, by files or time, or hand out a key for it: nothing in the request bounds it, nor
names all its models."""
