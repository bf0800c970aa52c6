"""How a record that was set aside is shown. Pure; the CLI uses it too."""

from __future__ import annotations

import msgspec

from taximeter.core.times import shown
from taximeter.delivery.aside import Letter


class DeadLetter(msgspec.Struct, kw_only=True):
    """A record that one sink could not take."""

    key: str
    """`<sink>/<event id>`."""
    sink: str
    event_id: str
    request_id: str
    workspace: str
    problem: str
    """What the sink failed with."""
    set_aside_at: str | None


class DeadLetterList(msgspec.Struct):
    data: list[DeadLetter]


def info(letter: Letter) -> DeadLetter:
    """A letter as listed."""
    return DeadLetter(
        key=letter.key,
        sink=letter.sink,
        event_id=letter.record.event_id,
        request_id=letter.record.request_id,
        workspace=letter.record.workspace,
        problem=letter.problem,
        set_aside_at=shown(letter.set_aside_at),
    )
