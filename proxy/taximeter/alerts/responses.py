"""How what was told is shown. Pure; the CLI uses it too."""

from __future__ import annotations

import msgspec

from taximeter.alerts.rule import Channel, Kind, State
from taximeter.core.times import shown


class ToldInfo(msgspec.Struct, kw_only=True):
    """What an alert told."""

    alert: str
    kind: Kind
    title: str
    workspace: str | None
    told_at: str | None
    state: str
    """`told`; `over`: it is well again; `elsewhere`: another node told it."""


class WaitingInfo(msgspec.Struct, kw_only=True):
    """A letter on its way."""

    alert: str
    channel: Channel
    to: list[str]
    title: str
    created_at: str | None
    attempts: int
    problem: str | None


class AlertList(msgspec.Struct, kw_only=True):
    told: list[ToldInfo] = []
    """The newest first."""
    waiting: list[WaitingInfo] = []
    given_up: int = 0
    """Letters that nobody took, of all times."""


def listed(state: State) -> AlertList:
    """All that is remembered."""
    told = [
        ToldInfo(
            alert=each.alert,
            kind=each.kind,
            title=each.title,
            workspace=each.workspace or None,
            told_at=shown(each.told_at),
            state="over" if each.over else "told" if each.ours else "elsewhere",
        )
        for each in sorted(state.told, key=lambda each: -each.told_at)
    ]
    waiting = [
        WaitingInfo(
            alert=each.alert,
            channel=each.channel,
            to=each.to,
            title=each.title,
            created_at=shown(each.created_at),
            attempts=each.attempts,
            problem=each.problem or None,
        )
        for each in state.letters
    ]
    return AlertList(told=told, waiting=waiting, given_up=state.given_up)
