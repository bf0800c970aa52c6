"""How every process of ours logs: one line an entry, and nothing in it that a reader's terminal would act on.

Names and error texts from outside stand in messages and in tracebacks. What they hold of line breaks, escape sequences
and bidi marks is spelled out. In text, lines after an entry's first begin with `_MORE`, as no entry does: none can be
forged. In JSON an entry is one object in one line, whatever is in it; its members are those of `Json`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import warnings
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from taximeter.core.visible import visible, visible_json

if TYPE_CHECKING:
    from taximeter.config.settings import LogSettings

_MORE = "  | "
FIELDS = "fields"
"""`extra={FIELDS: {…}}`: further members of an entry, which text leaves to the message."""


class Plain(logging.Formatter):
    """One line an entry; the lines of its traceback, if it has one, are marked as going on."""

    def format(self, record: logging.LogRecord) -> str:
        record.message = visible(record.getMessage().rstrip("\n"))
        record.asctime = moment(record)
        lines = [self.formatMessage(record)]
        if record.exc_info:
            lines += _marked(self.formatException(record.exc_info))
        if record.stack_info:
            lines += _marked(record.stack_info)
        return "\n".join(lines)


class Json(logging.Formatter):
    """An object a line: `time`, `level`, `process`, `pid`, `logger`, `message`; `exception` where there is one; what
    the entry brings in FIELDS (a call's figures under `call`)."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": moment(record),
            "level": record.levelname.lower(),
            "process": getattr(record, "process_name", self._process),
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage().rstrip("\n"),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = record.stack_info
        entry |= getattr(record, FIELDS, {})
        return visible_json(json.dumps(entry, ensure_ascii=False, default=str))


SELDOM = {"seldom": True}
"""`extra=SELDOM`: of entries with the same text, as requests have that an outage fails, one a SELDOM_S is written."""
SELDOM_S = 60.0
_MOST_TEXTS = 100


class Seldom(logging.Filter):
    """Leaves out what was said a moment ago, of entries that ask for that."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "seldom", False):
            return True
        text = record.getMessage()
        if record.created - self._said.get(text, float("-inf")) < SELDOM_S:
            return False
        if len(self._said) >= _MOST_TEXTS:
            del self._said[next(iter(self._said))]
        self._said[text] = record.created
        return True


def moment(record: logging.LogRecord) -> str:
    """When the entry was made: RFC 3339, UTC, with milliseconds."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log_to_stderr(name: str, settings: LogSettings | None = None) -> None:
    """Log with the process's name, warnings and what ends the process included; again: as these settings say.

    None, until they are known: text, from `info` on.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Seldom())
    as_json = settings is not None and settings.format == "json"
    handler.setFormatter(Json(name) if as_json else Plain(f"%(asctime)s %(levelname)s {name}: %(message)s"))
    level = settings.level.upper() if settings is not None else "INFO"
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLogger().level))
    logging.captureWarnings(True)
    warnings.formatwarning = _one_line
    sys.excepthook = _ends
    threading.excepthook = _thread_ends
    sys.unraisablehook = _unraisable


class Printed(io.TextIOBase):
    """In place of standard output: what a library prints there becomes entries, a line each."""

    def __init__(self) -> None:
        self._held = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._held = (self._held + text[:_MOST_PRINTED]).split("\n")
        for line in filter(str.strip, lines):
            logging.getLogger("taximeter.printed").info("%s", line)
        self._held = self._held[-_MOST_PRINTED:]
        return len(text)


_MOST_PRINTED = 64 * 1024


_TALKATIVE = ("asyncio", "httpcore2", "httpx2", "hpack", "litestar", "opentelemetry", "urllib3")
"""Libraries that would fill the log with what says nothing of Taximeter; only their warnings are told. httpx2 says at
"info" each URL that it calls, a billing webhook's with the password in it."""


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{os.path.basename(filename)}:{lineno}: {category.__name__}: {message}"  # noqa: PTH119 - no pathlib here


def warn_plainly() -> None:
    """Where nothing is set up (a verb of the command): warnings go to stderr as they are, but in one line."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Plain("%(message)s"))


def _ends(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        logging.getLogger("taximeter").critical("This process ends by a fault", exc_info=(kind, error, traceback))


def _thread_ends(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None and not isinstance(told.exc_value, SystemExit):
        name = told.thread.name if told.thread is not None else "?"
        what = (told.exc_type, told.exc_value, told.exc_traceback)
        logging.getLogger("taximeter").error("The thread %s ended by a fault", name, exc_info=what)


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    what = None if told.exc_value is None else (told.exc_type, told.exc_value, told.exc_traceback)
    logging.getLogger("taximeter").error("%s in %r", told.err_msg or "A fault", told.object, exc_info=what)


def _marked(text: str) -> list[str]:
    return [_MORE + visible(line) for line in text.rstrip("\n").split("\n")]
