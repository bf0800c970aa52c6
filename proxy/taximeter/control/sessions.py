"""Browsers that signed in: a random id in a cookie stands for the token that was typed, which stays in this process.

The token is looked at again with every request, so a revoked key ends its sessions at once. They end with the process.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

from taximeter.core.keys import SESSION_COOKIE

COOKIE = SESSION_COOKIE
LASTS_S = 12 * 3_600
"""A working day; then the token is asked for again."""
MOST = 1_000
"""Beyond it the oldest session ends: signing in cannot fill the memory."""


class Sessions:
    """Session id -> token."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._open: dict[str, tuple[float, bytes]] = {}

    def open(self, token: bytes) -> str:
        """A new session for a token that was found good; its id, 256 random bits."""
        while len(self._open) >= MOST:
            del self._open[next(iter(self._open))]
        name = secrets.token_urlsafe(32)
        self._open[name] = (self._now_s() + LASTS_S, token)
        return name

    def token(self, cookies: bytes | None) -> bytes | None:
        """The token of the session that a Cookie header names; None where there is none or it has ended."""
        name = named(cookies)
        ends_s, token = self._open.get(name, (0.0, None))
        if token is not None and self._now_s() >= ends_s:
            del self._open[name]
            return None
        return token

    def close(self, cookies: bytes | None) -> bool:
        """End the session that a Cookie header names; False where there is none."""
        return self._open.pop(named(cookies), None) is not None


def named(cookies: bytes | None) -> str:
    """The session id in a Cookie header; "" where there is none."""
    if cookies is None or COOKIE.encode() not in cookies:
        return ""
    try:
        found = SimpleCookie(cookies.decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
