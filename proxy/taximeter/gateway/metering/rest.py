"""What OpenAI's usual usage object does not have, from a reading into its record. Pure."""

from __future__ import annotations

from taximeter.core.record import IMPOSSIBLE, IN_PART, Record, Source
from taximeter.core.usage import Reading


def take_rest(record: Record, reading: Reading) -> None:
    """All that only a reading which is not `plain` has."""
    record.cache_write_input_tokens = reading.cache_write_input_tokens
    record.cache_write_input_tokens_5m = reading.cache_write_input_tokens_5m
    record.cache_write_input_tokens_1h = reading.cache_write_input_tokens_1h
    record.image_input_tokens = reading.image_input_tokens
    record.search_units = reading.search_units
    record.rerank_documents = reading.rerank_documents
    record.embedding_inputs = reading.embedding_inputs
    record.web_search_requests = reading.web_search_requests
    record.file_search_requests = reading.file_search_requests
    record.code_interpreter_sessions = reading.code_interpreter_sessions
    record.maps_requests = reading.maps_requests
    record.speed = reading.speed
    if reading.region is not None:
        record.region = reading.region
    record.video_input_tokens = reading.video_input_tokens
    record.cached_audio_input_tokens = reading.cached_audio_input_tokens
    record.cached_image_input_tokens = reading.cached_image_input_tokens
    record.image_output_tokens = reading.image_output_tokens
    record.video_output_tokens = reading.video_output_tokens
    record.image_generations = reading.image_generations
    record.seconds = reading.seconds
    record.images, record.input_characters = reading.images, reading.input_characters
    record.pages, record.annotated_pages = reading.pages, reading.annotated_pages
    record.video_seconds = reading.video_seconds
    record.media_size, record.media_quality = reading.media_size, reading.media_quality
    record.inconsistent, record.deferred = reading.inconsistent, reading.deferred
    record.upstream_cost_nusd = reading.upstream_cost_nusd
    if reading.deferred is not None:
        record.input_source = record.output_source = Source.DEFERRED
    if reading.priced_in_part:
        record.cost_note = IN_PART
    if reading.impossible:
        record.cost_note = IMPOSSIBLE
