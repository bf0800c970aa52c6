"""A list of models that a key with an allow-list asks for: the answer names those it may call."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from taximeter.core import routes
from taximeter.gateway.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable

    from taximeter.gateway.admission.admission import Admission
    from taximeter.gateway.metering.call import Call
    from taximeter.gateway.metering.metering import Metering
    from taximeter.gateway.upstream.response import Response
    from taximeter.gateway.upstream.upstreams import Upstream
    from taximeter.keys.rule import ProxyKey
    from taximeter.server.exchange import Exchange

LIST_BYTES = 4 * 1024 * 1024
"""A longer list is passed on as it came; OpenRouter's is 0.6 MB."""

_lists = re.compile(rb"(?i)(?:/(?:v\d\w*|openai|publishers/[^/]+)/models|^/models|/api/(?:tags|ps))$").search
_LISTS = ("data", "models")
"""OpenAI's, Anthropic's and Mistral's; Google's, Cohere's and Ollama's."""
_NAMES = ("id", "name", "model")


def is_list(method: bytes, path: bytes) -> bool:
    """Whether a request asks for a list of models."""
    return method == b"GET" and any(_lists(spelled) for spelled in routes.spellings(path))


def allowed_of(body: bytes, allows: Callable[[str], bool]) -> bytes:
    """A list of models with those of them that are allowed; anything else as it is."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body
    if not isinstance(found, dict):
        return body
    for listed in _LISTS:
        models = found.get(listed)
        if isinstance(models, list):
            found[listed] = kept = [model for model in models if _is_allowed(model, allows)]
            for end, at in (("first_id", 0), ("last_id", -1)):  # Anthropic's pages
                if end in found and kept != models:
                    found[end] = kept[at].get("id") if kept else None
    return msgspec.json.encode(found)


def _is_allowed(model: object, allows: Callable[[str], bool]) -> bool:
    if not isinstance(model, dict):
        return False
    names = [name for key in _NAMES if isinstance(name := model.get(key), str)]
    return any(allows(name) or allows(name.removeprefix("models/")) for name in names)


class ListRelay(Relay):
    """Relays such a call. `allows`: whether the key may call a model."""

    __slots__ = ("_allows",)

    def __init__(
        self,
        allows: Callable[[str], bool],
        metering: Metering,
        admission: Admission,
        exchange: Exchange,
        call: Call,
        upstream: Upstream,
    ) -> None:
        super().__init__(metering, admission, exchange, call, upstream)
        self._allows = allows

    async def _pass_on(self, response: Response, begun: bytes) -> None:
        if response.status == 200 and not any(name == b"content-encoding" for name, _ in response.headers):
            while len(begun) <= LIST_BYTES and (part := await response.read()):
                begun += part
            if response.ended:
                begun = allowed_of(begun, self._allows)
                response.headers = [
                    (name, b"%d" % len(begun)) if name == b"content-length" else (name, value)
                    for name, value in response.headers
                    if name not in _OF_THE_WHOLE
                ]
        await super()._pass_on(response, begun)


_OF_THE_WHOLE = frozenset({b"etag", b"digest", b"content-digest", b"repr-digest", b"content-md5", b"accept-ranges"})
"""Said of the list that the upstream sent."""


def relay_of(key: ProxyKey, method: bytes, path: bytes) -> Callable[..., Relay]:
    """What relays a call of a key with an allow-list."""
    return partial(ListRelay, key.allows) if is_list(method, path) else Relay
