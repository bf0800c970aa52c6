"""SECURITY.md: each claim about an attacker names tests, and each test it names is one that pytest collects."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "SECURITY.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py::\w+)`")
SECTIONS = {
    "An attacker on the network", "Somebody with a workspace's proxy key", "Somebody with access to Redis",
    "A malicious upstream", "A malicious page in a browser", "Somebody with the data directory, or a back-up of it",
    "A supplier",
}  # fmt: skip


def claims() -> dict[str, list[list[str]]]:
    """Section -> its rows' cells."""
    found: dict[str, list[list[str]]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
        if title in SECTIONS:
            found[title] = [[cell.strip() for cell in row] for row in rows[2:]]
    return found


def test_every_claim_about_every_attacker_names_a_test() -> None:
    found = claims()
    assert found.keys() == SECTIONS
    for title, rows in found.items():
        assert len(rows) >= 5, title
        for row in rows:
            assert len(row) == 4, row
            assert re.match(r"can(not)?\b", row[0]) and row[1], row
            assert NAMED.search(row[3]), f"{title}: no test shows that he {row[0]} {row[1]}"


def test_every_test_it_names_is_collected() -> None:
    """By pytest itself: a module that cannot be imported shows nothing."""
    named = sorted(set(NAMED.findall(PAGE.read_text())))
    files = sorted({name.partition("::")[0] for name in named})
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*collect, *files], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    there = {line.partition("[")[0] for line in done.stdout.splitlines()}
    assert [name for name in named if name not in there] == []
    assert len(named) > 100
