"""`export --monthly`: files by month, made of a history database that is read here."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from taximeter.cli.backend import Backend
from taximeter.cli.database import Database, filters_of
from taximeter.cli.proxy import Params, running_at
from taximeter.cli.show import count, echo
from taximeter.core.errors import BadRequest
from taximeter.exports.monthly import Kind, export, months_before
from taximeter.exports.places import place

if TYPE_CHECKING:
    from taximeter.sinks.history.read.reader import Reader

USUAL: tuple[Kind, ...] = ("parquet", "focus")
_SAID = {
    "written": "written, {}",
    "kept": "is as history is, {}",
    "nothing": "no calls",
    "busy": "left as it is: more of that month came each time that it was made; again later",
    "gone": "left as it is: history has the sums of that month, but no longer all of its records",
}


def bring(backend: Backend, params: Params, where: str, kinds: tuple[Kind, ...], *, as_json: bool) -> None:
    """Bring the files to what history has; a line each. Raises BadRequest, ConfigError, CannotExport."""
    from msgspec.json import encode
    from msgspec.structs import replace

    from taximeter.config import load
    from taximeter.control.services.corrections import prices_now
    from taximeter.control.services.exporting import MONTHS_BACK, writers

    asked, now_us = filters_of(params), time.time_ns() // 1_000
    end_us = now_us if asked.to_us is None else min(asked.to_us, now_us)
    first_us = months_before(end_us, MONTHS_BACK) if asked.from_us is None else asked.from_us
    whole, kinds = replace(asked, from_us=None, to_us=None), kinds or USUAL
    to = place(where)
    with ExitStack() as stack:
        reader = _reader(backend, stack)
        made = writers(reader, prices_now(load(None)).find if "focus" in kinds else lambda record: None)
        for done in export(reader, to, made, kinds, whole, first_us, end_us, now_us=now_us):
            if as_json:
                echo(encode(done._asdict()).decode())
            else:
                echo(f"{done.name}: {_SAID[done.what].format(_records(done.records))}")


def _reader(backend: Backend, stack: ExitStack) -> Reader:
    """Of the database that was named, or of the one that the proxy running here writes."""
    if isinstance(backend, Database):
        return backend.reader
    from taximeter.config import load

    settings = load(None)
    if running_at(settings) != backend.url:
        raise BadRequest("--monthly reads the history database itself: name it with --history.")
    url = settings.history.url or f"sqlite:///{settings.data_dir}/history.db"
    return stack.enter_context(closing(Database(url))).reader


def _records(number: int) -> str:
    return "1 record" if number == 1 else f"{count(number)} records"
