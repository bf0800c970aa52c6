"""What is billed later, corrections, statements."""

from __future__ import annotations

from simulation.sown.mutant import Mutant

MUTANTS = (
    Mutant("what polls tell is not written down", "gateway.metering.polls:Teller.__call__",
           "self._journal.add(told_record(self._record, told, time.time_ns() // 1_000))", "pass"),
    Mutant("what is settled is settled again", "sinks.history.read.owed:unsettled", "of.settled.is_(False), ", ""),
    Mutant("a settlement that arrived is not noted", "sinks.history.write.owed:_settled",
           '.values(settled=True, told="")', ".values(settled=of.settled)"),
    Mutant("an object is settled before its lines are read", "sinks.history.read.owed:unsettled",
           '(of.line != "") | ~exists(_unread(of))', "of.at >= 0"),
    Mutant("whoever tells of an object settles it", "sinks.history.read.owed:_same",
           "mine.workspace == theirs.workspace", "mine.workspace >= ''"),
    Mutant("a settlement is on no track", "core.deferred:settlement", "track=asked.track,", "track=None,"),
    Mutant("a settlement lets go nothing", "core.deferred:settlement",
           "if known and not of_line else settled", "if False else settled"),
    Mutant("it is settled before what was settled has arrived", "control.services.corrections:Corrections._up_to_date",
           'if not (await self._delivery.drain(DRAIN_S, ("history",))).complete:', "if False:"),
    Mutant("an object's settlement leaves it outstanding", "sinks.history.write.owed:_settled",
           "if not line:", "if False:"),
    Mutant("what collecting tells is not written down", "collecting.collector:_Teller.__call__",
           "self._write(told_record(self._record, told, self._now_us()))", "pass"),
    Mutant("corrections of before are not looked at", "control.services.reprice:_one",
           "(record.cost_nusd, None if so_far is None else so_far[0])", "(record.cost_nusd,)"),
    Mutant("a settlement's price is not corrected", "control.services.reprice:reprice",
           "if corrected is not None and write is not None:",
           "if corrected is not None and write is not None and record.line is None:"),
    Mutant("whoever has not claimed it settles it", "sinks.history.read.owed:unsettled", "of.node == node,",
           "of.node >= '',"),
    Mutant("what was corrected is stated again", "billing.books:Books._made", "stated[each.number] = missing", "pass"),
    Mutant("a correction is in no line of its statement", "billing.books:Books._made",
           "lines += making.corrections(missing, by, same, each.number)", "pass"),
    Mutant("what a node that leaves has read last is not settled", "control.process.course:_give_back",
           "while await parts.owed.settle():", "while False:"),
    Mutant("a node that leaves keeps its slices", "control.process.course:_give_back", "all_counted=True", ""),
    Mutant("a settlement counts in the period in which it was told", "core.deferred:settlement",
           "ended_at=asked.ended_at,", "ended_at=told.ended_at,"),
    Mutant("a settlement is of no end user", "core.deferred:settlement", "end_user=asked.end_user,", "end_user=None,"),
    Mutant("a settlement is of the task that told of it", "core.deferred:settlement",
           "task=asked.task,", "task=told.task,"),
)  # fmt: skip
