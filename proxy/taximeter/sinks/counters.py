"""The Redis counters (being written)."""

from taximeter.sinks.ledger import Cell, Ledger, LedgerSnapshot, Standing, TrackCell

__all__ = ["Cell", "Ledger", "LedgerSnapshot", "Standing", "TrackCell"]
