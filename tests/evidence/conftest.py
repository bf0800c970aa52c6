"""A small ledger on SQLite and on a real PostgreSQL server, where one is installed (tests/conftest.py)."""

import pytest

from evidence_ledger import ONE, OTHER, Books, calls_of
from taximeter.sinks.history.database import Database


@pytest.fixture
def books(url, tmp_path):
    """A history and a folder for its journals."""
    books = Books(url, tmp_path)
    with books.database:
        yield books


@pytest.fixture
def sealed(books):
    """Two journals of five and three calls, all under one signed root; and two calls more, under none."""
    books.deliver(ONE, calls_of(5))
    books.deliver(OTHER, calls_of(3, "other"))
    books.seal()
    books.deliver("c" * 32, calls_of(2, "late"), ended=False)
    return books


@pytest.fixture
def database(url):
    with Database(url) as database:
        yield database
