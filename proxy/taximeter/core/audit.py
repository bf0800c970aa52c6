"""Who changed what: an entry of the audit log, and who acts. Never holds a secret. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

Result = Literal["ok", "refused", "failed"]
"""`refused`: who asked may not; `failed`: it could not be done."""

ACTIONS = {
    "key.create": "a proxy key was made",
    "key.rotate": "a proxy key got a new secret",
    "key.revoke": "a proxy key was ended",
    "budget.create": "a budget was made",
    "budget.end": "a budget was ended",
    "breaker.reset": "what a runaway breaker had stopped was let go on",
    "budget.settle": "what budgets are charged for a call was corrected",
    "prices.change": "another price list is in force",
    "prices.reprice": "a period was priced again; differences are corrections",
    "statement.close": "a statement was closed",
    "owed.write_off": "of what is billed later nobody told for too long",
    "redis.rebuild": "the Redis counters were written anew",
    "deadletters.replay": "records that a sink could not take were offered again",
    "webhook.resend": "letters that had been given up were sent again",
    "journal.adopt": "the journals of a node that is gone were taken over",
    "node.backup": "a back-up was made",
    "node.restore": "a back-up was put back",
    "history.prune": "old records were deleted by hand",
    "evidence.seal": "a root was made over what was under none",
    "history.move": "the history was copied into another database",
    "settings.reload": "settings were read again",
    "sign_in": "somebody signed in to the dashboard, or tried",
    "sign_out": "somebody signed out",
    "token.refused": "a wrong admin token came in a header",
    "key.refused": "a proxy key that is unknown, ended or expired came to the control port",
    "request.refused": "a change was asked for by who may not make it",
}
"""Every action there is, and what it means."""


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts."""

    name: str
    """`admin token`, `session <8 digits of its hash>`, `loopback` (no admin token is configured), `key <id>`, `command`
    (a verb on this machine, while no proxy ran), `system`, `nobody`."""
    address: str = ""
    """Where from, as the control port sees it, and what a reverse proxy says is behind it; "" on this machine."""
    user: str = ""
    """The operating system's user, as the command says it; "" where no command says one."""


NOBODY = Actor(name="nobody")


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing done, or refused."""

    id: str
    """Random; an entry that is told twice is one."""
    at: int
    """µs since epoch."""
    node: str
    actor: str
    address: str = ""
    user: str = ""
    action: str
    target: str = ""
    """What it was done to: a key's or budget's id, a request, a workspace."""
    before: Any = None
    """What was, where something is no more."""
    after: Any = None
    """What is."""
    outcome: Result = "ok"
    problem: str = ""
    """Why not, in words."""


class AuditFilters(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are asked for; None: any."""

    from_us: int | None = None
    to_us: int | None = None
    action: Sequence[str] | None = None
    actor: Sequence[str] | None = None
    target: Sequence[str] | None = None
    outcome: Sequence[str] | None = None
