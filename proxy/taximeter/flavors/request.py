"""A JSON request's members, read once: what all flavors share. Pure; never raises."""

from __future__ import annotations

import msgspec

from taximeter.flavors.text import extract
from taximeter.flavors.text.lenient import Unreadable, plain
from taximeter.flavors.usage.counts import decode, fields, items, short_text
from taximeter.flavors.usage.usual import UNREADABLE, Name

METADATA_BYTES = 8 * 1024
"""Largest `metadata` object looked at for tags; OpenAI allows 16 members of 512 characters."""

_NULL = msgspec.Raw(b"null")
ABSENT = msgspec.Raw(b"")


class RequestMembers(msgspec.Struct):
    """What all flavors share, and as bytes what some look into."""

    model: Name | None = None
    stream: bool | None = None
    user: Name | None = None
    stream_options: msgspec.Raw = ABSENT
    metadata: msgspec.Raw = ABSENT
    input: msgspec.Raw = _NULL


class _Oddly(msgspec.Struct):
    """The same as bytes, where one of them has an odd type: no odd value may hide the others."""

    model: msgspec.Raw = _NULL
    stream: msgspec.Raw = _NULL
    user: msgspec.Raw = _NULL
    stream_options: msgspec.Raw = ABSENT
    metadata: msgspec.Raw = ABSENT
    input: msgspec.Raw = _NULL


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
    )


def how_many(body: bytes, found: RequestMembers, paths: tuple[str, ...]) -> int | None:
    """How many inputs the first of some members holds that is there: a string, an object or a token array is one."""
    if paths[0] == "input" and (number := _number(decode(found.input))):
        return number
    asked = extract.request(body)
    return next((number for path in paths if (number := _number(extract.at(asked, path)))), None)


def _number(value: object) -> int | None:
    if isinstance(value, str) or (isinstance(value, dict) and value):
        return 1
    listed = items(value)
    return 1 if listed and type(listed[0]) is int else len(listed) or None


def plain_json(body: bytes) -> bytes | None:
    """The body as the most lenient provider reads it (see `lenient`); None where none does."""
    try:
        return plain(body)
    except Unreadable:
        return None


def metadata(found: RequestMembers) -> dict[str, object]:
    """What it says of itself, for tags."""
    raw = bytes(found.metadata)
    told = dict(fields(decode(raw))) if len(raw) <= METADATA_BYTES else {}
    if found.user is not None:
        told["end_user"] = found.user
    return told
