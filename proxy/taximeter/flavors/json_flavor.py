"""What every flavor that speaks JSON shares: reading a request's members once, choosing a meter for an answer.

It must not know any API's names beyond `model`, `stream`, `metadata` and `user`, which all of them share.
"""

from __future__ import annotations

import re
from typing import ClassVar
from urllib.parse import unquote_to_bytes

import msgspec

from taximeter.core import routes
from taximeter.core.record import Operation
from taximeter.core.usage import Reading
from taximeter.flavors.framing.body import BodyMeter, HeadMeter, SniffingMeter
from taximeter.flavors.framing.encodings import EncodedMeter, encoding
from taximeter.flavors.framing.lines import NdjsonMeter, SseMeter
from taximeter.flavors.meter import Answer, Countable, Meter, Prepared
from taximeter.flavors.text.lenient import Unreadable, plain
from taximeter.flavors.usage.counts import decode, fields, short_text
from taximeter.flavors.usage.reader import UsageReader
from taximeter.flavors.usage.usual import COST_HEADER, UNREADABLE, Name, request_id

METADATA_BYTES = 8 * 1024
"""Largest `metadata` object looked at for tags; OpenAI allows 16 members of 512 characters."""

_path_model = re.compile(rb"(?i)/(?:deployments|models?)/([^/:?]+)[/:]").search
_PLAIN_JSON = frozenset((b"application/json", b"application/json; charset=utf-8"))
_TELLING = frozenset((b"content-encoding", COST_HEADER))
"""Headers that change what a body says: only meters know them."""
_NULL = msgspec.Raw(b"null")
_ABSENT = msgspec.Raw(b"")


class RequestMembers(msgspec.Struct):
    """A JSON request's members: what all flavors share, and as bytes what some look into."""

    model: Name | None = None
    stream: bool | None = None
    user: Name | None = None
    stream_options: msgspec.Raw = _ABSENT
    metadata: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _NULL
    documents: msgspec.Raw = _NULL


class _Oddly(msgspec.Struct):
    """The same as bytes, where one of them has an odd type: no odd value may hide the others."""

    model: msgspec.Raw = _NULL
    stream: msgspec.Raw = _NULL
    user: msgspec.Raw = _NULL
    stream_options: msgspec.Raw = _ABSENT
    metadata: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _NULL
    documents: msgspec.Raw = _NULL


_members = msgspec.json.Decoder(RequestMembers)
_oddly = msgspec.json.Decoder(_Oddly)


def request_members(body: bytes) -> RequestMembers | None:
    """A request body's members; None where it is no readable JSON object."""
    if not body:
        return None
    try:
        return _members.decode(body)
    except UNREADABLE:
        pass
    try:
        found = _oddly.decode(body)
    except UNREADABLE:
        return None
    return RequestMembers(
        model=short_text(found.model),
        stream={b"true": True, b"false": False}.get(bytes(found.stream)),
        user=short_text(found.user),
        stream_options=found.stream_options,
        metadata=found.metadata,
        input=found.input,
        documents=found.documents,
    )


class JsonFlavor:
    """A flavor made of a reader and a few names. Subclasses say more where their API needs it."""

    api: str = "other"
    operation: Operation = Operation.OTHER
    reader: ClassVar[type[UsageReader]] = UsageReader
    ndjson: ClassVar[bool] = False
    """Streams are NDJSON even where the content type does not say so."""

    def prepare(self, body: bytes, path: bytes, *, inject: bool) -> Prepared:
        """See `Flavor.prepare`."""
        found, reading = request_members(body), None
        if found is None and body:
            reading, inject = _reading(body), inject and body[:1] == b"{" and body[1:2] != b"\0"
            found = None if reading is None else request_members(reading)
        if found is None:
            return Prepared(body=body, model=self.path_model(path), stream=self.path_streams(path))
        prepared = Prepared(
            body=body,
            model=found.model or self.path_model(path),
            stream=found.stream or self.path_streams(path),
            reading=reading,
        )
        if found.metadata is not _ABSENT or found.user is not None:
            prepared.metadata = _metadata(found)
        self.add_to(prepared, found, inject=inject)
        return prepared

    def add_to(self, prepared: Prepared, found: RequestMembers, *, inject: bool) -> None:
        """What an API adds to a prepared request."""

    def path_model(self, path: bytes) -> str | None:
        """The model where the path carries it: Azure deployments, Google's models."""
        found = _path_model(path)
        if found is None and b"%" in path:
            found = _path_model(routes.spellings(path)[-1])
        return None if found is None else unquote_to_bytes(found.group(1)).decode("utf-8", "replace")

    def path_streams(self, path: bytes) -> bool:
        """The path asks for a stream."""
        return False

    def meter(self, prepared: Prepared, answer: Answer, provider: str) -> Meter:
        """See `Flavor.meter`."""
        reader = self.new_reader(prepared, answer, provider)
        named = answer.value_of(b"content-encoding").strip().lower()
        if named in (b"", b"identity"):
            return self.framing(reader, prepared, answer, strip=prepared.injected)
        encoded = encoding(named)
        if encoded is None:
            return HeadMeter(reader)
        return EncodedMeter(self.framing(reader, prepared, answer, strip=False), encoded)

    def whole(self, prepared: Prepared, answer: Answer, provider: str, body: bytes) -> Reading | None:
        """See `Flavor.whole`."""
        if answer.status != 200 or prepared.stream or answer.content_type not in _PLAIN_JSON:
            return None
        if not _TELLING.isdisjoint(dict(answer.headers)):
            return None
        reading = self.usual(body, provider)
        if reading is not None:
            reading.upstream_request_id = request_id(answer.headers) or reading.upstream_request_id
            reading.finished = True
        return reading

    def usual(self, body: bytes, provider: str) -> Reading | None:
        """A usual body's own reading in one typed decode; None where anything in it is not as usual."""
        return None

    def new_reader(self, prepared: Prepared, answer: Answer, provider: str) -> UsageReader:
        """A reader for one answer."""
        return self.reader(prepared, answer, provider)

    def framing(self, reader: UsageReader, prepared: Prepared, answer: Answer, *, strip: bool) -> Meter:
        """The meter for how this answer is framed."""
        kind = answer.content_type.partition(b";")[0].strip().lower()
        if kind.endswith((b"ndjson", b"jsonl", b"stream+json")):
            return NdjsonMeter(reader, strip=False)
        if self.ndjson and prepared.stream and answer.status < 400:
            return NdjsonMeter(reader, strip=False)
        if kind == b"text/event-stream" or prepared.stream:
            return SniffingMeter(stream=lambda: SseMeter(reader, strip=strip), body=lambda: BodyMeter(reader))
        return BodyMeter(reader)

    def input(self, body: bytes) -> Countable:
        """See `Flavor.input`."""
        return Countable(truncated=True)


def _reading(body: bytes) -> bytes | None:
    try:
        return plain(body)
    except Unreadable:
        return None


def _metadata(found: RequestMembers) -> dict[str, object]:
    raw = bytes(found.metadata)
    metadata = dict(fields(decode(raw))) if len(raw) <= METADATA_BYTES else {}
    if found.user is not None:
        metadata["end_user"] = found.user
    return metadata
