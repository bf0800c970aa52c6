"""Reading any request body to the end where a hard budget or an allow-list is about it, or refusing it. Pure.

What a provider might read and we cannot would pass both unseen, so nothing is let through unread: compressed bodies are
unfolded, forms are read as their fields, other types of content than JSON are looked at as JSON, and what is left is
refused with a 400 that says what to send instead. The upstream gets the bytes as they came.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from taximeter.core.errors import BadRequest, PayloadTooLarge
from taximeter.flavors.framing.encodings import encoding
from taximeter.flavors.text.lenient import Unreadable, plain
from taximeter.gateway.bounds.audio import bytes_per_s

if TYPE_CHECKING:
    from multipart import MultipartSegment  # type: ignore[import-untyped]

Headers = list[tuple[bytes, bytes]]

MAX_CODINGS = 3
"""Content codings one over another; more is no client's doing."""
FORM_PARTS = 64
REROUTING = frozenset(
    (b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url")
)
"""Headers by which some servers take another method or path than the request line's."""

_MEANT = "A hard budget or an allow-list is about this call, so its body must be readable here, but"
_is_json = re.compile(rb"(application|text)/([a-z0-9.-]+\+)?json|text/plain|application/octet-stream|").fullmatch
_charsets = re.compile(rb"charset[*\d]*\s*=\s*\"?([^\s;\"]*)").findall
_boundary = re.compile(
    rb"multipart/form-data\s*;\s*(?:charset=\"?[\w-]+\"?\s*;\s*)?"
    rb"boundary=(?:\"([^\"\\;]{1,70})\"|([^\s;\",]{1,70}))\s*(?:;\s*charset=\"?[\w-]+\"?\s*)?;?\s*",
    re.IGNORECASE,
).fullmatch
"""One boundary: of two, servers differ in which they take, and so in which form they read."""
_part_names = re.compile(r"(?i);\s*name[*\d]*\s*=").findall
_PLAIN_CHARSETS = frozenset((b"utf-8", b"utf8", b"us-ascii", b"ascii"))


def refusal(why: str) -> BadRequest:
    """The error of a body that cannot be read."""
    return BadRequest(f"{_MEANT} {why}. Send JSON in UTF-8, with content-type: application/json.")


def too_large(limit_bytes: int) -> PayloadTooLarge:
    """The error of a body longer than is read."""
    return PayloadTooLarge(f"{_MEANT} it is longer than limits.json_body_bytes ({limit_bytes:,} bytes).")


def check_head(headers: Headers) -> None:
    """Refuse what makes a server read another request than the one that came. Raises BadRequest."""
    seen = set()
    for name, value in headers:
        if name in REROUTING:
            raise BadRequest(f"A hard budget or an allow-list is about this call: leave out {name.decode()}.")
        if name in (b"content-type", b"content-encoding"):
            if name in seen:
                raise refusal(f"there are two {name.decode()} headers")
            seen.add(name)
        if name == b"content-type":
            for charset in _charsets(value.lower()):
                if charset not in _PLAIN_CHARSETS:
                    raise refusal(f"its charset is {charset.decode('latin-1')}")


def read(headers: Headers, body: bytes, limit_bytes: int) -> bytes:
    """A body of any kind as plain JSON (the very same object where it is that). Raises BadRequest, PayloadTooLarge."""
    head = dict(headers)
    check_head(headers)
    kind = head.get(b"content-type", b"")
    body = _unfolded(head.get(b"content-encoding", b""), body, limit_bytes)
    name = kind.partition(b";")[0].strip().lower()
    if not body:
        return b"{}"
    if name == b"multipart/form-data":
        return _form(kind, body)
    if _is_json(name) is None:
        raise refusal(f"its content-type is {name.decode('latin-1')}")
    try:
        return plain(body)
    except Unreadable as error:
        raise refusal(str(error)) from None


def _unfolded(codings: bytes, body: bytes, limit_bytes: int) -> bytes:
    """The body without its content codings, which were laid on in the order in which they are named."""
    names = [name for part in codings.lower().split(b",") if (name := part.strip()) not in (b"", b"identity")]
    if len(names) > MAX_CODINGS:
        raise refusal("it has too many content-encodings")
    for name in reversed(names):
        reader = encoding(name)
        if reader is None:
            raise refusal(f"its content-encoding is {name.decode('latin-1')}")
        parts, size_bytes = [], 0
        try:
            for part in reader.unfold(body):
                parts.append(part)
                size_bytes += len(part)
                if size_bytes > limit_bytes:
                    raise too_large(limit_bytes)
        except reader.unreadable as error:
            raise refusal(f"its content-encoding cannot be undone ({error})") from None
        body = b"".join(parts)
    return body


def boundary_of(kind: bytes) -> bytes | None:
    """The boundary in a form's content-type; None where there is none that all servers take for the same."""
    found = _boundary(kind.strip())
    return None if found is None else found[1] or found[2]


def _form(kind: bytes, body: bytes) -> bytes:
    """A form's fields as JSON: text as strings, several of a name as a list, a file as {"bytes": its size} and more."""
    # few calls are forms
    from multipart import MultipartError, MultipartSegment, PushMultipartParser

    boundary = boundary_of(kind)
    if boundary is None:
        raise refusal("its form has no boundary that all servers take for the same")
    fields: dict[str, list[object]] = {}
    try:
        with PushMultipartParser(boundary, len(body), max_segment_count=FORM_PARTS, strict=True) as parser:
            segment, text, parts = None, bytearray(), 0
            for event in parser.parse(body):
                if isinstance(event, MultipartSegment):
                    segment, text, parts = event, bytearray(), parts + 1
                    _check_part(event)
                elif event is not None:
                    text += event
                elif segment is not None:
                    file = {"bytes": len(text), "bytes_per_s": bytes_per_s(text), "name": segment.filename}
                    value = text.decode("utf-8", "replace") if segment.filename is None else file
                    fields.setdefault(segment.name, []).append(value)
            parser.parse(b"")
    except (MultipartError, ValueError) as error:
        raise refusal(f"its form cannot be read ({error})") from None
    _check_lines(body, b"--" + boundary, parts)
    if "_charset_" in fields:  # some servers read the other fields in that charset (RFC 7578, 4.6)
        raise refusal("its form names a charset")
    return json.dumps({name: values[0] if len(values) == 1 else values for name, values in fields.items()}).encode()


def _check_part(segment: MultipartSegment) -> None:
    """Refuse a part whose name some servers would read as another: they differ in which of two they take."""
    heads = [value for name, value in segment.headerlist if name == "Content-Disposition"]
    if len(heads) != 1 or len(_part_names(heads[0])) > 1:
        raise refusal("a part of its form has two names")


def _check_lines(body: bytes, line: bytes, parts: int) -> None:
    """Refuse a form that some servers would split otherwise. `line`: what begins each of its `parts` and ends it."""
    if not (body.lstrip(b"\r\n").startswith(line) and body.rstrip(b"\r\n").endswith(line + b"--")):
        raise refusal("something stands before or after its form")  # there another boundary's form could
    if len(re.findall(rb"(?:\A|[\r\n])" + re.escape(line), body)) != parts + 1:
        raise refusal("its form has a boundary that is none")  # after half a line end, say: some servers split there
