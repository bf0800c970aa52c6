"""An HTTP/2 answer in the words of the seam: its head, and what each way to fail means. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from hpack.exceptions import HPACKError
from hyperframe.exceptions import HyperframeError

from taximeter.core.errors import UpstreamCut, UpstreamError, UpstreamGarbage, UpstreamUnreachable
from taximeter.gateway.upstream.framing import HEAD_FIELDS
from taximeter.gateway.upstream.goaway import Goaway
from taximeter.gateway.upstream.http2_stream import NotProcessed
from taximeter.server.fields import HOP_BY_HOP

ERRORS = (H2Error, HPACKError, HyperframeError)
"""All that `h2` and what it stands on raise."""
Headers = list[tuple[bytes, bytes]]
_BODILESS = (b"204", b"304")
_is_name = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch
_is_value = re.compile(rb"(?:[^\x00\r\n\t ](?:[^\x00\r\n]*[^\x00\r\n\t ])?)?").fullmatch
_NEVER = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""Of HTTP/1.1 connections: no field of HTTP/2 (RFC 9113 §8.2.2)."""


class AnswerHead(NamedTuple):
    """`headers` are ready to be relayed; `length` is None where it is unknown, or there is no body."""

    status: int
    headers: Headers
    length: int | None


def read_head(fields: Headers) -> AnswerHead | str:
    """The head in these fields, or why it cannot be passed on.

    That ends its stream (RFC 9113 §8.1.1). `h2` would end the connection, and with it what all others wait for.
    """
    begin, rest = fields[:1], fields[1:]
    if not (begin and begin[0][0] == b":status" and all(_is_name(name) and name not in _NEVER for name, _ in rest)):
        return "its fields are not those of HTTP/2"
    if not all(_is_value(value) for _, value in rest):
        return "a field holds what none may hold"
    status = bytes(begin[0][1])
    lengths = {value for name, value in fields if name == b"content-length"}
    if not (status.isdigit() and len(status) == 3 and 200 <= int(status) <= 599):
        return "no such status"
    if len(fields) > HEAD_FIELDS:
        return "too many header fields"
    if len(lengths) > 1:
        return "two lengths"
    length = int(lengths.pop()) if lengths and status not in _BODILESS else None  # a number: `h2` has looked
    left_out = HOP_BY_HOP | {b"content-length"} if status in _BODILESS else HOP_BY_HOP
    kept = [(bytes(name), bytes(value)) for name, value in rest]
    headers = [field for field in kept if field[0] not in left_out]
    return AnswerHead(int(status), headers, length)


def of_reset(name: str, code: int | None, *, answered: bool) -> UpstreamError:
    """What RST_STREAM means. `answered`: the head of the answer had come."""
    shown = f"Upstream {name!r}"
    if answered:
        return UpstreamCut(f"{shown} reset the stream in the middle of its answer ({_named(code)}).")
    if code == ErrorCodes.REFUSED_STREAM:
        return NotProcessed(f"{shown} refused the stream (REFUSED_STREAM).")
    return UpstreamUnreachable(f"{shown} reset the stream before it answered ({_named(code)}).")


def of_goaway(name: str) -> UpstreamError:
    """What a GOAWAY means for a stream above the one it names."""
    return NotProcessed(f"Upstream {name!r} closes its connection and did nothing with the request (GOAWAY).")


def of_end(name: str, goaway: Goaway | None, *, answered: bool) -> UpstreamError:
    """What the end of a connection means for a stream on it. `goaway`: what the upstream had said before."""
    said = f" (GOAWAY: {_named(goaway.error_code)})" if goaway is not None else ""
    if answered:
        return UpstreamCut(f"Upstream {name!r} closed the connection in the middle of its answer{said}.")
    return UpstreamUnreachable(f"Upstream {name!r} closed the connection before it answered{said}.")


def of_breach(name: str, error: Exception) -> UpstreamError:
    """What it means that the upstream does not keep to the protocol."""
    said = str(error) or type(error).__name__
    return UpstreamGarbage(f"Upstream {name!r} answered something that is not HTTP/2: {said}.")


def _named(code: int | None) -> str:
    """An error code as the protocol calls it."""
    try:
        return ErrorCodes(code or 0).name
    except ValueError:
        return f"code {code}"
