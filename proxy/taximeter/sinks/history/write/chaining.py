"""The journals' chains of hashes, carried on in the transaction that stores the records."""

from __future__ import annotations

from taximeter.core.deferred import TOLD
from taximeter.evidence.chain import HASH_BYTES, begin, contents, entries_of
from taximeter.sinks.batch import Batch
from taximeter.sinks.history.write.statements import Statements


def chained(statements: Statements, journal_no: int, last: str, batch: Batch, *, late: bool = False) -> str:
    """Store what is kept of a batch; returns the journal's last link then. `last`: its last link so far.

    `late`: of a record that comes after its turn.
    """
    previous = bytes.fromhex(last) if last else begin(batch.journal_id)
    kinds = [group.record for group in batch.groups]
    records = batch.records
    if any(record.kind == TOLD for record in kinds):  # of these history has no rows
        records = [record for record in records if record.kind != TOLD]
    entries = entries_of(batch.after, batch.upto, records, contents(records, kinds), previous)
    if late and not entries:
        return last
    row = journal_no, batch.after, batch.upto, late, batch.ended, previous.hex(), batch.digest, entries
    statements.piece(*row)
    return (entries[-HASH_BYTES:] or previous).hex()
