"""Images, speech and documents, which are billed by the piece: what an answer tells of it, else what was asked for.

An answer to `/images/…` holds its images (megabytes), so they are counted as they pass; a spoken answer is sound and
tells nothing, so the characters of its request are what it is billed by (https://platform.openai.com/docs/pricing).
"""

from __future__ import annotations

import re
from typing import cast

from msgspec.structs import replace

from taximeter.core.usage import Reading
from taximeter.flavors.asked import Asked
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.framing.body import BodyMeter
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.usage.counts import Members, decode, duration_s, items, raw_text, short_text
from taximeter.flavors.usage.reader import UsageReader, Verdict
from taximeter.flavors.usage.row import Row
from taximeter.flavors.wanted import asked

_CARRIED_BYTES = 256
"""More than one member's name with its blanks: what a cut may have split is found with the next chunk."""
_image = re.compile(
    rb'"(?:b64_json|url|bytesBase64Encoded|gcsUri)"\s*:\s*"[^"]|(?<=[\[,])\s*"[A-Za-z0-9+/]{128}'
).finditer
"""An image as its bytes, in a list of them at Bedrock, or its address; a quote within a text is escaped, so none is
found there."""


class Made(Dialect, frozen=True, kw_only=True, eq=False):
    """An API whose requests say what is to be made."""

    def prepare(self, body: bytes, path: bytes, *, inject: bool) -> Prepared:
        """See `Flavor.prepare`."""
        prepared = super().prepare(body, path, inject=inject)
        prepared.asked = asked(prepared.reading or body)
        prepared.model = prepared.model or prepared.asked.model
        return prepared


class PiecesReader(UsageReader):
    """An answer that is billed by the piece."""

    __slots__ = ("_asked", "_form", "_quality", "_size")

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        self._asked = prepared.asked or Asked()
        self._form = prepared.form
        self._size: str | None = None
        self._quality: str | None = None

    def names(self) -> tuple[str, ...]:
        return (*super().names(), "size", "quality")

    def take(self, found: Members) -> Verdict:
        self._size = short_text(found.get("size")) or self._size
        self._quality = short_text(found.get("quality")) or self._quality
        return super().take(found)

    def convert(self) -> Reading:
        """With what it made, unless it failed: then nothing was."""
        reading = super().convert()
        if self.answer.status >= 400 or self.failed:
            return reading
        wanted = self._asked if self._form is None else asked(self._form.as_json())
        self.pieces(reading, wanted)
        if reading.measured:
            reading.media_size = reading.media_size or self._size or wanted.size
            reading.media_quality = self._quality or wanted.quality
        return reading

    def pieces(self, reading: Reading, wanted: Asked) -> None:
        """Set what the answer is billed by; `wanted` is what was asked for."""


class ImagesReader(PiecesReader):
    """Images, in a body or in events; the whole ones, not those that show how far it is."""

    __slots__ = ("_carried", "_images", "_seen")

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        self._carried = b""
        self._images: int | None = 1 if answer.content_type.startswith(b"image/") else None
        self._seen = 0

    def scan(self, chunk: bytes) -> None:
        """A part of a body that may be too long to be kept."""
        seen = self._carried + chunk
        end = 0
        for match in _image(seen):
            end = match.end()
            self._seen += 1
        self._carried = seen[max(end, len(seen) - _CARRIED_BYTES) :]

    def kind(self, kind: str) -> None:
        super().kind(kind)
        if kind in self.row.ends:
            self._images = (self._images or 0) + 1

    def take(self, found: Members) -> Verdict:
        for name in ("data", "predictions", "images"):
            if name in found:
                listed = items(decode(found[name]))
                self._images = sum(isinstance(one, str) for one in listed) if listed else 0
        return super().take(found)

    def pieces(self, reading: Reading, wanted: Asked) -> None:
        made = self._seen or self._images
        if reading.images is None:
            reading.images = made
        if reading.images is None and self.finished:
            reading.images = wanted.images or 1


class ImagesMeter(BodyMeter):
    """A body whose images are counted as they pass."""

    __slots__ = ("_scan",)

    def __init__(self, reader: UsageReader) -> None:
        super().__init__(reader)
        self._scan = cast("ImagesReader", reader).scan  # `reader` and `body_meter` stand in one row

    def feed(self, chunk: bytes) -> bytes:
        """See `Meter.feed`: always the very same chunk."""
        self._scan(chunk)
        return super().feed(chunk)


class SpeechReader(PiecesReader):
    """Sound from text; it is billed by the text, where it tells no tokens."""

    __slots__ = ()

    def pieces(self, reading: Reading, wanted: Asked) -> None:
        if reading.input_characters is None and wanted.characters is not None:
            reading.input_characters = wanted.characters


class PagesReader(PiecesReader):
    """Text from documents, by the page."""

    __slots__ = ()

    def pieces(self, reading: Reading, wanted: Asked) -> None:
        if wanted.annotated:
            reading.annotated_pages = reading.pages


class VideoReader(PiecesReader):
    """A video job. It is billed when it has ended well, by what was made."""

    __slots__ = ("_seconds", "_status")

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        self._seconds: float | None = None
        self._status: str | None = None

    def take(self, found: Members) -> Verdict:
        self._status = raw_text(found.get("status")) or self._status
        if "seconds" in found:
            self._seconds = duration_s(decode(found["seconds"]))
        return super().take(found)

    def pieces(self, reading: Reading, wanted: Asked) -> None:
        if self._status == "completed":
            reading.video_seconds = self._seconds


IMAGES = Made(
    # gpt-image reports tokens, DALL·E and Imagen nothing
    source="https://platform.openai.com/docs/api-reference/images",
    api="images",
    dialect="images",
    reader=ImagesReader,
    body_meter=ImagesMeter,
    ends=frozenset(("image_generation.completed", "image_edit.completed")),
    prompt=("prompt", "input"),
    kept=True,
)
INVOKE_IMAGES = replace(
    # a list of them, and nothing that tells what they cost
    IMAGES,
    source="https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-nova-canvas.html",
    dialect="unknown",
)
SPEECH = Made(
    # OpenAI's models that are billed by tokens tell them in the event that ends a stream, and nowhere else
    source="https://platform.openai.com/docs/api-reference/audio/createSpeech",
    api="audio",
    reader=SpeechReader,
    ends=frozenset(("speech.audio.done",)),
    prompt=("input", "text"),
    kept=True,
)
VIDEO = Dialect(
    source="https://platform.openai.com/docs/api-reference/videos/object",
    reader=VideoReader,
)
OCR = Made(
    source="https://docs.mistral.ai/api/#tag/ocr",
    usage=("usage_info", "usage"),
    reader=PagesReader,
)
