"""docs/decisions: records in one form, all in the index; the changelog has the form that its first lines name."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from taximeter import __version__

ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs/decisions"
RECORDS = sorted(DECISIONS.glob("[0-9]*.md"))
HEAD = re.compile(r"# (?P<number>\d+)\. (?P<title>.+)\n\nDecided (?P<date>\d{4}-\d\d-\d\d)\.")
MOST_LINES = 60
"""A page."""
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def head(record: Path) -> re.Match[str]:
    found = HEAD.match(record.read_text())
    assert found, record.name
    return found


def test_records_are_numbered_in_the_order_of_their_dates() -> None:
    heads = [head(record) for record in RECORDS]
    assert [int(each["number"]) for each in heads] == list(range(1, len(RECORDS) + 1))
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))
    days = [date.fromisoformat(each["date"]) for each in heads]
    assert days == sorted(days)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_record_says_why_what_and_what_follows_on_one_page(record: Path) -> None:
    text = record.read_text()
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    assert parts[1::2] == ["Context", "Decision", "Consequences"]
    assert all(len(part.split()) > 8 for part in parts[2::2])
    assert len(text.splitlines()) <= MOST_LINES


def test_the_index_has_each_record_with_its_title_and_date() -> None:
    rows = re.findall(r"^\| \[(\d+)\. (.+)\]\((.+)\) \| (.+) \|$", (DECISIONS / "index.md").read_text(), re.MULTILINE)
    assert rows == [(*head(each).group("number", "title"), each.name, head(each)["date"]) for each in RECORDS]


def test_the_changelog_has_released_versions_and_the_sections_of_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", text, re.MULTILINE)
    assert versions[0] == ("Unreleased", "")
    assert __version__ in dict(versions)
    released = [date.fromisoformat(day) for _, day in versions[1:]]
    assert released == sorted(released, reverse=True)
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.+)$", part, re.MULTILINE)
        assert set(kinds) <= KINDS
        assert len(kinds) == len(set(kinds)), "a section twice"
        entries = re.findall(r"^- (\*\*.+?\*\*|.{40})", part, re.MULTILINE)
        assert len(entries) == len(set(entries)), "an entry twice, as a merge leaves it"
