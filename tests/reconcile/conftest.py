"""A comparison of records in a real history with a scripted provider."""

import pytest

from closing import closing
from reconciling import House
from taximeter.sinks.history.sink import History

__all__ = ["closing"]


@pytest.fixture
async def house(tmp_path, closing):
    history = closing(History(f"sqlite:///{tmp_path / 'history.db'}"))
    await history.prepare()
    return House(history)


@pytest.fixture
async def house_on(url, closing):
    """On SQLite, and on PostgreSQL."""
    history = closing(History(url))
    await history.prepare()
    return House(history)
