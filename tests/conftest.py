"""Fixtures every test may use: the real embedded Valkey and the scripted provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from taximeter.embedded import EmbeddedValkey


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real Valkey, one for the test session (one for each xdist worker).

    It is shared: use workspace names of your own, or FLUSHALL first.
    """
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    yield server.start()
    server.stop()


@pytest.fixture
async def provider() -> AsyncIterator[object]:
    """A scripted provider on a socket of its own (tests/upstream.py)."""
    from upstream import Provider

    async with Provider() as running:
        yield running
