"""How a webhook's letter is shown. Pure; the CLI uses it too."""

from __future__ import annotations

import msgspec

from taximeter.core.times import shown
from taximeter.sinks.webhook.letters import Letter


class LetterInfo(msgspec.Struct, kw_only=True):
    """A letter as listed."""

    key: str
    """Its Idempotency-Key, the same at every attempt."""
    kind: str
    """segment | event"""
    state: str
    """`waiting`: it is tried again by itself; `dead`: given up."""
    workspace: str
    track: str | None
    attempts: int
    problem: str
    """What its last attempt failed with."""
    created_at: str | None
    next_at: str | None
    """When it is tried next; null where it is dead."""
    body: str


class LetterList(msgspec.Struct):
    data: list[LetterInfo]


def info(letter: Letter) -> LetterInfo:
    """A letter as listed."""
    return LetterInfo(
        key=letter.key,
        kind=letter.kind,
        state="dead" if letter.dead else "waiting",
        workspace=letter.workspace,
        track=letter.track,
        attempts=letter.attempts,
        problem=letter.problem,
        created_at=shown(letter.created_at),
        next_at=None if letter.dead else shown(letter.next_at),
        body=letter.body,
    )
