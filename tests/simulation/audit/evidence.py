"""Evidence: each journal's chain of hashes is made anew from its lines, and what is kept and signed of it agrees.

By docs/evidence.md: a link is SHA-256 over 0x00, the link before and the record's content; before the first, over 0x02
and the journal's id. Trees are RFC 6962's.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from simulation.audit.journals import Journal, Said
from simulation.audit.sums import of
from simulation.audit.uneven import Uneven

_ENTRY = struct.Struct(">QQ32s")
NOTHING = b',"usage":null}'


def compare(history: sqlite3.Connection, journals: Mapping[str, Journal]) -> None:
    """Raises Uneven."""
    for row in history.execute("SELECT * FROM journals").fetchall():
        if (journal := journals.get(row["journal_id"])) is not None and row["seq"] == len(journal.records):
            _of_journal(history, row, journal)
    _roots(history)


def _content(said: Said, line: bytes) -> bytes:
    """As the line has it, without what history does not keep: a usage that is none, and what tells of objects. A line
    that was written again from history, after a power loss, says that it is of a use."""
    line = line.replace(b'"kind":"usage",', b"", 1)
    for name in ("files", "object_state"):
        if name in said:
            line = line.replace(f',"{name}":{json.dumps(said[name], separators=(",", ":"))}'.encode(), b"", 1)
    return line[: -len(NOTHING)] + b"}" if line.endswith(NOTHING) else line


def _of_journal(history: sqlite3.Connection, row: sqlite3.Row, journal: Journal) -> None:
    expected, link = [], sha256(b"\x02" + journal.journal_id.encode()).digest()
    for seq, (said, line) in enumerate(zip(journal.records, journal.lines, strict=True), start=1):
        if of(said, "kind") != "told":  # of these history has no rows
            link = sha256(b"\x00" + link + _content(said, line)).digest()
            expected.append((seq, said["ended_at"], link))
    number = row["journal_no"]
    segments = history.execute(
        "SELECT * FROM evidence_segments WHERE journal_no = ? ORDER BY number", (number,)
    ).fetchall()
    pieces = history.execute(
        "SELECT * FROM evidence_pieces WHERE journal_no = ? ORDER BY piece_no", (number,)
    ).fetchall()
    kept = [entry for each in (*segments, *pieces) for entry in _ENTRY.iter_unpack(each["entries"])]
    if kept != expected:
        at = next((n for n, pair in enumerate(zip(kept, expected, strict=False)) if pair[0] != pair[1]), None)
        raise Uneven(
            f"evidence of journal {journal.journal_id} has {len(kept)} entries, it should have {len(expected)}; "
            f"they differ at {at}"
        )
    if row["seq"] and row["chain"] != link.hex():
        raise Uneven(f"the chain of journal {journal.journal_id} ends with {row['chain']}, not with {link.hex()}")
    before = sha256(b"\x02" + journal.journal_id.encode()).hexdigest()
    for segment in segments:
        before = _segment(segment, journal.journal_id, before)


def _segment(row: sqlite3.Row, journal_id: str, before: str) -> str:
    """The last link of it, once what it says is found to be so."""
    said: Said = json.loads(row["statement"])
    entries = list(_ENTRY.iter_unpack(row["entries"]))
    links = [link for _, _, link in entries]
    last = links[-1].hex() if links else before
    wrong = {
        "journal": journal_id, "number": row["number"], "after": row["after"], "upto": row["upto"],
        "records": len(entries), "previous": before, "last": last, "root": _tree(links).hex(),
    }.items() - said.items()  # fmt: skip
    if wrong:
        raise Uneven(f"segment {row['number']} of journal {journal_id} should say {wrong}, and says {said}")
    return last


def _roots(history: sqlite3.Connection) -> None:
    keys = {row["key_id"]: bytes.fromhex(row["public_key"]) for row in history.execute("SELECT * FROM evidence_keys")}
    before = ""
    for number, row in enumerate(history.execute("SELECT * FROM evidence_roots ORDER BY root_no").fetchall(), start=1):
        said: dict[str, Any] = json.loads(row["statement"])
        segments = history.execute(
            "SELECT statement FROM evidence_segments WHERE root_no = ? ORDER BY journal_no, number", (number,)
        ).fetchall()
        leaves = [sha256(b"\x03" + each["statement"].encode()).digest() for each in segments]
        expected = {"number": number, "previous": before, "segments": len(leaves), "root": _tree(leaves).hex()}
        if wrong := expected.items() - {name: said[name] for name in expected}.items():
            raise Uneven(f"root {number} should say {wrong}, and says {said}")
        for each in json.loads(row["signatures"]):  # raises where it is none
            public = Ed25519PublicKey.from_public_bytes(keys[each["key"]])
            public.verify(bytes.fromhex(each["signature"]), b"taximeter evidence root 1\n" + row["statement"].encode())
        before = sha256(row["statement"].encode()).hexdigest()


def _tree(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, of leaves that are hashes already."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else sha256().digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + _tree(leaves[:half]) + _tree(leaves[half:])).digest()
