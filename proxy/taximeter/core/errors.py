"""Every error Taximeter itself answers or raises: status, stable code, client-safe message.

TaximeterError
├── ConfigError            the configuration cannot be used; names file, path and allowed values
├── DataDirError           the data directory is locked, unwritable or not ours
├── JournalError           a journal file cannot be written or read
└── RequestError           answered to the client in OpenAI's error shape (DESIGN §2.3 point 5)
    ├── BadTag  BadRequest  MethodNotAllowed  RequestTimeout (ClientIdle)  PayloadTooLarge  Unbounded  Unauthorized
    ├── Forbidden  NotFound  Conflict  RateLimited (Overloaded  RateExceeded  RateTooSmall  BudgetReserved)
    ├── BudgetExceeded  BudgetUnavailable  BreakerOpen  JournalUnavailable  LoopDetected  NotReady
    └── UpstreamError      UpstreamUnreachable (TooManyOpenFiles)  UpstreamTimeout  UpstreamGarbage  UpstreamCut
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec


class TaximeterError(Exception):
    """Base of all errors this package raises on purpose."""


class ConfigError(TaximeterError):
    """The configuration cannot be used. The message says file, path, what is wrong and what is allowed."""


class DataDirError(TaximeterError):
    """The data directory cannot be used: locked by another process, unwritable, or not a directory."""


class JournalError(TaximeterError):
    """A journal file cannot be written or read; the message names the file."""


class AnswerCut(TaximeterError):
    """An answer ended early: the client's connection is closed without the last chunk, so that it sees the cut."""


class RequestError(TaximeterError):
    """Answered to the client: `status`, OpenAI error `type`, stable `code`, and a message safe to show."""

    status: ClassVar[int] = 400
    type: ClassVar[str] = "invalid_request_error"
    code: ClassVar[str] = "bad_request"
    retry: ClassVar[bool | None] = None
    """What to tell OpenAI's SDKs in `x-should-retry`; None: say nothing, their own rules apply."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        told: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """`told`: further headers of the answer, names in lower case."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.told = told

    def body(self) -> bytes:
        """The JSON body in OpenAI's error shape: {"error": {"message", "type", "param", "code"}}."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Response headers, `content-length` included."""
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body())).encode()),
            (b"x-taximeter-error", self.code.encode()),
        ]
        if self.retry is not None:
            headers.append((b"x-should-retry", b"true" if self.retry else b"false"))
        if self.retry_after_s is not None:
            headers.append((b"retry-after", str(self.retry_after_s).encode()))
        return [*headers, *self.told] if self.told else headers


class BadRequest(RequestError):
    """The request cannot be relayed as it is (framing, path, unreadable where it must be read)."""


class MethodNotAllowed(RequestError):
    """A method that is not served; the header `allow` names those that are (RFC 9110 §15.5.6)."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: bytes) -> None:
        super().__init__(message)
        self.allowed = allowed

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"allow", self.allowed)]


class RequestTimeout(RequestError):
    """A request's body did not come in time."""

    status = 408
    code = "request_timeout"


class ClientIdle(RequestTimeout):
    """A request's body, or the reading of its answer, did not go on at all for `limits.client_idle_s`."""

    code = "client_idle"


class BadTag(RequestError):
    """A tag in our own headers or path is not 1-128 characters of [A-Za-z0-9._:@-]."""

    code = "bad_tag"


class PayloadTooLarge(RequestError):
    """A head or body is over a stated bound."""

    status = 413
    code = "payload_too_large"


class Unbounded(RequestError):
    """A hard budget is about the call, and what it may cost has no bound; the message says what would give it one."""

    code = "unbounded_request"
    retry = False


class Unauthorized(RequestError):
    """A proxy key or admin token is missing or unknown."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"
    retry = False


class Forbidden(RequestError):
    """The key is known, but not for this (another workspace, model, Host or Origin)."""

    status = 403
    type = "permission_error"
    code = "forbidden"
    retry = False


class LoopDetected(RequestError):
    """The call has passed this Taximeter before: a base URL leads back to it. RFC 5842 §7.2 has the status."""

    status = 508
    type = "server_error"
    code = "loop_detected"
    retry = False


class NotFound(RequestError):
    """No such thing, or none that this key may see."""

    status = 404
    code = "not_found"


class Conflict(RequestError):
    """What was asked for cannot be, as things stand now: it is done already, or something stands against it."""

    status = 409
    code = "conflict"


class RateLimited(RequestError):
    """Too many at once: retryable."""

    status = 429
    type = "rate_limit_exceeded"
    code = "rate_limited"
    retry = True


class Overloaded(RateLimited):
    """What this process may hold for others at once is taken: retryable."""

    code = "overloaded"


class RateExceeded(RateLimited):
    """A rate of ours is full: retryable, after `retry-after`."""

    code = "rate_limit_exceeded"


class RateTooSmall(RateExceeded):
    """The call alone is more than a rate of ours allows: SDKs must not retry it as it is."""

    retry = False


class BudgetReserved(RateLimited):
    """What is left of a hard budget is held by calls in flight, which may use less: retryable."""

    code = "budget_reserved"


class BreakerOpen(RequestError):
    """The workspace, key or track used so much more than usual that a breaker stopped it for a while."""

    status = 429
    type = "rate_limit_exceeded"
    code = "breaker_open"
    retry = False


class BudgetUnavailable(RequestError):
    """`budget.on_unavailable = "refuse"` and Redis does not answer: whether the budget allows the call is unknown."""

    status = 503
    type = "server_error"
    code = "budget_unavailable"


class BudgetExceeded(RequestError):
    """A hard budget is spent. SDKs must not retry."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    retry = False


class JournalUnavailable(RequestError):
    """Nothing was sent: the journal cannot be written and `journal.on_error = "refuse"`, or the process ends."""

    status = 503
    type = "server_error"
    code = "journal_unavailable"

    def __init__(self) -> None:
        super().__init__("Usage cannot be written down now, so nothing was sent. Try again later.")


class InternalError(RequestError):
    """A fault of ours; the log says more."""

    status = 500
    type = "server_error"
    code = "internal_error"


class NotReady(RequestError):
    """Something this needs is not up to date or does not answer now; nothing was done."""

    status = 503
    type = "server_error"
    code = "not_ready"


class UpstreamError(RequestError):
    """The upstream could not be relayed."""

    sent: bool = False
    """Whether some of the request had been written, so that it may be billed."""
    status = 502
    type = "upstream_error"
    code = "upstream_error"


class UpstreamUnreachable(UpstreamError):
    """No connection, TLS failure, or it closed before the head of an answer."""

    code = "upstream_unreachable"


class TooManyOpenFiles(UpstreamUnreachable):
    """This process, or the machine, may open no further socket, to an upstream or for a client: the limit of open files
    is reached."""

    status = 503
    code = "too_many_open_files"
    retry = True


class UpstreamTimeout(UpstreamError):
    """Connect, first-byte or idle timeout."""

    status = 504
    code = "upstream_timeout"


class UpstreamGarbage(UpstreamError):
    """What it answered is not HTTP we can frame safely."""

    code = "upstream_bad_response"


class UpstreamCut(UpstreamError):
    """The body ended before its framing said so: the connection closed or was reset in mid-answer."""

    code = "upstream_cut"
