"""What a call costs, in counts that do not depend on the machine: function calls, writes, objects left behind.

The bounds are what was measured when they were set; lower them when the path gets shorter.
"""

import asyncio
import gc
import os
import sys

import pytest

from upstream import LAST_CHUNK, chunk, response, stream_head
from waits import HANG_S, clock_at_rest

ANSWER = (
    b'{"id":"c-1","object":"chat.completion","model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}'
)
JSON = [("content-type", "application/json"), ("x-request-id", "r-1")]
UNARY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
STREAM = UNARY[:-1] + b',"stream":true}'
CALLS = 50

PYTHON_CALLS_A_UNARY_CALL = 90
"""Python functions entered, from the first byte of the request to the last of the answer."""
PYTHON_CALLS_OF_A_NEW_HEAD = 108
"""The same, where the head has to be parsed, and who calls what has to be found."""
PYTHON_CALLS_A_CHUNK = 12.3
"""12, and some more for the first of a stream."""
OBJECTS_LEFT = 0


class Client:
    """A keep-alive connection that writes one request at a time and reads until the answer's own end."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.writer.close()
        await self.writer.wait_closed()

    async def open(self, port):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def call(self, body, end, more=b""):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        self.writer.write(head + more + b"authorization: Bearer sk\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        return await self.reader.readuntil(end)


class Counter:
    """Counts Python functions entered whose code is the package's, and `os.write`s."""

    def __init__(self):
        self.calls = self.writes = 0

    def __call__(self, frame, event, arg):
        if event == "call" and "taximeter/" in frame.f_code.co_filename:
            self.calls += 1
        elif event == "c_call" and arg is os.write:
            self.writes += 1

    def __enter__(self):
        sys.setprofile(self)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)


@pytest.fixture
async def connected(serve, provider):
    async with serve(provider) as running, await Client().open(running.port) as client:
        yield running, client


@pytest.fixture
async def still(connected):
    """What a call costs is counted, not how long it took.

    Timers (the journal's syncs, the pool's ticks) run so many times a second, whatever the number of calls; on a busy
    machine there would be more of them in the same calls.
    """
    with clock_at_rest():  # up to the server's end, which takes time
        yield


@pytest.mark.usefixtures("still")
async def test_a_unary_call_stays_cheap(connected, provider):
    running, client = connected
    provider.handler = lambda _: script(response(ANSWER, headers=JSON))
    for _ in range(2):  # the first one's host was new, so what its head says was not kept
        await client.call(UNARY, ANSWER[-20:])
    with Counter() as counted:
        for _ in range(CALLS):
            await client.call(UNARY, ANSWER[-20:])
    assert counted.calls / CALLS <= PYTHON_CALLS_A_UNARY_CALL
    assert counted.writes == 2 * CALLS  # an open line and a close line: one system call each
    assert len(running.records) == CALLS + 2


@pytest.mark.usefixtures("still")
async def test_a_call_whose_head_is_new_costs_little_more(connected, provider):
    _, client = connected
    provider.handler = lambda _: script(response(ANSWER, headers=JSON))
    await client.call(UNARY, ANSWER[-20:])
    with Counter() as counted:
        for number in range(CALLS):
            await client.call(UNARY, ANSWER[-20:], b"traceparent: 00-%032x-0000000000000001-00\r\n" % number)
    assert counted.calls / CALLS <= PYTHON_CALLS_OF_A_NEW_HEAD


async def test_a_call_leaves_no_cycles_for_the_collector(connected, provider):
    _, client = connected
    provider.handler = lambda _: script(response(ANSWER, headers=JSON))
    await client.call(UNARY, ANSWER[-20:])
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(5):
            await client.call(UNARY, ANSWER[-20:])
        gc.collect()
        ours = [thing for thing in gc.garbage if type(thing).__module__.startswith("taximeter")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert len(ours) == OBJECTS_LEFT, ours


@pytest.mark.usefixtures("still")
async def test_a_chunk_stays_cheap_and_leaves_in_one_write(connected, provider, monkeypatch):
    running, client = connected
    deltas = [
        b'data: {"id":"c","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n' % n
        for n in range(CALLS)
    ]
    gates = [asyncio.Event() for _ in deltas]
    steps = [step for gate, delta in zip(gates, deltas, strict=True) for step in (gate, chunk(delta))]
    await client.call(STREAM, b"0\r\n\r\n")  # of the first stream of a model the head waits for the first event
    provider.script(stream_head(), *steps, chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
    reading = asyncio.create_task(client.call(STREAM, b"0\r\n\r\n"))
    await provider.until(lambda: len(provider.requests) == 2 and provider.requests[1].complete)
    writes: list[bytes] = []
    (of_client,) = [one.client for one in running.server.connections if not one.unread]
    monkeypatch.setattr(of_client, "transport", Writes(of_client.transport, writes))
    with Counter() as counted:
        for number, gate in enumerate(gates):
            gate.set()
            await until(lambda number=number: len(writes) > number)
    body = await reading
    assert all(delta in body for delta in deltas)
    assert len([data for data in writes if b"delta" in data]) == CALLS
    assert counted.calls / CALLS <= PYTHON_CALLS_A_CHUNK


class Writes:
    """A transport that notes what is written."""

    def __init__(self, transport, written):
        self._transport = transport
        self._written = written

    def write(self, data):
        self._written.append(data)
        self._transport.write(data)

    def __getattr__(self, name):
        return getattr(self._transport, name)


async def until(condition):
    async with asyncio.timeout(HANG_S):
        while not condition():
            await asyncio.sleep(0)


def script(*steps):
    from upstream import Script

    return Script(steps)
