"""What of a request's body is billed as input: images, media, and text that no reader of ours counted. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from taximeter.flavors.meter import Countable, Demand
from taximeter.flavors.usage.counts import decode
from taximeter.gateway.bounds.models import canonical
from taximeter.gateway.bounds.rules import AUDIO_BYTES_PER_S

_UNBILLED = frozenset(("metadata", "model", "models", "user", "safetyidentifier", "promptcachekey"))
"""Top-level members that no model reads."""
_SHAPES = frozenset(("inputschema", "schema", "jsonschema", "responseschema", "responsejsonschema", "parameters"))
"""JSON schemas: in there `image` and `file` are names of properties. What they say is text all the same."""
_IMAGES = frozenset(("image", "images", "mask", "imageurl", "imagefile", "inputimage"))
_MEDIA = frozenset((
    "file", "files", "fileid", "fileids", "fileurl", "filedata", "fileuri", "inputaudio", "audio", "audiourl", "video",
    "videourl", "document", "documenturl", "attachments", "s3location",
))  # fmt: skip
"""Members whose content is not in the request, or in no form whose tokens follow from its size (PDF, audio, video)."""


_ARGUMENTS = {"functioncall": "args", "functionresponse": "response", "tooluse": "input"}
"""Where members are what a model or a client's tool said, given to the model as text: a `file` in there is a word."""


class Walk:
    """All of a request's body: images, media, numbers in lists, and the text that was not counted as its prompt."""

    def __init__(self, demand: Demand, text: Countable) -> None:
        self.images = self.numbers = self.file_bytes = self.file_s = self.longest_list = 0
        self.media = False
        self.named_only = False
        """Something is named by a URL."""
        self._form = demand.form
        self._texts: Counter[str] = Counter()
        self._take({name: value for name, value in demand.members.items() if canonical(name) not in _UNBILLED})
        self.unseen_bytes = sum(
            len(part.encode("utf-8", "replace")) * times for part, times in self._uncounted(text.texts).items()
        )

    def _uncounted(self, texts: list[str]) -> Counter[str]:
        """The strings that are not among `texts`, nor in one that is a part of the body as JSON (tools, schemas)."""
        counted = Counter(texts)
        structured = _Leaves()
        for part in counted - self._texts:
            if part[:1] in ("{", "["):
                structured.take(decode(part.encode("utf-8", "replace")))
        return self._texts - counted - structured.found

    def _take(self, members: dict[str, object]) -> None:
        waiting: list[tuple[object, bool]] = [(members, False)]
        while waiting:
            value, in_shape = waiting.pop()
            if isinstance(value, str):
                self._texts[value] += 1
            elif isinstance(value, list):
                self.longest_list = max(self.longest_list, len(value))
                self.numbers += sum(isinstance(item, int | float) for item in value)
                waiting += [part for item in value for part in _block(item, in_shape)]
            elif isinstance(value, dict):
                self.media = self.media or value.get("type") == "item_reference"  # what the provider keeps
                for name, inner in value.items():
                    waiting += self._member(value, name, inner, in_shape)

    def _member(
        self, holder: dict[str, object], name: str, inner: object, in_shape: bool
    ) -> Iterator[tuple[object, bool]]:
        known = canonical(name)
        if in_shape or inner is None or isinstance(inner, bool):
            yield inner, in_shape
        elif known in _ARGUMENTS and isinstance(inner, dict):
            yield from _apart(inner, _ARGUMENTS[known])
        elif known in _IMAGES:
            self.images += len(inner) if isinstance(inner, list) else 1
        elif known in ("inlinedata", "source") and isinstance(inner, dict):
            yield from self._inline(holder, inner)
        elif self._is_file(inner) or (known in _MEDIA and not _is_voice(inner)):
            self._take_files(inner if isinstance(inner, list) else [inner])
        else:
            self.named_only = self.named_only or known.endswith(("url", "uri"))
            yield inner, known in _SHAPES

    def _inline(self, holder: dict[str, object], inner: dict[str, object]) -> Iterator[tuple[object, bool]]:
        """`inlineData` says its MIME type; of a `source` the member beside it says what it is."""
        kinds = [value for value in (*inner.values(), holder.get("type")) if isinstance(value, str)]
        if inner.get("type") in ("text", "content"):
            yield inner, True
        elif "image" in kinds or any(kind.startswith("image/") for kind in kinds):
            self.images += 1
        else:
            self.media = True

    def _is_file(self, value: object) -> bool:
        """A form's file, whatever its field is called."""
        files = value if isinstance(value, list) else [value]
        return self._form and any(isinstance(file, dict) for file in files)

    def _take_files(self, files: list[object]) -> None:
        self.media = True
        for file in files:
            size = self._size(file)
            least = file.get("bytes_per_s", AUDIO_BYTES_PER_S) if self._form and isinstance(file, dict) else None
            self.file_bytes += size
            self.file_s += -(-size // (least if isinstance(least, int) else AUDIO_BYTES_PER_S))

    def _size(self, file: object) -> int:
        """Bytes of a form's file, or of base64 in JSON; 0 of anything that is only named."""
        if isinstance(file, dict):
            size = file.get("bytes") if self._form else file.get("data")
            return size if isinstance(size, int) else len(size) if isinstance(size, str) else 0
        return 0


def _block(item: object, in_shape: bool) -> Iterator[tuple[object, bool]]:
    """A part of a message; only in a list is Anthropic's `tool_use` one, and not a body with a member too many."""
    if isinstance(item, dict) and item.get("type") in ("tool_use", "server_tool_use", "mcp_tool_use"):
        yield from _apart(item, "input")
    else:
        yield item, in_shape


def _apart(holder: dict[str, object], said: str) -> Iterator[tuple[object, bool]]:
    """What is said, as text, and the other members."""
    yield [value for name, value in holder.items() if canonical(name) == said], True
    yield {name: value for name, value in holder.items() if canonical(name) != said}, False


def _is_voice(value: object) -> bool:
    """How to speak, in OpenAI's `audio`."""
    return isinstance(value, dict) and "voice" in value


class _Leaves:
    """The strings in a JSON value, member names aside."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    def take(self, value: object) -> None:
        waiting = [value]
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                self.found[value] += 1
            elif isinstance(value, list):
                waiting += value
            elif isinstance(value, dict):
                waiting += value.values()
