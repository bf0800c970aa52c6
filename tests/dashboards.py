"""A control plane with some weeks of made-up calls, its clock standing still."""

from __future__ import annotations

import re
from html import unescape

import pytest

from control_plane import ControlPlane, Start
from present import present
from rag_days import calls
from taximeter.config import Settings
from taximeter.config.settings import AuthSettings
from taximeter.keys.rule import digest
from taximeter.sinks.health import DeliveryHealth, SinkHealth

NOW_US = 1_795_354_200_000_000
"""2026-11-22T13:30:00Z, a Sunday."""
ADMIN_TOKEN = "the admin's own token"


def told() -> DeliveryHealth:
    sinks = {
        name: SinkHealth(lag_records=0, lag_seconds=0.0, errors=0, duplicates_skipped=0, failing=None)
        for name in ("history", "counters", "metrics", "live")
    }
    return DeliveryHealth(
        sinks=sinks, in_flight=3, journal_files=4, journal_bytes=12_345_678, lag_seconds=0.0, journal_healthy=True,
        journal_errors=0, records_lost=0, journal_repairs=0, unreadable_lines=0, settled=2, halted={}, writers=[],
    )  # fmt: skip


@pytest.fixture
async def house(start: Start) -> ControlPlane:
    """Two weeks of calls until now, and nobody has to sign in."""
    control = await start(now_us=lambda: NOW_US, delivering=told)
    await control.add(*calls(NOW_US, days=14))
    return control


@pytest.fixture
async def guarded(start: Start) -> ControlPlane:
    """The same behind an admin token."""
    settings = Settings(auth=AuthSettings(admin_token_sha256=digest(ADMIN_TOKEN)))
    control = await start(settings, now_us=lambda: NOW_US, delivering=told)
    await control.add(*calls(NOW_US, days=3))
    return control


def text_of(html: str, element: str) -> str:
    """The text of the first element with this id."""
    found = re.search(rf'id="{element}"[^>]*>(.*?)</(?:section|dd)>', html, re.S)
    assert found is not None, element
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", found[1])).split())


def rows_of(html: str, element: str) -> list[list[str]]:
    """The rows of the first table after this id, as lists of cell texts."""
    table = present(re.search(rf'id="{element}".*?<tbody>(.*?)</tbody>', html, re.S))[1]
    return [
        [
            " ".join(unescape(re.sub(r"<[^>]+>", " ", cell)).split())
            for cell in re.findall(r"<td.*?>(.*?)</td>", row, re.S)
        ]
        for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)
    ]


async def get(control: ControlPlane, path: str, **headers: str) -> str:
    """The page of a 200 answer."""
    answer = await control.client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text[-2_000:]
    text: str = answer.text
    return text
