"""Request targets with bytes over 127: UTF-8 that a client did not encode. Read as if it were percent-encoded. Pure.

llhttp takes none of them; nginx and what is made of it do, and browsers encode them so (https://url.spec.whatwg.org/).
"""

from __future__ import annotations

import re

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
