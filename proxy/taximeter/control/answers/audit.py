"""How an entry of the audit log is shown. Pure; the CLI uses it too."""

from __future__ import annotations

from typing import Any

import msgspec

from taximeter.core.audit import AuditEntry, Result
from taximeter.core.times import shown


class AuditInfo(msgspec.Struct, kw_only=True):
    """Who did what, or was refused it."""

    id: str
    at: str | None
    node: str
    actor: str
    """`admin token`, `session …`, `loopback`, `key <id>`, `command`, `system` or `nobody`."""
    address: str
    """Where from; empty: from the node itself."""
    user: str
    """The operating system's user where a command was used, as it says."""
    action: str
    target: str
    """What it was done to."""
    before: Any
    """What was; null: nothing, or it is still so."""
    after: Any
    """What is; null: nothing is left, or nothing was done."""
    outcome: Result
    """`ok`; `refused`: who asked may not; `failed`: it could not be done."""
    problem: str


class AuditPage(msgspec.Struct):
    """Entries, the newest first."""

    data: list[AuditInfo]
    next_page: str | None


def info(entry: AuditEntry) -> AuditInfo:
    """An entry as listed."""
    return AuditInfo(**msgspec.structs.asdict(entry) | {"at": shown(entry.at)})
