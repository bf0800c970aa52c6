"""docs/reference/errors.md: every error code that Taximeter itself answers with."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec

from reference.markdown import code, flat, page, table
from taximeter.control.answers.encoding import HANDLERS
from taximeter.core.errors import RequestError
from taximeter.sinks.history.database import HistoryUnavailable

INTRO = """\
Errors that are Taximeter's own have OpenAI's shape, a code that stays the same from release to release, and the header
`x-taximeter-error` with that code. An error without that header is the provider's, passed on as it came.

    {"error": {"message": "…", "type": "…", "param": null, "code": "…"}}

`message` says what happened and what to do; it may change. `x-should-retry` tells OpenAI's SDKs whether to try again;
where it is not sent, their own rules apply."""
HEAD = ("code", "when", "status", "type", "`x-should-retry`")
CONTROL = """\
What the control port answers besides. A request for an unknown path, with a method that a path does not have or with
a parameter that does not validate has the name of its status as code (`not_found`, `method_not_allowed`,
`bad_request`)."""


def errors_page() -> str:
    """The page."""
    rows = [
        (code(each.code), _when(each), str(each.status), code(each.type), _retry(each.retry))
        for each in sorted(of_requests(), key=lambda each: (each.status, each.code))
    ]
    return page("Error codes", INTRO, "## Both ports", table(HEAD, rows), "## Control port", CONTROL, _of_control())


def of_requests() -> Iterator[type[RequestError]]:
    """One error for each code: the most general that has it."""
    seen: set[str] = set()
    waiting: list[type[RequestError]] = [RequestError]
    while waiting:
        kind = waiting.pop(0)
        waiting += kind.__subclasses__()
        if kind is not RequestError and kind.__module__ == RequestError.__module__ and kind.code not in seen:
            seen.add(kind.code)
            yield kind


def _when(kind: type[RequestError]) -> str:
    return flat(kind.__doc__ or "")


def _retry(retry: bool | None) -> str:
    return "not sent" if retry is None else code("true" if retry else "false")


def _of_control() -> str:
    asked: Any = SimpleNamespace(method="GET", url=SimpleNamespace(path="/"))
    logging.disable()
    answer = HANDLERS[HistoryUnavailable](asked, HistoryUnavailable("away"))
    logging.disable(logging.NOTSET)
    told = msgspec.json.decode(answer.content)["error"]
    when = "The history database cannot be read now."
    return table(HEAD, [(code(told["code"]), when, str(answer.status_code), code(told["type"]), "not sent")])
