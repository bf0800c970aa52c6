"""`export --format focus`: charges as FOCUS has them, from a running proxy or made here of a history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from taximeter.cli.backend import Backend
from taximeter.cli.database import Database, filters_of
from taximeter.cli.proxy import Params, Proxy
from taximeter.cli.show import count, echo
from taximeter.cli.targets import target
from taximeter.exports import focus
from taximeter.exports.lines import csv_line


class Asked(NamedTuple):
    """Which charges."""

    version: str
    per: list[str]
    unpriced: bool


def write(backend: Backend, params: Params, asked: Asked, output: str, *, as_json: bool) -> None:
    """Write them, and say of how many calls there are none. Raises BadRequest, TaximeterError."""
    focus.chosen(asked.version, asked.per)
    with target(output) as file:
        make = _download if isinstance(backend, Proxy) else _made
        charges, without = make(backend, params, asked, file)  # type: ignore[arg-type]
    if as_json:
        echo(f'{{"charges":{charges},"unpriced_calls":{without}}}', err=output == "-")
        return
    if output != "-":
        echo(f"{count(charges)} {'rows' if asked.unpriced else 'charges'} written to {output}", err=True)
    if without and not asked.unpriced:
        calls = "call has" if without == 1 else "calls have"
        echo(f"{count(without)} {calls} no cost and no charge here: --unpriced lists what they used.", err=True)


def _download(backend: Proxy, params: Params, asked: Asked, file: BinaryIO) -> tuple[int, int]:
    more = {"version": [asked.version], "per": asked.per} | ({"unpriced": ["true"]} if asked.unpriced else {})
    query = {**params, **{name: values for name, values in more.items() if values}}
    with backend.stream("/usage/export.focus.csv", query) as answer:
        lines = 0
        for chunk in answer.iter_bytes():
            file.write(chunk)
            lines += chunk.count(b"\n")
        return max(lines - 1, 0), int(answer.headers["x-taximeter-unpriced"])


def _made(backend: Database, params: Params, asked: Asked, file: BinaryIO) -> tuple[int, int]:
    from msgspec.structs import replace

    from taximeter.config import load
    from taximeter.control.services.corrections import prices_now

    filters, (version, splits) = filters_of(params), focus.chosen(asked.version, asked.per)
    making = focus.Focus(prices_now(load(None)).find, splits=splits, version=version, unpriced=asked.unpriced)
    so_far: focus.Corrections = {}
    for records in backend.reader.export(replace(filters, kind="correction")):
        focus.corrections(records, so_far)
    file.write(csv_line(making.columns))

    def rows() -> Iterator[focus.Row]:
        for records in backend.reader.export(filters):
            yield from making.add(records, so_far)
        yield from making.end()

    for row in rows():
        file.write(csv_line(row[name] for name in making.columns))
    totals = backend.reader.usage(filters)[0].totals
    return making.charges, totals.unpriced_requests + totals.unknown_requests
