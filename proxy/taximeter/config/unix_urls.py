"""Base URLs that name a unix socket, as nginx writes them: `unix:/run/vllm.sock:/v1`. Pure."""

from __future__ import annotations

import re

FORM = "unix:/path/to.sock:/v1"

_form = re.compile(
    r"(?:http://)?unix:(?://)?(/[^:?#\x00-\x20\x7f]*[^:?#\x00-\x20\x7f/])(?::(/[^?#\x00-\x20\x7f]*)?)?"
).fullmatch
LONGEST = 107
"""What Linux takes (sun_path)."""


def is_unix(url: str) -> bool:
    """Whether a base URL is meant to name one."""
    return url.startswith(("unix:", "http://unix:", "https://unix:"))


def split_unix(url: str) -> tuple[str, str]:
    """The socket's path, and the path of requests under it. Raises ValueError saying what is wrong."""
    found = _form(url)
    if url.startswith("https:"):
        raise ValueError("a unix socket is spoken to without TLS")
    if found is None:
        raise ValueError(f"it must be {FORM}: an absolute path without ':', and the path that our /v1 stands for")
    if len(found[1].encode()) > LONGEST:
        raise ValueError(f"the path of a unix socket has at most {LONGEST} bytes")
    return found[1], found[2] or ""
