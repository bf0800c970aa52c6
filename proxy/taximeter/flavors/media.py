"""OpenAI-shaped `/images` and `/audio`: tokens, or seconds of audio, whichever the provider bills.

gpt-image reports tokens, DALL·E nothing; transcription reports `{"type": "tokens", …}` or
`{"type": "duration", "seconds": …}` (two units, never both); Mistral adds audio tokens and seconds beside the prompt.
Streams end in `image_generation.completed`, `transcript.text.done` or `speech.audio.done`.
"""

from __future__ import annotations

from taximeter.core.usage import Reading
from taximeter.flavors.json_flavor import JsonFlavor
from taximeter.flavors.meter import Countable
from taximeter.flavors.text import extract
from taximeter.flavors.usage import openai as openai_usage
from taximeter.flavors.usage.reader import UsageReader


class MediaReader(UsageReader):
    """An image or audio answer, whole or streamed."""

    terminal_kinds = frozenset(
        ("image_generation.completed", "image_edit.completed", "transcript.text.done", "transcription.done",
         "speech.audio.done")
    )  # fmt: skip

    __slots__ = ()

    def convert(self) -> Reading:
        return openai_usage.read(self.usage, self.provider, self.model)


class Media(JsonFlavor):
    """Flavor of one media API."""

    reader = MediaReader

    def __init__(self, api: str) -> None:
        self.api = api

    def input(self, body: bytes) -> Countable:
        countable = extract.input_of(body, "prompt", "input")
        countable.truncated = True  # the media themselves cannot be counted here
        return countable


IMAGES = Media("images")
AUDIO = Media("audio")
