"""What has been told and what is on its way, in `<data_dir>/alerts.json`: one process writes it."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import msgspec

from taximeter.alerts.rule import State
from taximeter.node.replacing import replace_file

log = logging.getLogger("taximeter.alerts")


class Book:
    """The file. Blocking (it is small): call in a thread."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "alerts.json"

    def read(self) -> State:
        """What is remembered; of a file that cannot be read nothing, which is logged: alerts may then come twice."""
        try:
            return _decode(self.path.read_bytes())
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, RecursionError) as error:
            log.error("%s: cannot be read, alerts may come twice: %s", self.path, error)
            with contextlib.suppress(OSError):
                self.path.replace(self.path.with_suffix(".broken"))
            return State()

    def write(self, body: bytes) -> None:
        """Replace the file (mode 0600) by what `encoded` made, durable before it returns. Raises DataDirError."""
        replace_file(self.path, body)


def encoded(state: State) -> bytes:
    """The state as it stands now."""
    return msgspec.json.format(msgspec.json.encode(state), indent=1)


_decode = msgspec.json.Decoder(State).decode
