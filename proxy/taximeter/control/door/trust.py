"""Whether a request from loopback is the operator's own: `control.trust_loopback`.

A reverse proxy on this machine makes the whole network look like loopback. Most say so in a header; from the first such
header on nobody is trusted for an address any more, as the next request may come through the same proxy without one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from taximeter.config import Settings
from taximeter.config.addresses import is_loopback as only_here
from taximeter.config.addresses import split
from taximeter.core.hosts import is_loopback

log = logging.getLogger("taximeter.access")

_ADDED = frozenset((b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"cf-connecting-ip"))
_ADDED_PREFIX = b"x-forwarded-"

EVERYONE_HERE = (
    "No admin token is configured, so whoever reaches the control port from this machine is the admin: every user of "
    "it, and everyone behind a reverse proxy on it that adds no X-Forwarded-For. Set auth.admin_token_sha256, or "
    "control.trust_loopback = false."
)
NOBODY = (
    "No admin token is configured and loopback is not trusted (control.trust_loopback, and both ports on loopback), so "
    "nobody is the admin; workspaces' keys see their own usage. Set auth.admin_token_sha256."
)


def trusts_loopback(settings: Settings) -> bool:
    """Whether loopback alone makes an admin, as far as the settings say: only ever without an admin token."""
    if settings.auth.admin_token_sha256 or not settings.control.trust_loopback:
        return False
    return all(only_here(split(address)[0]) for address in (settings.listen, settings.admin_listen))


def warning(settings: Settings) -> str:
    """What to say at start about who is the admin; "" where a token says it."""
    if settings.auth.admin_token_sha256:
        return ""
    return EVERYONE_HERE if trusts_loopback(settings) else NOBODY


def admin_is(settings: Settings) -> str:
    """Who the admin is, in a few words for `taximeter check`."""
    if settings.auth.admin_token_sha256:
        return "admin: who has the admin token"
    if trusts_loopback(settings):
        return "admin: whoever comes from this machine, also by a reverse proxy on it (no auth.admin_token_sha256)"
    return "admin: nobody (no auth.admin_token_sha256, and loopback is not trusted)"


class Loopback:
    """The trust in loopback, which ends with the first header of a reverse proxy."""

    def __init__(self, settings: Settings, *, seen: bool = False) -> None:
        self._settings = settings
        self.seen = seen
        """A reverse proxy was."""

    def trusts(self, peer: str | None, head: Mapping[bytes, bytes], http_version: str) -> bool:
        """Whether this request is the operator's. `peer`: the other end's address.

        HTTP/1.0 is what a reverse proxy speaks that was told nothing (nginx), and no client of today.
        """
        added = next((name for name in head if name in _ADDED or name.startswith(_ADDED_PREFIX)), None)
        if added is not None:
            self._proxied(added)
        if added is not None or http_version == "1.0" or peer is None or not is_loopback(peer):
            return False
        return trusts_loopback(self._settings) and not self.seen

    def _proxied(self, name: bytes) -> None:
        if self.seen or not trusts_loopback(self._settings):
            return
        self.seen = True
        log.warning(
            "A request with the header %s came through a reverse proxy: loopback is not trusted any more until a "
            "restart. Set auth.admin_token_sha256.",
            name.decode("latin-1"),
        )
