"""All that a request asks for, where a hard budget or an allow-list is about it: see `flavors.meter.Demand`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from taximeter import flavors
from taximeter.core import routes
from taximeter.flavors.bedrock import AGENT
from taximeter.flavors.dialects import CONVERSATIONS, UNMETERED
from taximeter.flavors.meter import Demand
from taximeter.flavors.responses import REALTIME
from taximeter.flavors.runs import RUNS
from taximeter.flavors.text.lenient import Unreadable, unambiguous
from taximeter.gateway.bounds import readable
from taximeter.gateway.bounds.models import canonical, named
from taximeter.gateway.bounds.rules import COSTLY_PATHS

if TYPE_CHECKING:
    from taximeter.flavors.meter import Flavor, Prepared
    from taximeter.gateway.bounds.readable import Headers

FREE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"DELETE"})
"""With no body these ask a provider for nothing it bills for (lists of models, files, what was answered before): such a
call holds nothing of a budget, and passes when one is spent. Use it reports all the same is counted like any other."""

_answers_nothing = re.compile(
    rb"(?i)/(moderations|classif(y|ications)|chat/completions/[^/]+|conversations/[^/]+/items)/?$"
).search
"""Judges a text, or writes down what is kept: nothing is generated."""
_compacts = re.compile(rb"(?i)/responses/compact/?$").search
"""Writes as much as it takes: this API has no member that bounds its answer
(https://platform.openai.com/docs/api-reference/responses/compact)."""
_continues = re.compile(rb"(?i)/(conversations|threads)/[^/]+").search


UNBILLED = Demand(unbilled=True)


def free(method: bytes, body: bytes | None) -> bool:
    """Whether a request can use nothing, by its method. `body`: None where it streams."""
    return body == b"" and method in FREE_METHODS


def unbilled(path: bytes) -> bool:
    """Whether what this path does is not billed: it uploads, counts tokens, cancels."""
    return flavors.find(b"POST", path) is UNMETERED and not _costly(path)


def read(
    flavor: Flavor, prepared: Prepared, headers: Headers, path: bytes, query: bytes, body: bytes, limit_bytes: int
) -> Demand:
    """Read a request whole. Raises BadRequest or PayloadTooLarge where that cannot be done for sure."""
    reading = prepared.reading or readable.read(headers, body, limit_bytes)
    try:
        members = unambiguous(reading)
    except Unreadable as error:
        raise readable.refusal(str(error)) from None
    if not isinstance(members, dict):
        raise readable.refusal("it is no JSON object")
    models = named(members, path, query, headers, flavor.path_model(path))
    if not models and prepared.model is not None:
        models = (prepared.model,)
    return Demand(
        form=dict(headers).get(b"content-type", b"").strip().lower().startswith(b"multipart/"),
        unbilled=unbilled(path),
        members=members,
        reading=reading,
        models=models,
        kept=_continues(path) is not None,
        answerless=_answers_nothing(path) is not None or _only_begins(flavor, members),
        long_context=_asks_long(headers, reading),
        writes_cache=_may_say(b"cache_control", reading),
        unlimited=any(_compacts(spelled) for spelled in routes.spellings(path)),
        endless=tuple(_endless(flavor, path)),
    )


def _asks_long(headers: Headers, reading: bytes) -> bool:
    """Whether Anthropic's header, or a member that stands for it (Bedrock), asks for a window of a million tokens.

    See https://docs.anthropic.com/en/docs/build-with-claude/context-windows#1m-token-context-window
    """
    asked = any(name == b"anthropic-beta" and b"-1m" in value.lower() for name, value in headers)
    return asked or _may_say(b"-1m", reading)


def _may_say(word: bytes, reading: bytes) -> bool:
    """Whether a word may be in a body; with escapes in it, any may."""
    return word in reading or b"\\u" in reading


def _only_begins(flavor: Flavor, members: dict[str, object]) -> bool:
    """OpenAI's `/conversations` writes down a conversation; Mistral's, with `inputs`, answers too."""
    return flavor is CONVERSATIONS and not any(canonical(name) == "inputs" for name in members)


def _endless(flavor: Flavor, path: bytes) -> Iterator[str]:
    if _costly(path) and flavor is not REALTIME:  # a response on a Realtime connection is billed with its answer
        yield "what this path starts is done and billed later"
    if flavor is AGENT or flavor is RUNS:
        yield "how often an agent calls its model"


def _costly(path: bytes) -> bool:
    return any(COSTLY_PATHS(spelled) for spelled in routes.spellings(path))
