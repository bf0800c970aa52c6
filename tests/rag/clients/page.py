"""docs/clients.md as data: its tables of clients, its `[[upstream]]` blocks."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[3] / "docs/clients.md"
HERE = "http://127.0.0.1:8000"
"""Where the page has Taximeter."""


@dataclass(frozen=True)
class Row:
    """A client as the page has it."""

    name: str
    url: str
    stream: str
    """`always`, `with <an option>`, or a dash."""


def rows(language: str) -> list[Row]:
    """The table below a heading."""
    section = PAGE.read_text().partition(f"\n## {language}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| `(.+?)` \| .+? \| `(.+?)` \| (.+?) \|$", section, re.MULTILINE)
    return [Row(name, url, stream.replace("`", "")) for name, url, stream in cells]


def blocks() -> list[str]:
    """Each block of an upstream, as it stands."""
    found = re.findall(r"^```toml\n(.+?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if block.startswith("[[upstream]]")]


def upstream(block: str) -> dict[str, Any]:
    """The one upstream of a block."""
    [found] = tomllib.loads(block)["upstream"]
    return found


def above_blocks() -> dict[str, str]:
    """Upstream -> the base URL for OpenAI's clients that the text above its block names last, where it does."""
    found: dict[str, str] = {}
    before = PAGE.read_text().partition("\n## Ready upstream blocks\n")[2]
    for block in blocks():
        text, _, before = before.partition(f"```toml\n{block}```")
        if urls := re.findall(rf"`({HERE}[^`]*)`", text):
            found[upstream(block)["name"]] = urls[-1]
    return found
