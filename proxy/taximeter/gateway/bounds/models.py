"""Every model a request names, wherever a provider might look: for allow-lists and the price of a hard budget. Pure.

A server may match members in any case (Go, .NET), take `models` or `fallbacks` (OpenRouter, LiteLLM), look into
`extra_body`, go by the path rather than by the body (Azure), by the query or by a header. So every one counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from taximeter.core import routes
from taximeter.core.errors import BadRequest, Forbidden
from taximeter.flavors.text.lenient import Unreadable, unambiguous
from taximeter.flavors.usage.usual import NAME_CHARS

if TYPE_CHECKING:
    from taximeter.gateway.bounds.readable import Headers

NAMING = frozenset((
    "model", "models", "modelid", "modelids", "modelname", "modelslug", "modeluri", "modelarn", "basemodel", "engine",
    "engineid", "deployment", "deploymentid", "deploymentname", "fallback", "fallbacks", "fallbackmodel",
    "fallbackmodels", "contextwindowfallbacks", "contentpolicyfallbacks", "foundationmodel", "draftmodel",
    "agent", "agentid", "assistantid", "preset", "adapterid",
))  # fmt: skip
"""Canonical names of members that name models, or what stands for one: an agent, a preset have a model of their own."""
NAMING_AT = (
    (re.compile(rb"(?i)/api/(?:create|copy)$").search, frozenset(("from", "source", "destination", "name"))),
    (re.compile(rb"(?i)/predictions$").search, frozenset(("version",))),
)
"""What names models at some paths alone: Ollama gives one the name of another, Replicate goes by a model's version.

An allow-list refuses Ollama's two outright (`check_choice`): a name given once holds for later calls."""
_ends_as_naming = re.compile(
    r"(models?|model(id|name|group|override|path)s?|fallbacks?(dict)?|deployment(id|name)?)$"
).search
"""`speech_model`, `model_group`, `azure_deployment`, `context_window_fallback_dict`: servers go on inventing them."""
SAID = frozenset((
    "messages", "input", "inputs", "contents", "content", "documents", "metadata", "inputschema", "schema",
    "jsonschema", "responseformat", "responseschema", "responsejsonschema", "prompt", "system", "systeminstruction",
    "instructions", "chathistory", "texts", "passages", "query", "prediction", "arguments", "functions", "function",
    "functiondeclarations", "parametersjsonschema", "toolspec", "logitbias", "variables",
))  # fmt: skip
"""Members that hold what is said, or the shape of what is to be said: a `model` in there is the user's own word."""
WRAPPERS = frozenset(("input", "inputs", "prompt"))
"""Of these, objects are no text: RunPod and Replicate put the whole request into `input`."""
TEXT_CHARS = 1024 * 1024
"""JSON in strings that is looked at, all together: it is read on the event loop."""
CHOOSING_HEADERS = frozenset((b"helicone-fallbacks", b"x-portkey-config", b"x-portkey-virtual-key"))
"""Headers of gateways that choose another model by rules of their own."""

_NAMING_HEADERS = frozenset((b"x-amzn-sagemaker-inference-component", b"x-amzn-sagemaker-target-variant"))
_path_names = re.compile(
    rb"(?i)/(?:deployments|models?|tunedModels|engines|serving-endpoints|endpoints)/([^/:?]+)(?=[/:])"
    rb"|(?<!/v1)(?<!beta)(?<!beta1)(?<!/openai)/models/([^/:?]+)$"  # those list or describe a model
    rb"|/pipeline/[^/]+/(.+)$|/v1/inference/(?!chat/|completions$|embeddings$|rerank$)(.+)$|/(?:deployments|engines)/([^/:?]+)$"
).findall
_makes_models = re.compile(
    rb"(?i)/(?:api/(?:create|copy|pull|push)|(?:un)?load_lora_adapter|model/(?:new|update|delete)|flows/[^/]+/aliases/[^/]+)$"
).search
_no_name = re.compile(r"[?#%&\\|;\ufffd]|(?:^|/)\.{1,2}(?:/|$)|@preset/").search
_not_letters = re.compile(r"[\W_]+").sub


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """A member's name as the most lenient decoder compares it: no case, no `_` or `-`, compatible letters alike."""
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name).casefold()
    return _not_letters("", name.lower())


