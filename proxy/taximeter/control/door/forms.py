"""Forms that change something: whether one was filled in on a page of this port, by who it was made for, and only once.

A page of another origin can make a browser send a form here, with its cookies or from loopback. It cannot make it say
that the form came from here (`Sec-Fetch-Site`, `Origin`), nor read the token that the form has to bring.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping

from taximeter.control.door.sessions import named
from taximeter.core.errors import BadRequest, Forbidden

MOST = 10_000
"""Tokens remembered as used; beyond them the oldest may be used again, by who it was made for."""

PATHS = "/dashboard/"
"""A browser's session changes something through forms that are sent there, and nothing else."""


def from_own_page(head: Mapping[bytes, bytes]) -> bool:
    """Whether a browser says that a page of this very origin sent this; another port of this machine is another one."""
    said = head.get(b"sec-fetch-site")
    if said is not None:
        return said == b"same-origin"
    origin = head.get(b"origin", b"")
    return bool(origin) and origin.partition(b"://")[2].lower() == head.get(b"host", b"").lower()


class Forms:
    """Makes the forms' tokens and takes them back."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._used: dict[str, None] = {}

    def token(self, cookies: bytes | None) -> str:
        """For one form on a page for who has this session, or none."""
        once = secrets.token_urlsafe(16)
        return f"{once}.{self._mac(once, cookies)}"

    def take(self, token: str, head: Mapping[bytes, bytes]) -> None:
        """Let a form through. Raises Forbidden where it is not one of ours, BadRequest where it was sent before."""
        once, _, mac = token.partition(".")
        if not from_own_page(head) or not hmac.compare_digest(
            mac.encode(), self._mac(once, head.get(b"cookie")).encode()
        ):
            raise Forbidden(
                "This form did not come from a page of this dashboard, or the page is an old one. Reload it."
            )
        if once in self._used:
            raise BadRequest("This form was sent already, and done. Reload the page for another.", param="form")
        while len(self._used) >= MOST:
            del self._used[next(iter(self._used))]
        self._used[once] = None

    def _mac(self, once: str, cookies: bytes | None) -> str:
        return hmac.new(self._secret, f"{once} {named(cookies)}".encode(), hashlib.sha256).hexdigest()
