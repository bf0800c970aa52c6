"""Asking a provider's API for its figures: seldom, patiently, and never believing a part to be the whole.

A request is repeated where that may help (429, 5xx, no answer, an answer that ends early), with growing pauses or as
long as `retry-after` says. What is read is bounded. Redirects are not followed: they would take the credential along.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec

from taximeter import __version__
from taximeter.config.addresses import masked
from taximeter.reconcile.rule import PullFailed

log = logging.getLogger("taximeter.reconcile")

APART_S = 0.5
"""Between two requests to one provider."""
ATTEMPTS = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 120.0
ANSWER_BYTES = 32 * 1024 * 1024
"""Of one page; 1,000 rows are about half a megabyte."""
MOST_PAGES = 1_000
_AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))

Params = Sequence[tuple[str, str]]


class Turned(Protocol):
    """A page that says whether there is another."""

    @property
    def has_more(self) -> bool: ...
    @property
    def next_page(self) -> str | None: ...


P = TypeVar("P", bound=Turned)


class NotThere(PullFailed):
    """404: what was asked for is not there."""


class _Again(PullFailed):
    """It may go well the next time."""

    pause_s: float | None = None


class Asker:
    """One provider's API. Methods raise PullFailed, whose message names no credential."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
        attempts: int = ATTEMPTS,
    ) -> None:
        """`pause`: waits so many seconds; `attempts`: how often a request is made at most."""
        self._attempts = attempts
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._pause = pause
        self._asked = False
        named = {"accept": "application/json", "user-agent": f"taximeter/{__version__}"}
        self._client = httpx2.AsyncClient(headers=named | dict(headers), timeout=timeout_s)

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, path: str, params: Params, decode: Callable[[bytes], P]) -> P:
        """What a request is answered with, asked up to ATTEMPTS times."""
        attempt = 1
        while True:
            if self._asked:
                await self._pause(APART_S)
            self._asked = True
            try:
                return _decoded(await self._once(path, params), path, decode)
            except _Again as problem:
                if attempt >= self._attempts:
                    raise PullFailed(f"{problem}, {attempt} times" if attempt > 1 else str(problem)) from problem
                pause_s = problem.pause_s
                log.info("%s; asked again", problem)
            await self._pause(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (attempt - 1) if pause_s is None else pause_s))
            attempt += 1

    async def pages(self, path: str, params: Params, decode: Callable[[bytes], P]) -> AsyncIterator[P]:
        """Every page. Raises PullFailed where it says that there are more and not which, or the same again."""
        page, seen = "", set[str]()
        for _ in range(MOST_PAGES):
            found = await self.get(path, [*params, ("page", page)] if page else params, decode)
            yield found
            if not found.has_more:
                return
            page = found.next_page or ""
            if not page or page in seen:
                raise PullFailed(f"{path} says that there is more, and not where")
            seen.add(page)
        raise PullFailed(f"{path} has more than {MOST_PAGES:,} pages")

    async def _once(self, path: str, params: Params) -> bytes:
        url = self._base_url + path
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("GET", url, params=list(params)) as answer,
            ):
                content = await _read(answer, path)
        except TimeoutError:
            raise _Again(f"{path} is not answered within {self._timeout_s:g} s") from None
        except (httpx2.HTTPError, OSError) as error:
            host = urlsplit(url).netloc.rpartition("@")[2]  # a name that is not found is said nowhere else
            raise _Again(f"{path} of {host}: {masked(str(error)) or type(error).__name__}") from error
        if answer.status_code == 200:
            return content
        raise _refused(answer, path, content)


async def _read(answer: httpx2.Response, path: str) -> bytes:
    content = bytearray()
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > ANSWER_BYTES:
            raise PullFailed(f"the answer to {path} is larger than {ANSWER_BYTES // 2**20} MiB")
    return bytes(content)


def _decoded(content: bytes, path: str, decode: Callable[[bytes], P]) -> P:
    try:
        return decode(content)
    except (msgspec.ValidationError, RecursionError) as error:
        raise PullFailed(f"the answer to {path} is not what is documented: {error}") from error
    except ValueError as error:
        raise _Again(f"the answer to {path} is no whole JSON ({error})") from error


def _refused(answer: httpx2.Response, path: str, content: bytes) -> PullFailed:
    status = answer.status_code
    said = f"{path} answers {status}{_message(content)}"
    if status in _AGAIN:
        again = _Again(said)
        told = answer.headers.get("retry-after", "")
        again.pause_s = float(told) if told.isascii() and told.isdigit() and len(told) < 7 else None
        return again
    if status in (401, 403):
        return PullFailed(f"{said}: the credential is not one that may read usage")
    if 300 <= status < 400:
        return PullFailed(f"{said}, a redirect, and redirects are not followed: name the final address in base_url")
    return NotThere(said) if status == 404 else PullFailed(said)


class _Told(msgspec.Struct):
    message: str = ""


class _Error(msgspec.Struct):
    error: _Told


def _message(content: bytes) -> str:
    """What an error's body says, shortened: providers agree on `{"error": {"message": …}}`."""
    try:
        said = msgspec.json.decode(content, type=_Error).error.message
    except (ValueError, RecursionError):
        return ""
    return f" ({' '.join(said.split())[:200]})" if said else ""
