"""Where a verb writes to: standard output, or a file that is whole or not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from taximeter.core.errors import TaximeterError


@contextmanager
def target(output: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that takes its name when all is written and leaves nothing when it fails."""
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    fresh = path.with_name(f"{path.name}.part")
    try:
        with fresh.open("wb") as file:
            yield file
        fresh.replace(path)
    except OSError as error:
        raise TaximeterError(f"{output}: cannot be written: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)
