"""A provider that speaks the Realtime and Responses APIs over WebSockets, by a script; for tests only."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from ssl import SSLContext
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

Script = Callable[["Talk", dict[str, Any]], Awaitable[None]]

USAGE: dict[str, Any] = {
    "total_tokens": 253,
    "input_tokens": 132,
    "output_tokens": 121,
    "input_token_details": {
        "text_tokens": 119, "audio_tokens": 13, "image_tokens": 0, "cached_tokens": 64,
        "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
}  # fmt: skip


class Talk:
    """One connection, as a script sees it."""

    def __init__(self, provider: WebSocketProvider, connection: ServerConnection) -> None:
        self.provider = provider
        self.connection = connection
        self.number = 0

    async def say(self, kind: str, **members: Any) -> None:
        """Send one event."""
        await self.connection.send(json.dumps({"type": kind, "event_id": f"event_{id(members)}", **members}))

    def next_id(self) -> str:
        """Of a response."""
        self.number += 1
        return f"resp_{self.number}"


class WebSocketProvider:
    """`async with WebSocketProvider(script) as provider`; `script(talk, event)` answers each event of a client."""

    def __init__(
        self,
        script: Script | None = None,
        refuse: int | None = None,
        ssl: SSLContext | None = None,
        unix: str = "",
    ) -> None:
        self.ssl, self.unix = ssl, unix
        self.script = script or answer
        self.refuse = refuse
        self.requests: list[Request] = []
        self.received: list[str | bytes] = []
        self.talks: list[Talk] = []
        self.closed_with: list[int | None] = []
        self._server: Server

    async def __aenter__(self) -> WebSocketProvider:
        options: dict[str, Any] = {
            "process_request": self._judge, "select_subprotocol": _chosen, "max_size": None, "close_timeout": 1,
            "max_queue": 1, "ssl": self.ssl,
        }  # fmt: skip
        if self.unix:
            self._server = await unix_serve(self._talk, self.unix, **options)
            self.base_url = f"unix:{self.unix}:/v1"
            return self
        self._server = await serve(self._talk, "localhost" if self.ssl else "127.0.0.1", 0, **options)
        port = next(iter(self._server.sockets)).getsockname()[1]
        self.base_url = f"https://localhost:{port}/v1" if self.ssl else f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _judge(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        return None if self.refuse is None else connection.respond(self.refuse, '{"error": {"message": "no"}}')

    async def _talk(self, connection: ServerConnection) -> None:
        talk = Talk(self, connection)
        self.talks.append(talk)
        if "realtime" in connection.request.path:  # type: ignore[union-attr]
            await talk.say("session.created", session=SESSION)
        try:
            async for message in connection:
                self.received.append(message)
                await self.script(talk, json.loads(message))
        finally:
            self.closed_with.append(connection.close_code)


def _chosen(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return next((each for each in offered if each == "realtime"), None)


SESSION: dict[str, Any] = {
    "type": "realtime",
    "model": "gpt-realtime",
    "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}},
}


async def answer(talk: Talk, event: dict[str, Any]) -> None:
    """A Realtime response to `response.create`; a Responses one where its event is flat."""
    if event["type"] != "response.create":
        return
    made = talk.next_id()
    stream = {"stream_id": event["stream_id"]} if "stream_id" in event else {}
    if "model" in event:
        begun = {"id": made, "model": event["model"], "output": [], "object": "response"}
        usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        await talk.say("response.created", response={**begun, "status": "in_progress"}, sequence_number=0, **stream)
        await talk.say(
            "response.output_text.delta", delta="Hi", item_id="i", output_index=0, content_index=0, logprobs=[],
            sequence_number=1, **stream,
        )  # fmt: skip
        done = {**begun, "status": "completed", "usage": usage}
        await talk.say("response.completed", response=done, sequence_number=2, **stream)
        return
    await begin(talk, made)
    await finish(talk, made)


async def begin(talk: Talk, made: str | None) -> None:
    """The first events of a Realtime response."""
    await talk.say("response.created", response={"id": made, "object": "realtime.response", "status": "in_progress"})
    await talk.say(
        "response.output_text.delta", response_id=made, delta="Hi", item_id="i", output_index=0, content_index=0
    )


async def finish(talk: Talk, made: str | None, status: str = "completed", **more: Any) -> None:
    """Its last."""
    done = {"id": made, "object": "realtime.response", "status": status, "output": [], "usage": USAGE, **more}
    await talk.say("response.done", response=done)
