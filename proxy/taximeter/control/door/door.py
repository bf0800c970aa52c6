"""The control port's door: who asks, by token, session or way in; how often a token may be tried; what is written down.

Every token comes through `Door`, so there is one place that counts and logs. The log never has a token in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from taximeter.control.door.access import Caller, identify
from taximeter.control.door.attempts import Attempts
from taximeter.control.door.trust import Loopback
from taximeter.keys.rule import PREFIX, Keys, bearer

if TYPE_CHECKING:
    from taximeter.config import Settings
    from taximeter.control.door.sessions import Sessions

log = logging.getLogger("taximeter.access")

READING = ("GET", "HEAD")
"""A browser's session only reads: no other page, not even one of this machine, can change anything through it."""

_TOO_MANY = "Too many wrong tokens; none is looked at now. Try again later."
_PREFIX = PREFIX.encode()


class Sender(msgspec.Struct, frozen=True):
    """What of a request says who asks."""

    peer: str | None
    """The other end's address."""
    head: Mapping[bytes, bytes]
    method: str
    http_version: str = "1.1"


class Door:
    """Says who asks; remembers wrong tokens by address, and whether a reverse proxy was seen."""

    def __init__(
        self, settings: Settings, keys: Callable[[], Keys], sessions: Sessions, attempts: Attempts | None = None
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._sessions = sessions
        self._attempts = attempts or Attempts()
        self._loopback = Loopback(settings)

    def caller(self, sender: Sender) -> Caller:
        """Who asks; nobody known where too many wrong tokens came from there, as then none is looked at.

        A proxy key has 256 random bits and a session too, so only what may be an admin token counts as a try.
        """
        token = bearer(sender.head.get(b"authorization"))
        guess = token is not None and not token.startswith(_PREFIX) and self._needed(sender)
        wait_s = self._attempts.wait_s(sender.peer or "") if guess else 0
        if wait_s:
            return Caller(problem=_TOO_MANY, wait_s=wait_s)
        caller = self.look(sender)
        if guess:
            self._tried(sender, caller, "a bearer token")
        return caller

    def look(self, sender: Sender) -> Caller:
        """Who asks, without counting a try: for looking again at who was let in."""
        token = bearer(sender.head.get(b"authorization"))
        if token is None and sender.method in READING:
            token = self._sessions.token(sender.head.get(b"cookie"))
        return self._identify(token, local=self._local(sender))

    def sign_in(self, sender: Sender, token: bytes) -> Caller:
        """Who the form's token stands for. From this machine too it has to be a good one."""
        wait_s = self._attempts.wait_s(sender.peer or "")
        if wait_s:
            return Caller(problem=_TOO_MANY, wait_s=wait_s)
        caller = self._identify(token, local=False)
        self._tried(sender, caller, "the sign-in form")
        if caller.known:
            log.info("%s signed in as %s", _shown(sender), _named(caller))
        return caller

    def signed_out(self, sender: Sender) -> None:
        """A session was ended by its browser."""
        log.info("%s signed out", _shown(sender))

    def _identify(self, token: bytes | None, *, local: bool) -> Caller:
        admin = self._settings.auth.admin_token_sha256
        return identify(token, local=local, admin_token_sha256=admin, keys=self._keys())

    def _local(self, sender: Sender) -> bool:
        return self._loopback.trusts(sender.peer, sender.head, sender.http_version)

    def _needed(self, sender: Sender) -> bool:
        """Whether a token decides anything here: on a trusted loopback any is let through."""
        return bool(self._settings.auth.admin_token_sha256) or not self._local(sender)

    def _tried(self, sender: Sender, caller: Caller, where: str) -> None:
        if caller.known:
            self._attempts.succeeded(sender.peer or "")
            return
        last = self._attempts.failed(sender.peer or "")
        more = "; further tries are refused for now" if last else ""
        log.warning("%s was refused: a wrong token in %s%s", _shown(sender), where, more)


def _shown(sender: Sender) -> str:
    """The address for the log, and what a reverse proxy says is behind it; a client can make that up."""
    claimed = sender.head.get(b"x-forwarded-for")
    return f"{sender.peer}" + (f" (for {claimed[:80].decode('latin-1')!a})" if claimed is not None else "")


def _named(caller: Caller) -> str:
    return "admin" if caller.admin else f"workspace {caller.workspace!r}"
