"""What one call's cost is made of: how much of what at which rate. Pure.

`taximeter.core.prices` says what a call cost, in one sum and on the hot path; this says it line by line, for bills.
`sum_nusd` of the lines is that sum, or the lines are not these of the call's price.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from taximeter.core.modalities import Modalities
from taximeter.core.prices import Card, Rates, rates_for, told_apart
from taximeter.core.record import Record, Source

MILLION = 1_000_000
_PICO_PER_NANO = 1_000
_SECONDS_PER_HOUR = 3_600


class SkuMeter(NamedTuple):
    """What a line counts. The first word of each name says of what, as FOCUS' examples of AI billing have it."""

    name: str
    """Of its SKU: `Input Tokens`."""
    kind: str
    """`Input`, `CacheRead`, `CacheWrite`, `Output`; "" where it counts no tokens."""
    unit: str
    """In the plural: `Tokens`."""
    per: int
    """A price is for so many."""


def _tokens(name: str, kind: str) -> SkuMeter:
    return SkuMeter(f"{name} Tokens", kind, "Tokens", MILLION)


INPUT, CACHE_READ = _tokens("Input", "Input"), _tokens("Cache Read Input", "CacheRead")
CACHE_WRITE, CACHE_WRITE_1H = (
    _tokens("Cache Write Input", "CacheWrite"),
    _tokens("1 Hour Cache Write Input", "CacheWrite"),
)
AUDIO_INPUT, CACHED_AUDIO = _tokens("Audio Input", "Input"), _tokens("Cache Read Audio Input", "CacheRead")
IMAGE_INPUT, CACHED_IMAGE = _tokens("Image Input", "Input"), _tokens("Cache Read Image Input", "CacheRead")
VIDEO_INPUT, CITATIONS = _tokens("Video Input", "Input"), _tokens("Citation", "Input")
OUTPUT, REASONING = _tokens("Output", "Output"), _tokens("Reasoning Output", "Output")
AUDIO_OUTPUT, IMAGE_OUTPUT = _tokens("Audio Output", "Output"), _tokens("Image Output", "Output")
VIDEO_OUTPUT = _tokens("Video Output", "Output")
CALLS = SkuMeter("API Calls", "", "Requests", 1)
SEARCH_UNITS = SkuMeter("Search Units", "", "Units", 1)
WEB_SEARCHES, FILE_SEARCHES = SkuMeter("Web Searches", "", "Requests", 1), SkuMeter("File Searches", "", "Requests", 1)
CONTAINERS, MAPS = SkuMeter("Code Interpreter Containers", "", "Units", 1), SkuMeter("Maps Prompts", "", "Requests", 1)
IMAGE_GENERATIONS = SkuMeter("Image Generations", "", "Requests", 1)
IMAGES, CHARACTERS = SkuMeter("Images", "", "Images", 1), SkuMeter("Characters", "", "Characters", MILLION)
PAGES, ANNOTATED_PAGES = SkuMeter("Pages", "", "Pages", 1), SkuMeter("Annotated Pages", "", "Pages", 1)
VIDEO_TIME = SkuMeter("Video", "", "Seconds", 1)
AUDIO_TIME = SkuMeter("Audio", "", "Seconds", _SECONDS_PER_HOUR)

Number = int | Decimal


class Line(NamedTuple):
    """So much of something."""

    meter: SkuMeter
    used: Number
    priced: Number
    """How much of it is billed: more than was used where a least amount is."""
    rate: int | None
    """pico-USD for one; of time: for an hour. None: no price is known."""


def lines(card: Card, record: Record) -> list[Line]:
    """What the call used, each at its rate; none of what it used nothing of. Mirrors `core.prices.cost_nusd`."""
    rates = rates_for(card, record) or card.rates
    for start, higher in card.above:
        if record.input_tokens is not None and record.input_tokens > start:
            rates = higher
    if card.free:
        return [Line(line.meter, line.used, line.priced, 0) for line in unpriced(record)]
    extra = told_apart(record) if rates.needs_modalities else Modalities()
    found = [*_input(rates, record, extra), *_output(rates, record, extra), *_uses(rates, record)]
    return [line for line in found if line.used or line.priced]


def unpriced(record: Record) -> list[Line]:
    """What a call used whose price is not known; of a call of which nothing is known that there was one."""
    cached, written = record.cached_input_tokens or 0, record.cache_write_input_tokens or 0
    fresh = None if record.input_tokens is None else max(record.input_tokens - cached - written, 0)
    parts: tuple[tuple[SkuMeter, Number | None], ...] = (
        (INPUT, fresh),
        (CACHE_READ, cached),
        (CACHE_WRITE, written),
        (OUTPUT, record.output_tokens),
        (SEARCH_UNITS, record.search_units),
        (WEB_SEARCHES, record.web_search_requests),
        (FILE_SEARCHES, record.file_search_requests),
        (CONTAINERS, record.code_interpreter_sessions),
        (MAPS, record.maps_requests),
        (IMAGE_GENERATIONS, record.image_generations),
        (IMAGES, record.images),
        (CHARACTERS, record.input_characters),
        (PAGES, None if record.pages is None else record.pages - (record.annotated_pages or 0)),
        (ANNOTATED_PAGES, record.annotated_pages),
        (VIDEO_TIME, None if record.video_seconds is None else Decimal(str(record.video_seconds))),
        (AUDIO_TIME, None if record.seconds is None else Decimal(str(record.seconds))),
    )
    found = [Line(meter, used, used, None) for meter, used in parts if used]
    return found or [Line(CALLS, 1, 1, None)]


