"""Finding the text in requests and answers, for local counting.

One walk serves all APIs: text stands under a few names everywhere, and what is no text (images, audio, files) under a
few others. It must not know how text becomes tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from taximeter.flavors.meter import Countable
from taximeter.flavors.usage.counts import Fields, decode, encode, fields, items

TOKENS_PER_MESSAGE = 4
"""3 around each message and 1 for its role; TOKENS_PRIMING for the reply, TOKENS_PER_NAME for a name: OpenAI's
published rule (cookbook, "How to count tokens with tiktoken")."""
TOKENS_PER_NAME = 1
TOKENS_PRIMING = 3

_DEPTH = 24

_TEXT = frozenset((
    "content", "text", "thinking", "reasoning", "reasoning_content", "refusal", "arguments", "name", "description",
    "message", "parts", "tool_calls", "function", "function_call", "functionCall", "function_response",
    "functionResponse", "output", "summary", "transcript", "tool_plan", "toolUse", "toolResult", "reasoningContent",
    "reasoningText", "partial_json", "completion", "response", "title", "snippet", "data",
))  # fmt: skip
"""Members whose strings are text and whose objects and arrays are looked into."""

_STRUCTURED = frozenset(("input", "args", "json", "parameters", "input_schema"))
"""Members a model reads or writes as JSON: counted as their compact JSON text."""

_MEDIA = frozenset((
    "image_url", "input_audio", "audio", "image", "images", "inlineData", "inline_data", "fileData", "file_data",
    "file", "source", "video", "document", "bytes", "media", "file_id", "image_file",
))  # fmt: skip
"""Members that hold what no tokenizer can count."""


class TextWalk:
    """Collects text; `media` tells that something was met that is no text."""

    __slots__ = ("media", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.media = False

    def take(self, value: object, depth: int = 0) -> None:
        """All text in `value`: a string, or anything below the known names."""
        if isinstance(value, str):
            if value:
                self.texts.append(value)
        elif isinstance(value, list):
            if depth < _DEPTH:
                for item in value:
                    self.take(item, depth + 1)
        elif isinstance(value, dict) and depth < _DEPTH:
            for key, inner in value.items():
                if key in _TEXT:
                    self.take(inner, depth + 1)
                elif key in _STRUCTURED:
                    self.structured(inner)
                elif key in _MEDIA and inner:
                    self.media = True

    def structured(self, value: object) -> None:
        """A JSON value as the text a model reads."""
        if value:
            self.texts.append(value if isinstance(value, str) else encode(value).decode())

    def countable(self, tokens: int = 0) -> Countable:
        return Countable(texts=self.texts, tokens=tokens, truncated=self.media)


def texts_in(value: object) -> list[str]:
    """All text in `value`."""
    walk = TextWalk()
    walk.take(value)
    return walk.texts


def request(body: bytes) -> Fields:
    """A request body's members; empty where unreadable."""
    return fields(decode(body))


def at(value: object, path: str) -> object:
    """The member at a dotted path, "" for `value` itself; of a list, its items' members as a list."""
    for name in path.split(".") if path else ():
        value = [fields(one).get(name) for one in value] if isinstance(value, list) else fields(value).get(name)
    return value


def chat_input(body: bytes, path: str = "messages") -> Countable:
    """A chat request's text: messages with OpenAI's overhead, and tools as JSON."""
    asked = request(body)
    messages = items(at(asked, path))
    if not messages:
        return Countable(truncated=True)
    walk = TextWalk()
    tokens = TOKENS_PRIMING
    for message in messages:
        tokens += TOKENS_PER_MESSAGE + (TOKENS_PER_NAME if "name" in fields(message) else 0)
        walk.take(message)
    for name in ("tools", "functions", "response_format", "system", "documents"):
        walk.structured(asked.get(name))
    return walk.countable(tokens)


def input_of(body: bytes, paths: Iterable[str], structured: Iterable[str] = ()) -> Countable:
    """The text below some members of a request: strings, objects, and token arrays, which count their length."""
    asked = request(body)
    walk = TextWalk()
    tokens = 0
    for path in paths:
        value = at(asked, path)
        for item in value if isinstance(value, list) and not _is_tokens(value) else (value,):
            if _is_tokens(item):
                tokens += len(items(item))
            else:
                walk.take(item)
    for name in structured:
        walk.structured(asked.get(name))
    countable = walk.countable(tokens)
    countable.truncated = countable.truncated or not (walk.texts or tokens)
    return countable


def texts_at(event: Fields, paths: Iterable[str]) -> Iterator[str]:
    """The text at some paths of an answer's event or body; `choices` are those of a chat answer."""
    for path in paths:
        holder, _, last = path.rpartition(".")
        yield from chat_output(fields(at(event, holder))) if last == "choices" else texts_in(at(event, path))


def chat_output(event: Fields) -> Iterator[str]:
    """What all choices of a chat answer, or of one of its chunks, say."""
    for choice in items(event.get("choices")):
        given = fields(choice)
        message = fields(given.get("message")) or fields(given.get("delta"))
        # reasoning goes by two names, and some servers send both with the same text
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        for value in (message.get("content"), reasoning, message.get("refusal"), given.get("text")):
            yield from texts_in(value)
        for call in (*items(message.get("tool_calls")), message):
            function = fields(fields(call).get("function") or fields(call).get("function_call"))
            yield from texts_in([function.get("name"), function.get("arguments")])
        yield from texts_in(fields(message.get("audio")).get("transcript"))


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)
