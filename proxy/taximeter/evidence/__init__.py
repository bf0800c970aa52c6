"""Evidence that history is what was delivered: a chain of hashes for each journal, signed roots over all of them, and
what checks both, offline too (docs/evidence.md). Nothing here is on a call's way; delivery hashes what it has read.
"""
