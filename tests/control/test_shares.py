"""One workspace cannot take what others need: live views, waits, downloads and queries are bounded for each."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from control_plane import record
from taximeter.config import AuthSettings, Settings
from taximeter.control.door import shares
from taximeter.control.door.shares import BOUNDS, RUNNING, WAITING, ShareBound, Shares, request_of
from taximeter.core.errors import RateLimited
from taximeter.keys.rule import digest

SECURED = Settings(auth=AuthSettings(admin_token_sha256=digest("the-admin-token")))


@pytest.fixture
def few(monkeypatch):
    """Bounds a test can reach with a few requests."""
    for kind, bound in BOUNDS.items():
        monkeypatch.setitem(BOUNDS, kind, ShareBound(3, 5, bound.words))


def keys_of(control, *workspaces):
    return [{"authorization": f"Bearer {control.keys.create(name)[1]}"} for name in workspaces]


def refused(answer):
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited"), answer.text
    assert int(answer.headers["retry-after"]) >= 1
    return True


async def begun(stack, control, path, key):
    answer = await stack.enter_async_context(control.client.stream("GET", path, headers=key))
    assert answer.status_code == 200
    chunks = answer.aiter_bytes()
    stack.callback(chunks.__sizeof__)  # one that is let go closes the connection
    await anext(chunks)


async def test_live_views_of_one_workspace_leave_room_for_others(start, few):
    control = await start(SECURED)
    acme, again, beta = keys_of(control, "acme", "acme", "beta")
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await begun(stack, control, "/usage/live", acme)
        refused(await control.client.get("/usage/live", headers=acme))
        refused(await control.client.get("/usage/live", headers=again))  # another key of it is no way round
        for _ in range(2):
            await begun(stack, control, "/usage/live", beta)
        refused(await control.client.get("/usage/live", headers=beta))  # all five are taken
        await begun(stack, control, "/usage/live", {"authorization": "Bearer the-admin-token"})
    async with asyncio.timeout(10), AsyncExitStack() as stack:
        while control.live.watchers:
            await asyncio.sleep(0.01)
        await begun(stack, control, "/usage/live", acme)  # who left has let go


class Blocked:
    """A history whose reads of one workspace wait until they may go on."""

    def __init__(self, history):
        self._history = history
        self.go = asyncio.Event()
        self.begun = 0
        self.most = 0

    def __getattr__(self, name):
        return getattr(self._history, name)

    async def usage(self, filters, *more):
        if filters.workspace == ["acme"]:
            self.begun += 1
            self.most = max(self.most, self.begun)
            await self.go.wait()
            self.begun -= 1
        return await self._history.usage(filters, *more)

    async def export(self, filters, chunk=2_000):
        async for records in self._history.export(filters, chunk):
            yield records
        await self.go.wait()


async def test_downloads_of_one_workspace_leave_room_for_others(start, monkeypatch):
    monkeypatch.setitem(BOUNDS, "export", ShareBound(2, 3, "downloads"))
    control = await start(SECURED, wrapped=Blocked)
    await control.add(record(1), record(2, workspace="beta"))
    acme, beta = keys_of(control, "acme", "beta")
    history = control.services.history
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await begun(stack, control, "/usage/export.jsonl", acme)
        refused(await control.client.get("/usage/export.csv", headers=acme))
        await begun(stack, control, "/usage/export.jsonl", beta)
        history.go.set()


async def test_waits_of_one_workspace_leave_room_for_others(start, few):
    control = await start(SECURED)
    acme, beta = keys_of(control, "acme", "beta")
    go, waiting = asyncio.Event(), asyncio.Semaphore(0)

    async def settled(track, timeout_s, workspace=None):
        waiting.release()
        await go.wait()
        return True

    control.waits.settled = settled
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(control.client.get("/usage/tracks/t?wait=300", headers=key))
            for key in (acme, acme, acme, beta)
        ]
        for _ in asked:
            await waiting.acquire()
        refused(await control.client.get("/usage/tracks/t?wait=300", headers=acme))
        refused(await control.client.get("/usage?after=unknown", headers=acme))
        assert (await control.client.get("/usage", headers=acme)).status_code == 200
        go.set()
    assert [each.result().status_code for each in asked] == [200] * 4
    assert (await control.client.get("/usage/tracks/t?wait=1", headers=acme)).status_code == 200


async def test_a_wait_whose_client_left_is_given_up(start, few):
    """A client that times out and asks again would otherwise lock itself out for as long as it had asked to wait."""
    control = await start(SECURED)
    (acme,) = keys_of(control, "acme")
    waiting, given_up = asyncio.Event(), asyncio.Event()

    async def settled(track, timeout_s, workspace=None):
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    control.waits.settled = settled
    asked = asyncio.ensure_future(control.client.get("/usage/tracks/t?wait=300", headers=acme))
    await waiting.wait()
    asked.cancel()
    async with asyncio.timeout(10):
        await given_up.wait()
        while control.services.shares._held:
            await asyncio.sleep(0.01)


async def test_queries_of_one_workspace_take_turns_and_others_pass(start, monkeypatch):
    monkeypatch.setattr(shares, "WAITING", 3)
    control = await start(SECURED, wrapped=Blocked)
    history = control.services.history
    acme, beta = keys_of(control, "acme", "beta")
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(control.client.get("/usage", headers=acme)) for _ in range(RUNNING + 3)]
        while not control.services.shares._queues or control.services.shares._queues["acme"].length < RUNNING + 3:
            await asyncio.sleep(0.01)
        refused(await control.client.get("/usage", headers=acme))
        assert (await control.client.get("/usage", headers=beta)).status_code == 200
        history.go.set()
    assert [each.result().status_code for each in asked] == [200] * (RUNNING + 3)
    assert history.most == RUNNING and not control.services.shares._queues


def test_another_s_query_always_finds_a_reader():
    from taximeter.sinks.history.sink import READERS

    assert RUNNING < READERS and WAITING >= 3 * 8


def test_what_a_request_held_is_let_go_with_it():
    held = Shares()
    for _ in range(3):
        with pytest.raises(ValueError), request_of("acme"):
            for _ in range(BOUNDS["live"].each):
                held.hold("live")
            with pytest.raises(RateLimited):
                held.hold("live")
            raise ValueError
    assert not held._held and not +held._in_all


class Ticking:
    """Delivery's progress at the seam: each `tick` lets whoever waits for it go on."""

    def __init__(self, control):
        self.asked = asyncio.Semaphore(0)
        self.tick = asyncio.Semaphore(0)
        control.waits.beyond = self.beyond

    async def beyond(self, sink, place, timeout_s):
        self.asked.release()
        await self.tick.acquire()
        return True


