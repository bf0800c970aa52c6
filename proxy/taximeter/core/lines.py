"""The journal's lines as values: what is written when a file begins, a call opens, ticks and closes, and at the end."""

from __future__ import annotations

import msgspec

from taximeter.core.record import Open, Record

SCHEMA = 1


class Header(msgspec.Struct, kw_only=True):
    """First line of a journal file."""

    schema: int
    journal_id: str
    node: str
    worker: str
    started_at: int
    """µs since epoch, UTC, as every time in the journal."""
    boot: str = ""
    """Between which two starts of its machine it was begun (`journal.machine`); "": not known."""


class Tick(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A call's progress, or the most it may use: what is known should the worker die now."""

    request_id: str
    attempt: int = 1
    at: int
    response_bytes: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    bound_tokens: int | None = None
    """The most it may use, held of its hard budgets. Only a call that has such a tick may have been sent under one."""
    bound_cost_nusd: int | None = None
    bound_output_tokens: int | None = None
    bound_audio_ms: int | None = None


class End(msgspec.Struct, kw_only=True):
    """Last line of a journal file: nothing is open, nothing will follow."""

    seq: int
    at: int


class Cut(msgspec.Struct, kw_only=True):
    """The machine lost power, and with it the end of this file: it goes on from here, by delivery (`journal.mend`)."""

    seq: int
    """Numbers up to this one have been given; those whose records are not in the file are lost."""
    at: int


class Line(msgspec.Struct, omit_defaults=True):
    """Any journal line: exactly one member is set."""

    journal: Header | None = None
    open: Open | None = None
    tick: Tick | None = None
    close: Record | None = None
    end: End | None = None
    cut: Cut | None = None
