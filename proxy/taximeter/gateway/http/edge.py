"""The data plane's connection: a `Guard` whose requests go to the gateway as `Exchange`s.

Each is handled by a coroutine that is no task while it waits for nothing but its upstream (`inline`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from taximeter.core.errors import RequestError
from taximeter.gateway.http.exchange import Exchange
from taximeter.gateway.inline import InlineRun
from taximeter.server.connection import Guard

Handler = Callable[[Exchange], Coroutine[Any, Any, None]]
"""Answers one exchange. What it raises closes the connection: the client sees that its answer was cut."""


class Edge(Guard):
    """One client connection. A request is handed on when all of it that came with its head has been read."""

    app: Handler
    cycle: Exchange  # type: ignore[assignment]
    """The request read last."""
    pipeline: deque[Exchange]  # type: ignore[assignment]
    _running: Exchange | None = None
    """Being answered."""

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_head = True
        self._head_bytes = self._hosts = self._codings = 0
        self._odd_coding = self._upgrades = False

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        self.cycle.feed(body)

    def on_message_complete(self) -> None:
        if not self._upgrades:
            self.cycle.end_request()

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.then(self.close, b"")
        else:
            self.cycle.keep_alive = False

    def _begin_cycle(self) -> None:
        before, parser = self.cycle, self.parser
        self.cycle = exchange = Exchange(
            self,
            parser.get_method(),
            self.url,
            self.headers,
            self._version,
            keep_alive=parser.should_keep_alive(),
            expects_continue=self.expect_100_continue and self._version == "1.1",
        )
        if before is None or (before.response_complete and before.keep_alive):
            self._fresh = exchange
        elif before.response_complete:
            pass  # that answer was the connection's last
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft(exchange)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.cycle = self._running = None  # type: ignore[assignment]  # no cycle of references is left
        self.pipeline.clear()

    def _start(self, cycle: Exchange) -> None:
        if cycle.left or self.transport.is_closing():
            return  # nobody would have its answer
        if not cycle.complete:
            self.expect_body()
        self._running = cycle
        cycle.run = run = InlineRun(self.app(cycle), cycle.ended)
        self.tasks.add(run)  # type: ignore[arg-type]
        run.step()

    def _start_queued(self, cycle: Exchange) -> None:
        if self._running is not None and not self._running.keep_alive:
            return  # the answer just completed was the connection's last
        self._running = cycle  # should its client leave before it starts
        self.loop.call_soon(self._start, cycle)  # not on top of the one whose answer has just been completed

    def awaits_body(self) -> bool:
        return self.cycle is not None and not self.cycle.complete

    def body_is_late(self, error: RequestError) -> None:
        if self.cycle.response_started:
            self._give_up()
            self.then(self.close, b"")
        else:
            self.cycle.refuse(error)

    def _give_up(self) -> None:
        self._fresh = None
        for exchange in (self._running, self.cycle, *self.pipeline):
            if exchange is not None:
                exchange.leave()
