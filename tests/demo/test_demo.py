"""`taximeter demo` as a user runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nodes import Node

pytestmark = pytest.mark.xdist_group("processes")


def test_the_demo_agrees_with_the_providers_bill_from_any_directory(tmp_path: Path) -> None:
    done = Node(tmp_path).run("demo", "--rounds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The provider's bill, /usage and the Redis counters agree" in done.stdout
    assert "DIFFERENT" not in done.stdout
    rows = re.findall(r"│ (acme|globex|initech) +│ (\S+) +│ +(\d+)", done.stdout)
    assert len(rows) == 12
    assert sum(int(requests) for _, _, requests in rows) == 36
