"""What a test knows to be there, for a reader and for mypy."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def present(value: T | None) -> T:
    """The value, which is not None: else the test fails here, and not where it is used."""
    assert value is not None
    return value
