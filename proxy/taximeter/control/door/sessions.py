"""Browsers that signed in: a random id in a cookie stands for the token that was typed, which stays in this process.

The token is looked at again with every request, so a revoked key ends its sessions at once. They end with the process.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

from taximeter.keys.rule import SESSION_COOKIE

COOKIE = SESSION_COOKIE
LASTS_S = 12 * 3_600
"""A working day; then the token is asked for again."""
MOST = 1_000
"""Beyond it the oldest session ends: signing in cannot fill the memory."""
MOST_OF_ONE = 20
"""Of one token: beyond it the oldest of its own ends, so that who has a key cannot sign others out."""


class Sessions:
    """Session id -> token."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._open: dict[str, tuple[float, bytes]] = {}
        self._of: dict[bytes, deque[str]] = {}
        """Token -> its sessions, the oldest first."""

    def open(self, token: bytes) -> str:
        """A new session for a token that was found good; its id, 256 random bits."""
        if len(self._of.get(token, ())) >= MOST_OF_ONE:
            self._end(self._of[token][0])
        if len(self._open) >= MOST:
            self._end(next(iter(self._open)))
        name = secrets.token_urlsafe(32)
        self._open[name] = (self._now_s() + LASTS_S, token)
        self._of.setdefault(token, deque()).append(name)
        return name

    def _end(self, name: str) -> None:
        _, token = self._open.pop(name)
        self._of[token].remove(name)
        if not self._of[token]:
            del self._of[token]

    def token(self, cookies: bytes | None) -> bytes | None:
        """The token of the session that a Cookie header names; None where there is none or it has ended."""
        name = named(cookies)
        ends_s, token = self._open.get(name, (0.0, None))
        if token is not None and self._now_s() >= ends_s:
            self._end(name)
            return None
        return token

    def close(self, cookies: bytes | None) -> bool:
        """End the session that a Cookie header names; False where there is none."""
        name = named(cookies)
        if name not in self._open:
            return False
        self._end(name)
        return True


def named(cookies: bytes | None) -> str:
    """The session id in a Cookie header; "" where there is none."""
    if cookies is None or COOKIE.encode() not in cookies:
        return ""
    try:
        found = SimpleCookie(cookies.decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
