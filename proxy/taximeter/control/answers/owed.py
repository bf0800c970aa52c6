"""How what is owed is shown. Pure; the CLI uses it too."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from taximeter.core.times import shown
from taximeter.core.views import usd
from taximeter.sinks.history.read.owed import Owed


class OwedInfo(msgspec.Struct, kw_only=True):
    """An object by which a call is billed later."""

    object: str
    """The provider's id of it."""
    state: str
    """`outstanding`: nobody has told that it ended; `unread`: it has ended, and nobody has read all its results;
    `told`: all is known, and its settlement is being written; `ended`: it is settled; `expired`: written off."""
    since: str | None
    """When the call that asked for it ended."""
    seen_at: str | None
    """When it was told that it has ended, or was written off."""
    unread_files: list[str]
    """Files of its results that nobody has read whole."""
    workspace: str
    request_id: str
    track: str | None
    document: str | None
    task: str | None
    key_id: str | None
    end_user: str | None
    upstream: str
    provider: str
    api: str
    model: str | None
    """As the call asked for it; null where only the results name it."""
    charged_tokens: int | None
    charged_usd: Decimal | None
    """What hard budgets were charged for it when it was asked for."""


class OwedList(msgspec.Struct):
    data: list[OwedInfo]
    """The oldest first."""


def info(owed: Owed) -> OwedInfo:
    """An object as listed."""
    asked = owed.asked
    return OwedInfo(
        object=owed.object,
        state=_state(owed),
        since=shown(owed.since),
        seen_at=None if owed.seen_at is None else shown(owed.seen_at),
        unread_files=owed.unread,
        workspace=owed.workspace,
        request_id=asked.request_id,
        track=asked.track,
        document=asked.document,
        task=asked.task,
        key_id=asked.key_id,
        end_user=asked.end_user,
        upstream=asked.upstream,
        provider=owed.provider,
        api=asked.api,
        model=asked.request_model,
        charged_tokens=asked.charged_tokens,
        charged_usd=None if asked.charged_cost_nusd is None else usd(asked.charged_cost_nusd),
    )


def _state(owed: Owed) -> str:
    if owed.state != "outstanding" or not owed.told:
        return owed.state
    return "unread" if owed.unread else "told"
