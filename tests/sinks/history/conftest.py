"""Every history test runs on SQLite and on a real PostgreSQL server, where one is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import postgres

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


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'history.db'}"
