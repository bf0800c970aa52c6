"""Puts the tag headers on outgoing calls, and remembers the proxy's request ids from the answers.

`install(proxy_url)` hooks whichever of httpx, httpx2 and aiohttp are there, so every SDK built on them is covered (the
OpenAI SDK is httpx or httpx2, by version); only calls that go to the proxy are touched. `tag(client)` does one client.
"""

from __future__ import annotations

import contextvars
import functools
import importlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from taximeter_rag.tags import current

REQUEST_ID = "x-taximeter-request-id"
KEY_HEADER = "x-taximeter-key"
_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int | None]


class Passage:
    """One call of a model, from when it is asked: whether the request it sends passes the proxy."""

    __slots__ = ("kind", "met", "went")

    def __init__(self, kind: str) -> None:
        self.kind, self.met = kind, False
        self.went = ""
        """The origin it went to instead; empty where no request was seen."""


passage: contextvars.ContextVar[Passage | None] = contextvars.ContextVar("taximeter_rag_passage", default=None)


class Hooks:
    """What was hooked; `uninstall()` puts everything back."""

    def __init__(self, proxy_url: str, key: str = "") -> None:
        parts = urlsplit(proxy_url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"The proxy's URL must be like http://host:8000, not {proxy_url!r}.")
        self.origin: Origin = (parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])
        self.key = key
        self.names: list[str] = []
        self._undo: list[Callable[[], None]] = []

    def meets(self, url: Any) -> bool:
        """Whether a call goes to the proxy; `url` is httpx's, httpx2's or yarl's."""
        return (url.scheme, url.host, url.port or _PORTS.get(url.scheme)) == self.origin

    def put(self, headers: Any) -> None:
        """Add what is missing; a header the call itself names is stronger."""
        scope = current()
        tags = scope.headers() if scope is not None else {}
        if self.key:
            tags[KEY_HEADER] = self.key
        for name, value in tags.items():
            headers.setdefault(name, value)

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        original = getattr(owner, name)
        setattr(owner, name, make(original))
        self._undo.append(lambda: setattr(owner, name, original))

    def uninstall(self) -> None:
        while self._undo:
            self._undo.pop()()
        self.names.clear()


def install(proxy_url: str, *, key: str = "") -> Hooks:
    """Tag all calls of this process that go to `proxy_url`; `key` is a proxy key (`tm-…`) to send along.

    Raises ValueError on a URL that is none. Libraries that are not installed are left out (`Hooks.names` tells).
    """
    hooks = Hooks(proxy_url, key)
    for name in ("httpx", "httpx2"):
        if (module := _found(name)) is not None:
            hooks.replace(module.Client, "send", functools.partial(_sync_send, hooks))
            hooks.replace(module.AsyncClient, "send", functools.partial(_async_send, hooks))
            hooks.names.append(name)
    if (module := _found("aiohttp")) is not None:
        hooks.replace(module.ClientSession, "__init__", functools.partial(_session_init, hooks, module))
        hooks.names.append("aiohttp")
    return hooks


def tag(client: Any) -> Any:
    """Tag every call of one client: httpx's, httpx2's, or the OpenAI SDK's. Answers the client.

    Raises TypeError on another kind of client.
    """
    inner: Any = client if hasattr(client, "event_hooks") else getattr(client, "_client", None)
    if not hasattr(inner, "event_hooks"):
        raise TypeError(f"{type(client).__name__} is no client of httpx, httpx2 or the OpenAI SDK.")
    asynchronous = hasattr(inner, "aclose")
    hooks = inner.event_hooks
    hooks["request"].append(_atagged if asynchronous else _tagged)
    hooks["response"].append(_anoted if asynchronous else _noted)
    inner.event_hooks = hooks
    return client


def aiohttp_trace() -> Any:
    """A TraceConfig that tags a session's calls: `aiohttp.ClientSession(trace_configs=[aiohttp_trace()])`."""
    return _trace(importlib.import_module("aiohttp"), None)


def _found(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _note(headers: Any, url: Any = None) -> None:
    """An answer has come, from the proxy: its request id is remembered. Without one it was not the proxy."""
    request_id = headers.get(REQUEST_ID)
    if not request_id:
        if url is not None:
            _elsewhere(url)
        return
    scope = current()
    if scope is not None:
        scope.calls.append(request_id)
    passing = _passing()
    if passing is not None:
        passing.met = True
        if scope is not None and passing in scope.noticed.streams:
            scope.noticed.streams.remove(passing)


def _elsewhere(url: Any) -> None:
    """A request is not the proxy's."""
    passing = _passing()
    if passing is not None:
        port = f":{url.port}" if url.port and url.port != _PORTS.get(url.scheme) else ""
        passing.went = f"{url.scheme}://{url.host}{port}"


def _passing() -> Passage | None:
    """The model's call that a request belongs to; a stream may send it when it is read first."""
    here = passage.get()
    if here is None and (scope := current()) is not None and scope.noticed.streams:
        waiting: Passage = scope.noticed.streams[0]
        return waiting
    return here


def _tagged(request: Any) -> None:
    scope = current()
    for name, value in (scope.headers() if scope is not None else {}).items():
        request.headers.setdefault(name, value)


def _noted(response: Any) -> None:
    _note(response.headers)


async def _atagged(request: Any) -> None:
    _tagged(request)


async def _anoted(response: Any) -> None:
    _note(response.headers)


def _sync_send(hooks: Hooks, original: Any) -> Any:
    @functools.wraps(original)
    def send(self: Any, request: Any, **options: Any) -> Any:
        ours = hooks.meets(request.url)
        if ours:
            hooks.put(request.headers)
        else:
            _elsewhere(request.url)
        response = original(self, request, **options)
        if ours:
            _note(response.headers, request.url)
        return response

    return send


def _async_send(hooks: Hooks, original: Any) -> Any:
    @functools.wraps(original)
    async def send(self: Any, request: Any, **options: Any) -> Any:
        ours = hooks.meets(request.url)
        if ours:
            hooks.put(request.headers)
        else:
            _elsewhere(request.url)
        response = await original(self, request, **options)
        if ours:
            _note(response.headers, request.url)
        return response

    return send


def _session_init(hooks: Hooks, aiohttp: Any, original: Any) -> Any:
    @functools.wraps(original)
    def init(self: Any, *args: Any, trace_configs: Any = None, **options: Any) -> None:
        original(self, *args, trace_configs=[*(trace_configs or ()), _trace(aiohttp, hooks)], **options)

    return init


def _trace(aiohttp: Any, hooks: Hooks | None) -> Any:
    """aiohttp documents a start event's headers as mutable: what is set there is sent."""

    async def started(session: Any, context: Any, params: Any) -> None:
        if hooks is None:
            _tagged(params)
        elif hooks.meets(params.url):
            hooks.put(params.headers)
        else:
            _elsewhere(params.url)

    async def ended(session: Any, context: Any, params: Any) -> None:
        if hooks is None or hooks.meets(params.url):
            _note(params.response.headers, params.url)

    config = aiohttp.TraceConfig()
    config.on_request_start.append(started)
    config.on_request_end.append(ended)
    return config
