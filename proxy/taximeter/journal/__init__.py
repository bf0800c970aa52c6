"""The journal: the truth every number is a projection of, and the only file format we own (DESIGN §4)."""

from taximeter.journal.adopt import adopt
from taximeter.journal.file import JournalFile
from taximeter.journal.write import Journal

__all__ = ["Journal", "JournalFile", "adopt"]
