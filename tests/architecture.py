"""docs/architecture.md, read: its walks and its words."""

from __future__ import annotations

import re
from pathlib import Path

import taximeter

ROOT = Path(taximeter.__file__).parent
PAGE = Path(__file__).parents[1] / "docs/architecture.md"


def section(heading: str) -> str:
    """The text below a heading."""
    return PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def walked(heading: str) -> list[str]:
    """The files that a walk's stops name, in their order."""
    stops = re.findall(r"^\d+\. (.*?): ", section(heading), re.MULTILINE)
    return [file for stop in stops for file in re.findall(r"`(.+?)`", stop)]


def lines(files: list[str]) -> int:
    """How many lines these files have."""
    return sum(len((ROOT / file).read_text().splitlines()) for file in files)


def glossary() -> list[tuple[str, str, str]]:
    """(word, where it is defined, what it is) of each row."""
    return re.findall(r"^\| (.+?) \| `(.+?)` \| (.+?) \|$", section("Words"), re.MULTILINE)
