"""Paths of POSTs that use nothing: what providers bill for is behind other paths. Pure.

Uploads, stores, settings, keys, the making of agents and prompts, and cancels. Matched before the APIs that answer, and
from the start of the path, as other providers have paths that end alike (`/uploads/{id}/complete`, `/complete`).
"""

from __future__ import annotations

_PREFIX = r"^(?:/openai)?(?:/api)?(?:/v\d+(?:beta\d*|alpha\d*)?)?/"

_OPENAI = (
    # https://platform.openai.com/docs/api-reference
    r"(?:uploads|files|vector_stores|organization|assistants|skills|vaults|webhook_endpoints|chatkit|containers)(?:/.*)?",
    r"projects/[^/]+/(?:roles|groups|users)(?:/.*)?",
    r"chat/completions/[^/]+|conversations/[^/]+/items|threads(?:/(?!runs$)[^/]+(?:/messages(?:/[^/]+)?)?)?|threads/[^/]+/runs/[^/]+",
    r"fine_tuning/(?!alpha/graders/run).*|evals(?:/[^/]+)?|content_provenance_checks|audio/(?:voices|voice_consents)(?:/.*)?",
    r"realtime/(?:sessions|client_secrets|transcription_sessions|translations/client_secrets)",
    r"realtime/calls/[^/]+/(?:accept|hangup|refer|reject)|live/sessions/[^/]+/(?:accept|hangup|refer|reject)",
    r"agents(?:/(?!completions$|sessions$)[^/]+)?|agents/automations/[^/]+(?:/pause|/resume)?|agents/environments(?:/.*)?|videos/characters",
)
_ANTHROPIC = (
    # https://platform.claude.com/docs/en/api: an agent's sessions and deployments run models, the rest keeps things
    r"(?:environments|memory_stores|organizations|tunnels|user_profiles)(?:/.*)?",
    r"(?:agents|deployments|dreams|sessions)/[^/]+/(?:archive|pause|unpause)",
    r"deployments(?:/[^/]+)?|sessions/[^/]+(?:/resources(?:/[^/]+)?)?|sessions/[^/]+/threads/[^/]+/archive",
)
_MISTRAL = (
    # https://docs.mistral.ai/api/
    r"(?:client/sessions|connectors(?!/[^/]+/tools)|libraries|service-accounts|triggers|webhooks|prompts)(?:/.*)?",
    r"observability/(?!dataset-records/[^/]+/live-judging|judges/[^/]+/live-judging|pipelines).*",
    r"workflows/(?:deployments|executions|schedules)(?:/.*)?|workflows/[^/]+/tags",
    r"audio/(?:agents|sessions)|context/search-indexes(?:/[^/]+(?:/documents|/grep|/navigate|/read)?)?",
)
_COHERE = (
    # https://docs.cohere.com/reference
    r"check-api-key|datasets|connectors(?:/[^/]+/oauth/authorize)?|finetuning/finetuned-models",
)
_GOOGLE = (
    # https://ai.google.dev/api: stores and files; `:importFile` and `:uploadToFileSearchStore` embed what they take
    r"(?:upload/)?(?:v\d+(?:beta\d*|alpha\d*)?/)?files(?:[:/].*)?|fileSearchStores(?:/[^/:]+)?|auth_tokens|cachedContents(?:/.*)?",
)
_OTHERS = (
    # tokens counted: https://docs.x.ai, https://platform.moonshot.ai, https://www.volcengine.com, https://docs.z.ai
    r"tokenize-text|tokenizers/estimate-token-count|tokenization|paas/v\d+/tokenizer",
    # keys: https://openrouter.ai/docs/api-reference, https://docs.perplexity.ai, Azure's older Realtime
    r"keys(?:/[^/]+)?|auth/keys(?:/code)?|credits/coinbase|(?:generate|revoke)_auth_token|realtimeapi/sessions",
)
_LOCAL = (
    # https://lmstudio.ai/docs/developer/rest, llama.cpp's tools/server: models and settings of one's own server
    r"models/(?:load|unload|download(?:/status)?)|apply-template|props|slots/\d+|lora-adapters",
    # https://docs.sglang.ai
    r"flush_cache|(?:release|resume)_memory_occupation|update_weights_from_\w+|abort_request|(?:open|close)_session",
)
_OLLAMA = (
    # https://docs.ollama.com/api
    r"(?:create|show|copy|pull|push|blobs/.*|me|signout)",
)
_VLLM = (
    # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
    r"(?:(?:chat/)?completions|embeddings|messages|responses)/render|reset_(?:mm|encoder)_cache|pause|resume",
    r"abort_requests|collective_rpc|init_weight_transfer_engine|update_weights",
    r"(?:load|unload)_lora_adapter|sleep|wake_up|reset_prefix_cache|scale_elastic_ep|is_scaling_elastic_ep|(?:start|stop)_profile",
)

FREE = "|".join(
    f"{_PREFIX}(?:{path})"
    for path in (*_OPENAI, *_ANTHROPIC, *_MISTRAL, *_COHERE, *_GOOGLE, *_OLLAMA, *_VLLM, *_LOCAL, *_OTHERS)
)
"""One regular expression, without its `$`."""
