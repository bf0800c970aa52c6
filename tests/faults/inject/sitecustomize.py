"""Loaded by the interpreters of a node under test: a history whose commits fail right after they took effect.

Python imports a module of this name by itself where it is on the path; nothing in Taximeter knows of it.
"""

import os
import sqlite3

_connect = sqlite3.connect
_flag = os.environ.get("FAULTS_COMMIT_FAILS", "")


class _Connection(sqlite3.Connection):
    def commit(self) -> None:
        wrote = self.in_transaction
        super().commit()
        if wrote and os.path.exists(_flag):
            raise sqlite3.OperationalError("disk I/O error (injected after the commit)")


if _flag:
    sqlite3.connect = lambda *args, **named: _connect(*args, factory=_Connection, **named)
