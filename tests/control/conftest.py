"""A control plane over a real SQLite history, on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from control_plane import ControlPlane
from taximeter.config import Settings
from taximeter.sinks.history.sink import History

Start = Callable[..., Awaitable[ControlPlane]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """`await start(settings, **services)`: a running control plane with an empty history."""
    async with AsyncExitStack() as stack:

        async def begin(settings: Settings | None = None, **more: Any) -> ControlPlane:
            history = History(f"sqlite:///{tmp_path / 'history.db'}")
            stack.push_async_callback(history.close)
            await history.prepare()
            return await stack.enter_async_context(ControlPlane(tmp_path, history, settings, **more))

        yield begin


@pytest.fixture
async def control(start: Start) -> ControlPlane:
    """The control plane of an installation without an admin token."""
    return await start()
