"""When no usage was reported: what must be counted of a call, and by whom.

The text stays as bytes until it is needed; tokenizing itself happens in `tokenizers`, off the loop.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

from taximeter.core.record import Operation, Source
from taximeter.core.usage import Reading
from taximeter.flavors.meter import Countable, Flavor, Meter

LONG_BYTES = 64 * 1024
"""The text of a longer answer is taken out of it in a thread: that may take milliseconds."""


class Counted(Protocol):
    """How many tokens, by which tokenizer, and whether that is a count or an estimate."""

    @property
    def tokens(self) -> int: ...
    @property
    def tokenizer(self) -> str | None: ...
    @property
    def source(self) -> Source: ...


class Counting(Protocol):
    """The tokenizer pool (see `gateway.metering.tokenizers`)."""

    async def count(
        self, countable: Countable, *, model: str | None, provider: str, tokenizer: str = ""
    ) -> Counted: ...


class Completed(NamedTuple):
    """A reading with what was missing filled in, and where each half comes from."""

    reading: Reading
    input_source: Source
    output_source: Source
    tokenizer: str | None


class Prompt:
    """A request's text, kept while it may have to be counted."""

    __slots__ = ("_body", "_early", "_flavor", "_model", "_provider", "_size", "_tokenizer")

    def __init__(self, flavor: Flavor, body: bytes, model: str | None, provider: str, tokenizer: str) -> None:
        self._flavor = flavor
        self._body: bytes | None = body
        self._size = len(body)
        self._model = model
        self._provider = provider
        self._tokenizer = tokenizer
        self._early: asyncio.Task[Counted | None] | None = None

    def shorten(self, counting: Counting | None) -> None:
        """Drop a long text; with `counting`, count it first, in the pool, while the upstream works."""
        if counting is not None and self._body is not None:
            text = self._flavor.input(self._body)
            self._early = asyncio.get_running_loop().create_task(self._count(counting, text, self._model))
        self._body = None

    async def complete(self, counting: Counting, reading: Reading, meter: Meter, *, answer_bytes: int = 0) -> Completed:
        """Count what the reading lacks."""
        model, llm = reading.response_model or self._model, self._flavor.operation is Operation.LLM
        input_source = output_source = Source.REPORTED
        tokenizer = None
        if reading.input_tokens is None:
            input_source = Source.NONE
            wanted = (llm or reading.search_units is None) and not reading.uncounted
            counted = await self._input(counting, model) if wanted else None
            if counted is not None:
                reading.input_tokens, input_source, tokenizer = counted.tokens, counted.source, counted.tokenizer
        if reading.output_tokens is None:
            output_source = Source.NONE
            wanted = llm and not reading.uncounted
            counted = None
            if wanted:
                long = answer_bytes > LONG_BYTES
                output = await asyncio.to_thread(meter.output) if long else meter.output()
                counted = await self._count(counting, output, model)
            if counted is not None:
                reading.output_tokens, output_source = counted.tokens, counted.source
                tokenizer = counted.tokenizer or tokenizer
        return Completed(reading, input_source, output_source, tokenizer)

    async def _input(self, counting: Counting, model: str | None) -> Counted | None:
        if self._early is not None:
            return await self._early
        if self._body is None:  # dropped, and nobody expected to need it
            return _Estimate(self._size // 4)
        return await self._count(counting, self._flavor.input(self._body), model)

    async def _count(self, counting: Counting, text: Countable, model: str | None) -> Counted | None:
        """None where nothing of the text is there to be counted: that is unknown, and never 0."""
        if text.truncated and not text.tokens and not any(text.texts):
            return None
        counted = await counting.count(text, model=model, provider=self._provider, tokenizer=self._tokenizer)
        if text.truncated:
            return _Estimate(counted.tokens, counted.tokenizer)
        return counted


class _Estimate(NamedTuple):
    tokens: int
    tokenizer: str | None = None
    source: Source = Source.ESTIMATED


def lacks(operation: Operation, reading: Reading) -> bool:
    """Whether the reading misses a figure that this kind of call should have, and that may be counted instead."""
    if reading.uncounted:  # it is for the provider to say what the figure should have been, or will be
        return False
    if operation is Operation.LLM:
        return reading.input_tokens is None or reading.output_tokens is None
    return reading.input_tokens is None and reading.search_units is None
