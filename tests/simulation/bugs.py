"""The bugs that are sown to see whether the simulation finds them (`mutants`): one change each."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One bug."""

    name: str
    """What the product does wrong with it."""
    where: str
    """`module:function`, `module:Class.method`, or `module:_SCRIPT` of a Lua script; after `taximeter.`."""
    text: str
    instead: str


MUTANTS = (
    # ── the journal's writer ─────────────────────────────────────────────────────────────────────────────────
    Mutant("a short write is left in the file", "journal.file:JournalFile.write", "self._cut_back(self.fd)", "pass"),
    Mutant("the file's size is not kept", "journal.file:JournalFile.write", "self.size += written", "self.size += 0"),
    Mutant("lines of a refused batch are numbered twice", "journal.batched:BatchedWriter._write_singly",
           "file.seq -= sum", "0 * sum"),
    Mutant("bytes leave before the lines of their turn", "journal.batched:BatchedWriter.end_turn",
           "self.write()\n    after, self._after = self._after, []", "after, self._after = self._after, []"),
    Mutant("a batch of two files writes one of them", "journal.batched:BatchedWriter.write",
           "[one for one in self._gathered if one.file is not file]", "[]"),
    Mutant("a lost record takes a number", "journal.lines:LineWriter.close", "if kept:", "if True:"),
    Mutant("what waited is forgotten though it was refused again", "journal.lines:LineWriter.flush",
           "return False", "pass"),
    Mutant("a close line overtakes those that wait", "journal.lines:LineWriter.close",
           "if self.waiting.concerned:", "if False:"),
    Mutant("calls that are in memory only are not told of", "journal.waiting:Waiting._add",
           "self._unsaved += not entry.saved", "pass"),
    Mutant("a call without any line is not told of", "journal.waiting:Waiting.add_open",
           "self._turned_away.add(call)", "pass"),
    Mutant("losses are not told", "journal.status:StatusFile.tell",
           "elif os.pwrite(self._fd, padded, 0) != len(padded):", "else:"),
    Mutant("a file ends while calls are open in it", "journal.open_files:OpenFiles.end_idle",
           "and not f.calls and not f.waiting", ""),
    Mutant("the end line tells another number", "journal.open_files:OpenFiles._end",
           "End(seq=file.seq,", "End(seq=file.seq + 1,"),
    Mutant("a file taken away is not put back", "journal.open_files:OpenFiles._look_after",
           "self._sync.retire(put_back(file))", "pass"),
    Mutant("a file is put back in part", "journal.files:replace_lost",
           "os.write(copy, piece) != len(piece)", "os.write(copy, piece[:900]) < 0"),
    Mutant("a new file is not locked", "journal.files:create_locked",
           "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"),
    # ── what a dead writer leaves ────────────────────────────────────────────────────────────────────────────
    Mutant("a living writer's file is taken for a dead one's", "journal.files:lock_if_free",
           "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"),
    Mutant("a torn tail is not cut off", "journal.recover:close_open_calls", "os.ftruncate(fd, tail.offset)", "pass"),
    Mutant("recovery numbers from the beginning", "journal.recover:close_open_calls",
           "tail.offset, tail.seq", "tail.offset, 0"),
    Mutant("recovery settles one call", "journal.recover:close_open_calls",
           "in tail.calls.items()", "in list(tail.calls.items())[:1]"),
    Mutant("recovery does not end the file", "journal.recover:close_open_calls",
           "_append(fd, size, encode(Line(end=End(seq=seq, at=now_us))))", "pass"),
    Mutant("recovery settles calls that have ended", "journal.tail:Tail._closed",
           "self.calls.pop((closed.request_id, closed.attempt), None)", "pass"),
    Mutant("recovery does not read to the end first", "delivery.files:JournalFiles._settle_locked",
           "while not feed.halted:", "while False:"),
    # ── delivery ─────────────────────────────────────────────────────────────────────────────────────────────
    Mutant("an unfinished line is read", "journal.tail:Tail._whole_lines", "return data[:cut]", "return data + b'\\n'"),
    Mutant("a batch begins with the record before it", "delivery.feed:Feed._from_memory", "> after]", ">= after]"),
    Mutant("what fell out of memory is read from too far behind", "delivery.feed:Feed._from_file",
           "self._marks[place - 1]", "self._marks[place]"),
    Mutant("a file is removed before every sink has it", "delivery.files:JournalFiles.remove_delivered",
           "if all(_has_all(shipper, feed) for shipper in durable):", "if True:"),
    Mutant("a file is removed with its last record undelivered", "delivery.files:_has_all", ">= seq", ">= seq - 1"),
    Mutant("an ended file is not read after a start", "delivery.files:JournalFiles.skip_known",
           "all(_has_all(shipper, feed, end.seq) for shipper in self.shippers)", "True"),
    Mutant("records that count differently are summed as alike", "sinks.batch:grouped", "r.outcome,", ""),
    # ── history ──────────────────────────────────────────────────────────────────────────────────────────────
    Mutant("history's cursor stays behind", "sinks.history.write.writer:Writer._apply",
           "statements.pass_on(number, batch.upto,", "statements.pass_on(number, batch.after,"),
    Mutant("history's roll-ups are not written", "sinks.history.write.writer:Writer._store",
           "add_to_levels(statements, LEVELS, quarters)", "pass"),
    Mutant("numbers of names outlive their transaction", "sinks.history.write.writer:Writer.apply",
           "self._forget_names()\n        self._partitions.forget()\n        raise", "raise"),
    Mutant("history passes a journal without its records", "sinks.history.write.writer:Writer._apply",
           "taken += [(number, group) for group in batch.groups]",
           "taken += [(number, group) for group in batch.groups[:3]]"),
    # ── Redis ────────────────────────────────────────────────────────────────────────────────────────────────
    Mutant("the script does not look at the cursor", "sinks.redis.counters:_APPLY",
           "if cursor ~= ARGV[4] or tonumber(cursor) >= tonumber(ARGV[5]) then", "if false then"),
    Mutant("the script does not move the cursor", "sinks.redis.counters:_APPLY",
           "redis.call('HSET', KEYS[2], ARGV[3], ARGV[6])", ""),
    Mutant("the script counts in whatever generation", "sinks.redis.counters:_APPLY",
           "elseif generation ~= ARGV[1] then", "elseif false then"),
    Mutant("the watermark rises before the count", "sinks.redis.counters:Counters._deliver",
           "await self._count(list(parts.values()))\n"
           "    await self._raise_watermarks({j: seq for j, seq in reached.items() if seq > positions.at[j]})",
           "await self._raise_watermarks({j: seq for j, seq in reached.items() if seq > positions.at[j]})\n"
           "    await self._count(list(parts.values()))"),
    Mutant("what was counted is sent again", "sinks.redis.positions:WorkspaceBatch.cut_again",
           "> int(actual)]", "> self.after]"),
    Mutant("after a failure Redis is believed to be where it was", "sinks.redis.positions:Positions.doubt",
           "self.in_doubt = True", "pass"),
    Mutant("a Redis that went back is not noticed", "sinks.redis.positions:Positions._verify",
           "if seq < known.cursors[j]}", "if False}"),
    Mutant("a Redis that was emptied is not noticed", "sinks.redis.positions:Positions.locate",
           "if not generation:", "if False:"),
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
    # ── a call's way ─────────────────────────────────────────────────────────────────────────────────────────
    Mutant("an answer leaves before its record", "gateway.relay:Relay._pass_on",
           "if not call.closed:\n        call.settle_if_known(reading, left=exchange.left and not delivered)",
           "if False:\n        call.settle_if_known(reading, left=exchange.left and not delivered)"),
    Mutant("a call whose client leaves is not settled", "gateway.ending:end",
           "await count_and_settle(call, outcome, code)", "pass"),
    Mutant("a cut stream's figures are the last that were read", "gateway.metering.call:take",
           "record.output_tokens = output_tokens", "record.output_tokens = output_tokens + 1"),
    # ── budgets and the webhook ──────────────────────────────────────────────────────────────────────────────
    Mutant("what calls in flight hold is not looked at", "budgets.reservations:_RESERVE",
           "elseif tonumber(held) + tonumber(amount) > left then", "elseif false then"),
    Mutant("a Redis that forgot decides about budgets", "budgets.reservations:_RESERVE",
           "if not flying and (string.sub(generation", "if false and (string.sub(generation"),
    Mutant("what a call held is let go twice", "sinks.redis.counters:_APPLY",
           "    let_go(held, each[2])", "    let_go(held, each[2]) let_go(held, each[2])"),
    Mutant("budgets are decided before what is held was gathered", "budgets.holdings:Holdings.secure",
           "self._for_s(workspace, epoch) >= GATHER_S", "True"),
    Mutant("a dead worker's calls are charged to no budget", "journal.recover:close_open_calls",
           "charge(record, held)", "pass"),
    Mutant("the webhook's cursor stays behind", "sinks.webhook.store:Store.apply",
           ".values(seq=seq)", ".values(seq=0)"),
    Mutant("a letter that was not taken is forgotten", "sinks.webhook.store:Store.finish",
           "if not one.problem:", "if True:"),
    Mutant("a segment's sums go into the next one too", "sinks.webhook.store:Store._cut",
           "connection.execute(delete(sums).where(of))", "pass"),
)  # fmt: skip
