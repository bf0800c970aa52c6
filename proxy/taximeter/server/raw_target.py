"""Request targets that are no plain path: in absolute form, or with bytes over 127. Pure.

Those are UTF-8 that a client did not encode, and are read as if it were percent-encoded. llhttp takes none of them;
nginx and what is made of it do, and browsers encode them so (https://url.spec.whatwg.org/).
"""

from __future__ import annotations

import re

_absolute = re.compile(rb"(?i)https?://([^/?#@]+)(/[^?#]*)?(\?[^#]*)?").fullmatch
_not_ascii = re.compile(rb"[\x80-\xff]").sub


def encoded(data: bytes, before: tuple[bytes, bytes] | None) -> bytes | None:
    """What came, with the target of its first request encoded; None where there is nothing to encode in it.

    `before`: the request's method, and as much of its target as came earlier, where its line had begun.
    """
    if before is not None:
        method, target = before
        of_target = data if target or data[:1] == b"/" else data.partition(b" ")[2]
        data = b"%b %b%b" % (method, target, of_target)
    line, end, rest = data.partition(b"\n")
    readable = _not_ascii(lambda found: b"%%%02X" % found[0][0], line)
    return None if readable == line else readable + end + rest


def path_of(target: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The path of a target in absolute form, where it names the same as the Host header (RFC 9112 §3.2.2): some
    proxies forward requests so. Any other target as it is."""
    found = _absolute(target)
    hosts = [value.strip(b" \t").lower() for name, value in headers if name == b"host"]
    if found is None or hosts != [found[1].lower()]:
        return target
    return (found[2] or b"/") + (found[3] or b"")
