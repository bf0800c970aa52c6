"""Forms of what can be made: a field for every member of what the API takes, and its answer's problem beside the field.

The rules are the API's: a form is read into the same struct, and what that or the store refuses names the member. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from taximeter.core.errors import BadRequest

T = TypeVar("T", bound=msgspec.Struct)

_where = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$").search


class Field(msgspec.Struct, kw_only=True):
    """One field of a form."""

    name: str
    words: str
    value: str
    options: tuple[str, ...] = ()
    """What there is to choose from; empty: it is typed."""
    hint: str = ""
    required: bool = False
    problem: str = ""


def fields(
    kind: type[msgspec.Struct], given: Mapping[str, str], hints: Mapping[str, str], problem: BadRequest | None = None
) -> list[Field]:
    """The fields of a form, filled with what was given. A problem of no field stands beside the first."""
    types = get_type_hints(kind)
    found = [_field(each, types[each.name], given, hints) for each in msgspec.structs.fields(kind)]
    if problem is not None:
        at = next((field for field in found if field.name == problem.param), found[0])
        at.problem = problem.message
    return found


def read(kind: type[T], given: Mapping[str, str]) -> T:
    """What was filled in. Raises BadRequest naming the field."""
    types = get_type_hints(kind)
    filled: dict[str, Any] = {}
    for each in msgspec.structs.fields(kind):
        text = given.get(each.name, "").strip()
        if text or each.required:
            filled[each.name] = _several(text) if get_origin(types[each.name]) is list else text
    try:
        return msgspec.convert(filled, kind, strict=False)
    except msgspec.ValidationError as error:
        said = str(error)
        found = _where(said)
        name = re.split(r"[.\[]", found["path"])[0] if found else None
        words = said[: found.start()] if found else said
        raise BadRequest(f"{_EXPLAINED.get(name or '', '')}{words}.", param=name or None) from error


_EXPLAINED = {"limit": "The limit is a number. "}


def _field(each: Any, hint: Any, given: Mapping[str, str], hints: Mapping[str, str]) -> Field:
    options = tuple(str(value) for value in get_args(hint)) if get_origin(hint) is Literal else ()
    usual = "" if each.required or each.default in (msgspec.NODEFAULT, None) else str(each.default)
    return Field(
        name=each.name,
        words=each.name.replace("_", " "),
        value=given.get(each.name, usual),
        options=options,
        hint=hints.get(each.name, ""),
        required=bool(each.required),
    )


def _several(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
