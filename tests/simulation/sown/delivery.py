"""Delivery: what is read, and who gets it."""

from __future__ import annotations

from simulation.sown.mutant import Mutant

MUTANTS = (
    Mutant("recovery does not read to the end first", "delivery.files:JournalFiles._settle_locked",
           "_read_on(feed, read)  # what", "pass  # what"),
    Mutant("a batch begins with the record before it", "delivery.feed:Feed._from_memory", "> after]", ">= after]"),
    Mutant("what fell out of memory is read from too far behind", "delivery.feed:Feed._from_file",
           "self._marks[place - 1]", "self._marks[place]"),
    Mutant("a file is removed before every sink has it", "delivery.files:JournalFiles.remove_delivered",
           "if not all(_has_all(shipper, feed) for shipper in durable):", "if False:"),
    Mutant("a sink is not asked again before a file is removed", "delivery.files:JournalFiles.remove_delivered",
           "elif not feed.leaving:", "elif False:"),
    Mutant("a sink that went back is asked with the next record only", "delivery.shipper:Shipper._step",
           "time.monotonic() >= self._ask_at", "False"),
    Mutant("an ended file is not read after a start though its last record is missing",
           "delivery.files:JournalFiles.skip_known", "feed, end.seq)", "feed, end.seq - 1)"),
    Mutant("an ended file is not read after a start", "delivery.files:JournalFiles.skip_known",
           "all(_has_all(shipper, feed, end.seq) for shipper in self.shippers)", "True"),
    Mutant("a file that a power loss made shorter is taken for a copy", "delivery.files:JournalFiles.may_be_short",
           "return not feed.ended", "return False"),
    Mutant("a sink that went back is not sent again what it lacks", "delivery.shipper:Shipper._ask",
           "feed.cursors[self.name] = cursors.get(feed.journal_id, 0)",
           "feed.cursors[self.name] = max(feed.cursors.get(self.name, 0), cursors.get(feed.journal_id, 0))"),
)  # fmt: skip
