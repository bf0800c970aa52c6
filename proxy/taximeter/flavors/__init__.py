"""API flavors: bytes in, `Reading` out. Pure; imports core only.

Which path is which flavor stands here, in FLAVORS. A flavor is a row (`dialect`): plain ones in `dialects`, those that
need code beside it. Which field of a provider's usage object is which figure: `usage/fields.py`. How bytes become
events: `framing/`. Text for local counting: `text/`.
"""

from __future__ import annotations

import re

from taximeter.core import routes
from taximeter.core.record import Operation
from taximeter.flavors.bedrock import AGENT, CONVERSE, INVOKE, INVOKE_EMBED, INVOKE_RERANK
from taximeter.flavors.chat import CHAT, COMPLETIONS, HOSTED
from taximeter.flavors.cohere import COHERE_CHAT, COHERE_EMBED
from taximeter.flavors.dialects import (
    AUDIO,
    CONVERSATIONS,
    DASHSCOPE,
    DASHSCOPE_EMBEDDINGS,
    EMBEDDINGS,
    HOSTED_EMBEDDINGS,
    INTERACTIONS,
    OLLAMA_CHAT,
    OLLAMA_EMBED,
    OLLAMA_GENERATE,
    UNKNOWN,
    UNMETERED,
)
from taximeter.flavors.evals import EVALS
from taximeter.flavors.free import FREE
from taximeter.flavors.generate import EMBED_CONTENT, GENERATE, PREDICT
from taximeter.flavors.later import JOBS, VIDEOS
from taximeter.flavors.media import IMAGES, INVOKE_IMAGES, OCR, SPEECH
from taximeter.flavors.messages import MESSAGES
from taximeter.flavors.meter import Flavor
from taximeter.flavors.rerank import RANK, RERANK
from taximeter.flavors.responses import RESPONSES
from taximeter.flavors.runs import RUNS
from taximeter.flavors.textgen import KOBOLD, TGI, WATSONX

