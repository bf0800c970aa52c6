"""`export --by`: the groups of the usage API, however many, to a file."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple, get_args

from taximeter.cli.backend import Backend
from taximeter.cli.database import Database, filters_of
from taximeter.cli.proxy import Params, Proxy
from taximeter.cli.show import count, echo
from taximeter.cli.targets import target
from taximeter.control.answers.grouped import KINDS, GroupsFile, Kind
from taximeter.core.errors import BadRequest
from taximeter.sinks.query import GROUPS, Window, checked

WINDOWS: tuple[Window, ...] = get_args(Window)
_NO_ROWS = {"json": 2, "csv": 1, "jsonl": 0}
"""Lines of a file that are none: its columns, its totals."""


class Sums(NamedTuple):
    """What is to be written."""

    by: tuple[str, ...]
    window: Window | None
    kind: str


def write(backend: Backend, params: Params, asked: Sums, output: str, *, as_json: bool) -> None:
    """To `output`, which is whole or not there. Raises BadRequest on a kind of file that holds no groups."""
    kind: Kind | None = next((each for each in KINDS if each == asked.kind), None)
    if kind is None:
        raise BadRequest(f"Sums are written as {', '.join(KINDS)}, and not as {asked.kind}.")
    with target(output) as file:
        if isinstance(backend, Proxy):
            rows = _download(backend, params, asked, kind, file)
        else:
            rows = _dump(backend, params, asked, kind, file)
    if as_json:
        echo(f'{{"rows":{rows}}}', err=output == "-")
    elif output != "-":
        echo(f"{count(rows)} row{'' if rows == 1 else 's'} written to {output}", err=True)


def _download(backend: Proxy, params: Params, asked: Sums, kind: Kind, file: BinaryIO) -> int:
    window = {} if asked.window is None else {"window": [asked.window]}
    lines = 0
    with backend.stream(f"/usage/groups.{kind}", {**params, **window, "group_by": asked.by}) as answer:
        for chunk in answer.iter_bytes():
            file.write(chunk)
            lines += chunk.count(b"\n")
    return lines - _NO_ROWS[kind]


def _dump(backend: Database, params: Params, asked: Sums, kind: Kind, file: BinaryIO) -> int:
    filters, names = filters_of(params), checked(asked.by)
    groups = GroupsFile(kind, filters, names, windowed=asked.window is not None)
    file.write(groups.begin())
    for some in backend.reader.parts(filters, names, asked.window, params["tz"][0] if "tz" in params else "UTC"):
        file.write(groups.part(some))
    file.write(groups.end())
    return groups.rows


__all__ = ["GROUPS", "WINDOWS", "write"]
