"""Where what is billed later is fetched, as a client of that provider would ask us. Pure.

Of what has no address of its own in its id (a run of an evaluation, jobs on Vertex AI) none is known: whoever asked for
it fetches it.
"""

from __future__ import annotations

from urllib.parse import quote

from taximeter.core.deferred import EVALS
from taximeter.core.record import Record

_ANTHROPIC = frozenset({"anthropic"})
_GOOGLE = frozenset({"google", "gemini", "google-gla", "google-genai"})
_MISTRAL = frozenset({"mistral"})
_COHERE = frozenset({"cohere"})
_NOT_KNOWN = frozenset({"vertex", "vertexai", "google-vertex", "bedrock", "aws", "aws-bedrock"})


def of_object(asked: Record) -> bytes | None:
    """The path at which the object is that a call was promised; None: not known."""
    name, provider = asked.deferred or "", asked.provider
    if not name or asked.api == EVALS or provider in _NOT_KNOWN:
        return None
    if provider in _GOOGLE:  # https://ai.google.dev/gemini-api/docs/batch-api: a name is a path
        return b"/v1beta/" + _quoted(name, "/")
    if asked.api == "responses":
        return b"/v1/responses/" + _quoted(name)
    if provider in _ANTHROPIC:
        return b"/v1/messages/batches/" + _quoted(name)
    if provider in _MISTRAL:
        return b"/v1/batch/jobs/" + _quoted(name)
    if provider in _COHERE:
        return b"/v1/embed-jobs/" + _quoted(name)
    if provider == "xai" or name.startswith("task_"):  # videos of other APIs than OpenAI's
        return None
    if name.startswith("video_"):  # https://platform.openai.com/docs/api-reference/videos/object
        return b"/v1/videos/" + _quoted(name)
    return b"/v1/batches/" + _quoted(name)


def of_file(asked: Record, file: str) -> bytes:
    """The path at which a file of its results is."""
    if asked.provider in _ANTHROPIC:  # told.results_of: the batch's own
        return b"/v1/messages/batches/" + _quoted(file, "/")
    if asked.provider in _GOOGLE:  # https://ai.google.dev/gemini-api/docs/batch-api#retrieve-results
        return b"/download/v1beta/files/" + _quoted(file) + b":download?alt=media"
    return b"/v1/files/" + _quoted(file) + b"/content"


def headers_of(asked: Record) -> list[tuple[bytes, bytes]]:
    """What its provider wants beside the credential."""
    if asked.provider in _ANTHROPIC:
        return [(b"anthropic-version", b"2023-06-01")]
    return []


def _quoted(name: str, safe: str = "") -> bytes:
    return quote(name, safe=safe).encode()