FLAVORS: tuple[tuple[str, Flavor], ...] = (
    # how the path of a POST ends (providers put their own prefixes before it), the flavor; the first match counts
    (FREE, UNMETERED),
    (r"/agents/automations/[^/]+/invocations|/fine_tuning/alpha/graders/run", UNKNOWN),
    (r"/evals/[^/]+/runs", EVALS),
    (r"/batches|/batch/jobs|/embed-jobs|/batchPredictionJobs|:(batchGenerateContent|asyncBatchEmbedContent)", JOBS),
    (
        r"/videos(/generations|/edits|/extensions|/[^/]+/(remix|edits|extensions))?|/video/generations/jobs"
        r"|:predictLongRunning",
        VIDEOS,
    ),
    (r"/chat/completions|/text/chat(_stream)?|/text/chatcompletion(_v2|_pro)?", CHAT),
    (r"/agents/completions|/inference:complete|/wenxinworkshop/chat/[^/]+", HOSTED),
    (r"/publishers/(?!anthropic/)[^/]+/models/[^/]+:(raw|streamRaw)Predict", HOSTED),
    (r"/(ai/run|workers-ai)/.*rerank[^/]*|/rerankText|/wenxinworkshop/reranker/[^/]+", RERANK),
    (
        r"/(ai/run|workers-ai)/.*(embed|bge|gte)[^/]*|/inference:embed|/wenxinworkshop/embeddings/[^/]+",
        HOSTED_EMBEDDINGS,
    ),
    (r"/[^/]*(embed|bge|gte)[^/]*/invocations", HOSTED_EMBEDDINGS),
    (r"/(ai/run|workers-ai)/@.+|/invocations", HOSTED),
    (r"/(v1/edits|infill)|/completions?|/complete", COMPLETIONS),
    (r"/responses(/compact)?", RESPONSES),
    (r"/conversations(/[^/]+(/restart)?)?", CONVERSATIONS),
    (r"/services/embeddings/[^/]+/[^/]+", DASHSCOPE_EMBEDDINGS),
    (r"/services/aigc/(text|multimodal)-generation/generation", DASHSCOPE),
    (r"/api/embed(dings)?", OLLAMA_EMBED),
    (r"/(multimodal|contextualized)?embeddings?(/multimodal)?|/pooling|/multi-vector|/embedText", EMBEDDINGS),
    (r"[/-]rerank(ing)?|/ranking|/score", RERANK),
    (r"/rankingConfigs/[^/:]+:rank", RANK),
    (r"/threads(/[^/]+)?/runs(/[^/]+/submit_tool_outputs)?", RUNS),
    (r"/threads/[^/]+/messages", UNMETERED),
    (r"/messages", MESSAGES),
    (r"/count-tokens:rawPredict", UNMETERED),
    (r"/publishers/anthropic/models/[^/]+:(raw|streamRaw)Predict", MESSAGES),
    (r":(streamGenerateContent|generateContent)", GENERATE),
    (r":(embedContent|batchEmbedContents)", EMBED_CONTENT),
    (r"/(imagen|imagegeneration)[^/]*:predict", IMAGES),
    (r":predict", PREDICT),
    (r"/interactions", INTERACTIONS),
    (r"/model/[^/]*embed[^/]*/invoke", INVOKE_EMBED),
    (r"/model/[^/]*rerank[^/]*/invoke", INVOKE_RERANK),
    (r"/model/[^/]*(canvas|image|stability)[^/]*/invoke", INVOKE_IMAGES),
    (r"/model/([^/]+|arn:.+)/converse(-stream)?", CONVERSE),
    (r"/model/([^/]+|arn:.+)/invoke(-with-response-stream)?", INVOKE),
    (r"/agents/[^/]+/agentAliases/[^/]+/sessions/[^/]+/text", AGENT),
    (r"/api/chat", OLLAMA_CHAT),
    (r"/api/generate", OLLAMA_GENERATE),
    (r"/api/(v1|latest)/generate|/api/extra/generate/stream", KOBOLD),
    (r"/chat|/v1/(generate|summarize)", COHERE_CHAT),
    (r"/(batch_)?(semantic_)?embed(_all|_sparse)?|/feature-extraction(/[^/]+){0,2}", COHERE_EMBED),
    (r"/images?(/generations|/edits|/variations|/generate)?", IMAGES),
    (r"/audio/(transcriptions|translations)", AUDIO),
    (r"/audio/speech|/text-to-speech/[^/]+(/stream)?(/with-timestamps)?", SPEECH),
    (r"/ocr", OCR),
    (r"/text/generation(_stream)?|/generation/text(_stream)?", WATSONX),
    (r"(?<!/v1)(?<!beta)(?<!beta1)/models/[^/:]+/[^/:]*(embed|bge|gte|e5)[^/:]*", COHERE_EMBED),
    (r"^|/generate(_stream)?|(?<!/v1)(?<!beta)(?<!beta1)/models/[^/:]+/[^/:]+", TGI),
    (
        r"/(batches|batch/jobs|embed-jobs|files|uploads|cachedContents|fine_tuning|vector_stores|assistants|threads|evals|admin|organization)"
        r"(/.*)?|/(cancel|hangup|reject)|:cancel|(count|compute).?tokens|:fetchPredictOperation|:transferOwnership|/tokenize|/detokenize|/input_tokens",
        UNMETERED,
    ),
    (r"", UNKNOWN),
)

_matchers = [(re.compile(rb"(?i)(?:" + pattern.encode() + rb")$").search, flavor) for pattern, flavor in FLAVORS]
_found: dict[bytes, Flavor] = {}
_FOUND_MAX = 1024
"""Paths remembered; Azure deployments and Bedrock models stand in the path, so there may be many."""


def find(method: bytes, path: bytes) -> Flavor:
    """The flavor of a request. `path` is raw, tags taken out, query allowed; what nothing else matches is `UNKNOWN`.

    Paths are matched as the most lenient provider would: any case, `//`, `%2F`, a slash at the end. Only POST uses
    anything: a GET reads back what another call used.
    """
    if method != b"POST":
        return UNMETERED
    flavor = _found.get(path)
    if flavor is None:
        flavor = of_path(path)
        if len(_found) >= _FOUND_MAX:
            _found.clear()
        _found[path] = flavor
    return flavor


def of_path(path: bytes) -> Flavor:
    """The flavor of a POST to this path."""
    first, *others = (_match(one) for one in routes.spellings(path.partition(b"?")[0]))
    if first.operation is Operation.OTHER:
        first = next((other for other in others if other.operation is not Operation.OTHER), first)
    return first


def _match(path: bytes) -> Flavor:
    return next(flavor for matches, flavor in _matchers if matches(path))
