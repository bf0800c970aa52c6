"""What `taximeter check` finds: each with how it went, where the setting stands, and what to do about it."""

from __future__ import annotations

from typing import Literal

import msgspec

from taximeter.core.errors import TaximeterError

Level = Literal["ok", "warning", "failed"]
_SHOWN = {"ok": "ok", "warning": "WARN", "failed": "FAILED"}


class Finding(msgspec.Struct, kw_only=True):
    """One thing that was tried."""

    level: Level = "ok"
    """warning: it would work, but probably not as it is meant."""
    what: str
    problem: str = ""
    setting: str = ""
    """Path of the setting it is about."""
    where: str = ""
    """The file or variable that setting came from."""
    do: str = ""
    """What to do about it."""

    def lines(self) -> list[str]:
        """For people."""
        first = f"{_SHOWN[self.level]:<7}{self.what}" + (f": {self.problem}" if self.problem else "")
        at = f"{self.where}: {self.setting}" if self.where and self.setting else self.where or self.setting
        return [
            first,
            *([f"         in {at}"] if at and self.level != "ok" else []),
            *([f"         do {self.do}"] if self.do else []),
        ]


class Trouble(TaximeterError):
    """What was tried does not work, or (`warning`) not as it is probably meant."""

    def __init__(self, problem: str, *, do: str = "", setting: str = "", level: Level = "failed") -> None:
        super().__init__(problem)
        self.do = do
        self.setting = setting
        self.level: Level = level
