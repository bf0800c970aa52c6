"""What a run compared, as the table in docs/reliability.md (written with TAXIMETER_WRITE_DOCS=1)."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BLOCK = re.compile(r"(<!-- figures -->\n).*?(<!-- end of figures -->)", re.DOTALL)


class Figures(dict[str, int]):
    """Counts of one test, added up over its comparisons."""

    def add(self, counts: dict[str, int]) -> None:
        for name, n in counts.items():
            self[name] = self.get(name, 0) + n


_noted: dict[str, Figures] = {}


def note(test: str, figures: Figures) -> None:
    if figures:
        _noted[test] = figures


def table(seed: int) -> str:
    """Markdown: one row a test, and their sums."""
    total = Figures()
    for figures in _noted.values():
        total.add(figures)
    columns = (
        "reached the provider",
        "records",
        "known lost",
        "ok",
        "client_left",
        "upstream_cut",
        "upstream_error",
        "interrupted",
    )
    head = f"Seed {seed}.\n\n| test | {' | '.join(columns)} |\n|---|{'--:|' * len(columns)}\n"
    rows = [*sorted(_noted.items()), ("**all**", total)]
    return head + "".join(
        f"| {test} | {' | '.join(f'{figures.get(name, 0):,}' for name in columns)} |\n" for test, figures in rows
    )


def write(seed: int) -> None:
    """Put the table into the page."""
    if _noted:
        PAGE.write_text(BLOCK.sub(lambda match: f"{match[1]}\n{table(seed)}\n{match[2]}", PAGE.read_text()))
