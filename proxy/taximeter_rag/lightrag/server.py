"""Stands around LightRAG's application: whose a request is, what its answer says it used, when its track ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from taximeter_rag.lightrag import answers
from taximeter_rag.lightrag.accepted import Upload, is_open
from taximeter_rag.lightrag.answers import Figures
from taximeter_rag.lightrag.dispatch import Dispatcher
from taximeter_rag.lightrag.plugin import INDEX, Plugin, harmless
from taximeter_rag.lightrag.watch import ANSWERED, CONTEXT_ONLY
from taximeter_rag.middleware import TRACK_HEADER, App, ASGIScope, Message, Receive, Send, new_track, with_header
from taximeter_rag.tags import Scope, metered

QUERIES = ("/query", "/query/data", "/api/chat", "/api/generate")
STREAM = "/query/stream"
UPLOADS = ("/documents/text", "/documents/texts", "/documents/upload", "/documents/scan")
LISTS = (("POST", "/documents/paginated"), ("GET", "/documents"))
TRACK_STATUS = "/documents/track_status/"

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
        path, method = scope["path"].rstrip("/"), scope["method"]
        workspace = self.plugin.workspace(self.rag())
        if method == "POST" and path.endswith((*QUERIES, STREAM)):
            await self._query(scope, receive, send, self.plugin.query(workspace, new_track("query")))
            return
        with metered.within(Scope(workspace=workspace, task=INDEX)):
            if method == "POST" and path.endswith(UPLOADS):
                async with Upload(workspace) as upload:
                    await self.app(scope, receive, Rewritten(send, lambda answer: self._uploaded(answer, upload)))
            elif TRACK_STATUS in path and method == "GET":
                await self._track_status(scope, receive, send, path.rpartition("/")[2])
            elif self.plugin.by_document and any(path.endswith(end) for asked, end in LISTS if asked == method):
                await self.app(scope, receive, Rewritten(send, self._listed))
            else:
                await self.app(scope, receive, send)

    async def _query(self, scope: ASGIScope, receive: Receive, send: Send, tags: Scope) -> None:
        read: list[Figures | None] = []
        path = scope["path"].rstrip("/")

        async def fields() -> dict[str, Any]:
            figures, why = await self.plugin.figures(tags)
            read.append(figures)
            past, marks = tags.noticed.went_past(), tags.noticed.marks
            why = answers.reason(past, self.plugin.settings.proxy_url) if past and not why else why
            only = CONTEXT_ONLY in marks and ANSWERED not in marks
            return answers.query_fields(figures, why, context_only=only, past=past)

        async def with_fields(answer: dict[str, Any]) -> dict[str, Any]:
            added = await fields()
            if path.endswith("/data"):
                added = {name: added[name] for name in ("metrics", answers.UNKNOWN) if name in added}
            return {**answer, **added}

        async def failed(answer: dict[str, Any]) -> dict[str, Any]:
            """What was used until it failed; one that was refused at once used nothing and stays as it is."""
            return {**answer, **await fields()} if tags.calls or tags.noticed.past else answer

        send = with_header(send, TRACK_HEADER, (tags.track or "").encode())
        if path.endswith(STREAM):
            send = Rewritten(Lengthened(send, fields), None, failed)
        elif path.endswith(QUERIES[:2]):
            send = Rewritten(send, with_fields, failed)
        try:
            with metered.within(tags):
                await self.app(scope, receive, send)
        finally:
            self.plugin.query_ended(tags, read[-1] if read else None)

    async def _uploaded(self, answer: dict[str, Any], upload: Upload) -> dict[str, Any]:
        track = answer.get("track_id")
        if not isinstance(track, str) or not track:
            return answer
        with harmless("an upload may look as if nothing of it were pending"):
            await upload.accepted(track)
        model = getattr(self.rag(), "llm_model_name", None)
        return {**answer, "metrics": answers.upload_metrics(answer, model)}

    async def _track_status(self, scope: ASGIScope, receive: Receive, send: Send, track: str) -> None:
        workspace, accepted = self.plugin.workspace(self.rag()), False
        with harmless("an upload may look as if nothing of it were pending"):
            accepted = await is_open(workspace, track)  # before LightRAG looks: after, it may have noted and ended

        async def with_bills(answer: dict[str, Any]) -> dict[str, Any]:
            told = {**answer, "status_summary": answers.summary(answer, accepted=accepted)}
            if not self.plugin.by_document or not answers.any_ended(answer):
                return told
            ended = answers.all_ended(answer) and not told["status_summary"]["pending"]
            bills = await self.plugin.bills(workspace, track, ended=ended)
            told = answers.with_bills(told, lambda _: bills)
            if ended and bills.figures is not None:
                told["usage"] = answers.whole_usage(bills, answer)
            return told

        await self.app(scope, receive, Rewritten(send, with_bills))

    async def _listed(self, answer: dict[str, Any]) -> dict[str, Any]:
        if not answers.any_ended(answer):
            return answer
        workspace = self.plugin.workspace(self.rag())
        bills = await self.plugin.many_bills(workspace, answers.ended_by_track(answer))
        return answers.with_bills(answer, lambda document: bills.get(document.get("track_id") or ""))


class Rewritten:
    """`send` that lets `change` add to the JSON object of a good answer, and `failed` to an error's.

    Everything else passes as it is.
    """

    def __init__(self, send: Send, change: Change | None, failed: Change | None = None) -> None:
        self.send, self.change, self.failed = send, change, failed
        self.start: Message | None = None
        self.chosen: Change | None = None
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is(message, b"application/json"):
            self.chosen = self.change if message["status"] == 200 else self.failed if message["status"] >= 400 else None
            if self.chosen is not None:
                self.start = message
                return
        if self.start is None or self.chosen is None or message["type"] != "http.response.body":
            await self.send(message)
            return
        self.body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._finish(self.start, self.chosen)

    async def _finish(self, start: Message, change: Change) -> None:
        body, answer = self.body, answers.parsed(self.body)
        if answer is not None:
            with harmless("an answer goes without its figures"):
                body = answers.shown(await change(answer))
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
            self.streams = message["status"] == 200 and _is(message, b"application/x-ndjson")
        elif self.streams and message["type"] == "http.response.body" and not message.get("more_body", False):
            if message.get("body"):
                await self.send({**message, "more_body": True})
            last = b""
            with harmless("an answer goes without its figures"):
                last = answers.shown(await self.line()) + b"\n"
            message = {"type": "http.response.body", "body": last, "more_body": False}
        await self.send(message)


def _is(start: Message, content_type: bytes) -> bool:
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    return headers.get(b"content-type", b"").startswith(content_type) and b"content-encoding" not in headers
