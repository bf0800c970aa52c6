"""`taximeter demo` as a user runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nodes import Node

README = Path(__file__).parents[2] / "README.md"

pytestmark = pytest.mark.xdist_group("processes")


def test_the_demo_agrees_with_the_providers_bill_from_any_directory(tmp_path: Path) -> None:
    done = Node(tmp_path).run("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The provider's bill, /usage and the Redis counters agree" in done.stdout
    assert "DIFFERENT" not in done.stdout
    rows = re.findall(r"│ (acme|globex|initech) +│ (\S+) +│ +(\d+)", done.stdout)
    assert len(rows) == 12
    assert sum(int(requests) for _, _, requests in rows) == 108
    told = re.search(r"What `make demo` prints:\n\n```\n(.*?)```", README.read_text(), re.DOTALL)
    assert told is not None
    assert comparable(told[1]) == comparable(done.stdout)


def comparable(text: str) -> list[str]:
    """Without its port and the blanks that pad a title."""
    return [line.rstrip() for line in re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", text).splitlines()]
