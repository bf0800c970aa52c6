"""The seed of a run, and the figures that go into docs/reliability.md."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from faults import report

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))


def pytest_report_header() -> str:
    return f"faults: SEED={SEED} (run again with `make faults SEED={SEED}`)"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The run's seed; printed, so that a failure shows it."""
    print(f"SEED={SEED}")
    return SEED


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[report.Figures]:
    """What a test compared: `figures.add(house.compare())`."""
    found = report.Figures()
    yield found
    report.note(request.node.name, found)


def pytest_sessionfinish(exitstatus: int) -> None:
    if os.environ.get("TAXIMETER_WRITE_DOCS") == "1" and exitstatus == 0:
        report.write(SEED)
