"""A client's end, without a socket: what it was sent, and when it goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from simulation.actors.provider import MARK
from simulation.virtual.world import Process, World
from taximeter.server.client import Client
from taximeter.server.exchange import Exchange, Service
from taximeter.server.head import Head
from taximeter.server.inline import InlineRun


class Plan(NamedTuple):
    """One call, as it was drawn beforehand."""

    at_s: float
    marker: str
    target: bytes
    body: bytes
    workspace: str
    track: str | None
    fate: str
    """What the provider does: ok, slow, cut, refused, unreachable."""
    leaves_after_s: float | None
    """The client goes away so long after its request."""
    where: int
    """Which of all workers it gets to: this number, counted round."""
    method: bytes = b"POST"
    task: str | None = None
    end_user: str | None = None
    key: str = ""
    """The id of the proxy key it presents; its workspace is the key's."""


MODELS = ("gpt-4o-mini", "gpt-4.1")


def plans(random: Any, count: int, over_s: float, workspaces: int) -> list[Plan]:
    """Calls over so long a time, in their order."""
    found = []
    for n in range(count):
        kind = random.random()
        text = " ".join(["word"] * random.randrange(1, 12))
        model = random.choice(MODELS)
        chat = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": random.randrange(4, 40)}
        target = b"/v1/chat/completions"
        if kind < 0.45:
            request: dict[str, Any] = chat
        elif kind < 0.85:
            request = {**chat, "stream": True}
            if random.random() < 0.5:
                request["stream_options"] = {"include_usage": True}
        else:
            target, request = b"/v1/embeddings", {"model": "text-embedding-3-small", "input": text}
        fate = random.choices(("ok", "cut", "refused", "unreachable"), (88, 5, 4, 3))[0]
        found.append(
            Plan(
                at_s=random.random() * over_s,
                marker=f"call-{n}",
                target=target,
                body=json.dumps(request).encode(),
                workspace=f"w{min(int(random.expovariate(0.7)), workspaces - 1)}",
                track=random.choice((None, "t1", "t2", f"t{n % 7}")),
                fate=fate,
                leaves_after_s=random.expovariate(1 / 0.15) if random.random() < 0.08 else None,
                where=random.randrange(1 << 30),
            )
        )
    return sorted(found, key=lambda plan: plan.at_s)


class Transport:
    """What the worker writes to. Behind it stands the client, who remembers."""

    def __init__(self, world: World, marker: str, heard: Callable[[bytes], None]) -> None:
        self._world = world
        self._marker = marker
        self._heard = heard
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes) -> None:
        self._world.step(f"{len(data)} bytes leave for the client of {self._marker}")
        if not self.closed:
            self._heard(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def write_eof(self) -> None:
        """Nothing follows."""

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """It has been read already."""

    resume_reading = pause_reading

    def get_extra_info(self, name: str) -> None:
        return None


class Carrier:
    """The connection: one request."""

    def __init__(self) -> None:
        self.done = False

    def expect_body(self) -> None:
        """It has come."""

    def answered(self) -> None:
        self.done = True

    def become(self, protocol: asyncio.Protocol) -> bytes:
        raise NotImplementedError("no client here upgrades its connection")


class Caller:
    """One client with one call, in the worker that has accepted it."""

    def __init__(self, world: World, plan: Plan, process: Process, secret: bytes) -> None:
        """`process`: the worker's; `secret`: of the key it presents."""
        self._secret = secret
        self.plan = plan
        self.process = process
        self.asked_s = world.now_s()
        self.got = b""
        self.whole = False
        """The end of an answer has come."""
        self._world = world
        self._transport = Transport(world, plan.marker, self._hear)
        self._exchange: Exchange | None = None

    def _hear(self, data: bytes) -> None:
        self.got += data
        head, _, body = self.got.partition(b"\r\n\r\n")
        if b"content-length: " in head:
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self.whole = len(body) >= length
        else:
            self.whole = body.endswith(b"\r\n0\r\n\r\n")

    @property
    def status(self) -> int:
        """0: nothing has come."""
        return int(self.got[9:12]) if self.got else 0

    @property
    def request_id(self) -> str:
        """As the answer says it; "": it does not."""
        return self.got.partition(b"x-taximeter-request-id: ")[2].partition(b"\r\n")[0].decode()

    def call(self, service: Service) -> None:
        """In the worker: its request has come in."""
        plan = self.plan
        headers = [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (MARK, plan.marker.encode()),
            (b"x-fate", plan.fate.encode()),
            (b"authorization", b"Bearer " + self._secret) if plan.key else (b"x-workspace", plan.workspace.encode()),
            (b"x-document-id", plan.marker.encode()),
        ]
        if plan.body:
            headers.insert(2, (b"content-length", b"%d" % len(plan.body)))
        if plan.track is not None:
            headers.append((b"x-track-id", plan.track.encode()))
        if plan.task is not None:
            headers.append((b"x-task", plan.task.encode()))
        if plan.end_user is not None:
            headers.append((b"x-end-user", plan.end_user.encode()))
        client = Client(self._transport, service.then, service.limits.client_idle_s)  # type: ignore[arg-type]
        exchange = Exchange(service, client, Carrier(), Head(plan.method, plan.target, headers, "1.1", True, False))
        if plan.body:
            exchange.feed(plan.body)
        exchange.end_request()
        self._exchange = exchange
        exchange.run = run = InlineRun(service.handler(exchange), exchange.ended)
        service.runs.add(run)
        run.step()

    def leave(self) -> None:
        """In the worker: the client's end of the connection is closed."""
        self._world.tell(f"the client of {self.plan.marker} leaves")
        self._transport.close()
        if self._exchange is not None:
            self._exchange.leave()
