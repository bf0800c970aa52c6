"""What an upstream does with streams that are asked for their usage, as far as it has shown. Pure."""

from __future__ import annotations

from typing import Literal

Asked = tuple[str, str | None]
"""An API and a model."""

_MOST = 4096
"""Clients name models, so the memory of them is bounded."""


class Everything:
    """Holds whatever it is asked about."""

    def __contains__(self, _: object) -> bool:
        return True


class UsageAsked:
    """Of one upstream and worker. `stream_usage`: the setting."""

    def __init__(self, stream_usage: Literal["inject", "off"]) -> None:
        self.taken: set[Asked] = set()
        """Streams of these have been asked, and it was not refused."""
        self.refused: set[Asked] | Everything = set() if stream_usage == "inject" else Everything()
        """Streams of these are not asked: the upstream does not know how, or the settings say so."""

    def learn(self, api: str, model: str | None, *, taken: bool) -> None:
        """What was learned from an answer."""
        known = self.taken if taken else self.refused
        if isinstance(known, set):
            if len(known) >= _MOST:
                known.clear()
            known.add((api, model))
