"""Fixtures every test may use: the real embedded Valkey and the scripted provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

import postgres
from closing import closing
from taximeter.node.embedded_valkey import EmbeddedValkey

__all__ = ["closing"]

# No test measures time: how long drawing or running an example takes is the machine's affair.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
# Of `make coverage`: what is covered there must not hang on what happened to be drawn.
settings.register_profile("same", settings.get_profile("any machine"), derandomize=True, max_examples=10)


def pytest_configure(config: pytest.Config) -> None:
    """Files of one folder are collected together, in whatever order they are named: pytest 9 forgets the fixtures of a
    folder's conftest.py where it comes back to the folder."""
    config.args.sort(key=lambda named: named.partition("::")[0].rpartition("/")[0])


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real Valkey, one for the test session (one for each xdist worker).

    It is shared: use workspace names of your own, or FLUSHALL first.
    """
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    yield server.start()
    server.stop()


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    """A client beside what is tested, on an emptied Valkey."""
    client = Redis.from_url(valkey_url, decode_responses=True)
    await client.flushall()
    yield client
    await client.flushall()
    await client.aclose()


@pytest.fixture
async def provider() -> AsyncIterator[object]:
    """A scripted provider on a socket of its own (tests/upstream.py)."""
    from upstream import Provider

    async with Provider() as running:
        yield running


MakeUrl = Callable[[], str]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Postgres]:
    if postgres.binaries() is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    with postgres.Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakeUrl:
    """Makes URLs of new, empty databases."""
    if request.param == "postgresql":
        server: postgres.Postgres = request.getfixturevalue("postgres_server")
        return server.database

    def make() -> str:
        return f"sqlite:///{tmp_path_factory.mktemp('history') / 'history.db'}"

    return make


@pytest.fixture
def url(new_url: MakeUrl) -> str:
    """One new, empty database."""
    return new_url()