def named(
    members: dict[str, object], path: bytes, query: bytes, headers: Headers, path_model: str | None = None
) -> tuple[str, ...]:
    """Every model the request names, each once; `path_model`: as the API reads it from the path. Raises BadRequest."""
    in_path = [path_model, *_in_path(path)] if path_model else [*_in_path(path)]
    in_path = [name for name in in_path if name == path_model or not (path_model or "").startswith(name)]
    found = [*_in_body(members), *_at(path, members), *in_path, *_in_query(query), *_in_headers(headers)]
    return tuple(dict.fromkeys(name for names in found for name in names.split(",")))


def check_choice(headers: Headers, path: bytes = b"") -> None:
    """Refuse headers by which a gateway chooses another model, and paths that change what a name means.

    Raises BadRequest, Forbidden.
    """
    if any(_makes_models(spelled) for spelled in routes.spellings(path)):
        raise Forbidden("This key may call some models only, and none that this path makes or chooses.", param="path")
    for name, _ in headers:
        if name in CHOOSING_HEADERS:
            raise BadRequest(f"This key may call some models only: leave out {name.decode()}.", param="model")


def check_name(name: str) -> None:
    """Refuse what could be one name for a pattern and another for a provider. Raises Forbidden."""
    odd = not name.isprintable() or name != name.strip() or unicodedata.normalize("NFKC", name) != name
    if odd or not name or len(name) > NAME_CHARS or _no_name(name):
        raise Forbidden(f"This key may call some models only, and {name[:80]!r} is no model's name.", param="model")


def _in_body(members: dict[str, object]) -> Iterator[str]:
    waiting: list[object] = [members]
    text_chars = 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            for name, inner in value.items():
                known = canonical(name)
                if known in NAMING or (_ends_as_naming(known) and isinstance(inner, str | list | dict)):
                    yield from _names(inner)
                elif known in SAID and not (known in WRAPPERS and isinstance(inner, dict)):
                    continue
                elif isinstance(inner, list | dict) and (value is members or not _is_schema(known, inner)):
                    waiting.append(inner)
                elif isinstance(inner, str) and inner.lstrip()[:1] in ("{", "["):
                    text_chars += len(inner)
                    if text_chars > TEXT_CHARS:
                        raise BadRequest(f"The request has more than {TEXT_CHARS:,} characters of JSON in strings.")
                    waiting.append(_in_text(inner))


def _in_text(text: str) -> object:
    """JSON in a string, as in a form's field; None where it is none. Raises BadRequest where it reads in two ways."""
    try:
        return unambiguous(text.encode("utf-8", "replace"))
    except Unreadable as error:
        raise BadRequest(f"A text of the request is JSON that cannot be read: {error}.") from None
    except ValueError:
        return None


def _at(path: bytes, members: dict[str, object]) -> Iterator[str]:
    for is_there, names in NAMING_AT:
        if any(is_there(spelled) for spelled in routes.spellings(path)):
            for name, value in members.items():
                if canonical(name) in names:
                    yield from _names(value)


def _is_schema(name: str, value: object) -> bool:
    """`parameters` are a tool's JSON schema or, with other members, an API's own settings."""
    return name == "parameters" and isinstance(value, dict) and value.get("type") == "object" and "properties" in value


def _names(value: object) -> Iterator[str]:
    """What a naming member names: a string, or strings, objects with a name in them, or objects by name (LiteLLM)."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            if "bytes" in value:
                raise BadRequest("A model is named by a file.", param="model")
            telling = [inner for name, inner in value.items() if canonical(name) in NAMING | {"id", "name", "primary"}]
            waiting += telling or [*value, *value.values()]
        elif value is not None:
            raise BadRequest("A model's name must be a string.", param="model")


def _in_path(path: bytes) -> Iterator[str]:
    resolved, *kept = routes.spellings(path)
    for found in (kept and _path_names(kept[0])) or _path_names(resolved):
        yield re.sub("(?i)%2f", "/", b"".join(found).decode("utf-8", "replace"))


def _in_query(query: bytes) -> Iterator[str]:
    text = query.replace(b";", b"&").decode("latin-1")
    for name, value in parse_qsl(text, keep_blank_values=True, encoding="utf-8", errors="replace"):
        if (known := canonical(name)) in NAMING or _ends_as_naming(known):
            yield value


def _in_headers(headers: Headers) -> Iterator[str]:
    for name, value in headers:
        if b"model" in name or name in _NAMING_HEADERS or _ends_as_naming(canonical(name.decode("latin-1"))):
            yield value.decode("latin-1")
