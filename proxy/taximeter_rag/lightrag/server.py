"""Stands around LightRAG's application: whose a request is, what its answer says it used, when its track ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from taximeter_rag.lightrag import answers
from taximeter_rag.lightrag.answers import Figures
from taximeter_rag.lightrag.dispatch import Dispatcher
from taximeter_rag.lightrag.plugin import INDEX, Plugin, harmless
from taximeter_rag.middleware import TRACK_HEADER, App, ASGIScope, Message, Receive, Send, new_track, with_header
from taximeter_rag.tags import Scope, metered, safe

QUERIES = ("/query", "/query/data", "/api/chat", "/api/generate")
STREAM = "/query/stream"
UPLOADS = ("/documents/text", "/documents/texts", "/documents/upload")
TRACK_STATUS = "/documents/track_status/"
QUERY_BODY_BYTES = 1024 * 1024
"""Of a query's body this much is kept, to see whether it asks for context only."""

Change = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Server:
    """The outermost layer of one LightRAG application. `rag` answers its LightRAG once that is made."""

    def __init__(self, app: App, plugin: Plugin, rag: Callable[[], Any], dispatcher: Dispatcher | None) -> None:
        self.app, self.plugin, self.rag, self.dispatcher = app, plugin, rag, dispatcher

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, self._ending(receive), send)
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        elif self.dispatcher is None or not await self.dispatcher.took(scope, receive, send):
            await self._request(scope, receive, send)

    def _ending(self, receive: Receive) -> Receive:
        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.plugin.finish()
                if self.dispatcher is not None:
                    await self.dispatcher.close()
            return message

        return receiving

    async def _request(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        path, post = scope["path"].rstrip("/"), scope["method"] == "POST"
        workspace = self.plugin.workspace(self.rag())
        if post and path.endswith((*QUERIES, STREAM)):
            await self._query(scope, receive, send, self.plugin.query(workspace, new_track("query")))
            return
        with metered.within(Scope(workspace=workspace, task=INDEX)):
            if post and path.endswith(UPLOADS):
                await self.app(scope, receive, Rewritten(send, self._uploaded))
            elif TRACK_STATUS in path and scope["method"] == "GET" and self.plugin.by_document:
                await self.app(scope, receive, Rewritten(send, self._track_status))
            else:
                await self.app(scope, receive, send)

    async def _query(self, scope: ASGIScope, receive: Receive, send: Send, tags: Scope) -> None:
        asked = Overheard(receive)
        read: list[Figures | None] = []
        path = scope["path"].rstrip("/")

        async def fields() -> dict[str, Any]:
            read.append(await self.plugin.figures(tags))
            return answers.query_fields(read[-1], context_only=answers.context_only(answers.parsed(asked.body)))

        async def with_fields(answer: dict[str, Any]) -> dict[str, Any]:
            added = await fields()
            return {**answer, **({"metrics": added["metrics"]} if path.endswith("/data") else added)}

        send = with_header(send, TRACK_HEADER, (tags.track or "").encode())
        if path.endswith(STREAM):
            send = Lengthened(send, fields)
        elif path.endswith(QUERIES[:2]):
            send = Rewritten(send, with_fields)
        try:
            with metered.within(tags):
                await self.app(scope, asked, send)
        finally:
            self.plugin.query_ended(tags, read[-1] if read else None)

    async def _uploaded(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "track_id" not in answer:
            return answer
        model = getattr(self.rag(), "llm_model_name", None)
        return {**answer, "metrics": answers.upload_metrics(answer, model)}

    async def _track_status(self, answer: dict[str, Any]) -> dict[str, Any]:
        track = answer.get("track_id")
        if not isinstance(track, str):
            return answer
        workspace = self.plugin.workspace(self.rag())
        figures = await self.plugin.document_figures(workspace, track, ended=answers.all_ended(answer))
        return answers.with_token_usage(answer, figures, safe)


class Overheard:
    """`receive` that keeps the beginning of the request's body."""

    def __init__(self, receive: Receive) -> None:
        self.receive, self.body = receive, b""

    async def __call__(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request" and len(self.body) < QUERY_BODY_BYTES:
            self.body += message.get("body", b"")
        return message


class Rewritten:
    """`send` that lets `change` add to the JSON object of a good answer; everything else passes as it is."""

    def __init__(self, send: Send, change: Change) -> None:
        self.send, self.change = send, change
        self.start: Message | None = None
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _good(message, b"application/json"):
            self.start = message
        elif self.start is None or message["type"] != "http.response.body":
            await self.send(message)
        else:
            self.body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._finish(self.start)

    async def _finish(self, start: Message) -> None:
        body, answer = self.body, answers.parsed(self.body)
        if answer is not None:
            with harmless("an answer goes without its figures"):
                body = answers.shown(await self.change(answer))
        headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        await self.send({**start, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class Lengthened:
    """`send` that adds one last line of JSON to a good NDJSON answer."""

    def __init__(self, send: Send, line: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self.send, self.line, self.streams = send, line, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.streams = _good(message, b"application/x-ndjson")
        elif self.streams and message["type"] == "http.response.body" and not message.get("more_body", False):
            if message.get("body"):
                await self.send({**message, "more_body": True})
            last = b""
            with harmless("an answer goes without its figures"):
                last = answers.shown(await self.line()) + b"\n"
            message = {"type": "http.response.body", "body": last, "more_body": False}
        await self.send(message)


def _good(start: Message, content_type: bytes) -> bool:
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    kind = headers.get(b"content-type", b"")
    return start["status"] == 200 and kind.startswith(content_type) and b"content-encoding" not in headers
