"""What is asked for now, done later and billed then: batches, jobs, videos. The POST's answer tells an id, no usage.

What it used stands in an object, or in a file of results, that is fetched later. A batch counts its own requests in a
`usage` from the beginning (OpenAI's, all zeros), which is no usage of the POST and is not read.
"""

from __future__ import annotations

from msgspec.structs import replace

from taximeter.core.usage import Reading
from taximeter.flavors.dialect import Dialect
from taximeter.flavors.dialects import UNKNOWN
from taximeter.flavors.meter import Answer, Prepared
from taximeter.flavors.usage.counts import Members, raw_text
from taximeter.flavors.usage.reader import UsageReader, Verdict
from taximeter.flavors.usage.row import Row

_REFUSED = frozenset(("failed", "cancelled", "canceled", "expired", "error", "rejected"))
"""States, in lower case, in which a job does nothing any more, and never did."""


class JobReader(UsageReader):
    """The answer to a POST that starts a job."""

    __slots__ = ("_refused",)

    def __init__(self, row: Row, prepared: Prepared, answer: Answer, provider: str) -> None:
        super().__init__(row, prepared, answer, provider)
        self._refused = False

    def take(self, found: Members) -> Verdict:
        """See `UsageReader.take`."""
        status = raw_text(found.get("status")) or ""
        self._refused = status.lower() in _REFUSED
        return super().take(found)

    def reading(self) -> Reading:
        """Its id is where its use will be told; none where it was not taken."""
        reading = super().reading()
        if self.id is not None and self.answer.status < 400 and not (self.failed or self._refused):
            reading.deferred = self.id
        return reading


JOBS = Dialect(
    # https://platform.claude.com/docs/en/api/creating-message-batches, https://ai.google.dev/gemini-api/docs/batch-api,
    # https://docs.mistral.ai/api/endpoint/batch, https://docs.cohere.com/reference/create-embed-job,
    # https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini
    source="https://platform.openai.com/docs/api-reference/batch/create",
    reader=JobReader,
    usage=(),
    id=("id", "name", "job_id"),
)
VIDEOS = replace(
    # seconds or a usage object, where the answer tells them at once, are kept as of any call
    UNKNOWN,
    # https://ai.google.dev/gemini-api/docs/video: an operation, told by its name;
    # https://docs.x.ai/docs/guides/video-generations: `request_id`;
    # https://learn.microsoft.com/azure/ai-foundry/openai/video-generation-quickstart: a job with an `id`
    source="https://platform.openai.com/docs/api-reference/videos/create",
    reader=JobReader,
    id=("id", "name", "request_id"),
)
