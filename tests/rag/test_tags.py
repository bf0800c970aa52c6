"""Scopes: inherited, restored, carried across worker queues; what is no tag is refused with the reason."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from queue import Queue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.core.tags import TAG_HEADERS, is_valid
from taximeter_rag import Scope, carry, current, headers, metered, safe
from taximeter_rag.tags import HEADERS, is_tag


def test_our_headers_are_the_proxys() -> None:
    assert {name.decode(): field for name, field in TAG_HEADERS.items()}.items() >= {
        header: field for field, header in HEADERS.items()
    }.items()


@given(st.text(max_size=140))
def test_any_name_becomes_a_tag_the_proxy_takes_and_tags_stay(name: str) -> None:
    assert is_valid(safe(name))
    assert is_tag(name) == is_valid(name)
    assert safe(safe(name)) == safe(name)
    assert not is_tag(name) or safe(name) == name


def test_inner_names_win_and_outer_ones_come_back() -> None:
    assert current() is None
    assert headers() == {}
    with metered(workspace="acme", track="t1", task="index") as outer:
        with metered(document="d1", end_user="bob") as inner:
            assert headers() == {
                "x-workspace": "acme",
                "x-track-id": "t1",
                "x-document-id": "d1",
                "x-task": "index",
                "x-end-user": "bob",
            }
            assert inner.calls is outer.calls  # one track: its calls are read back together
        with metered(track="t2") as other:
            assert other.calls is not outer.calls
        assert current() is outer
    assert current() is None


@pytest.mark.parametrize("bad", ["", "a b", "ä", "x" * 129, "a/b", "a\n"])
def test_what_is_no_tag_is_refused_with_the_reason(bad: str) -> None:
    with pytest.raises(ValueError, match=r"track=.* is no tag: it takes 1-128 characters"):
        metered(track=bad)


async def test_tasks_and_threads_inherit_and_do_not_leak() -> None:
    async def child() -> Scope | None:
        await asyncio.sleep(0)
        with metered(track="inner"):
            await asyncio.sleep(0)
        return current()

    async with metered(workspace="acme") as scope:
        assert [*await asyncio.gather(child(), child())] == [scope, scope]
        assert await asyncio.to_thread(current) is scope
    assert current() is None


async def test_jobs_of_several_tracks_through_one_queue_keep_their_own() -> None:
    queue: asyncio.Queue[object] = asyncio.Queue()
    seen: list[tuple[str, str | None]] = []

    async def job(name: str) -> None:
        await asyncio.sleep(0)
        scope = current()
        seen.append((name, scope.track if scope else None))

    async def worker() -> None:
        while (todo := await queue.get()) is not None:
            await todo()  # type: ignore[operator]

    with metered(track="the-workers-own"):
        workers = [asyncio.create_task(worker()) for _ in range(3)]
    for number in range(20):
        with metered(track=f"t{number % 4}"):
            queue.put_nowait(carry(functools.partial(job, f"t{number % 4}")))
    for _ in workers:
        queue.put_nowait(None)
    await asyncio.gather(*workers)
    assert len(seen) == 20
    assert all(name == track for name, track in seen)


async def test_carried_coroutine_functions_run_in_the_scope_they_were_carried_from() -> None:
    async def job() -> Scope | None:
        await asyncio.sleep(0)
        return current()

    with metered(workspace="acme", track="t1") as scope:
        carried = carry(job)
    with metered(track="other"):
        assert await carried() is scope
    assert (await carry(job)()) == Scope()


def test_carried_functions_run_in_their_scope_in_any_thread() -> None:
    jobs: Queue[object] = Queue()
    found: list[Scope | None] = []

    def worker() -> None:
        while (todo := jobs.get()) is not None:
            found.append(todo())  # type: ignore[operator]

    thread = threading.Thread(target=contextvars.Context().run, args=(worker,))
    thread.start()
    with metered(track="t1") as scope:
        jobs.put(carry(current))
    jobs.put(None)
    thread.join(5)
    assert found == [scope]
