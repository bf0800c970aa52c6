"""Responses on WebSockets while workers are killed and the node is reloaded: each is settled once."""

import asyncio
import contextlib
import json
import uuid
from collections import Counter

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from faults import ledger_check
from faults.running import Node
from taximeter.core.record import Outcome
from waits import happens
from websocket_provider import WebSocketProvider, begin, finish

CREATE = json.dumps({"type": "response.create"})
CLIENTS, KILLS = 6, 3


class Bill:
    """The provider's own list."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.told: list[str] = []

    async def answer(self, talk, event):
        """A response with an id of its own; takes as long as it takes to be struck in its middle now and then."""
        made = f"resp_{uuid.uuid4().hex}"
        self.asked.append(made)
        await begin(talk, made)
        await asyncio.sleep(0.01)
        self.told.append(made)
        await finish(talk, made)


class Sessions:
    """Clients that ask for one response after the other, and come again when their connection is gone."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.whole: set[str] = set()
        """Responses whose last event a client has seen."""

    @contextlib.asynccontextmanager
    async def talking(self):
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._talk(stop))
            yield
            stop.set()

    async def _talk(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(WebSocketException, OSError, EOFError):
                async with connect(self.url) as socket:
                    while not stop.is_set():
                        await self._ask(socket)

    async def _ask(self, socket) -> None:
        await socket.send(CREATE)
        while (event := json.loads(await socket.recv()))["type"] != "response.done":
            pass
        self.whole.add(event["response"]["id"])

    async def more(self, responses: int) -> None:
        goal = len(self.whole) + responses
        await happens(lambda: len(self.whole) >= goal, f"{responses} more responses")


@pytest.fixture
async def spoken(tmp_path):
    """A node before a provider of WebSockets, that provider's list, and sessions on it."""
    bill = Bill()
    async with WebSocketProvider(bill.answer) as provider:
        voice = f'[[upstream]]\nname = "voice"\nbase_url = "{provider.base_url}"\nforward_credentials = true\n'
        async with Node(tmp_path, upstreams=voice) as node:
            where = f"ws://127.0.0.1:{node.port}/u/voice/w/acme/v1/realtime?model=gpt-realtime"
            yield node, bill, Sessions(where)


def settled_once(node: Node, bill: Bill, sessions: Sessions) -> dict[str, int]:
    """The provider's list, the clients and the books agree; raises AssertionError."""
    records = node.records()
    ids = Counter(record.upstream_request_id for record in records if record.upstream_request_id)
    assert [made for made, times in ids.items() if times > 1] == []
    assert ids.keys() <= set(bill.asked)
    well = {record.upstream_request_id for record in records if record.outcome is Outcome.OK}
    assert sessions.whole <= well <= set(bill.told)
    assert all(record.total_tokens == 253 for record in records if record.outcome is Outcome.OK)
    assert len(records) >= len(bill.asked)  # what was written and not sent is one, too
    with contextlib.closing(node.redis()) as client:
        told = ledger_check.alike(records, node.history_url, client)
    return {"reached the provider": len(bill.asked), **told}


async def test_responses_on_websockets_are_settled_once_when_workers_are_killed(spoken, figures):
    node, bill, sessions = spoken
    async with sessions.talking():
        for _ in range(KILLS):
            await sessions.more(30)
            gone = node.kill("worker")
            await node.until_replaced("worker", gone)
        await sessions.more(30)
    await node.settle()
    told = settled_once(node, bill, sessions)
    assert 0 < told["interrupted"] <= KILLS * CLIENTS
    figures.add(told)


async def test_responses_on_websockets_end_in_order_when_the_node_is_reloaded(spoken, figures):
    node, bill, sessions = spoken
    async with sessions.talking():
        await sessions.more(30)
        before = set(node.pids("worker"))
        node.config = "usage_headers = true"
        node.write_settings()
        assert await node.reload() == 0, node.log_end()
        await node.until(lambda: not before & set(node.pids("worker")), "rid of the old workers")
        await sessions.more(30)
    await node.settle()
    told = settled_once(node, bill, sessions)
    assert set(bill.asked) == sessions.whole
    assert told["ok"] == told["records"]
    figures.add(told)
