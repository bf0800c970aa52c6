"""Reads figures back from the proxy's control port, and closes tracks there. Standard library only.

One connection a thread, kept alive; the async methods run in a few threads of the reader's own, so a server's
default executor is never filled with waiting.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from taximeter_rag.tags import Scope

T = TypeVar("T")

THREADS = 16
MAX_AFTER = 100
"""The control port takes no more request ids to wait for."""


class ReadError(Exception):
    """The control port did not answer, or refused; `status` is its HTTP status or None."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Reader:
    """The control port at `url`; `token` is a workspace's key (its own usage) or the admin token (everyone's)."""

    def __init__(self, url: str = "http://127.0.0.1:8001", token: str = "", *, timeout_s: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"The control port's URL must be like http://host:8001, not {url!r}.")
        self.url = url.rstrip("/")
        self._parts, self._timeout_s = parts, timeout_s
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._local = threading.local()
        self._pool: ThreadPoolExecutor | None = None
        self._connections: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close its connections; also at the end of `with Reader(…) as reader:`."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        while self._connections:
            self._connections.pop().close()
        self._local = threading.local()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def track(
        self, track: str, workspace: str | None = None, *, after: Iterable[str] = (), wait_s: float = 0, since: str = ""
    ) -> dict[str, Any]:
        """A track's `token_usage`, `metrics`, `usage`, `documents` … (docs/design.md, Control API).

        `since`: only what ended from then on, in RFC 3339.

        Waits, bounded, until the requests `after` are counted and, with `wait_s`, until no call of it is in flight.
        Raises ReadError.
        """
        asked = [("workspace", workspace)] if workspace else []
        asked += [("wait", f"{wait_s:g}")] if wait_s else []
        asked += [("from", since)] if since else []
        asked += [("after", each) for each in list(after)[-MAX_AFTER:]]
        answer = self._ask("GET", f"/usage/tracks/{quote(track, safe='')}", asked, self._timeout_s + wait_s)
        if not isinstance(answer, dict):
            raise ReadError(f"{self.url} does not answer like Taximeter's control port.")
        return answer

    def read(self, scope: Scope, *, wait_s: float = 0) -> dict[str, Any]:
        """The figures of a scope's track, with every call counted that was seen to end in it. Raises ReadError."""
        if scope.track is None:
            raise ReadError("This scope has no track to read.")
        return self.track(scope.track, scope.workspace, after=tuple(scope.calls), wait_s=wait_s)

    def documents(self, track: str, workspace: str | None = None) -> dict[str, dict[str, Any]]:
        """Document -> `usage` and `estimated_cost_usd` of what a track used for it. Raises ReadError."""
        asked = [("track", track), ("group_by", "document"), *([("workspace", workspace)] if workspace else [])]
        answer = self._ask("GET", "/usage", asked, self._timeout_s)
        if not isinstance(answer, dict):
            raise ReadError(f"{self.url} does not answer like Taximeter's control port.")
        return {each["document"]: each for each in answer["groups"] if each["document"] is not None}

    def upstreams(self) -> dict[str, str]:
        """The proxy's upstreams: name -> base URL. Raises ReadError, also where `token` may not know them."""
        answer = self._ask("GET", "/healthz", [], self._timeout_s)
        if not isinstance(answer, dict) or not isinstance(answer.get("upstreams"), dict):
            raise ReadError(f"{self.url} tells its upstreams to an admin only: TAXIMETER_TOKEN.")
        return dict(answer["upstreams"])

    def close_track(self, track: str, workspace: str | None = None) -> bool:
        """End a track, so that the billing webhook is sent; False where no call of it is known. Raises ReadError."""
        try:
            asked = [("workspace", workspace)] if workspace else []
            self._ask("POST", f"/usage/tracks/{quote(track, safe='')}/close", asked, self._timeout_s)
        except ReadError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def atrack(
        self, track: str, workspace: str | None = None, *, after: Iterable[str] = (), wait_s: float = 0, since: str = ""
    ) -> dict[str, Any]:
        """`track`, for async code."""
        return await self._away(lambda: self.track(track, workspace, after=after, wait_s=wait_s, since=since))

    async def adocuments(self, track: str, workspace: str | None = None) -> dict[str, dict[str, Any]]:
        """`documents`, for async code."""
        return await self._away(lambda: self.documents(track, workspace))

    async def aread(self, scope: Scope, *, wait_s: float = 0) -> dict[str, Any]:
        """`read`, for async code."""
        return await self._away(lambda: self.read(scope, wait_s=wait_s))

    async def aclose_track(self, track: str, workspace: str | None = None) -> bool:
        """`close_track`, for async code."""
        return await self._away(lambda: self.close_track(track, workspace))

    async def _away(self, job: Callable[[], T]) -> T:
        if self._pool is None:  # made at first use, so a server may fork before
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="taximeter-reader")
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def _ask(self, method: str, path: str, asked: list[tuple[str, str]], timeout_s: float) -> Any:
        target = self._parts.path.rstrip("/") + path + (f"?{urlencode(asked)}" if asked else "")
        for fresh in (False, True):
            connection = self._connection(timeout_s, fresh=fresh)
            try:
                connection.request(method, target, headers=self._headers)
                response = connection.getresponse()
                body = response.read()
                break
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                self._connections.remove(connection)
                self._local.connection = None
                if fresh or isinstance(error, TimeoutError):
                    raise ReadError(f"{self.url} does not answer: {error or type(error).__name__}.") from error
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if response.status >= 400:
            said = answer.get("error") if isinstance(answer, dict) else None
            text = said.get("message") if isinstance(said, dict) else body[:200].decode("utf-8", "replace")
            raise ReadError(f"{self.url} answers {response.status}: {text}", response.status)
        return answer

    def _connection(self, timeout_s: float, *, fresh: bool) -> http.client.HTTPConnection:
        """This thread's connection. A kept one may have been closed meanwhile: then the question is asked again."""
        kept: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if kept is None or fresh:
            kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
            kept = kind(self._parts.hostname or "", self._parts.port, timeout=timeout_s)
            self._local.connection = kept
            self._connections.append(kept)
        kept.timeout = timeout_s
        if kept.sock is not None:
            kept.sock.settimeout(timeout_s)
        return kept
