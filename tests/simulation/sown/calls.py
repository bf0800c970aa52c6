"""A call's way, and its key."""

from __future__ import annotations

from simulation.sown.mutant import Mutant

MUTANTS = (
    Mutant("an answer leaves before its record", "gateway.relay:Relay._pass_on",
           "if not call.closed:\n        call.settle_if_known(reading, left=exchange.left and not delivered)",
           "if False:\n        call.settle_if_known(reading, left=exchange.left and not delivered)"),
    Mutant("a call whose client leaves is not settled", "gateway.ending:end",
           "await count_and_settle(call, outcome, code)", "pass"),
    Mutant("a cut stream's figures are the last that were read", "gateway.metering.call:take",
           "record.output_tokens = output_tokens", "record.output_tokens = output_tokens + 1"),
    Mutant("a record lacks its key", "gateway.handler:Gateway.__call__",
           "record.key_id, record.workspace = key.id, key.workspace", "record.workspace = key.workspace"),
    Mutant("a proxy key goes on to the provider", "gateway.upstream.upstreams:Upstream.kept",
           "elif (let := screen.header(name, value)) is not None:", "elif let := field[1]:"),
    Mutant("a revoked key opens", "keys.rule:Keys.__init__", "if key.revoked_at:", "if False:"),
)  # fmt: skip
