"""How the control plane answers: exact numbers in JSON, and one shape for every error (DESIGN §2.3 point 5)."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, TypeVar

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.serialization import default_serializer
from litestar.types import ExceptionHandlersMap, Serializer

from taximeter.control.answers.responses import encode
from taximeter.core.errors import BadRequest, InternalError, RequestError
from taximeter.node.logs import SELDOM
from taximeter.sinks.history.database import HistoryUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")


class Json(Response[T]):
    """A response whose decimals become exact JSON numbers."""

    def render(self, content: Any, media_type: str, enc_hook: Serializer = default_serializer) -> bytes:
        if isinstance(content, bytes | str) or "json" not in media_type:
            return super().render(content, media_type, enc_hook)
        return encode(content)


def _ours(_: Request[Any, Any, Any], error: RequestError) -> Response[bytes]:
    headers = {name.decode(): value.decode("latin-1") for name, value in error.headers() if name != b"content-length"}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return Response(error.body(), status_code=error.status, headers=headers, media_type="application/json")


def unknown(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What Litestar refuses: an unknown path or method, a parameter or body that does not validate."""
    message, param = error.detail or HTTPStatus(error.status_code).phrase, None
    if isinstance(error, ValidationException) and isinstance(error.extra, list) and error.extra:
        first = error.extra[0]
        param = first.get("key")
        message = f"{param}: {first.get('message')}" if param else str(first.get("message"))
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    headers = {**(error.headers or {}), "x-taximeter-error": code}
    return Response(encode(body), status_code=error.status_code, headers=headers, media_type="application/json")


def _without_history(_: Request[Any, Any, Any], error: HistoryUnavailable) -> Response[bytes]:
    log.warning("control: %s", error, extra=SELDOM)
    shown = {"message": "The history database cannot be read now.", "type": "server_error", "param": None}
    return Response(
        encode({"error": shown | {"code": "history_unavailable"}}),
        status_code=503,
        headers={"x-taximeter-error": "history_unavailable", "retry-after": "2"},
        media_type="application/json",
    )


def _too_deep(_: Request[Any, Any, Any], __: RecursionError) -> Response[bytes]:
    """A body of brackets in brackets: msgspec stops at the interpreter's own bound."""
    return _ours(_, BadRequest("The body is nested too deeply.", param="body"))


def _unforeseen(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A fault of ours: logged in full, told in general."""
    log.error("control: %s %s failed", request.method, request.url.path, exc_info=error)
    return _ours(request, InternalError("Internal error; the log has it."))


HANDLERS: ExceptionHandlersMap = {
    RequestError: _ours,
    HTTPException: unknown,
    HistoryUnavailable: _without_history,
    RecursionError: _too_deep,
    Exception: _unforeseen,
}
"""For Litestar(exception_handlers=…)."""
