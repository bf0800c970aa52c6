"""docs/reference/api.md: the control port's API, from the OpenAPI document that a node serves at /schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from reference.markdown import code, filled, flat, page, slug, table
from taximeter.config import Settings
from taximeter.control.app import create
from taximeter.control.services.services import Services
from taximeter.core.hosts import Hosts

INTRO = """\
What the control port (127.0.0.1:8001) answers. A node serves the same as OpenAPI at `/schema` (JSON) and
`/schema/openapi.yaml`, for client generators. Every operation with its real answer: [Over HTTP](../usage.md#over-http).

`Authorization: Bearer …` carries the admin token, or a proxy key, which sees its own workspace only
([who may ask](../usage.md#who-may-ask)). What is refused has one shape and a stable code: [error codes](errors.md).
An unknown query parameter is refused, so that a misspelt filter never widens an answer. Money is an exact decimal
number in US dollars; what is not known is `null` and never 0."""
COMMON = """\
Parameters that several operations have alike. Below, an operation names those it takes as *filters*."""
MANY = 4
"""From so many operations on, a parameter is described once."""
METHODS = ("get", "post", "put", "patch", "delete")
PARAMETERS = ("parameter", "meaning", "type", "default")


class Anything:
    """Stands where a service would: the document is made of handlers' signatures and asks no service."""

    def __getattr__(self, name: str) -> Anything:
        return Anything()


def document() -> dict[str, Any]:
    """The OpenAPI document of a node."""
    nothing: Any = Anything()
    services = Services(
        settings=Settings(), hosts=Hosts([]), history=nothing, delivery=nothing, keys=nothing, live=nothing,
        node=nothing, metrics=nothing, prices=list,
    )  # fmt: skip
    return create(services).openapi_schema.to_schema()


def api_page() -> str:
    """The page."""
    told = document()
    found = [
        (method, path, item[method]) for path, item in told["paths"].items() for method in METHODS if method in item
    ]
    shared = _shared([operation for _, _, operation in found])
    parts = [INTRO, "## Filters", COMMON, _parameters(shared.values())]
    for tag in dict.fromkeys(tag for _, _, operation in found for tag in operation["tags"]):
        some = [each for each in found if tag in each[2]["tags"]]
        pages = all(_is_page(operation) for _, _, operation in some)
        parts += [f"## {tag.capitalize()}", *([_pages(some)] if pages else _operations(some, shared))]
    parts += ["## Shapes", *_shapes(told["components"]["schemas"])]
    return page("Control API", *parts)


def _shared(operations: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Parameters by name that many operations have in the same words."""
    alike = Counter(_said(each) for operation in operations for each in operation.get("parameters", ()))
    all_ = [each for operation in operations for each in operation.get("parameters", ())]
    often = {each["name"]: each for each in all_ if each["in"] == "query" and alike[_said(each)] >= MANY}
    return {name: each for name, each in often.items() if each.get("description")}


def _said(parameter: dict[str, Any]) -> str:
    return json.dumps(parameter, sort_keys=True, default=str)


def _is_page(operation: dict[str, Any]) -> bool:
    return any("text/html" in answer.get("content", {}) for answer in operation["responses"].values())


def _pages(some: list[tuple[str, str, dict[str, Any]]]) -> str:
    rows = [(code(path), operation["summary"]) for _, path, operation in some]
    return table(("page", "shows"), rows)


def _operations(some: list[tuple[str, str, dict[str, Any]]], shared: dict[str, dict[str, Any]]) -> Iterator[str]:
    for method, path, operation in some:
        yield f"### `{method.upper()} {path}`"
        yield _sentence(operation["summary"]) + (
            f" {flat(operation['description'])}" if "description" in operation else ""
        )
        given = operation.get("parameters", [])
        filters = [each for each in given if _said(each) == _said(shared.get(each["name"], {}))]
        yield _parameters(each for each in given if each not in filters)
        if filters:
            yield "Filters: " + ", ".join(code(each["name"]) for each in filters) + "."
        if "requestBody" in operation:
            yield f"Body: {_content(operation['requestBody'])}."
        good, answer = next((status, each) for status, each in operation["responses"].items() if status < "3")
        yield f"Answers {good}: {_content(answer) or 'nothing'}."


def _sentence(text: str) -> str:
    return flat(text) if text.endswith(".") else f"{flat(text)}."


def _parameters(told: Iterable[dict[str, Any]]) -> str:
    return filled(PARAMETERS, [_parameter(each) for each in told])


def _parameter(told: dict[str, Any]) -> tuple[str, str, str, str]:
    schema = told.get("schema", {})
    default = "required" if told.get("required") else code(json.dumps(schema["default"])) if "default" in schema else ""
    kind = _type(schema).removesuffix(" or null")  # a parameter that is left out
    return code(told["name"]), told.get("description", ""), kind, default


def _content(told: dict[str, Any]) -> str:
    return " or ".join(
        _type(content["schema"]) if kind == "application/json" else code(kind)
        for kind, content in told.get("content", {}).items()
    )


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words; other shapes by their name, linked."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{slug(name)})"
    if "oneOf" in schema:
        return " or ".join(dict.fromkeys(_type(each) for each in schema["oneOf"]))
    if "enum" in schema:
        return ", ".join(code(json.dumps(each)) for each in schema["enum"])
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def _shapes(schemas: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        yield f"### {name}"
        if "description" in schema:
            yield flat(schema["description"])
        required = schema.get("required", ())
        rows = [
            (code(member), told.get("description", ""), _type(told), "yes" if member in required else "")
            for member, told in schema.get("properties", {}).items()
        ]
        yield filled(("member", "meaning", "type", "required"), rows)
