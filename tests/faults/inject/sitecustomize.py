"""Loaded by the interpreters of a node under test; nothing in Taximeter knows of it.

Python imports a module of this name by itself where it is on the path. It makes commits of the history fail right
after they took effect, and lets a process say how many tasks its event loop has.
"""

import asyncio
import os
import signal
import sqlite3

_connect = sqlite3.connect
_commit_fails = os.environ.get("FAULTS_COMMIT_FAILS", "")
_tasks = os.environ.get("FAULTS_TASKS", "")


class _Failing(sqlite3.Connection):
    """Laid over a connection's own class."""

    def commit(self) -> None:
        wrote = self.in_transaction
        super().commit()
        if wrote and os.path.exists(_commit_fails):
            raise sqlite3.OperationalError("disk I/O error (injected after the commit)")


def _tell_tasks(*_: object) -> None:
    """Write the number of this process's tasks into a file named by its pid."""
    try:
        names = [repr(task.get_coro()) for task in asyncio.all_tasks()]
    except RuntimeError:  # no loop is running
        names = []
    draft = os.path.join(_tasks, f"{os.getpid()}.new")
    with open(draft, "w") as file:
        file.write("\n".join(names))
    os.replace(draft, os.path.join(_tasks, str(os.getpid())))


if _commit_fails:
    sqlite3.connect = lambda *args, factory=sqlite3.Connection, **named: _connect(
        *args, factory=type(factory.__name__, (_Failing, factory), {}), **named
    )
if _tasks:
    signal.signal(signal.SIGUSR2, _tell_tasks)
