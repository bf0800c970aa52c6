"""SQL history (SQLite or PostgreSQL): every record once, roll-ups in the same
transaction, and what can be asked of them.

`sink.History` is the sink and, for the control process, the asynchronous reader; `read.Reader` reads a
database directly (CLI). It knows SQL; it must not know HTTP, the journal's files, or other sinks.
"""