async def test_however_many_wait_there_is_one_look_for_all_each_time_delivery_got_on(start):
    control = await start(SECURED)
    ticking, arrivals = Ticking(control), control.services.arrivals
    acme, beta = keys_of(control, "acme", "beta")
    waits = [(acme, "req-1"), (beta, "req-1"), *((acme, f"never-{n}") for n in range(10))]
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(control.client.get(f"/usage?after={name}", headers=key)) for key, name in waits]
        async with asyncio.timeout(10):
            while len(arrivals._waiting) < len(waits):
                await asyncio.sleep(0.01)
        before = arrivals.looks
        for _ in range(5):
            ticking.tick.release()
            await ticking.asked.acquire()
        assert arrivals.looks - before <= 6
        await control.add(record(1))  # acme's
        ticking.tick.release()
        answer = await asked[0]
        assert answer.json()["complete"] is True and answer.json()["usage"]["requests"] == 1
        for _ in range(3):
            ticking.tick.release()
        for each in asked[1:]:  # beta's too: it must not learn that acme has such a request
            assert not each.done()
            each.cancel()
    async with asyncio.timeout(10):
        while arrivals._waiting:  # who left is not waited for
            await asyncio.sleep(0.01)
    assert arrivals._looking is None


async def test_another_workspace_s_request_is_waited_for_as_one_that_does_not_exist(start, monkeypatch):
    monkeypatch.setattr("taximeter.control.services.querying.AFTER_S", 0.05)
    control = await start(SECURED)
    await control.add(record(1))
    acme, beta = keys_of(control, "acme", "beta")
    theirs = await control.client.get("/usage?after=req-1", headers=beta)
    nobodys = await control.client.get("/usage?after=nothing", headers=beta)
    assert theirs.json() == nobodys.json() and theirs.json()["complete"] is False
    assert (await control.client.get("/usage?after=req-1", headers=acme)).json()["complete"] is True


@pytest.mark.parametrize("path", ["/usage?group_by=track", "/usage/trends?group_by=track&from=2026-11-01"])
async def test_an_answer_holds_so_many_rows_and_no_more(start, monkeypatch, path):
    monkeypatch.setattr("taximeter.control.services.querying.MOST_ROWS", 3)
    control = await start()
    await control.add(*(record(n, track=f"t-{n}") for n in range(3)))
    assert (await control.client.get(path)).status_code == 200
    await control.add(record(4, track="t-4"))
    answer = await control.client.get(path)
    assert answer.status_code == 400 and "4 rows, at most 3" in answer.json()["error"]["message"]


async def test_a_pattern_for_prices_is_bounded(start):
    rows = [{"provider": "openai", "model": f"gpt-{n}"} for n in range(3_000)]
    control = await start(prices=lambda: rows)
    assert len((await control.get("/prices", model="gpt-2*9"))["data"]) == 111
    assert (await control.client.get("/prices", params={"model": "[" * 300})).status_code == 400


async def test_the_price_list_is_made_once_however_often_it_is_asked_for(start):
    made = []

    def prices():
        made.append(1)
        return [{"provider": "openai", "model": "gpt-4o", "input": 2.5}]

    control = await start(prices=prices)
    assert await control.get("/prices") == await control.get("/prices") == await control.get("/prices", model="gpt*")
    assert made == [1]
