"""Who the calls made here belong to: the tags of the current context, and how they become headers.

A context variable holds one Scope. It follows `await`, tasks and asyncio.to_thread by itself; across worker queues,
whose workers keep the context they were started in, hand jobs over with `carry`.
"""

from __future__ import annotations

import contextvars
import functools
import hashlib
import inspect
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

HEADERS = {
    "workspace": "x-workspace",
    "track": "x-track-id",
    "document": "x-document-id",
    "task": "x-task",
    "end_user": "x-end-user",
}
"""The proxy's tag headers; it removes them before a request goes to the provider."""

REMEMBERED_CALLS = 64
"""Request ids kept of a track, to wait for when its figures are read: the latest, at most 100 can be asked for."""

_is_tag = re.compile(r"[A-Za-z0-9._:@-]{1,128}").fullmatch


@dataclass(slots=True)
class Noticed:
    """What was seen here of a scope's calls that the proxy cannot know."""

    past: dict[str, str] = field(default_factory=dict)
    """Kinds of model (llm, embedding, rerank) whose calls did not pass the proxy -> where they went instead."""
    streams: list[Any] = field(default_factory=list)
    """Answers that are still to come, and of which it is not known yet."""
    marks: set[str] = field(default_factory=set)

    def went_past(self) -> dict[str, str]:
        """`past`, with the streams that nobody has seen pass."""
        return {**{stream.kind: stream.went for stream in self.streams}, **self.past}


@dataclass(frozen=True, slots=True)
class Scope:
    """The tags of the calls of one piece of work; None where nobody said."""

    workspace: str | None = None
    track: str | None = None
    document: str | None = None
    task: str | None = None
    end_user: str | None = None
    calls: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED_CALLS), compare=False)
    """The proxy's ids of the latest calls of this track, filled by the client hooks from any thread."""
    noticed: Noticed = field(default_factory=Noticed, compare=False)

    def headers(self) -> dict[str, str]:
        """The tag headers of a call made in this scope."""
        return {header: value for name, header in HEADERS.items() if (value := getattr(self, name)) is not None}


_current: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("taximeter_rag_scope", default=None)


def is_tag(value: str) -> bool:
    """Whether the proxy takes this as a tag: 1-128 characters of letters, digits and . _ : @ -."""
    return _is_tag(value) is not None


def safe(value: str) -> str:
    """A tag for any name, the same one each time: the name itself or, where that is no tag, `x-` and its hash."""
    return value if is_tag(value) else "x-" + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def current() -> Scope | None:
    """The scope calls made here belong to; None outside any."""
    return _current.get()


def headers() -> dict[str, str]:
    """The tag headers for a call made here, for clients without a hook (`extra_headers=taximeter_rag.headers()`)."""
    scope = _current.get()
    return scope.headers() if scope is not None else {}


class metered:  # noqa: N801 - used like a function
    """`with metered(workspace=…, track=…, document=…, task=…):` or `async with`; what is not named is inherited.

    Gives the Scope. Raises ValueError on a name that the proxy would refuse as a tag (see `safe`).
    """

    __slots__ = ("_given", "_scope", "_tokens")

    def __init__(
        self,
        *,
        workspace: str | None = None,
        track: str | None = None,
        document: str | None = None,
        task: str | None = None,
        end_user: str | None = None,
    ) -> None:
        named = {"workspace": workspace, "track": track, "document": document, "task": task, "end_user": end_user}
        self._given = {name: value for name, value in named.items() if value is not None}
        for name, value in self._given.items():
            if not is_tag(value):
                raise ValueError(
                    f"{name}={value!r} is no tag: it takes 1-128 characters of letters, digits and . _ : @ - "
                    "(taximeter_rag.safe() makes a tag of any name)."
                )
        self._scope: Scope | None = None
        self._tokens: list[contextvars.Token[Scope | None]] = []

    @classmethod
    def within(cls, scope: Scope | None) -> metered:
        """The very scope given, nothing inherited; None: no tags."""
        made = cls()
        made._scope = scope if scope is not None else Scope()
        return made

    def __enter__(self) -> Scope:
        scope = self._scope if self._scope is not None else _inner(_current.get(), self._given)
        self._tokens.append(_current.set(scope))
        return scope

    def __exit__(self, *_: object) -> None:
        _current.reset(self._tokens.pop())

    async def __aenter__(self) -> Scope:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


def _inner(outer: Scope | None, given: dict[str, str]) -> Scope:
    named: dict[str, Any] = {name: given.get(name, getattr(outer, name, None)) for name in HEADERS}
    if outer is not None and (named["workspace"], named["track"]) == (outer.workspace, outer.track):
        return Scope(**named, calls=outer.calls)  # another document or task of the same track
    return Scope(**named)


def enter(scope: Scope) -> None:
    """Make this the scope of the running task from here on, for workers that are handed one job after another."""
    _current.set(scope)


def carry(job: Callable[P, T]) -> Callable[P, T]:
    """A job that belongs to the scope of this moment, whichever worker runs it: `queue.put(carry(job))`."""
    scope = _current.get()
    if inspect.iscoroutinefunction(job):

        @functools.wraps(job)
        async def later(*args: Any, **kwargs: Any) -> Any:
            with metered.within(scope):
                return await job(*args, **kwargs)

        return later  # type: ignore[return-value]

    @functools.wraps(job)
    def at_once(*args: P.args, **kwargs: P.kwargs) -> T:
        with metered.within(scope):
            return job(*args, **kwargs)

    return at_once
