"""Which requests cannot be relayed safely, by what their heads say, and how they are refused. Pure."""

from __future__ import annotations

from taximeter.core.errors import BadRequest, MethodNotAllowed, RequestError

METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
"""All that APIs use. CONNECT asks for a tunnel, and its parser takes what follows for one; TRACE would hand the
operator's credential back to the client; WebDAV's and others mean nothing here and at no provider."""


def judged(
    method: bytes, target: bytes, version: str, hosts: int, codings: int, *, odd_coding: bool
) -> RequestError | None:
    """Why a request is refused; None: it is not. `hosts`, `codings`: how many Host and Transfer-Encoding headers."""
    if version not in ("1.1", "1.0"):
        return BadRequest("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if method not in METHODS:
        return MethodNotAllowed("This method is not served here.", allowed=b", ".join(METHODS))
    if target[:1] != b"/":
        return BadRequest(
            "The request target must be a path, or a URL whose host is the Host header's: use Taximeter as a base "
            "URL, not as an HTTP proxy."
        )
    if b"#" in target:
        return BadRequest("The request target must not contain #.")
    if hosts != 1 and (hosts or version == "1.1"):
        return BadRequest("A request needs exactly one Host header.", param="host")
    if odd_coding:
        return BadRequest("The only Transfer-Encoding accepted is chunked, once.", param="transfer-encoding")
    if codings and version == "1.0":
        return BadRequest("HTTP/1.0 has no Transfer-Encoding.", param="transfer-encoding")
    return None
