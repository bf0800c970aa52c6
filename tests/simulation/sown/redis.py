"""Counters in Redis, and their rebuild."""

from __future__ import annotations

from simulation.sown.mutant import Mutant

MUTANTS = (
    Mutant("the script does not look at the cursor", "sinks.redis.counters:_APPLY",
           "if cursor ~= ARGV[4] or tonumber(cursor) >= tonumber(ARGV[5]) then", "if false then"),
    Mutant("the script does not move the cursor", "sinks.redis.counters:_APPLY",
           "redis.call('HSET', KEYS[2], ARGV[3], ARGV[6])", ""),
    Mutant("a rebuild forgets tracks", "sinks.redis.rebuild:_writes",
           "for track, of in ledger.tracks.items():", "for track, of in dict(()).items():"),
    Mutant("the watermark rises before the count", "sinks.redis.counters:Counters._deliver",
           "await self._count(list(parts.values()))\n"
           "    await self._raise_watermarks({j: seq for j, seq in reached.items() if seq > positions.at[j]})",
           "await self._raise_watermarks({j: seq for j, seq in reached.items() if seq > positions.at[j]})\n"
           "    await self._count(list(parts.values()))"),
    Mutant("a batch that was counted in part is taken for counted", "sinks.redis.positions:WorkspaceBatch.cut_again",
           "> int(actual)]", "> self.last]"),
    Mutant("after a failure Redis is believed to be where it was", "sinks.redis.positions:Positions.doubt",
           "self.in_doubt = True", "pass"),
    Mutant("a Redis that went back is not noticed", "sinks.redis.positions:Positions._verify",
           "if seq < known.cursors[j]}", "if False}"),
    Mutant("a Redis that was emptied is not noticed", "sinks.redis.positions:Positions.locate",
           "if not generation:", "if False:"),
    Mutant("a watermark that another node moved back is noticed of the journals asked about only",
           "sinks.redis.positions:Positions.locate", "not self.in_doubt and (generation", "False and (generation"),
    Mutant("a journal that nobody has any more is waited for", "sinks.redis.audit:Auditor._fine",
           "if ahead and await self._is_coming(ahead):", "if ahead:"),
    Mutant("a rebuild leaves the watermarks up", "sinks.redis.rebuild:Rebuilder._one",
           "await self._lower(ledger.cursors, before)", "pass"),
    Mutant("a rebuild writes no cursors", "sinks.redis.rebuild:Rebuilder._one",
           '_Write(f"{prefix}cursor", cursors)', '_Write(f"{prefix}cursor", [])'),
    Mutant("a rebuild does not stop others' counting", "sinks.redis.rebuild:_REBUILD",
           "if redis.call('GET', KEYS[1]) ~= ARGV[1] then", "if false then"),
    Mutant("a workspace's sums lack its tracks", "sinks.redis.cells:Sums.add",
           "if record.track is not None:", "if False:"),
    Mutant("lost sums are taken for a new workspace", "sinks.redis.positions:Positions.meet",
           "(not generation and not added)", "False"),
    Mutant("sums never expire", "sinks.redis.counters:_APPLY", "redis.call('EXPIREAT', key, cell.expires[k])", ""),
    Mutant("a day's sums that are written anew go with its hours", "sinks.redis.rebuild:_writes",
           "keys.periods(keys.hour_of(day))[3]", "keys.periods(keys.hour_of(day))[4]"),
    Mutant("sums that were never written are believed to expire", "sinks.redis.cells:Sums.expiring",
           "return key, expires", "self.expiries[key] = expires\n    return key, expires"),
    Mutant("what a call held is let go twice", "sinks.redis.counters:_APPLY",
           "    let_go(held, each[2])", "    let_go(held, each[2]) let_go(held, each[2])"),
    Mutant("a call counts in the period in which it began", "sinks.redis.budgeted:add_tallies",
           "record.ended_at // _US", "record.started_at // _US"),
    Mutant("a dead worker's calls count as calls at once", "sinks.redis.freed:free", "if dead:", "if False:"),
    Mutant("a rebuild takes rates along", "sinks.redis.rebuild:Rebuilder._stale",
           "rest not in _KEPT and not rest.startswith(_KEPT_OF_MANY)",
           "rest not in _KEPT[:-1] and not rest.startswith(keys.CAP)"),
)  # fmt: skip
