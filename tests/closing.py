"""What a test opens is closed however the test ends: a failure must not leave a client to disturb a later test."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol, TypeVar

import pytest


class Closable(Protocol):
    def close(self) -> Awaitable[None] | None: ...


T = TypeVar("T", bound=Closable)


class Closing(Protocol):
    def __call__(self, opened: T, /) -> T: ...


@pytest.fixture
async def closing() -> AsyncIterator[Closing]:
    """`closing(History(url))` is that history; it is closed after the test, the one opened last first."""
    async with AsyncExitStack() as stack:

        def later(opened: T) -> T:
            stack.push_async_callback(_close, opened)
            return opened

        yield later


@asynccontextmanager
async def closed(opened: T) -> AsyncIterator[T]:
    """For where it has to be closed before the test is over."""
    try:
        yield opened
    finally:
        await _close(opened)


async def _close(opened: Closable) -> None:
    answer = opened.close()
    if inspect.isawaitable(answer):
        await answer
