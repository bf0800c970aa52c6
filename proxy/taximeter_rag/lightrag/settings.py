"""The settings of the plugin, from the environment of LightRAG's server, and where its bindings are pointed."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CONTROL_URL = "http://127.0.0.1:8001"
WORKSPACES = 16
"""Most workspaces in one server where TAXIMETER_WORKSPACES=on gives no number: each is a LightRAG of its own."""

_LLM = {"openai": "/v1", "azure_openai": "", "ollama": "", "gemini": ""}
_EMBEDDING = {**_LLM, "jina": "/v1/embeddings"}
_RERANK = {"cohere": "/v2/rerank", "jina": "/v1/rerank"}
_NAME = re.compile(r"[A-Za-z0-9_]{1,128}")


@dataclass(frozen=True)
class Settings:
    """TAXIMETER_PROXY_URL (else OPENAI_BASE_URL without its /v1), _URL, _TOKEN, _WORKSPACES."""

    proxy_url: str
    """Empty: nothing is metered."""
    control_url: str = CONTROL_URL
    token: str = ""
    """A workspace's key (`tm-…`; also sent to the proxy) or the admin token."""
    max_workspaces: int = 0
    """Workspaces that LIGHTRAG-WORKSPACE may open in this server; 0: the header is not listened to."""
    workspaces: frozenset[str] = frozenset()
    """Set: only these."""

    @property
    def key(self) -> str:
        return self.token if self.token.startswith("tm-") else ""


def read(environ: Mapping[str, str]) -> Settings:
    """Settings from the environment. Raises ValueError that names the variable."""
    proxy_url = environ.get("TAXIMETER_PROXY_URL") or environ.get("OPENAI_BASE_URL", "")
    proxy_url = proxy_url.rstrip("/").removesuffix("/v1")
    for name, url in (("TAXIMETER_PROXY_URL", proxy_url), ("TAXIMETER_URL", environ.get("TAXIMETER_URL", ""))):
        if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            raise ValueError(f"{name} must be like http://host:port, not {url!r}")
    limit, names = _workspaces(environ.get("TAXIMETER_WORKSPACES", "").strip())
    return Settings(
        proxy_url=proxy_url,
        control_url=environ.get("TAXIMETER_URL") or CONTROL_URL,
        token=environ.get("TAXIMETER_TOKEN", ""),
        max_workspaces=limit,
        workspaces=names,
    )


def _workspaces(said: str) -> tuple[int, frozenset[str]]:
    if said.lower() in ("", "0", "off", "no", "false"):
        return 0, frozenset()
    if said.lower() in ("on", "yes", "true"):
        return WORKSPACES, frozenset()
    if said.isdigit():
        return int(said), frozenset()
    names = frozenset(name.strip() for name in said.split(","))
    if bad := sorted(name for name in names if not _NAME.fullmatch(name)):
        raise ValueError(
            f"TAXIMETER_WORKSPACES: {bad[0]!r} is no workspace (letters, digits and _); or a number, or off"
        )
    return len(names), names


def is_workspace(name: str) -> bool:
    """Whether LightRAG takes the name as it is. It rewrites others, and two of them could become one."""
    return _NAME.fullmatch(name) is not None


def point(args: Any, settings: Settings, environ: MutableMapping[str, str]) -> list[str]:
    """Point the bindings of LightRAG's arguments at the proxy, except where the operator named a host.

    Answers one line for each binding whose calls will not pass the proxy.
    """
    proxy, missed = settings.proxy_url, []
    uses = [
        ("llm_binding", "llm_binding_host", _LLM, ("LLM_BINDING_HOST", "AZURE_OPENAI_ENDPOINT")),
        (
            "embedding_binding",
            "embedding_binding_host",
            _EMBEDDING,
            ("EMBEDDING_BINDING_HOST", "AZURE_EMBEDDING_ENDPOINT"),
        ),
        ("rerank_binding", "rerank_binding_host", _RERANK, ("RERANK_BINDING_HOST",)),
    ]
    for role in ("extract", "keyword", "query", "vlm"):
        host = f"{role}_llm_binding_host"
        uses.append((f"{role}_llm_binding", host, _LLM, (f"{role.upper()}_LLM_BINDING_HOST",)))
    for binding_name, host_name, paths, variables in uses:
        binding, host = getattr(args, binding_name, None), getattr(args, host_name, None) or ""
        if not binding or binding == "null":
            continue
        named = any(
            environ.get(name) for name in variables if not name.startswith("AZURE") or binding == "azure_openai"
        )
        if not named and binding in paths:
            setattr(args, host_name, host := proxy + paths[binding])
            if (binding, binding_name) == ("azure_openai", "embedding_binding"):
                environ["AZURE_EMBEDDING_ENDPOINT"] = host  # LightRAG looks for it there only
        if not host or urlsplit(host)[:2] != urlsplit(proxy)[:2]:
            missed.append(f"{binding_name}={binding} calls {host or 'its own host'}, not {proxy}: not metered")
    return missed
