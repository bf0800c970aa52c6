"""The settings of the plugin, from the environment of LightRAG's server, and where its bindings are pointed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CONTROL_URL = "http://127.0.0.1:8001"
WORKSPACES = 16
"""Most workspaces in one server where TAXIMETER_WORKSPACES=on gives no number: each is a LightRAG of its own."""

_LLM = {"openai": "/v1", "azure_openai": "", "ollama": "", "gemini": ""}
_EMBEDDING = {**_LLM, "jina": "/v1/embeddings"}
_RERANK = {"cohere": "/v2/rerank", "jina": "/v1/rerank"}
_OFF, _ON = ("", "0", "off", "no", "false"), ("1", "on", "yes", "true")
_NAME = re.compile(r"[A-Za-z0-9_]{1,128}")


@dataclass(frozen=True)
class Settings:
    """TAXIMETER_PROXY_URL (else OPENAI_BASE_URL without its /v1), _URL, _TOKEN, _WORKSPACES, _POINT, _STRICT."""

    proxy_url: str
    """Empty: nothing is metered."""
    control_url: str = CONTROL_URL
    token: str = ""
    """A workspace's key (`tm-…`; also sent to the proxy) or the admin token."""
    max_workspaces: int = 0
    """Workspaces that LIGHTRAG-WORKSPACE may open in this server; 0: the header is not listened to."""
    workspaces: frozenset[str] = frozenset()
    """Set: only these."""
    point_always: bool = False
    """Also bindings whose host the operator named are pointed at the proxy, where it has an upstream for them."""
    strict: bool = False
    """The server does not start where something would not be metered."""

    @property
    def key(self) -> str:
        return self.token if self.token.startswith("tm-") else ""


def read(environ: Mapping[str, str]) -> Settings:
    """Settings from the environment. Raises ValueError that names the variable."""
    proxy_url = environ.get("TAXIMETER_PROXY_URL") or environ.get("OPENAI_BASE_URL", "")
    proxy_url = proxy_url.rstrip("/").removesuffix("/v1")
    for name, url in (("TAXIMETER_PROXY_URL", proxy_url), ("TAXIMETER_URL", environ.get("TAXIMETER_URL", ""))):
        if url and not _is_url(url):
            raise ValueError(f"{name} must be like http://host:port, not {url!r}")
    point = environ.get("TAXIMETER_POINT", "").strip().lower()
    if point not in ("", "unnamed", "always"):
        raise ValueError(f"TAXIMETER_POINT must be unnamed or always, not {point!r}")
    limit, names = _workspaces(environ.get("TAXIMETER_WORKSPACES", "").strip())
    return Settings(
        proxy_url=proxy_url,
        control_url=environ.get("TAXIMETER_URL") or CONTROL_URL,
        token=environ.get("TAXIMETER_TOKEN", ""),
        max_workspaces=limit,
        workspaces=names,
        point_always=point == "always",
        strict=strict(environ),
    )


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, brackets that do not close
        return False


def strict(environ: Mapping[str, str]) -> bool:
    """TAXIMETER_STRICT. Raises ValueError where it is neither on nor off."""
    said = environ.get("TAXIMETER_STRICT", "").strip().lower()
    if said not in (*_OFF, *_ON):
        raise ValueError(f"TAXIMETER_STRICT must be 1 or 0, not {said!r}")
    return said in _ON


def may_be_strict(environ: Mapping[str, str]) -> bool:
    """Whether it is on, or says something else than off: who set it wants to hear of mistakes."""
    return environ.get("TAXIMETER_STRICT", "").strip().lower() not in _OFF


def _workspaces(said: str) -> tuple[int, frozenset[str]]:
    if said.lower() in _OFF:
        return 0, frozenset()
    if said.lower() in ("on", "yes", "true"):  # 1 is a number of them
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


@dataclass(frozen=True)
class Missed:
    """A binding whose calls will not pass the proxy."""

    kind: str
    """llm | embedding | rerank"""
    host: str
    text: str


def point(
    args: Any,
    settings: Settings,
    environ: MutableMapping[str, str],
    upstreams: Callable[[], Mapping[str, str]] = dict,
) -> list[Missed]:
    """Point the bindings of LightRAG's arguments at the proxy; answers those whose calls will not pass it.

    A host that the operator named stays, or with `point_always` is replaced where one of the proxy's `upstreams` (name
    -> base URL; asked for where needed) is that host.
    """
    proxy, missed = settings.proxy_url, []
    for kind, binding_name, paths, variables in _uses():
        host_name = f"{binding_name}_host"
        binding, host = getattr(args, binding_name, None), getattr(args, host_name, None) or ""
        if not binding or binding == "null":
            continue
        named = any(
            environ.get(name) for name in variables if not name.startswith("AZURE") or binding == "azure_openai"
        )
        target = proxy + paths[binding] if binding in paths and not named else ""
        if named and settings.point_always and binding in paths and not _passes(host, proxy):
            upstream = _upstream(host, paths[binding], upstreams())
            target = f"{proxy.partition('/u/')[0]}/u/{upstream}{paths[binding]}" if upstream else ""
        if target:
            setattr(args, host_name, host := target)
            if (binding, binding_name) == ("azure_openai", "embedding_binding"):
                environ["AZURE_EMBEDDING_ENDPOINT"] = host  # LightRAG looks for it there only
        if not _passes(host, proxy):
            text = f"{binding_name}={binding} calls {host or 'its own host'}, not {proxy}: not metered"
            missed.append(Missed(kind, host, text))
    return missed


def _uses() -> Iterator[tuple[str, str, Mapping[str, str], tuple[str, ...]]]:
    """Kind of model, LightRAG's argument, the paths of the bindings that can be pointed, and who names a host."""
    yield "llm", "llm_binding", _LLM, ("LLM_BINDING_HOST", "AZURE_OPENAI_ENDPOINT")
    yield "embedding", "embedding_binding", _EMBEDDING, ("EMBEDDING_BINDING_HOST", "AZURE_EMBEDDING_ENDPOINT")
    yield "rerank", "rerank_binding", _RERANK, ("RERANK_BINDING_HOST",)
    for role in ("extract", "keyword", "query", "vlm"):
        yield "llm", f"{role}_llm_binding", _LLM, (f"{role.upper()}_LLM_BINDING_HOST",)


def _passes(host: str, proxy: str) -> bool:
    return bool(host) and urlsplit(host)[:2] == urlsplit(proxy)[:2]


def _upstream(host: str, path: str, upstreams: Mapping[str, str]) -> str:
    """The upstream that is this host; empty: none. Paths that only say the API's version make no difference."""

    def base(url: str) -> str:
        return url.rstrip("/").removesuffix(path).removesuffix("/v1").rstrip("/").lower()

    return next((name for name, url in upstreams.items() if base(url) == base(host)), "")
