"""Which settings file is read, which is not, and how that is said to whoever starts it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from taximeter.config.names import settings_among

FILES = (Path("config/taximeter.toml"), Path("taximeter.toml"))
"""Looked for in the working directory, in this order, where no file is named; the first one there is read."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Where the settings come from."""

    file: Path | None
    """Read; None: no file."""
    named: Path | None
    """The file that was asked for; None: whichever is there."""
    passed_over: list[Path]
    """Settings files in the working directory that are not read."""
    variables: list[str]
    """Settings from the environment; they win over the file."""
    places: dict[str, str] = {}
    """Path of a setting -> the variable it came from."""
    env_file: Path | None = None
    """What stands over the environment."""

    def where(self, path: str) -> str:
        """The variable or file a setting came from."""
        while path not in self.places and path:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.places.get(path) or str(self.file or "default settings")

    def lines(self) -> list[str]:
        """For people: what was read and what was not."""
        if self.file:
            said = [f"read from {self.file.absolute()}"]
        else:
            looked_for = " and no ".join(str(path) for path in FILES)
            said = [f"no file read (no {looked_for} in {Path.cwd()}): the defaults are in force"]
        if self.env_file:
            said.append(f"variables from {self.env_file.absolute()}, over the environment")
        if self.variables:
            said.append(f"from the environment, over that: {', '.join(self.variables)}")
        said += [f"NOT READ: {path.absolute()} (another file comes first)" for path in self.passed_over]
        return said


def find(path: Path | None, environ: Mapping[str, str]) -> Found:
    """`path`: the file that was named, if one was. Raises ConfigError on a variable that is no setting."""
    # lexists: a link to nowhere, or a directory in the file's place, is for reading to refuse, not to be passed over.
    there = [file for file in FILES if os.path.lexists(file)]
    file = path or next(iter(there), None)
    others = [other for other in there if file is not None and not _same(other, file)]
    return Found(file=file, named=path, passed_over=others, variables=settings_among(environ))


def _same(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and other.exists() and one.samefile(other))
