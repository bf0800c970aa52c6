"""Who writes, and in which start of its machine: a power loss lies between two, the death of a process does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Linux: another random id at each start of the kernel, the same in every container (man 5 proc)."""


class Identity(NamedTuple):
    """Where a writer's files are, and what their headers say."""

    directory: Path
    node: str
    worker: str
    now_us: Callable[[], int]
    boot: str = ""


def boot_id() -> str:
    """The id of this start; "" where the system tells none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def is_earlier(boot: str, now: str) -> bool:
    """Whether the machine was started again since `boot`, as far as is known: another one counts as that, too."""
    return bool(boot and now) and boot != now
