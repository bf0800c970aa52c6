"""Waiting for events of children: for one of several, or for one and not longer than so."""

from __future__ import annotations

import asyncio


async def first(*events: asyncio.Event) -> None:
    """Wait for any of the events."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def within(event: asyncio.Event, timeout_s: float) -> bool:
    """Whether the event came within `timeout_s`."""
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True
