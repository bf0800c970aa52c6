"""One line an entry, and nothing in it that could be taken for another entry or that a terminal would act on."""

from __future__ import annotations

import logging
import sys

from taximeter.node.logs import Plain

ODD = "a\x1b[31m\r\n2026-01-01 00:00:00,000 INFO worker 1: forged\u202e\u2028"


def formatted(message: str, *args: object, error: BaseException | None = None) -> list[str]:
    told = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord("taximeter", logging.ERROR, __file__, 1, message, args, told)
    record.stack_info = f"Stack:\n  {ODD}" if error is not None else None
    return Plain("%(asctime)s %(levelname)s worker 1: %(message)s").format(record).split("\n")


def test_an_entry_is_one_line_with_odd_characters_spelled_out() -> None:
    (line,) = formatted("no price for %s\n", ODD)
    assert line.endswith(
        r"worker 1: no price for a\x1b[31m\r\n2026-01-01 00:00:00,000 INFO worker 1: forged\u202e\u2028"
    )


def test_a_traceback_goes_on_in_marked_lines() -> None:
    try:
        raise ValueError(ODD)
    except ValueError as error:
        first, *rest = formatted("failed", error=error)
    assert first.endswith("worker 1: failed")
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)
    assert any(line.startswith("  | ValueError: a") for line in rest)
    assert sys.exc_info() == (None, None, None)
