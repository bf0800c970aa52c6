"""The table of what was asked for: each test it names is there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "lightrag.md"


def test_every_row_names_a_test_that_is_there() -> None:
    _, _, part = PAGE.read_text().partition("## What was asked for")
    rows = [line for line in part.splitlines() if line.startswith("| ") and not line.startswith(("| row", "| ---"))]
    named = {name for row in rows for name in re.findall(r"`(test_\w+)`", row)}
    there = {
        name
        for file in TESTS.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert len(rows) > 40
    assert named - there == set()
    assert [row for row in rows if "`test_" not in row and "this page" not in row] == []
