"""The OpenAPI document made true where Litestar's is not: money is a number, errors have one shape, pages are HTML."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from litestar import Litestar
from litestar._openapi.schema_generation import SchemaCreator
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Operation, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

_HTML = "text/html"
_PROBES = ("/livez", "/healthz", "/readyz")
"""Answer everyone."""


class Money(OpenAPISchemaPlugin):
    """A decimal is sent as an exact number (`responses.encode`), not as text."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        return value is Decimal

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        return Schema(type=OpenAPIType.NUMBER)


def describe(app: Litestar) -> None:
    """Say of each operation how it answers what it refuses. Builds the document, which takes 50 ms."""
    for path, item in (app.openapi_schema.paths or {}).items():
        for method in ("get", "post", "put", "patch", "delete"):
            operation: Operation | None = getattr(item, method)
            if operation is not None:
                _errors(operation, path)


def _errors(operation: Operation, path: str) -> None:
    responses = operation.responses = dict(operation.responses or {})
    given = [each for each in responses.values() if isinstance(each, OpenAPIResponse)]
    page = any(_HTML in (each.content or {}) for each in given)
    responses.pop("400", None)
    responses["4XX"] = _refused("Refused; `error.code` says why.", page=page)
    responses["503"] = _refused("Not now.", page=page)
    if page:
        responses["303"] = OpenAPIResponse(description="To the sign-in.")
    if path in _PROBES:
        operation.security = [{}]
    if path == "/readyz":
        responses["503"] = _json("Not ready; to an admin with the reasons.", Schema(type=OpenAPIType.OBJECT))


def _refused(description: str, *, page: bool) -> OpenAPIResponse:
    response = _json(description, _ERROR)
    if page:
        response.content = {**(response.content or {}), _HTML: OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))}
    return response


def _json(description: str, schema: Schema) -> OpenAPIResponse:
    return OpenAPIResponse(description=description, content={"application/json": OpenAPIMediaType(schema=schema)})


_TEXT = Schema(type=OpenAPIType.STRING)
_ERROR = Schema(
    type=OpenAPIType.OBJECT,
    required=["error"],
    properties={
        "error": Schema(
            type=OpenAPIType.OBJECT,
            required=["message", "type", "param", "code"],
            properties={
                "message": _TEXT,
                "type": _TEXT,
                "param": Schema(one_of=[_TEXT, Schema(type=OpenAPIType.NULL)]),
                "code": _TEXT,
            },
        )
    },
)
"""DESIGN §2.3 point 5."""
