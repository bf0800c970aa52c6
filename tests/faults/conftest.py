"""The seed of a run, and the figures that go into docs/reliability.md."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from faults.report import Figures, note, write

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
os.environ["SEED"] = str(SEED)  # the same for xdist's workers, which inherit it


def pytest_report_header() -> str:
    return f"faults: SEED={SEED} (run again with `make faults SEED={SEED}`)"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The run's seed; printed, so that a failure shows it."""
    print(f"SEED={SEED}")
    return SEED


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """What a test compared: `figures.add(node.compare())`."""
    found = Figures()
    yield found
    request.node.user_properties.append(("figures", dict(found)))  # goes with the report, also from an xdist worker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first: the others go on beside it."""
    items.sort(key=lambda item: item.path.name != "test_schedule.py")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    told: Any = dict(report.user_properties).get("figures")
    if report.when == "teardown" and told:
        note(report.nodeid.rpartition("::")[2], Figures(told))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if os.environ.get("TAXIMETER_WRITE_DOCS") == "1" and exitstatus == 0 and not hasattr(session.config, "workerinput"):
        write(SEED)
