"""The suite holds on any day: what looks at a clock is run on a leap day ten years on, in another time zone.

Every process sees that day, the servers too: a real Valkey deletes at once what a test's fixed date lets expire.
"""

import calendar
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from waits import run

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
TESTS = Path(__file__).parent

pytestmark = [
    pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian: apt-get install faketime)"),
]


def leap_day(now: datetime) -> datetime:
    """Noon of the first 29 February that is ten years on or more."""
    year = now.year + 10
    while not calendar.isleap(year):
        year += 1
    return datetime(year, 2, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "what",
    [
        "sinks/test_counters.py sinks/test_counters_history.py sinks/test_reservations.py control/test_budgets.py",
        "core/test_budgets.py control/test_analytics.py control/test_fresh.py cli/test_insights.py cli/test_live.py"
        " gateway/test_budget.py",
    ],
    ids=["keys that expire", "questions about today"],
)
def test_what_looks_at_a_clock_passes_years_on(what: str, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    told = run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "years_on", "-p", "no:cacheprovider",
            f"--basetemp={tmp_path / 'made'}", *(str(TESTS / each) for each in what.split()),
        ],
        cwd=TESTS.parent,
        env=os.environ
        | {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME": f"+{int((leap_day(now) - now).total_seconds())}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            # else a wait with a time limit by the monotonic clock returns at once: every wait for the GIL would spin
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",  # else every compiled module looks stale and is compiled again
            "PYTHONPATH": str(TESTS),
            "TZ": "Pacific/Kiritimati",
        },
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-8_000:] + told.stderr[-2_000:]


def test_the_day_is_a_leap_day_years_on() -> None:
    assert leap_day(datetime(2026, 11, 30, tzinfo=UTC)) == datetime(2036, 2, 29, 12, tzinfo=UTC)
    assert leap_day(datetime(2087, 1, 1, tzinfo=UTC)) == datetime(2104, 2, 29, 12, tzinfo=UTC)
