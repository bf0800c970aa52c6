"""How every process of ours logs: one line an entry, and nothing in it that a reader's terminal would act on.

Names and error texts from outside stand in messages and in tracebacks. What they hold of line breaks, escape sequences
and bidi marks is spelled out. Lines after an entry's first begin with `_MORE`, as no entry does: none can be forged.
"""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from taximeter.core.visible import visible

_MORE = "  | "


class Plain(logging.Formatter):
    """One line an entry; the lines of its traceback, if it has one, are marked as going on."""

    def format(self, record: logging.LogRecord) -> str:
        record.message = visible(record.getMessage().rstrip("\n"))
        record.asctime = self.formatTime(record)
        lines = [self.formatMessage(record)]
        if record.exc_info:
            lines += _marked(self.formatException(record.exc_info))
        if record.stack_info:
            lines += _marked(record.stack_info)
        return "\n".join(lines)


def log_to_stderr(name: str) -> None:
    """Log with the process's name, warnings and what ends the process included."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Plain(f"%(asctime)s %(levelname)s {name}: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
    sys.excepthook = _ends


def warn_plainly() -> None:
    """Where nothing is set up (a verb of the command): warnings go to stderr as they are, but in one line."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Plain("%(message)s"))


def _ends(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        logging.getLogger("taximeter").critical("This process ends by a fault", exc_info=(kind, error, traceback))


def _marked(text: str) -> list[str]:
    return [_MORE + visible(line) for line in text.rstrip("\n").split("\n")]
