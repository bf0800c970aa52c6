"""Taximeter for RAG servers: tags on the calls they make, and the figures read back from the proxy.

    taximeter_rag.install("http://127.0.0.1:8000")
    with taximeter_rag.metered(workspace="acme", track="upload-17", document="handbook.pdf"):
        ...                                         # any call through httpx, httpx2, aiohttp or the OpenAI SDK

Counts nothing itself: the proxy is the only meter. Needs nothing but the standard library.
"""

from taximeter_rag.clients import Hooks, aiohttp_trace, install, tag
from taximeter_rag.middleware import MeteredMiddleware
from taximeter_rag.reader import Reader, ReadError
from taximeter_rag.tags import Scope, carry, current, headers, metered, safe

__all__ = [
    "Hooks",
    "MeteredMiddleware",
    "ReadError",
    "Reader",
    "Scope",
    "aiohttp_trace",
    "carry",
    "current",
    "headers",
    "install",
    "metered",
    "safe",
    "tag",
]