def sum_nusd(found: list[Line]) -> int:
    """What the lines cost together, rounded once as a call's cost is: half a nano-USD up."""
    pico = sum((Decimal(line.rate or 0) * line.priced / _hours(line) for line in found), Decimal(0))
    return int((pico / _PICO_PER_NANO + Decimal("0.5")).to_integral_value("ROUND_FLOOR"))


def source(line: Line, record: Record) -> Source:
    """Where the figure of a line comes from."""
    return record.output_source if line.meter.kind == "Output" else record.input_source


def _hours(line: Line) -> int:
    return _SECONDS_PER_HOUR if line.meter is AUDIO_TIME else 1


def _line(meter: SkuMeter, used: int, rate: int | None) -> Line:
    return Line(meter, used, used, rate)


def _input(rates: Rates, record: Record, extra: Modalities) -> list[Line]:
    tokens = record.input_tokens
    if rates.input is None or tokens is None or (rates.search_unit is not None and record.search_units is None):
        return []
    found: list[Line] = []
    fresh, cached, from_cache = tokens, 0, 0
    if rates.cached_input is not None and record.cached_input_tokens:
        cached = record.cached_input_tokens
        fresh -= cached
    if rates.cache_write is not None or rates.cache_write_1h is not None:
        hour = record.cache_write_input_tokens_1h or 0
        written = record.cache_write_input_tokens
        if written is None:
            written = (record.cache_write_input_tokens_5m or 0) + hour
        short = rates.input if rates.cache_write is None else rates.cache_write
        found.append(_line(CACHE_WRITE, max(written - hour, 0), short))
        found.append(_line(CACHE_WRITE_1H, hour, short if rates.cache_write_1h is None else rates.cache_write_1h))
        fresh -= written
    fresh = max(fresh, 0)
    for meter, rate, told in (
        (AUDIO_INPUT, rates.audio_input, record.audio_input_tokens),
        (IMAGE_INPUT, rates.image_input, record.image_input_tokens),
        (VIDEO_INPUT, rates.video_input, extra.video_input_tokens),
    ):
        if rate is None or not told:
            continue
        cached_meter, cached_rate, told_cached = {
            AUDIO_INPUT: (CACHED_AUDIO, rates.cached_audio_input, extra.cached_audio_tokens),
            IMAGE_INPUT: (CACHED_IMAGE, rates.cached_image_input, extra.cached_image_tokens),
            VIDEO_INPUT: (CACHE_READ, None, None),
        }[meter]
        of_cache = min(told_cached or 0, told)
        found.append(_line(meter, told - of_cache, rate))
        fresh -= told - of_cache
        if rates.cached_input is None:
            found.append(_line(cached_meter, of_cache, rate if cached_rate is None else cached_rate))
            fresh -= of_cache
        elif cached_rate is not None:
            found.append(_line(cached_meter, of_cache, cached_rate))
            from_cache += of_cache
    return [_line(INPUT, fresh, rates.input), _line(CACHE_READ, cached - from_cache, rates.cached_input), *found]


def _output(rates: Rates, record: Record, extra: Modalities) -> list[Line]:
    tokens = record.output_tokens
    if tokens is None or rates.output is None:
        return []
    found: list[Line] = []
    for meter, rate, part in (
        (REASONING, rates.reasoning_output, record.reasoning_output_tokens),
        (AUDIO_OUTPUT, rates.audio_output, record.audio_output_tokens),
        (IMAGE_OUTPUT, rates.image_output, extra.image_output_tokens),
        (VIDEO_OUTPUT, rates.video_output, extra.video_output_tokens),
    ):
        if rate is not None and part:
            tokens -= part
            found.append(_line(meter, part, rate))
    if rates.citation is not None and extra.citation_tokens:
        found.append(_line(CITATIONS, extra.citation_tokens, rates.citation))
    return [_line(OUTPUT, tokens, rates.output), *found]


def _uses(rates: Rates, record: Record) -> list[Line]:
    found = [] if rates.request is None else [_line(CALLS, 1, rates.request)]
    for meter, used, rate in (
        (SEARCH_UNITS, record.search_units, rates.search_unit),
        (WEB_SEARCHES, record.web_search_requests, rates.web_search),
        (FILE_SEARCHES, record.file_search_requests, rates.file_search),
        (CONTAINERS, record.code_interpreter_sessions, rates.code_interpreter),
        (MAPS, record.maps_requests, rates.maps),
        (IMAGE_GENERATIONS, record.image_generations, rates.image_generation),
        (IMAGES, record.images, rates.image),
        (CHARACTERS, record.input_characters, rates.character),
        (PAGES, max((record.pages or 0) - (record.annotated_pages or 0), 0), rates.page),
        (ANNOTATED_PAGES, None if None in (rates.page, record.pages) else record.annotated_pages, rates.annotated_page),
    ):
        if used and rate is not None:
            found.append(_line(meter, used, rate))
    if rates.video_second is not None and record.video_seconds is not None:
        lasted = Decimal(round(record.video_seconds * 1_000)) / 1_000
        found.append(Line(VIDEO_TIME, lasted, lasted, rates.video_second))
    if rates.audio_hour is not None and record.seconds is not None:
        seconds = billed = Decimal(round(record.seconds * 1_000_000)) / 1_000_000
        if rates.min_audio_s is not None and seconds > 0:
            billed = max(seconds, Decimal(rates.min_audio_s))
        found.append(Line(AUDIO_TIME, seconds, billed, rates.audio_hour))
    return found
