"""Calls that come back to a Taximeter they have passed: the mark in `CDN-Loop` (RFC 8586), and who gets it. Pure.

A provider's request is not touched: the mark goes to upstreams alone that may lead back here, which are all but the
hosts of public providers. It is one more line of a field that is a list, so that a client's own line stays as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256

from taximeter.core.errors import LoopDetected

HEADER = b"cdn-loop"
MOST_NODES = 8
"""A chain of more Taximeters is a loop, too: through several nodes behind one name."""

_NAME = b"taximeter-"
_ours = re.compile(rb"taximeter-[0-9a-f]{16}").fullmatch

_PROVIDERS = (
    "ai21.com", "aip.baidubce.com", "aleph-alpha.com", "anthropic.com", "api.cloudflare.com", "api.meta.ai",
    "arcee.ai", "avian.io", "baseten.co", "bigmodel.cn", "cerebras.ai", "cognitiveservices.azure.com", "cohere.ai",
    "cohere.com", "dashscope-intl.aliyuncs.com", "dashscope.aliyuncs.com", "deepinfra.com", "deepseek.com",
    "elevenlabs.io", "endpoints.kepler.ai.cloud.ovh.net", "fireworks.ai", "gateway.ai.cloudflare.com",
    "githubcopilot.com", "googleapis.com", "groq.com", "huggingface.co", "hyperbolic.xyz", "inference.ai.azure.com",
    "inference.ml.azure.com", "jina.ai", "minimax.io", "minimaxi.com", "mistral.ai", "models.ai.azure.com",
    "moonshot.ai", "moonshot.cn", "nebius.com", "novita.ai", "nvidia.com", "openai.azure.com", "openai.com",
    "openrouter.ai", "perplexity.ai", "qianfan.baidubce.com", "replicate.com", "sambanova.ai", "services.ai.azure.com",
    "siliconflow.cn", "siliconflow.com", "together.ai", "together.xyz", "volces.com", "voyageai.com", "x.ai", "z.ai",
)  # fmt: skip
"""Domains whose servers are a provider's own. Of a cloud's only what serves models: other hosts are its customers'."""
_of_aws = re.compile(
    r"(?:.+\.)?(?:bedrock[a-z-]*|runtime\.sagemaker)\.[a-z0-9-]+\.(?:vpce\.)?amazonaws\.com(?:\.cn)?"
).fullmatch


def mark(node: str) -> bytes:
    """What a node adds to a call it passes on: its name, as nobody else can read it."""
    return _NAME + sha256(node.encode()).hexdigest()[:16].encode()


def gets_mark(host: str) -> bool:
    """Whether an upstream at this host is told through which Taximeter a call came."""
    host = host.lower().rstrip(".")
    return not (_of_aws(host) or any(host == domain or host.endswith(f".{domain}") for domain in _PROVIDERS))


def check(headers: Iterable[tuple[bytes, bytes]], mark: bytes) -> None:
    """Raises LoopDetected where a call with these headers has been here before."""
    passed = [entry for name, line in headers if name == HEADER for entry in _entries(line) if _ours(entry)]
    if mark in passed or len(passed) > MOST_NODES:
        raise LoopDetected("This call has come back to the Taximeter it came from: an upstream's base_url leads there.")


def without_marks(line: bytes) -> bytes:
    """A line of `CDN-Loop` as a provider may have it: what other proxies said; b"": nothing."""
    if _NAME not in line:
        return line
    return b",".join(entry for entry in line.split(b",") if not _ours(entry.strip())).strip()


def _entries(line: bytes) -> Iterable[bytes]:
    return (entry.partition(b";")[0].strip() for entry in line.split(b","))
