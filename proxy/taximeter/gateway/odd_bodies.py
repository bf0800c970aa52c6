"""Request bodies that are no plain JSON: what is learned of them before they go on, held no longer than it takes.

A compressed body is read through a bounded decoder and sent as it came, unless its usage has to be asked for: then it
goes without its coding. Of a form the fields are read as it streams through. A body of any other type is looked at as
JSON if it begins as that. Where nothing can be read the call goes on, and its model is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taximeter.core.errors import BadRequest, PayloadTooLarge
from taximeter.flavors.meter import Prepared
from taximeter.gateway.bounds import readable
from taximeter.gateway.forms import Form

if TYPE_CHECKING:
    from taximeter.server.exchange import Exchange

HELD_FORM_BYTES = 64 * 1024
"""Most of a form that is held until its model has come; browsers and SDKs send fields before files."""
_BLANKS = b" \t\r\n"


class Ahead:
    """What is known of a body before it goes on."""

    __slots__ = ("body", "form", "reading", "whole")

    def __init__(self, body: bytes, *, whole: bool, reading: bytes | None = None, form: Form | None = None) -> None:
        self.body = body
        """As it came, as far as it has been read."""
        self.whole = whole
        self.reading = reading
        """The same as JSON, as far as it could be read."""
        self.form = form
        """Reads on while the rest streams through."""


async def read_ahead(exchange: Exchange, head: dict[bytes, bytes], limit_bytes: int) -> Ahead:
    """Read of a body what tells its model. What `Exchange.part` raises; PayloadTooLarge for what unfolds to more than
    `limit_bytes`."""
    length = int(head.get(b"content-length", b"0"))
    kind = head.get(b"content-type", b"").lstrip()
    if kind[:19].lower() == b"multipart/form-data":
        return await _form(exchange, kind)
    if length > limit_bytes:
        return Ahead(b"", whole=False)
    begun = b""
    if b"content-encoding" not in head:
        begun = await exchange.part()
        if not _may_be_json(begun):
            return Ahead(begun, whole=False)
    body, whole = await exchange.body(limit_bytes - len(begun))
    body = begun + body
    return Ahead(body, whole=whole, reading=_as_json(exchange, body, limit_bytes) if whole else None)


def fit(exchange: Exchange, prepared: Prepared, body: bytes, reading: bytes) -> bytes:
    """Make `prepared` send the body as it came, or what was spliced into its reading, then without its coding; returns
    what is sent where the splice is refused."""
    if prepared.injected and prepared.body is not reading and _is_coded(exchange):
        exchange.say_instead([field for field in exchange.headers if field[0] != b"content-encoding"])
        return reading
    prepared.reading, prepared.body, prepared.injected = reading, body, False
    return body


async def _form(exchange: Exchange, kind: bytes) -> Ahead:
    form, parts, size_bytes = Form(kind), [], 0
    while size_bytes < HELD_FORM_BYTES and form.reads and form.model is None:
        part = await exchange.part()
        if not part:
            break
        form.feed(part)
        parts.append(part)
        size_bytes += len(part)
    return Ahead(b"".join(parts), whole=False, reading=form.as_json(), form=form)


def _may_be_json(begun: bytes) -> bool:
    """Also with a byte order mark, or in UTF-16."""
    return begun.lstrip(b"\xef\xbb\xbf\xff\xfe\0" + _BLANKS)[:1] == b"{"


def _as_json(exchange: Exchange, body: bytes, limit_bytes: int) -> bytes | None:
    try:
        return readable.read(exchange.headers, body, limit_bytes)
    except BadRequest:
        return None
    except PayloadTooLarge:
        raise PayloadTooLarge(
            f"The compressed body unfolds to more than limits.json_body_bytes ({limit_bytes:,} bytes). Send it plain."
        ) from None


def _is_coded(exchange: Exchange) -> bool:
    return any(name == b"content-encoding" and value.lower() != b"identity" for name, value in exchange.headers)
