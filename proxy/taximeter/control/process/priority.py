"""How the control process runs beside the workers: behind them where they share a core, and without looking for
garbage at every few hundred objects."""

from __future__ import annotations

import contextlib
import gc
import os

NICENESS = 5
"""Of a core a worker would fill alone, this leaves a quarter: more than delivery of what it handles takes. With +10 it
were a tenth, and the journal would grow."""


def give_way() -> None:
    """Let calls go before delivery and queries. To be called before there are threads: they inherit it."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    if hasattr(os, "sched_setscheduler"):
        with contextlib.suppress(OSError):  # a batch does not interrupt the call that is being handled, either
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def freeze() -> None:
    """Everything is imported and made: the collector need not look at it again, nor often at records, which leave no
    cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def thaw() -> None:
    """Something that was made at start is replaced: let it be looked at, or it would stay for ever."""
    gc.unfreeze()
