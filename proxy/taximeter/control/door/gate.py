"""The middleware before everything of the control plane: Host and Origin, who asks, and whether they still may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from taximeter.control.door.door import READING, Door, Sender
from taximeter.control.door.forms import PATHS, from_own_page
from taximeter.control.door.shares import request_of as whose
from taximeter.core.audit import NOBODY
from taximeter.core.errors import AnswerCut, BadRequest, Forbidden, Unauthorized
from taximeter.core.hosts import Hosts
from taximeter.node.audit import acting_as

LOOK_AGAIN_S = 0.5
"""How often a long answer looks whether its caller still may have it: a revoked key gets nothing after a second."""

ENDED = b'event: ended\r\ndata: {"reason": "The key, session or token this was asked with is no longer valid."}\r\n\r\n'
"""The last event of a live view whose caller lost the right to it."""


class Gate(ASGIMiddleware):
    """Checks Host and Origin and finds out who asks (`request.auth`), before anything else of the control plane."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, hosts: Hosts, door: Door) -> None:
        self._hosts = hosts
        self._door = door

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        head: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in head and name in (b"host", b"origin", b"authorization"):
                raise BadRequest(f"The header {name.decode()} was sent twice.", param=name.decode())
            head[name] = value
        sender = asked_by(scope, head)
        try:
            self._hosts.check(head.get(b"host"), head.get(b"origin"))
        except Forbidden as error:
            self._door.strange(sender, f"{sender.method} {scope['path'][:200]}", error.message)
            raise
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise BadRequest("A NUL cannot be part of a name.")  # PostgreSQL's texts cannot hold one
        caller = scope["auth"] = self._door.caller(sender)
        changes = sender.method not in READING
        with whose(caller.workspace), acting_as(self._door.actor(sender, caller) if changes else NOBODY):
            await self._answer(scope, receive, send, next_app, sender)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp, sender: Sender) -> None:
        caller = scope["auth"]
        if not caller.known or sender.method not in READING:  # a change that was begun is carried through
            await next_app(scope, receive, self._noting(scope, send, sender) if caller.workspace is not None else send)
            return
        answer = Answer(send)
        try:
            await while_true(lambda: self._door.look(sender) == caller, next_app(scope, receive, answer.send))
        except NoLonger:
            await answer.end()

    def _noting(self, scope: Scope, send: Send, sender: Sender) -> Send:
        """Sends, and has it written down where the answer says that the caller may not."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == HTTPStatus.FORBIDDEN:
                self._door.refused(sender, scope["auth"], f"{sender.method} {scope['path']}")
            await send(message)

        return noting


def asked_by(scope: Scope, head: dict[bytes, bytes]) -> Sender:
    """What of a request says who asks."""
    client = scope["client"]
    return Sender(
        peer=None if client is None else client[0],
        head=head,
        method=str(scope.get("method")),
        http_version=scope.get("http_version", "1.1"),
        own_form=scope["path"].startswith(PATHS) and scope.get("method") == "POST" and from_own_page(head),
    )


class NoLonger(Exception):
    """Raised by `while_true`."""


async def while_true(holds: Callable[[], bool], act: Awaitable[None]) -> None:
    """Await `act`, cancelling it as soon as `holds`, asked every LOOK_AGAIN_S, is false: NoLonger."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle
    ended = False

    def look() -> None:
        nonlocal timer, ended
        if holds():
            timer = loop.call_later(LOOK_AGAIN_S, look)
        else:
            ended = True
            limit.reschedule(loop.time())

    timer = loop.call_later(LOOK_AGAIN_S, look)
    try:
        async with asyncio.timeout(None) as limit:
            await act
    except TimeoutError:
        if not ended:
            raise
        raise NoLonger from None
    finally:
        timer.cancel()


class Answer:
    """What has been sent of an answer, so that it can be ended at any point."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = self._whole = self._events = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            kind = dict(message["headers"]).get(b"content-type", b"")
            self._events = kind.startswith(b"text/event-stream")
        elif message["type"] == "http.response.body":
            self._whole = not message.get("more_body", False)
        await self._send(message)

    async def end(self) -> None:
        """Say why in a live view; cut anything else, so that no half of it passes for the whole (AnswerCut).

        Raises Unauthorized where nothing has been sent yet.
        """
        if self._whole:
            return
        if not self._started:
            raise Unauthorized("The key, session or token this was asked with is no longer valid.")
        if not self._events:
            raise AnswerCut("the right to this answer ended")
        await self._send({"type": "http.response.body", "body": ENDED, "more_body": False})
