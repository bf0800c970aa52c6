"""The control port's door: who asks, by token, session or way in; how often a token may be tried; what is written down.

Every token comes through `Door`, so there is one place that counts and logs. Neither the log nor the audit log has a
token in it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from taximeter.control.door.access import Caller, identify
from taximeter.control.door.attempts import Attempts
from taximeter.control.door.sessions import named
from taximeter.control.door.trust import Loopback
from taximeter.core.audit import NOBODY, Actor
from taximeter.keys.rule import PREFIX, Keys, bearer, matches
from taximeter.node.audit import AuditLog

if TYPE_CHECKING:
    from taximeter.config import Settings
    from taximeter.control.door.sessions import Sessions

log = logging.getLogger("taximeter.access")

READING = ("GET", "HEAD")
"""A browser's session reads, and sends the dashboard's own forms (forms.py); no other page, not even one of this
machine, can change anything through it."""

USER_HEADER = b"x-taximeter-user"
"""Who runs the command that asks; it is written down as what the command says."""

_TOO_MANY = "Too many wrong tokens; none is looked at now. Try again later."
_PREFIX = PREFIX.encode()


class Sender(msgspec.Struct, frozen=True):
    """What of a request says who asks."""

    peer: str | None
    """The other end's address."""
    head: Mapping[bytes, bytes]
    method: str
    http_version: str = "1.1"
    own_form: bool = False
    """It is a form of the dashboard, sent by a page of this port."""


