"""A provider that is out of sorts: 429, 500, garbage, half a head, cuts. It bills what it would bill."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from openai_like import answer, sse
from upstream import CLOSE, LAST_CHUNK, RESET, Billed, Provider, Request, Script, Step, chunk, response, stream_head


def of(provider: Provider, dice: random.Random, chance: float) -> Callable[[Request], Script | None]:
    """A handler for a provider: most requests get the usual answer."""

    def handler(request: Request) -> Script | None:
        if dice.random() >= chance:
            return None
        what = dice.randrange(6)
        if what == 0:
            return Script((error(429, "rate_limit_exceeded"),))
        if what == 1:
            return Script((error(500, "server_error"),))
        if what == 2:
            return Script((b"\x16\x03\x01 this is no HTTP\r\n\r\n", CLOSE))
        if what == 3:
            return Script((b"HTTP/1.1 200 OK\r\ncontent-le", dice.choice((CLOSE, RESET))))
        # A script is chosen before the body is there: what is cut follows from the request when it is run.
        return Script((lambda whole: cut(provider, whole, at=dice.random()), dice.choice((CLOSE, RESET))))

    return handler


def error(status: int, code: str) -> bytes:
    body = json.dumps({"error": {"message": "scripted", "type": code, "param": None, "code": code}}).encode()
    return response(body, status, [("content-type", "application/json")])


def usual(provider: Provider, request: Request) -> list[bytes]:
    """The usual answer in pieces: a stream's head, chunks and end; of a unary one its head and body, in two halves."""
    path = request.target.partition("?")[0]
    told = answer(path, request.body, call_id=provider.new_call_id(), chunks=provider.chunks)
    if told.events is not None:
        return [stream_head(), *(chunk(event) for event in told.events), LAST_CHUNK]
    whole = response(json.dumps(told.body).encode(), told.status, [("content-type", "application/json")])
    head_end = whole.index(b"\r\n\r\n") + 4
    middle = (head_end + len(whole)) // 2
    return [whole[:head_end], whole[head_end:middle], whole[middle:]]


def cut(provider: Provider, request: Request, *, at: float) -> bytes:
    """The usual answer up to a part (0..1) of its pieces, billed as one that was not finished."""
    pieces = usual(provider, request)
    bill(provider, request, complete=False)
    return b"".join(pieces[: int(at * len(pieces))])


def bill(provider: Provider, request: Request, *, complete: bool) -> None:
    """Write the charge for a request down."""
    path = request.target.partition("?")[0]
    told = answer(path, request.body, call_id="bill", chunks=provider.chunks)
    marker = request.header("x-marker")
    provider.bill(Billed("scripted", path, told.model, told.usage or {}, told.events is not None, complete, 0, marker))


def gated(provider: Provider, *steps: Step) -> Script:
    """A script of steps that ends by billing a whole answer."""

    def charge(request: Request) -> bytes:
        bill(provider, request, complete=True)
        return b""

    return Script((*steps, charge))


__all__ = ["bill", "cut", "error", "gated", "of", "sse", "usual"]
