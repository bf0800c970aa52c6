"""The webhook and /metrics."""

from __future__ import annotations

from simulation.sown.mutant import Mutant

MUTANTS = (
    Mutant("the webhook's cursor stays behind", "sinks.webhook.store:Store.apply",
           '"upto": seq}', '"upto": 0}'),
    Mutant("a letter that was not taken is forgotten", "sinks.webhook.store:Store.finish",
           "for one in told if not one.problem]", "for one in told]"),
    Mutant("a segment's sums go into the next one too", "sinks.webhook.store:Store._cut",
           "connection.execute(statements.DELETE_SUMS, names)", "pass"),
    Mutant("a letter that was refused once is given up", "sinks.webhook.store:Store.finish",
           '"given_up": one.dead', '"given_up": True'),
    Mutant("/metrics begins with what history had", "sinks.prometheus.cells:Metrics.cursors",
           "self._at = dict(found)", "self._at = dict.fromkeys(found, 0)"),
    Mutant("/metrics times what was refused", "sinks.prometheus.cells:_Fresh.add",
           "if record.outcome is not Outcome.REFUSED:", "if True:"),
    Mutant("/metrics counts a group as one request", "sinks.prometheus.cells:_Fresh.add",
           "self.cell[slot] += len(group.records)", "self.cell[slot] += 1"),
    Mutant("a segment names no model", "sinks.webhook.store:Store._add_up",
           "operation, model = record.operation.value, clean(record.model)",
           "operation, model = record.operation.value, ''"),
)  # fmt: skip
