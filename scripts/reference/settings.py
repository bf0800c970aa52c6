"""docs/reference/settings.md: every setting with its variable, default, what is allowed and what it does."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import msgspec
from msgspec import inspect as types

from reference.markdown import code, flat, page, table
from taximeter.config import Settings, settings

INTRO = """\
Every setting, as `taximeter check` understands it. A settings file may say only what differs from the defaults;
[the annotated file](../../config/taximeter.toml) shows them all at once. The environment wins over the file. Lists and
tables can be given whole, as JSON or as a TOML value: `TAXIMETER_UPSTREAM='[{"name": "openai"}]'`. How the file is
found and what is refused: [Running Taximeter](../operations.md#settings)."""
HEAD = ("setting", "meaning", "default", "allowed")


def settings_page() -> str:
    """The page. Raises LookupError for a setting that nothing is written about."""
    docs = docstrings(settings)
    info = types.type_info(Settings)
    assert isinstance(info, types.StructType)  # noqa: S101 - what `Settings` is
    sections = [field for field in info.fields if _section(field.type)]
    top = [field for field in info.fields if not _section(field.type)]
    parts = [INTRO, "## At the top of the file", _table(Settings, top, "", docs)]
    for field in sections:
        parts += list(_of_section(field, docs))
    return page("Settings", *parts)


def docstrings(module: ModuleType) -> dict[str, str]:
    """`Class.field` -> the text below the field, on one line, of every class of a module."""
    found: dict[str, str] = {}
    for kind in ast.parse(inspect.getsource(module)).body:
        if not isinstance(kind, ast.ClassDef):
            continue
        for field, below in zip(kind.body, kind.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _text(below):
                found[f"{kind.name}.{field.target.id}"] = flat(_text(below))
    return found


def _text(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return ""


def _section(kind: types.Type) -> type[Any] | None:
    """The struct of a table or of a list of tables."""
    if isinstance(kind, types.ListType):
        kind = kind.item_type
    return kind.cls if isinstance(kind, types.StructType) else None


def _of_section(field: types.Field, docs: dict[str, str], path: str = "") -> Iterator[str]:
    cls = _section(field.type)
    assert cls is not None  # noqa: S101 - only sections come here
    name = f"{path}{field.name}"
    many = isinstance(field.type, types.ListType)
    variable = f"TAXIMETER_{name.replace('.', '__')}".upper() + ("__0" if many else "")
    info = types.type_info(cls)
    assert isinstance(info, types.StructType)  # noqa: S101
    yield f"## `[[{name}]]`" if many else f"## `[{name}]`"
    yield f"{_about(cls)} In the environment: `{variable}__…`.".strip()
    yield _table(cls, [each for each in info.fields if not _section(each.type)], f"{name}.", docs)
    for each in info.fields:
        if _section(each.type):
            yield from _of_section(each, docs, f"{name}.")


def _about(cls: type[Any]) -> str:
    text = flat(cls.__doc__ or "")
    return text if text.endswith((".", ")")) else f"{text}."


def _table(cls: type[Any], fields: list[types.Field], path: str, docs: dict[str, str]) -> str:
    rows = []
    for field in fields:
        about = docs.get(f"{cls.__name__}.{field.name}")
        if not about:
            raise LookupError(f"config/settings.py says nothing below {cls.__name__}.{field.name}")
        rows.append((code(field.name), about, _default(field), _allowed(field.type, field.default)))
    return table(HEAD, rows)


def _default(field: types.Field) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    shown = code(json.dumps(value))
    return f"{shown} ({_bytes(value)})" if field.name.endswith("_bytes") else shown


def _bytes(value: int) -> str:
    return f"{value // 2**20} MiB" if value % 2**20 == 0 else f"{value // 2**10} KiB"


def _allowed(kind: types.Type, default: object = None) -> str:
    """`default` first, where names are allowed."""
    match kind:
        case types.BoolType():
            return "`true`, `false`"
        case types.LiteralType(values=values):
            return ", ".join(code(json.dumps(value)) for value in sorted(values, key=lambda value: value != default))
        case types.IntType() | types.FloatType():
            return _bounds(kind)
        case types.ListType(item_type=item):
            return f"list: {_allowed(item)}"
        case types.UnionType():
            return "amount of USD, ≥ 0, ≤ 1,000,000, at most 9 decimals"
        case types.DictType():
            return "table: text = text"
        case _:
            return "text"


def _bounds(kind: types.IntType | types.FloatType) -> str:
    what = "whole number" if isinstance(kind, types.IntType) else "number"
    low = f"≥ {_number(kind.ge)}" if kind.ge is not None else f"> {_number(kind.gt)}" if kind.gt is not None else ""
    high = f"≤ {_number(kind.le)}" if kind.le is not None else ""
    return ", ".join(part for part in (what, low, high) if part)


def _number(value: float | None) -> str:
    return f"{value:,.10g}"
