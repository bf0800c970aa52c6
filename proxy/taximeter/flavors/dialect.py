"""A dialect: one API as a row of names, and the flavor that such a row makes. The rows stand in the modules beside it.

Shared here: what a request says, and which meter its answer gets. It must not know any API's names beyond those in
`request`, which many share.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from taximeter.core import routes
from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.framing.body import BodyMeter, HeadMeter, SniffingMeter
from taximeter.flavors.framing.encodings import EncodedMeter, encoding
from taximeter.flavors.framing.frames import FrameMeter
from taximeter.flavors.framing.lines import NdjsonMeter, SseMeter
from taximeter.flavors.meter import Answer, Countable, Meter, Prepared
from taximeter.flavors.request import ABSENT, how_many, metadata, plain_json, request_members
from taximeter.flavors.text import extract
from taximeter.flavors.text.splice import include_usage
from taximeter.flavors.usage.counts import items
from taximeter.flavors.usage.reader import UsageReader
from taximeter.flavors.usage.row import Row
from taximeter.flavors.usage.usual import COST_HEADER, request_id

_path_model = re.compile(rb"(?i)/(?:deployments|models?)/(arn:[^?]+(?=/[a-z])|[^/?]+?)(?:/|:[a-z]+(?:[/?:]|$))").search
"""What a verb follows (Google: `:generateContent`) or a slash; colons are a part of it (Bedrock: `…-v1:0`, ARNs)."""
_stream_in_path = re.compile(rb"[/:][^/:?]*stream[^/:?]*/?(?:\?.*)?$").search
_PLAIN_JSON = frozenset((b"application/json", b"application/json; charset=utf-8"))
_TELLING = frozenset((b"content-encoding", COST_HEADER))
"""Headers that change what a body says: only meters know them."""


class Dialect(Row, frozen=True, kw_only=True, eq=False):
    """One API's row: how its answers are read (see `Row`), and what its requests ask for. A `Flavor`."""

    api: str = "other"
    operation: Operation = Operation.OTHER
    dialect: str = "unknown"
    """Of several rows the same where their requests are bounded alike (see `Flavor.dialect`)."""
    reader: type[UsageReader] = UsageReader
    body_meter: type[BodyMeter] = BodyMeter
    metered: bool = True
    """False: no usage, whatever the answer says."""
    usual: Callable[[bytes, str], Reading | None] | None = None
    """Reads a usual body at once, for a provider; None where anything in it is not as usual."""
    injects: bool = False
    """A stream's usage has to be asked for (`stream_options`)."""
    streams: bool | None = None
    """None: as the request says, in body or path (`streamGenerateContent`); True: unless it says no; False: never."""
    ndjson: bool = False
    """Streams are NDJSON even where the content type does not say so."""
    model_in: Callable[[bytes], re.Match[bytes] | None] | None = None
    """Finds the model in a path of the platform's own."""
    inputs: tuple[str, ...] = ()
    """Members of a request that hold what is to be embedded: the first one there tells how many."""
    documents: tuple[str, ...] = ()
    """Likewise, what is to be ranked."""
    messages: str = ""
    """The member that holds a chat's messages; where it is empty, `prompt` and `prompt_json` hold the text."""
    prompt: tuple[str, ...] = ()
    prompt_json: tuple[str, ...] = ()
    kept: bool = False
    """What is said is not all of the prompt: the provider keeps a conversation, or media are sent."""

    def prepare(self, body: bytes, path: bytes, *, inject: bool) -> Prepared:
        """See `Flavor.prepare`."""
        found, reading = request_members(body), None
        if found is None and body:
            reading, inject = plain_json(body), inject and body[:1] == b"{" and body[1:2] != b"\0"
            found = None if reading is None else request_members(reading)
        if found is None:
            return Prepared(body=body, model=self.path_model(path), stream=_path_streams(path))
        prepared = Prepared(
            body=body,
            model=found.model or self.path_model(path),
            stream=found.stream or (b"tream" in path and _path_streams(path)),
            reading=reading,
        )
        if found.metadata is not ABSENT or found.user is not None:
            prepared.metadata = metadata(found)
        if self.injects and inject and prepared.stream:
            asking = include_usage(prepared.body, bytes(found.stream_options))
            if asking is not None:
                prepared.body, prepared.injected = asking, True
        if self.streams is not None:
            prepared.stream = self.streams and found.stream is not False
        if self.inputs:
            prepared.embedding_inputs = how_many(reading or body, found, self.inputs)
        if self.documents:
            prepared.rerank_documents = how_many(reading or body, found, self.documents)
        return prepared

    def path_model(self, path: bytes) -> str | None:
        """The model where the path carries it: Azure deployments, Google's models, what a platform hosts."""
        found = self.model_in(path.partition(b"?")[0]) if self.model_in is not None else None
        found = found or _path_model(path)
        if found is None and (b"%" in path or b"\\" in path):
            found = _path_model(routes.spellings(path)[-1])
        return None if found is None else unquote_to_bytes(found.group(1)).decode("utf-8", "replace")

    def meter(self, prepared: Prepared, answer: Answer, provider: str) -> Meter:
        """See `Flavor.meter`."""
        reader = self.reader(self, prepared, answer, provider)
        if not self.metered:
            return HeadMeter(reader)
        named = answer.value_of(b"content-encoding").strip().lower()
        if named in (b"", b"identity"):
            return self._framing(reader, prepared, answer, strip=prepared.injected)
        encoded = encoding(named)
        if encoded is None:
            return HeadMeter(reader)
        return EncodedMeter(self._framing(reader, prepared, answer, strip=False), encoded)

    def whole(self, prepared: Prepared, answer: Answer, provider: str, body: bytes) -> Reading | None:
        """See `Flavor.whole`."""
        usual = self.usual
        if usual is None or answer.status != 200 or prepared.stream or answer.content_type not in _PLAIN_JSON:
            return None
        if not _TELLING.isdisjoint(dict(answer.headers) if answer.head is None else answer.head):
            return None
        reading = usual(body, provider)
        if reading is not None:
            reading.upstream_request_id = request_id(answer.headers) or reading.upstream_request_id
            reading.finished = self.metered
        return reading

    def input(self, body: bytes) -> Countable:
        """See `Flavor.input`."""
        if self.messages and (not self.prompt or items(extract.at(extract.request(body), self.messages))):
            countable = extract.chat_input(body, self.messages)
        else:
            countable = extract.input_of(body, self.prompt, self.prompt_json)
        countable.truncated = countable.truncated or self.kept
        return countable

    def _framing(self, reader: UsageReader, prepared: Prepared, answer: Answer, *, strip: bool) -> Meter:
        """The meter for how this answer is framed."""
        kind = answer.content_type.partition(b";")[0].strip().lower()
        if kind == b"application/vnd.amazon.eventstream":
            return FrameMeter(reader)
        ndjson = kind.endswith((b"ndjson", b"jsonl", b"stream+json"))
        if ndjson or (self.ndjson and prepared.stream and answer.status < 400):
            return NdjsonMeter(reader, strip=False)
        if kind == b"text/event-stream" or prepared.stream:
            return SniffingMeter(stream=lambda: SseMeter(reader, strip=strip), body=lambda: self.body_meter(reader))
        return self.body_meter(reader)


def _path_streams(path: bytes) -> bool:
    """The path asks for a stream: `:streamGenerateContent`, `/converse-stream`, `/generation_stream`."""
    return _stream_in_path(path.lower()) is not None