class Door:
    """Says who asks; remembers wrong tokens by address, and whether a reverse proxy was seen."""

    def __init__(
        self,
        settings: Settings,
        keys: Callable[[], Keys],
        sessions: Sessions,
        attempts: Attempts | None = None,
        audit: AuditLog | None = None,
        former: Door | None = None,
    ) -> None:
        """`former`: the door of the settings before; what it has seen is remembered."""
        self._settings = settings
        self._keys = keys
        self._sessions = sessions
        self._audit = audit or AuditLog()
        self.attempts: Attempts = attempts or (former.attempts if former else Attempts())
        self.loopback: Loopback = Loopback(settings, seen=former is not None and former.loopback.seen)
        self.noted: dict[str, Attempts] = (
            former.noted if former else {action: Attempts() for action in ("key.refused", "request.refused")}
        )
        """Refusals that nothing else bounds: of an address so many are written down as wrong tokens are looked at."""
        self._unseen = 0
        """Tries that were refused unseen since the last entry about any."""

    def caller(self, sender: Sender) -> Caller:
        """Who asks; nobody known where too many wrong tokens came from there, as then none is looked at.

        A proxy key has 256 random bits and a session too, so only what may be an admin token counts as a try.
        """
        token = bearer(sender.head.get(b"authorization"))
        guess = token is not None and not token.startswith(_PREFIX) and self._needed(sender)
        wait_s = self.attempts.wait_s(sender.peer or "") if guess else 0
        if wait_s:
            self._unseen += 1
            return Caller(problem=_TOO_MANY, wait_s=wait_s)
        caller = self.look(sender)
        if guess:
            self._tried(sender, caller, "token.refused", "a bearer token")
        elif token is not None and token.startswith(_PREFIX) and not caller.known:
            self._note(sender, "key.refused", "", caller.problem)
        return caller

    def look(self, sender: Sender) -> Caller:
        """Who asks, without counting a try: for looking again at who was let in."""
        token = bearer(sender.head.get(b"authorization"))
        if token is None and (sender.method in READING or sender.own_form):
            token = self._sessions.token(sender.head.get(b"cookie"))
        return self._identify(token, local=self._local(sender))

    def sign_in(self, sender: Sender, token: bytes) -> Caller:
        """Who the form's token stands for. From this machine too it has to be a good one."""
        wait_s = self.attempts.wait_s(sender.peer or "")
        if wait_s:
            self._unseen += 1
            return Caller(problem=_TOO_MANY, wait_s=wait_s)
        caller = self._identify(token, local=False)
        self._tried(sender, caller, "sign_in", "the sign-in form")
        if caller.known:
            log.info("%s signed in as %s", _shown(sender), _named(caller))
            by = Actor(name=f"key {caller.key_id}" if caller.key_id else "admin token", address=_shown(sender))
            self._audit.note("sign_in", actor=by, level=logging.DEBUG)
        return caller

    def signed_out(self, sender: Sender) -> None:
        """A session was ended by its browser."""
        log.info("%s signed out", _shown(sender))
        by = Actor(name=session_name(sender.head.get(b"cookie")), address=_shown(sender))
        self._audit.note("sign_out", actor=by, level=logging.DEBUG)

    def refused(self, sender: Sender, caller: Caller, what: str) -> None:
        """A change was refused to a caller who is known but may not make it."""
        self._note(sender, "request.refused", what, "A workspace's key changes nothing.", self.actor(sender, caller))

    def strange(self, sender: Sender, what: str, problem: str) -> None:
        """A change from a page of a strange origin, or for a strange host, was refused before anybody was asked."""
        if sender.method not in READING:
            self._note(sender, "request.refused", what, problem)

    def actor(self, sender: Sender, caller: Caller) -> Actor:
        """Who the caller is, for the audit log."""
        user = sender.head.get(USER_HEADER, b"")[:80].decode("ascii", "replace")
        name = NOBODY.name
        if caller.workspace is not None:
            name = f"key {caller.key_id}"
        elif caller.admin:
            token, admin = bearer(sender.head.get(b"authorization")), self._settings.auth.admin_token_sha256
            name = "admin token" if token is not None and matches(token, admin) else "loopback"
            if token is None and self._sessions.token(sender.head.get(b"cookie")) is not None:
                name = session_name(sender.head.get(b"cookie"))
        return Actor(name=name, address=_shown(sender), user=user)

    def _identify(self, token: bytes | None, *, local: bool) -> Caller:
        admin = self._settings.auth.admin_token_sha256
        return identify(token, local=local, admin_token_sha256=admin, keys=self._keys())

    def _local(self, sender: Sender) -> bool:
        return self.loopback.trusts(sender.peer, sender.head, sender.http_version)

    def _needed(self, sender: Sender) -> bool:
        """Whether a token decides anything here: on a trusted loopback any is let through."""
        return bool(self._settings.auth.admin_token_sha256) or not self._local(sender)

    def _note(self, sender: Sender, action: str, target: str, problem: str, actor: Actor | None = None) -> None:
        """Write a refusal down, unless there were too many from there."""
        noted = self.noted[action]
        if noted.wait_s(sender.peer or ""):
            return
        noted.failed(sender.peer or "")
        by = actor or Actor(name=NOBODY.name, address=_shown(sender))
        self._audit.note(action, target, outcome="refused", problem=problem, actor=by, level=logging.WARNING)

    def _tried(self, sender: Sender, caller: Caller, action: str, where: str) -> None:
        if caller.known:
            self.attempts.succeeded(sender.peer or "")
            return
        last = self.attempts.failed(sender.peer or "")
        more = "; further tries are refused for now" if last else ""
        log.warning("%s was refused: a wrong token in %s%s", _shown(sender), where, more)
        unseen, self._unseen = self._unseen, 0
        self._audit.note(
            action,
            after={"tries_refused_unseen": unseen} if unseen else None,
            outcome="refused",
            problem=f"a wrong token in {where}{more}",
            actor=Actor(name=NOBODY.name, address=_shown(sender)),
            level=logging.DEBUG,
        )


def session_name(cookies: bytes | None) -> str:
    """A session as the audit log names it: by 8 digits of its id's hash."""
    return f"session {hashlib.sha256(named(cookies).encode()).hexdigest()[:8]}"


def _shown(sender: Sender) -> str:
    """The address for the log, and what a reverse proxy says is behind it; a client can make that up."""
    claimed = sender.head.get(b"x-forwarded-for")
    return f"{sender.peer}" + (f" (for {claimed[:80].decode('latin-1')!a})" if claimed is not None else "")


def _named(caller: Caller) -> str:
    return "admin" if caller.admin else f"workspace {caller.workspace!r}"
